/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two rings and a cursor over each. A record's payload is the wire form of its AgentMessage, so
 * that sending is copying. The counters ring is written in segments that begin with the descriptors
 * of all living series; hence every block that is still held can be understood. Called by the
 * sampler, events and the uplink session.
 */
#include "agent/spool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "proto/codec.h"

#define SEGMENTS 12
#define PATH_SIZE 1024
#define MESSAGE_MAX (trawl_v1_AgentMessage_size + 64)

struct lane {
    struct ring *ring;
    uint64_t position;     /* of the next record to look at */
    uint64_t next_seq;     /* the next number to deliver */
    int64_t sent_us;       /* time of the last record sent */
    bool knows_set;        /* the collector got a full set of descriptors on this connection... */
    uint64_t set_position; /* ...which began here */
    bool skips_repeats;
    struct spool_item item; /* last peeked */
    struct ring_record record;
};

struct spool {
    struct lane lanes[SPOOL_LANES];
    uint64_t segment_position;
    bool has_segment;
    uint64_t segment_bytes;
    struct buf encoded;
    trawl_v1_AgentMessage *message; /* for events: 33 KB, made once and never cleared */
};

static const char *const file_names[SPOOL_LANES] = {"counters.ring", "events.ring"};

/* ---- opening ---- */

static int open_lane(struct lane *lane, const char *directory, const char *name, size_t size_bytes,
                     uint64_t floor, enum ring_found *found, struct failure *f)
{
    char path[PATH_SIZE];
    if (text_format(path, sizeof path, "%s/%s", directory, name))
        return fail(f, ERR_LIMIT, "path too long: '%s/%s'", directory, name);
    int e = ring_open(&lane->ring, path, size_bytes, found, f);
    if (e)
        return e;
    if (*found != RING_FOUND_WHOLE)
        ring_skip_to_seq(lane->ring, floor);
    lane->position = ring_head(lane->ring);
    lane->next_seq = ring_next_seq(lane->ring);
    return 0;
}

int spool_open(struct spool **out, const char *directory, size_t size_bytes,
               const uint64_t floor[SPOOL_LANES], struct spool_opened *how, struct failure *f)
{
    assert(size_bytes >= SPOOL_MIN_BYTES);
    struct spool *spool = calloc(1, sizeof *spool);
    if (!spool)
        return fail(f, ERR_NOMEM, "cannot open the spool: out of memory");
    buf_init(&spool->encoded, MESSAGE_MAX);
    spool->message = calloc(1, sizeof *spool->message);
    size_t sizes[SPOOL_LANES] = {size_bytes / 4 * 3, size_bytes / 4};
    int e = spool->message ? 0 : fail(f, ERR_NOMEM, "cannot open the spool: out of memory");
    for (int i = 0; i < SPOOL_LANES && !e; i++)
        e = open_lane(&spool->lanes[i], directory, file_names[i], sizes[i], floor[i],
                      &how->found[i], f);
    if (e) {
        spool_close(spool);
        return e;
    }
    spool->segment_bytes = sizes[SPOOL_BLOCKS] / SEGMENTS;
    *out = spool;
    return 0;
}

void spool_close(struct spool *spool)
{
    if (!spool)
        return;
    for (int i = 0; i < SPOOL_LANES; i++)
        ring_close(spool->lanes[i].ring);
    buf_done(&spool->encoded);
    free(spool->message);
    free(spool);
}

/* ---- pushing ---- */

static int push(struct spool *spool, enum spool_lane lane, const trawl_v1_AgentMessage *message,
                struct ring_record *record)
{
    buf_clear(&spool->encoded);
    int e = codec_put_agent_message(&spool->encoded, message);
    if (e)
        return e;
    record->payload = buf_span(&spool->encoded);
    return ring_push(spool->lanes[lane].ring, record);
}

/* What happened: numbered, and understood without what was before it. */
static int push_happening(struct spool *spool, uint64_t seq, int64_t time_us)
{
    struct ring_record record = {
        .type = RING_EVENT,
        .flags = RING_START,
        .seq = seq,
        .time_us = time_us,
    };
    return push(spool, SPOOL_EVENTS, spool->message, &record);
}

int spool_push_event(struct spool *spool, trawl_v1_Event *event)
{
    event->seq = spool_next_seq(spool, SPOOL_EVENTS);
    spool->message->which_body = trawl_v1_AgentMessage_event_tag;
    spool->message->body.event = *event;
    return push_happening(spool, event->seq, event->wall_us);
}

int spool_push_exception(struct spool *spool, trawl_v1_Exception *exception)
{
    exception->seq = spool_next_seq(spool, SPOOL_EVENTS);
    spool->message->which_body = trawl_v1_AgentMessage_exception_tag;
    spool->message->body.exception = *exception;
    return push_happening(spool, exception->seq, exception->wall_us);
}

int spool_push_block(struct spool *spool, trawl_v1_AgentMessage *block)
{
    assert(block->which_body == trawl_v1_AgentMessage_block_tag);
    block->body.block.seq = spool_next_seq(spool, SPOOL_BLOCKS);
    struct ring_record record = {
        .type = RING_BLOCK,
        .seq = block->body.block.seq,
        .time_us = block->body.block.from_us,
    };
    return push(spool, SPOOL_BLOCKS, block, &record);
}

int spool_push_descriptors(struct spool *spool, unsigned flags, trawl_v1_AgentMessage *descriptors)
{
    assert(descriptors->which_body == trawl_v1_AgentMessage_descriptors_tag);
    struct ring_record record = {.type = RING_DESCRIPTORS, .flags = flags};
    uint64_t position = ring_head(spool->lanes[SPOOL_BLOCKS].ring);
    int e = push(spool, SPOOL_BLOCKS, descriptors, &record);
    if (!e && (flags & RING_START)) {
        spool->segment_position = position;
        spool->has_segment = true;
    }
    return e;
}

bool spool_wants_descriptors(const struct spool *spool)
{
    uint64_t head = ring_head(spool->lanes[SPOOL_BLOCKS].ring);
    return !spool->has_segment || head - spool->segment_position >= spool->segment_bytes;
}

/* ---- numbers ---- */

uint64_t spool_next_seq(const struct spool *spool, enum spool_lane lane)
{
    return ring_next_seq(spool->lanes[lane].ring);
}

uint64_t spool_oldest_seq(const struct spool *spool, enum spool_lane lane)
{
    return ring_oldest_seq(spool->lanes[lane].ring);
}

uint64_t spool_unacknowledged(const struct spool *spool, enum spool_lane lane)
{
    int64_t time_us;
    const struct ring *ring = spool->lanes[lane].ring;
    return ring_next_seq(ring) - 1 - ring_acknowledged(ring, &time_us);
}

void spool_release_pages(struct spool *spool)
{
    for (int i = 0; i < SPOOL_LANES; i++)
        ring_release_pages(spool->lanes[i].ring);
}

const struct ring *spool_ring(const struct spool *spool, enum spool_lane lane)
{
    return spool->lanes[lane].ring;
}

/* ---- delivering ---- */

/* Where to begin so that everything behind number `last` is sent and understood. */
static uint64_t position_behind(const struct ring *ring, uint64_t last)
{
    struct ring_record record;
    uint64_t start = ring_tail(ring);
    for (uint64_t at = start; !ring_read(ring, at, &record); at = record.next) {
        if (record.flags & RING_START)
            start = record.position;
        if (record.seq > last)
            break;
    }
    return start;
}

void spool_resume(struct spool *spool, const uint64_t last[SPOOL_LANES])
{
    for (int i = 0; i < SPOOL_LANES; i++) {
        struct lane *lane = &spool->lanes[i];
        /* The collector knows higher numbers than we do: our file was lost. Never use them again.
         */
        ring_skip_to_seq(lane->ring, last[i] + 1);
        lane->position = position_behind(lane->ring, last[i]);
        lane->next_seq = last[i] + 1;
        lane->knows_set = false;
        lane->skips_repeats = false;
        spool_acknowledge(spool, (enum spool_lane)i, last[i]);
    }
}

static int give_gap(struct lane *lane, uint64_t last_seq)
{
    int64_t acked_us, evicted_us;
    (void)ring_acknowledged(lane->ring, &acked_us);
    (void)ring_evicted(lane->ring, &evicted_us);
    lane->item = (struct spool_item){
        .is_gap = true,
        .first_seq = lane->next_seq,
        .last_seq = last_seq,
        .from_us = lane->sent_us > acked_us ? lane->sent_us : acked_us,
        .to_us = evicted_us,
    };
    return 0;
}

static int give_message(struct lane *lane)
{
    lane->item = (struct spool_item){.message = lane->record.payload};
    return 0;
}

/* Whether these descriptors need not be sent: the collector has the same ones since `set_position`.
 */
static bool is_known(struct lane *lane)
{
    const struct ring_record *r = &lane->record;
    if (r->flags & RING_START) {
        bool is_first = !lane->knows_set || lane->set_position == r->position;
        if (is_first)
            lane->set_position = r->position;
        lane->knows_set = true;
        lane->skips_repeats = !is_first;
    }
    return lane->skips_repeats && (r->flags & RING_REPEAT);
}

/* One look at the record under the cursor. ERR_AGAIN: stepped over it, look again. */
static int look(struct lane *lane)
{
    if (lane->position < ring_tail(lane->ring)) {
        lane->position = ring_tail(lane->ring);
        lane->knows_set = false;
        lane->skips_repeats = false;
    }
    if (ring_read(lane->ring, lane->position, &lane->record)) {
        uint64_t next = ring_next_seq(lane->ring);
        return lane->next_seq < next ? give_gap(lane, next - 1) : ERR_NOTFOUND;
    }
    const struct ring_record *r = &lane->record;
    bool is_old = r->seq && r->seq < lane->next_seq;
    if (is_old || (r->type == RING_DESCRIPTORS && is_known(lane))) {
        lane->position = r->next;
        return ERR_AGAIN;
    }
    if (r->seq > lane->next_seq)
        return give_gap(lane, r->seq - 1);
    return give_message(lane);
}

int spool_peek(struct spool *spool, enum spool_lane lane, struct spool_item *out)
{
    int e;
    do
        e = look(&spool->lanes[lane]);
    while (e == ERR_AGAIN);
    if (!e)
        *out = spool->lanes[lane].item;
    return e;
}

void spool_advance(struct spool *spool, enum spool_lane which)
{
    struct lane *lane = &spool->lanes[which];
    if (lane->item.is_gap) {
        lane->next_seq = lane->item.last_seq + 1;
        return;
    }
    lane->position = lane->record.next;
    if (lane->record.seq) {
        lane->next_seq = lane->record.seq + 1;
        lane->sent_us = lane->record.time_us;
    }
}

void spool_acknowledge(struct spool *spool, enum spool_lane which, uint64_t seq)
{
    struct lane *lane = &spool->lanes[which];
    int64_t time_us;
    if (seq <= ring_acknowledged(lane->ring, &time_us) || seq >= ring_next_seq(lane->ring))
        return;
    ring_acknowledge(lane->ring, seq, lane->sent_us > time_us ? lane->sent_us : time_us);
}
