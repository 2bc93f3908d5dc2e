/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An artifact that is sent while it is taken: the window, and the whole way from a worker's pipe to
 * a collector that commits in pairs, is slow, is lost, forgets, or is not there. The collector and
 * the broker are kit.h's; what the uplink does is done by drive().
 */
#include "kit.h"

#include "agent/stream.h"
#include "agent/upload.h"

/* ---- the window ---- */

static struct stream *open_window(void)
{
    trawl_v1_Artifact meta = trawl_v1_Artifact_init_zero;
    struct stream *s;
    struct failure f;
    meta.no = 3;
    REQUIRE(stream_open(&s, &meta, &f) == 0);
    return s;
}

static void fill(struct stream *s, size_t size_bytes, uint64_t *noise)
{
    static uint8_t block[65536];
    while (size_bytes > 0) {
        size_t some = size_bytes < sizeof block ? size_bytes : sizeof block;
        kit_noise(noise, block, (some + 7) / 8 * 8);
        REQUIRE(stream_write(s, span_of(block, some)) == 0);
        size_bytes -= some;
    }
}

TEST(a_window_takes_no_more_than_it_holds)
{
    struct stream *s = open_window();
    struct failure f;
    uint64_t noise = KIT_NOISE_SEED;
    size_t whole = stream_room_bytes(s);
    CHECK_EQ_INT(whole, (size_t)STREAM_WINDOW_PIECES * CODEC_PIECE_SIZE);
    CHECK(!stream_has_run(s));
    fill(s, STREAM_RUN_PIECES * CODEC_PIECE_SIZE - 1, &noise);
    CHECK(!stream_has_run(s));
    fill(s, 1, &noise);
    CHECK(stream_has_run(s));
    fill(s, whole - STREAM_RUN_PIECES * CODEC_PIECE_SIZE, &noise);
    CHECK_EQ_INT(stream_room_bytes(s), 0);
    CHECK_EQ_INT(stream_write(s, span_str("x")), ERR_LIMIT);
    struct stream_run run = stream_next_run(s);
    CHECK(run.first == 0 && run.count == STREAM_RUN_PIECES && !run.is_last);
    CHECK_EQ_INT(stream_stored(s, 2, &f), 0);
    CHECK_EQ_INT(stream_room_bytes(s), 2 * CODEC_PIECE_SIZE);
    struct span piece;
    CHECK_EQ_INT(stream_piece(s, 1, &piece), ERR_NOTFOUND);
    CHECK_EQ_INT(stream_piece(s, 2, &piece), 0);
    CHECK_EQ_INT(piece.size_bytes, CODEC_PIECE_SIZE);
    CHECK_EQ_INT(stream_piece(s, STREAM_WINDOW_PIECES, &piece), ERR_NOTFOUND);
    CHECK_EQ_INT(stream_stored(s, 1, &f), ERR_CORRUPT);
    CHECK_EQ_INT(stream_stored(s, STREAM_WINDOW_PIECES + 1, &f), ERR_PROTOCOL);
    stream_close(s);
    stream_close(NULL);
}

TEST(the_end_is_a_last_piece_of_any_size)
{
    const size_t sizes[] = {0, 1, CODEC_PIECE_SIZE - 1, CODEC_PIECE_SIZE, CODEC_PIECE_SIZE + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct stream *s = open_window();
        trawl_v1_Artifact meta = trawl_v1_Artifact_init_zero;
        struct span piece;
        struct failure f;
        uint64_t noise = KIT_NOISE_SEED;
        fill(s, sizes[i], &noise);
        stream_end(s, &meta);
        CHECK_EQ_INT(meta.size_bytes, sizes[i]);
        CHECK_EQ_INT(meta.no, 3);
        CHECK_EQ_INT(meta.sha256.size, 32);
        struct stream_run run = stream_next_run(s);
        CHECK(run.is_last);
        CHECK_EQ_INT(run.count, sizes[i] > CODEC_PIECE_SIZE ? 2 : 1);
        REQUIRE(stream_piece(s, run.count - 1, &piece) == 0);
        CHECK_EQ_INT(piece.size_bytes, sizes[i] - (run.count - 1) * CODEC_PIECE_SIZE);
        /* All stored, but not sealed: an empty piece says that it is complete; pairs are counted.
         */
        REQUIRE(stream_stored(s, 2, &f) == 0);
        run = stream_next_run(s);
        CHECK(run.first == 2 && run.count == 1 && run.is_last);
        REQUIRE(stream_piece(s, 2, &piece) == 0);
        CHECK_EQ_INT(piece.size_bytes, 0);
        stream_close(s);
    }
}

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

static void answer(struct grpc_call *call, const struct shelf *s, uint32_t pieces)
{
    trawl_v1_UploadState state = {pieces, s->size_bytes, s->is_sealed};
    struct buf out;
    buf_init(&out, 64);
    REQUIRE(codec_put_upload_state(&out, &state) == 0);
    REQUIRE(grpc_send(call, buf_span(&out)) == 0);
    grpc_finish(call, GRPC_OK, "");
    buf_done(&out);
}

static int on_query(void *owner, struct grpc_call *call, struct span message)
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

static void keep(struct shelf *s, struct span bytes)
{
    pki_sha256_add(s->hash, bytes);
    s->size_bytes += bytes.size_bytes;
}

static void finish_artifact(struct shelf *s)
{
    uint8_t hash[32];
    pki_sha256_close(s->hash, hash);
    s->hash = NULL;
    s->is_matching = s->meta.sha256.size == 32 && memcmp(hash, s->meta.sha256.bytes, 32) == 0 &&
                     s->meta.size_bytes == s->size_bytes;
    s->is_sealed = s->is_matching;
}

static int on_piece(void *owner, struct grpc_call *call, struct span message)
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

static void on_end(void *owner, struct grpc_call *call)
{
    struct shelf *s = owner;
    answer(call, s, s->pieces);
}

static void on_over(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct shelf *s = owner;
    (void)call;
    (void)status;
    (void)text;
    s->upload = NULL;
    s->has_half = false;
}

static int on_call(struct kit *k, struct grpc_call *call, const char *path,
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

static void on_step(void *context, const struct failure *why, bool sealed)
{
    struct shelf *s = context;
    s->under_way = NULL;
    s->last = *why;
    if (why->code)
        capture_stream_unknown(s->kit->capture, s->stream);
    if (sealed || why->code == ERR_CORRUPT || why->code == ERR_EXISTS)
        capture_stream_ended(s->kit->capture, s->stream, why);
}

static void drive(struct shelf *s)
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

static struct shelf *open_shelf(void)
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

static void close_shelf(struct shelf *s)
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

static bool drive_to_verdict(struct shelf *s, uint64_t order, unsigned limit_s)
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

static uint64_t core_order(struct shelf *s, uint64_t number, uint32_t base, uint32_t kib)
{
    kit_order(s->kit, number, "core", "", base + kib);
    return number;
}

static void expected_hash(uint32_t kib, uint8_t out[32])
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

static void check_arrived(struct shelf *s, uint32_t kib)
{
    uint8_t hash[32];
    expected_hash(kib, hash);
    CHECK(s->is_sealed && s->is_matching);
    CHECK_EQ_INT(s->meta.size_bytes, (uint64_t)kib * 1024);
    CHECK_EQ_MEM(s->meta.sha256.bytes, hash, 32);
}

/* ---- the whole way ---- */

TEST(a_core_arrives_whole_and_its_order_is_done)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE, 20000);
    REQUIRE(drive_to_verdict(s, 1, 15));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    check_arrived(s, 20000);
    CHECK_EQ_STR(s->meta.kind, "core");
    CHECK_EQ_STR(s->meta.file, "core-victim-1020000.core");
    CHECK_EQ_STR(s->meta.encoding, "zstd");
    CHECK_EQ_STR(s->meta.incident, "INC-1");
    CHECK_EQ_INT(s->meta.pid, PID_LARGE + 20000);
    CHECK_EQ_INT(s->kit->message.body.verdict.artifacts, 1);
    CHECK_EQ_INT(s->kit->message.body.verdict.processes, 1);
    CHECK_EQ_INT(s->longest_run, STREAM_RUN_PIECES);
    CHECK_EQ_INT(s->statuses, 1); /* then every answer says where to go on */
    close_shelf(s);
}

TEST(small_ones_of_every_size_arrive_too)
{
    const uint32_t sizes[] = {1, 31, 32, 63, 64, 65, 1023, 1024, 2048};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct shelf *s = open_shelf();
        core_order(s, 1, PID_LARGE, sizes[i]);
        REQUIRE(drive_to_verdict(s, 1, 5));
        CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
        check_arrived(s, sizes[i]);
        close_shelf(s);
    }
}

TEST(a_lost_connection_loses_and_repeats_nothing)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE, 20000);
    for (uint32_t cut = 37; cut < 600; cut += 91) {
        s->slow = 3; /* so that it is cut in the middle of a run, also inside a pair */
        for (int i = 0; i < 20000 && s->pieces_seen < cut; i++)
            drive(s);
        REQUIRE(s->pieces_seen >= cut);
        kit_disconnect(s->kit);
        for (int i = 0; i < 100 && s->under_way; i++)
            (void)uv_run(&s->kit->loop, UV_RUN_NOWAIT);
        REQUIRE(s->under_way == NULL);
        kit_connect(s->kit, 0, 0);
    }
    s->slow = 0;
    REQUIRE(drive_to_verdict(s, 1, 15));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    check_arrived(s, 20000);
    CHECK(s->statuses > 1);
    close_shelf(s);
}

TEST(what_another_agent_left_under_the_number_is_let_be)
{
    struct shelf *s = open_shelf();
    s->no = 1;
    s->pieces = 8;
    s->size_bytes = 8 * CODEC_PIECE_SIZE;
    core_order(s, 1, PID_LARGE, 3000);
    REQUIRE(drive_to_verdict(s, 1, 5));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    CHECK_EQ_INT(s->no, 2);
    check_arrived(s, 3000);
    close_shelf(s);
}

TEST(a_collector_that_lost_what_it_had_ends_the_artifact)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE, 20000);
    for (int i = 0; i < 20000 && s->pieces_seen < 100; i++)
        drive(s);
    kit_disconnect(s->kit);
    for (int i = 0; i < 100 && s->under_way; i++)
        (void)uv_run(&s->kit->loop, UV_RUN_NOWAIT);
    s->pieces = 2;
    kit_connect(s->kit, 0, 0);
    REQUIRE(drive_to_verdict(s, 1, 5));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_FAILED);
    CHECK(strstr(kit_verdict(s->kit, 1)->reason, "the collector has lost") != NULL);
    close_shelf(s);
}

TEST(a_worker_that_fails_at_the_end_leaves_no_artifact)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE_BAD, 5000);
    REQUIRE(drive_to_verdict(s, 1, 5));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_FAILED);
    CHECK(strstr(kit_verdict(s->kit, 1)->reason, "the copy was killed") != NULL);
    CHECK(!s->is_sealed);
    CHECK(s->pieces > 0); /* which the final verdict lets the collector forget */
    /* Its number is not given out again: something may lie under it. */
    kit_order(s->kit, 2, "triage", "one", 0);
    for (int i = 0; i < 50; i++)
        kit_settle(s->kit);
    struct capture_artifact a;
    REQUIRE(capture_peek_artifact(s->kit->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 2);
    close_shelf(s);
}

TEST(cancelling_ends_a_stream_at_once)
{
    struct shelf *s = open_shelf();
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_cancel_tag};
    core_order(s, 1, PID_LARGE, 200000);
    s->slow = 1;
    for (int i = 0; i < 20000 && s->pieces_seen < 50; i++)
        drive(s);
    m.body.cancel.order = 1;
    kit_say(s->kit, &m);
    REQUIRE(drive_to_verdict(s, 1, 5));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_CANCELLED);
    for (int i = 0; i < 200; i++)
        drive(s);
    CHECK(s->under_way == NULL);
    /* The next order runs: nothing of the first stays. */
    kit_order(s->kit, 2, "triage", "one", 0);
    for (int i = 0; i < 50; i++)
        kit_settle(s->kit);
    CHECK_EQ_INT(kit_seal_all(s->kit), 1);
    REQUIRE(drive_to_verdict(s, 2, 5));
    CHECK_EQ_INT(kit_verdict(s->kit, 2)->state, trawl_v1_State_DONE);
    close_shelf(s);
}

TEST(cancelling_while_only_the_collector_is_waited_for)
{
    struct shelf *s = open_shelf();
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_cancel_tag};
    s->stop_after = 1;
    s->pieces_seen = 1; /* takes nothing at all */
    core_order(s, 1, PID_LARGE, 100);
    for (int i = 0; i < 200; i++) {
        drive(s);
        usleep(500);
    }
    CHECK(capture_peek_stream(s->kit->capture) != 0);
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_RUNNING);
    m.body.cancel.order = 1;
    kit_say(s->kit, &m);
    REQUIRE(drive_to_verdict(s, 1, 5));
    CHECK_EQ_INT(capture_peek_stream(s->kit->capture), 0);
    close_shelf(s);
}

TEST(nobody_is_waited_for_for_ever)
{
    struct shelf *s = open_shelf();
    s->stop_after = s->pieces_seen = 1;
    core_order(s, 1, PID_LARGE, 100);
    for (int i = 0; i < 200; i++) {
        drive(s);
        usleep(500);
    }
    clock_fake_advance(&s->kit->clock, BROKER_DEADLINE_MAX_US - 1000000);
    capture_tick(s->kit->capture);
    CHECK(capture_peek_stream(s->kit->capture) != 0);
    clock_fake_advance(&s->kit->clock, 2000000);
    capture_tick(s->kit->capture);
    REQUIRE(drive_to_verdict(s, 1, 5));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_FAILED);
    CHECK(strstr(kit_verdict(s->kit, 1)->reason, "did not take it in time") != NULL);
    close_shelf(s);
}

TEST(a_restart_in_the_middle_ends_the_order)
{
    struct shelf *s = open_shelf();
    struct kit *k = s->kit;
    core_order(s, 1, PID_LARGE, 200000);
    s->slow = 1;
    for (int i = 0; i < 20000 && s->pieces_seen < 50; i++)
        drive(s);
    kit_disconnect(k);
    for (int i = 0; i < 100 && s->under_way; i++)
        (void)uv_run(&k->loop, UV_RUN_NOWAIT);
    kit_close_agent(k);
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "the agent was restarted during the capture");
    kit_order(k, 2, "triage", "one", 0);
    for (int i = 0; i < 50; i++)
        kit_settle(k);
    struct capture_artifact a;
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 2); /* 1 may have pieces on the collector */
    close_shelf(s);
}

TEST(a_restart_counts_what_was_sealed_without_disk)
{
    struct shelf *s = open_shelf();
    struct kit *k = s->kit;
    kit_order(k, 1, "core,triage", "", PID_LARGE + 100);
    const struct kit_message *v;
    uint64_t limit_us = port_mono_us() + KIT_LIMIT_US;
    while (!s->is_sealed && port_mono_us() < limit_us)
        drive(s);
    for (int i = 0; i < 50; i++)
        drive(s);
    kit_close_agent(k); /* triage waits on disk, the verdict is final there */
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    v = kit_verdict(k, 1);
    CHECK_EQ_INT(v->state, trawl_v1_State_DONE);
    CHECK_EQ_INT(k->message.body.verdict.artifacts, 2);
    close_shelf(s);
}

TEST(one_core_after_the_other_and_never_two_at_once)
{
    struct shelf *s = open_shelf();
    struct kit *k = s->kit;
    core_order(s, 1, PID_LARGE, 4000);
    core_order(s, 2, PID_LARGE, 64);
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_QUEUED);
    while (s->pieces_seen < 60)
        drive(s);
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_QUEUED);
    REQUIRE(drive_to_verdict(s, 1, 5));
    /* The shelf is for one artifact: cleared for the second. */
    s->pieces = 0;
    s->size_bytes = 0;
    s->is_sealed = false;
    s->hash = pki_sha256_open();
    REQUIRE(drive_to_verdict(s, 2, 5));
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_DONE);
    check_arrived(s, 64);
    close_shelf(s);
}

/* ---- memory ---- */

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

#define MIB_DEFAULT 64

/* The size of a core says nothing about our memory. CORE_MIB sets another: 4096 is what is
 * promised.
 */
TEST_LIMIT(memory_is_bounded_by_the_window, 900)
{
    struct shelf *s = open_shelf();
    uint64_t mib = MIB_DEFAULT, cpu_us, before, now, resident, most = 0;
    const char *wanted = getenv("CORE_MIB");
    if (wanted)
        REQUIRE(text_u64_in(wanted, 1, 4096, &mib) == 0);
    os_self_usage(&cpu_us, &before, &resident);
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    trawl_v1_Order *o = &m.body.order;
    o->order = 1;
    snprintf(o->incident, sizeof o->incident, "INC-1");
    snprintf(o->what[o->what_count++], sizeof o->what[0], "core");
    o->has_process = true;
    o->process.pid = PID_HUGE + (uint32_t)mib;
    o->pause_max_us = 50000;
    o->expires_in_us = 3600000000;
    kit_say(s->kit, &m);
    uint64_t began_us = port_mono_us(), looked_us = 0;
    s->slow = 20; /* slower than the worker, so that its window is full */
    for (;;) {
        drive(s);
        const struct kit_message *v = kit_verdict(s->kit, 1);
        if (v && v->state >= trawl_v1_State_DONE)
            break;
        if (port_mono_us() - looked_us < 5000)
            continue;
        looked_us = port_mono_us();
        os_self_usage(&cpu_us, &now, &resident);
        most = now > most ? now : most;
    }
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    CHECK(s->is_sealed && s->meta.size_bytes == mib << 20);
    printf("      %llu MiB in %.1f s: private memory %llu KiB before, %llu KiB at most\n",
           (unsigned long long)mib, (double)(port_mono_us() - began_us) / 1e6,
           (unsigned long long)before >> 10, (unsigned long long)most >> 10);
    if (!IS_SANITIZED)
        CHECK(most - before < (uint64_t)4 << 20);
    close_shelf(s);
}
