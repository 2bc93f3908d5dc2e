/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool: everything once and in order, gaps for what was overwritten, events unharmed by
 * counters, descriptors with every block.
 */
#include "agent/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/codec.h"
#include "tests/check.h"

static char directory[64];
static trawl_v1_AgentMessage message, decoded;

static struct spool *open_at(struct spool_opened *how, uint64_t floor)
{
    struct spool *spool = NULL;
    struct failure f = {0};
    const uint64_t floors[SPOOL_LANES] = {floor, floor};
    if (!directory[0]) {
        snprintf(directory, sizeof directory, "/tmp/trawl-spool-XXXXXX");
        REQUIRE(mkdtemp(directory) != NULL);
    }
    REQUIRE(spool_open(&spool, directory, SPOOL_MIN_BYTES, floors, how, &f) == 0);
    return spool;
}

static void remove_files(void)
{
    char path[128];
    static const char *const names[] = {"counters.ring", "events.ring"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
    directory[0] = '\0';
}

static void push_set(struct spool *spool, unsigned flags, uint32_t id)
{
    memset(&message, 0, sizeof message);
    message.which_body = trawl_v1_AgentMessage_descriptors_tag;
    message.body.descriptors.epoch = 7;
    message.body.descriptors.list_count = 1;
    message.body.descriptors.list[0].id = id;
    CHECK_EQ_INT(spool_push_descriptors(spool, flags, &message), 0);
}

/* As the sampler does: a full set when one is due, then the block. */
static void push_block(struct spool *spool, size_t bytes)
{
    if (spool_wants_descriptors(spool))
        push_set(spool,
                 ring_head(spool_ring(spool, SPOOL_BLOCKS)) ? RING_START | RING_REPEAT : RING_START,
                 1);
    memset(&message, 0, sizeof message);
    message.which_body = trawl_v1_AgentMessage_block_tag;
    message.body.block.epoch = 7;
    message.body.block.from_us = (int64_t)spool_next_seq(spool, SPOOL_BLOCKS) * 10000000;
    message.body.block.count = 10;
    message.body.block.data.size = (pb_size_t)bytes;
    CHECK_EQ_INT(spool_push_block(spool, &message), 0);
}

static void push_event(struct spool *spool)
{
    trawl_v1_Event event = {.type = trawl_v1_EventType_AGENT_STARTED, .wall_us = 5};
    CHECK_EQ_INT(spool_push_event(spool, &event), 0);
}

struct taken {
    size_t messages, blocks, events, descriptors, gaps;
    uint64_t first, last, gap_first, gap_last;
    bool in_order, described;
};

static void take_block(struct taken *t, uint64_t seq)
{
    if (t->blocks + t->events == 0 && t->gaps == 0)
        t->first = seq;
    else
        t->in_order = t->in_order && seq == t->last + 1;
    t->last = seq;
}

static struct taken drain(struct spool *spool, enum spool_lane lane, size_t limit)
{
    struct taken t = {.in_order = true, .described = true};
    struct spool_item item;
    while (t.messages < limit && spool_peek(spool, lane, &item) == 0) {
        t.messages++;
        if (item.is_gap) {
            t.gaps++;
            t.gap_first = item.first_seq;
            t.gap_last = t.last = item.last_seq;
        } else {
            REQUIRE(codec_get_agent_message(&decoded, item.message, NULL) == 0);
            if (decoded.which_body == trawl_v1_AgentMessage_descriptors_tag) {
                t.descriptors++;
            } else if (decoded.which_body == trawl_v1_AgentMessage_block_tag) {
                t.described = t.described && t.descriptors > 0;
                take_block(&t, decoded.body.block.seq);
                t.blocks++;
            } else {
                take_block(&t, decoded.body.event.seq);
                t.events++;
            }
        }
        spool_advance(spool, lane);
    }
    return t;
}

static void resume(struct spool *spool, uint64_t blocks, uint64_t events)
{
    const uint64_t last[SPOOL_LANES] = {blocks, events};
    spool_resume(spool, last);
}

TEST(everything_comes_once_and_in_order)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    for (int i = 0; i < 20; i++) {
        push_block(spool, 500);
        push_event(spool);
    }
    resume(spool, 0, 0);
    struct taken blocks = drain(spool, SPOOL_BLOCKS, 1000);
    CHECK(blocks.in_order && blocks.described && blocks.gaps == 0);
    CHECK_EQ_INT(blocks.blocks, 20);
    CHECK_EQ_INT(blocks.first, 1);
    CHECK_EQ_INT(drain(spool, SPOOL_EVENTS, 1000).events, 20);
    CHECK_EQ_INT(drain(spool, SPOOL_BLOCKS, 1000).messages, 0);
    push_block(spool, 500);
    CHECK_EQ_INT(drain(spool, SPOOL_BLOCKS, 1000).last, 21);
    spool_close(spool);
    remove_files();
}

TEST(a_new_connection_resends_what_is_not_acknowledged_with_its_descriptors)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    for (int i = 0; i < 10; i++)
        push_block(spool, 500);
    resume(spool, 0, 0);
    CHECK_EQ_INT(drain(spool, SPOOL_BLOCKS, 1000).blocks, 10);
    spool_acknowledge(spool, SPOOL_BLOCKS, 4);
    CHECK_EQ_INT(spool_unacknowledged(spool, SPOOL_BLOCKS), 6);
    resume(spool, 4, 0);
    struct taken again = drain(spool, SPOOL_BLOCKS, 1000);
    CHECK(again.described && again.in_order);
    CHECK_EQ_INT(again.first, 5);
    CHECK_EQ_INT(again.blocks, 6);
    resume(spool, 10, 0);
    struct taken known = drain(spool, SPOOL_BLOCKS, 1000);
    CHECK_EQ_INT(known.descriptors, 1);
    CHECK_EQ_INT(known.blocks, 0);
    spool_close(spool);
    remove_files();
}

TEST(the_same_item_comes_until_it_was_sent)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    struct spool_item a, b;
    push_event(spool);
    push_event(spool);
    resume(spool, 0, 0);
    REQUIRE(spool_peek(spool, SPOOL_EVENTS, &a) == 0 && spool_peek(spool, SPOOL_EVENTS, &b) == 0);
    CHECK(a.message.data == b.message.data);
    spool_advance(spool, SPOOL_EVENTS);
    REQUIRE(spool_peek(spool, SPOOL_EVENTS, &b) == 0);
    CHECK(a.message.data != b.message.data);
    spool_close(spool);
    remove_files();
}

TEST(what_was_overwritten_is_a_gap)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    for (int i = 0; i < 400; i++)
        push_block(spool, 8000);
    push_event(spool);
    resume(spool, 0, 0);
    struct taken t = drain(spool, SPOOL_BLOCKS, 1000);
    CHECK_EQ_INT(t.gaps, 1);
    CHECK_EQ_INT(t.gap_first, 1);
    CHECK_EQ_INT(t.gap_last + t.blocks, 400);
    CHECK_EQ_INT(t.last, 400);
    CHECK(t.in_order && t.described && t.blocks > 50);
    CHECK_EQ_INT(drain(spool, SPOOL_EVENTS, 10).events, 1);
    spool_close(spool);
    remove_files();
}

TEST(being_overtaken_in_the_middle_is_a_gap_too)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    for (int i = 0; i < 20; i++)
        push_block(spool, 8000);
    resume(spool, 0, 0);
    struct taken before = drain(spool, SPOOL_BLOCKS, 10);
    for (int i = 0; i < 300; i++)
        push_block(spool, 8000);
    struct taken after = drain(spool, SPOOL_BLOCKS, 1000);
    CHECK_EQ_INT(after.gaps, 1);
    CHECK_EQ_INT(after.gap_first, before.last + 1);
    CHECK_EQ_INT(after.last, 320);
    CHECK(after.in_order && after.described);
    spool_close(spool);
    remove_files();
}

TEST(repeated_sets_are_sent_once_a_connection)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    resume(spool, 0, 0);
    size_t descriptors = 0;
    for (int i = 0; i < 300; i++) {
        push_block(spool, 4000);
        descriptors += drain(spool, SPOOL_BLOCKS, 1000).descriptors;
    }
    CHECK_EQ_INT(descriptors, 1);
    spool_close(spool);
    remove_files();
}

TEST(a_reopened_spool_goes_on_behind_what_the_collector_has)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    CHECK_EQ_INT(how.found[SPOOL_BLOCKS], RING_FOUND_NEW);
    for (int i = 0; i < 10; i++)
        push_block(spool, 100);
    resume(spool, 0, 0);
    drain(spool, SPOOL_BLOCKS, 1000);
    spool_acknowledge(spool, SPOOL_BLOCKS, 7);
    spool_close(spool);
    spool = open_at(&how, 1000000);
    CHECK_EQ_INT(how.found[SPOOL_BLOCKS], RING_FOUND_WHOLE);
    CHECK_EQ_INT(spool_unacknowledged(spool, SPOOL_BLOCKS), 3);
    CHECK(spool_wants_descriptors(spool));
    push_set(spool, RING_START, 1);
    push_block(spool, 100);
    resume(spool, 7, 0);
    struct taken t = drain(spool, SPOOL_BLOCKS, 1000);
    CHECK_EQ_INT(t.first, 8);
    CHECK_EQ_INT(t.last, 11);
    spool_close(spool);
    remove_files();
}

TEST(a_lost_ring_never_gives_a_number_twice)
{
    struct spool_opened how;
    struct spool *spool = open_at(&how, 0);
    char path[128];
    push_event(spool);
    spool_close(spool);
    snprintf(path, sizeof path, "%s/events.ring", directory);
    unlink(path);
    spool = open_at(&how, 5000);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_EVENTS), 5000);
    push_event(spool);
    resume(spool, 0, 1);
    struct taken t = drain(spool, SPOOL_EVENTS, 10);
    CHECK_EQ_INT(t.gap_first, 2);
    CHECK_EQ_INT(t.gap_last, 4999);
    CHECK_EQ_INT(t.last, 5000);
    resume(spool, 0, 9000); /* the collector knows more than we do */
    push_event(spool);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_EVENTS), 9002);
    spool_close(spool);
    remove_files();
}
