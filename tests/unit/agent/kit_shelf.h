/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A collector that takes one artifact at a time, commits in pairs, and is as slow, forgetful or
 * absent as a test wants it; and the agent's uplink in small, drive(). Used by test_stream.c.
 */
#ifndef TESTS_UNIT_AGENT_KIT_SHELF_H
#define TESTS_UNIT_AGENT_KIT_SHELF_H

#include "kit.h"

#include "agent/stream.h"
#include "agent/upload.h"

/* ---- a collector ---- */

struct shelf {
    struct kit *kit;
    /* What it has for good. */
    uint32_t no, pieces;
    uint64_t size_bytes;
    struct pki_sha256 *hash;
    bool is_sealed, is_matching;
    trawl_v1_Artifact meta;
    /* The call under way. */
    uint8_t half[CODEC_PIECE_SIZE];
    bool has_half;
    uint32_t next;
    struct grpc_call *upload;
    /* What a test wants of it. */
    uint32_t runs, statuses, pieces_seen, longest_run, in_run;
    uint32_t stop_after; /* pieces: then it takes no more; 0: never */
    uint32_t slow;       /* pieces per turn; 0: all */
    uint32_t this_turn;
    trawl_v1_Piece piece;
    /* The uplink. */
    struct upload *under_way;
    struct budget_rate rate;
    uint64_t stream;
    struct failure last;
};

static inline void answer(struct grpc_call *call, const struct shelf *s, uint32_t pieces)
{
    trawl_v1_UploadState state = {pieces, s->size_bytes, s->is_sealed};
    struct buf out;
    buf_init(&out, 64);
    REQUIRE(codec_put_upload_state(&out, &state) == 0);
    REQUIRE(grpc_send(call, buf_span(&out)) == 0);
    grpc_finish(call, GRPC_OK, "");
    buf_done(&out);
}

static inline int on_query(void *owner, struct grpc_call *call, struct span message)
{
    struct shelf *s = owner;
    trawl_v1_UploadQuery query;
    struct failure f;
    REQUIRE(codec_get_upload_query(&query, message, &f) == 0);
    s->statuses++;
    if (query.artifact != s->no && s->no && s->pieces) { /* nothing under that number */
        s->no = query.artifact;
        s->pieces = 0;
        s->size_bytes = 0;
        s->is_sealed = false;
    }
    answer(call, s, s->pieces);
    return 0;
}

static inline void keep(struct shelf *s, struct span bytes)
{
    pki_sha256_add(s->hash, bytes);
    s->size_bytes += bytes.size_bytes;
}

static inline void finish_artifact(struct shelf *s)
{
    uint8_t hash[32];
    pki_sha256_close(s->hash, hash);
    s->hash = NULL;
    s->is_matching = s->meta.sha256.size == 32 && memcmp(hash, s->meta.sha256.bytes, 32) == 0 &&
                     s->meta.size_bytes == s->size_bytes;
    s->is_sealed = s->is_matching;
}

static inline int on_piece(void *owner, struct grpc_call *call, struct span message)
{
    struct shelf *s = owner;
    trawl_v1_Piece *p = &s->piece;
    struct failure f;
    REQUIRE(codec_get_piece(p, message, &f) == 0);
    CHECK_EQ_INT(p->no, s->next);
    CHECK(p->last || p->data.size == CODEC_PIECE_SIZE);
    CHECK(p->has_meta == (p->last || s->in_run == 0));
    s->no = p->artifact;
    s->next++;
    s->pieces_seen++;
    if (++s->in_run > s->longest_run)
        s->longest_run = s->in_run;
    if (p->last)
        s->meta = p->meta;
    if (s->has_half) {
        keep(s, span_of(s->half, sizeof s->half));
        keep(s, span_of(p->data.bytes, p->data.size));
        s->pieces = s->next;
        s->has_half = false;
    } else if (p->last) {
        keep(s, span_of(p->data.bytes, p->data.size));
        s->pieces = s->next + 1;
    } else {
        memcpy(s->half, p->data.bytes, sizeof s->half);
        s->has_half = true;
    }
    if (p->last)
        finish_artifact(s);
    if (s->slow && ++s->this_turn >= s->slow)
        grpc_pause(call);
    return 0;
}

static inline void on_end(void *owner, struct grpc_call *call)
{
    struct shelf *s = owner;
    answer(call, s, s->pieces);
}

static inline void on_over(void *owner, struct grpc_call *call, enum grpc_status status,
                           const char *text)
{
    struct shelf *s = owner;
    (void)call;
    (void)status;
    (void)text;
    s->upload = NULL;
    s->has_half = false;
}

static inline int on_call(struct kit *k, struct grpc_call *call, const char *path,
                          const struct grpc_call_events **events, void **owner)
{
    static const struct grpc_call_events query_events = {on_query, NULL, NULL, NULL};
    static const struct grpc_call_events piece_events = {on_piece, on_end, NULL, on_over};
    struct shelf *s = k->extra;
    *owner = s;
    *events = &query_events;
    if (strcmp(path, "/trawl.v1.Fleet/Upload") == 0) {
        s->upload = call;
        s->next = s->pieces;
        s->in_run = 0;
        s->runs++;
        *events = &piece_events;
    }
    return 0;
}

/* ---- the uplink ---- */

static inline void on_step(void *context, const struct failure *why, bool sealed)
{
    struct shelf *s = context;
    s->under_way = NULL;
    s->last = *why;
    if (why->code)
        capture_stream_unknown(s->kit->capture, s->stream);
    if (sealed || why->code == ERR_CORRUPT || why->code == ERR_EXISTS)
        capture_stream_ended(s->kit->capture, s->stream, why);
}

static inline void drive(struct shelf *s)
{
    struct kit *k = s->kit;
    struct failure f;
    s->this_turn = 0;
    if (s->upload && s->slow)
        grpc_resume(s->upload);
    if (s->under_way && !capture_stream(k->capture, s->stream))
        upload_cancel(s->under_way);
    if (!s->under_way && k->client && (s->stream = capture_peek_stream(k->capture)) != 0 &&
        (!s->stop_after || s->pieces_seen < s->stop_after))
        (void)upload_open_stream(&s->under_way, &k->loop, k->client, k->capture, s->stream,
                                 &s->rate, on_step, s, &f);
    kit_turn(k);
}

static inline struct shelf *open_shelf(void)
{
    struct shelf *s = calloc(1, sizeof *s);
    REQUIRE(s != NULL);
    s->kit = kit_open();
    s->kit->extra = s;
    s->kit->on_call = on_call;
    s->hash = pki_sha256_open();
    budget_rate_init(&s->rate, UINT64_C(1) << 40, port_mono_us());
    kit_connect(s->kit, 0, 0);
    return s;
}

static inline void close_shelf(struct shelf *s)
{
    if (s->under_way)
        upload_cancel(s->under_way);
    for (int i = 0; i < 100 && s->under_way; i++)
        kit_turn(s->kit);
    kit_close(s->kit);
    if (s->hash)
        pki_sha256_close(s->hash, NULL);
    free(s);
}

static inline bool drive_to_verdict(struct shelf *s, uint64_t order, unsigned limit_s)
{
    uint64_t limit_us = port_mono_us() + limit_s * UINT64_C(1000000);
    const struct kit_message *v;
    while (port_mono_us() < limit_us) {
        drive(s);
        v = kit_verdict(s->kit, order);
        if (v && v->state >= trawl_v1_State_DONE)
            return true;
        usleep(100);
    }
    return false;
}

/* Until so many pieces have come. */
static inline void drive_to_piece(struct shelf *s, uint32_t pieces)
{
    uint64_t limit_us = port_mono_us() + 2 * KIT_LIMIT_US;
    while (s->pieces_seen < pieces && port_mono_us() < limit_us)
        drive(s);
    REQUIRE(s->pieces_seen >= pieces);
}

/* Until something waits to be sent. */
static inline void drive_to_stream(struct shelf *s)
{
    uint64_t limit_us = port_mono_us() + 2 * KIT_LIMIT_US;
    while (!capture_peek_stream(s->kit->capture) && port_mono_us() < limit_us) {
        drive(s);
        usleep(500);
    }
    REQUIRE(capture_peek_stream(s->kit->capture) != 0);
}

static inline uint64_t core_order(struct shelf *s, uint64_t number, uint32_t base, uint32_t kib)
{
    kit_order(s->kit, number, "core", "", base + kib);
    return number;
}

static inline void expected_hash(uint32_t kib, uint8_t out[32])
{
    static uint8_t block[1024];
    uint64_t noise = KIT_NOISE_SEED;
    struct pki_sha256 *hash = pki_sha256_open();
    REQUIRE(hash != NULL);
    for (; kib > 0; kib--) {
        kit_noise(&noise, block, sizeof block);
        pki_sha256_add(hash, span_of(block, sizeof block));
    }
    pki_sha256_close(hash, out);
}

static inline void check_arrived(struct shelf *s, uint32_t kib)
{
    uint8_t hash[32];
    expected_hash(kib, hash);
    CHECK(s->is_sealed && s->is_matching);
    CHECK_EQ_INT(s->meta.size_bytes, (uint64_t)kib * 1024);
    CHECK_EQ_MEM(s->meta.sha256.bytes, hash, 32);
}

#endif
