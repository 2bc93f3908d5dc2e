/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking back: the sampler's own blocks, on a clock that stands still, as CSV and JSON lines.
 */
#include "agent/lookback.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/events.h"
#include "agent/sampler.h"
#include "common/text.h"
#include "proto/block.h"
#include "proto/codec.h"
#include "tests/check.h"

#define WALL_US INT64_C(1800000000000000)

static char directory[64];
static trawl_v1_AgentMessage message;
static struct buf text;
static char missing[512];

static struct spool *open_spool(void)
{
    struct spool *spool = NULL;
    struct failure f;
    struct spool_opened how;
    const uint64_t floors[SPOOL_LANES] = {0, 0};
    snprintf(directory, sizeof directory, "/tmp/trawl-look-XXXXXX");
    REQUIRE(mkdtemp(directory) != NULL);
    REQUIRE(spool_open(&spool, directory, 4 * SPOOL_MIN_BYTES, floors, &how, &f) == 0);
    buf_init(&text, 1 << 24);
    return spool;
}

static void close_spool(struct spool *spool)
{
    char path[128];
    spool_close(spool);
    buf_done(&text);
    snprintf(path, sizeof path, "%s/counters.ring", directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/events.ring", directory);
    unlink(path);
    rmdir(directory);
}

static int append(void *context, struct span bytes)
{
    return buf_append_span(context, bytes);
}

static void describe(struct spool *spool, uint64_t epoch, const trawl_v1_Descriptor *list,
                     size_t count)
{
    memset(&message, 0, sizeof message);
    message.which_body = trawl_v1_AgentMessage_descriptors_tag;
    message.body.descriptors.epoch = epoch;
    message.body.descriptors.list_count = (pb_size_t)count;
    memcpy(message.body.descriptors.list, list, count * sizeof *list);
    REQUIRE(spool_push_descriptors(spool, RING_START, &message) == 0);
}

static void block(struct spool *spool, uint64_t epoch, int64_t from_us,
                  const struct block_series *rows, size_t count, size_t samples)
{
    struct buf data;
    size_t taken;
    buf_init(&data, 32768);
    REQUIRE(block_put(&data, rows, count, samples, &taken) == 0 && taken == count);
    memset(&message, 0, sizeof message);
    message.which_body = trawl_v1_AgentMessage_block_tag;
    message.body.block.epoch = epoch;
    message.body.block.from_us = from_us;
    message.body.block.step_us = 1000000;
    message.body.block.count = (uint32_t)samples;
    message.body.block.data.size = (pb_size_t)data.size_bytes;
    memcpy(message.body.block.data.bytes, data.data, data.size_bytes);
    REQUIRE(spool_push_block(spool, &message) == 0);
    buf_done(&data);
}

TEST(counters_become_a_table)
{
    struct spool *spool = open_spool();
    const trawl_v1_Descriptor list[] = {
        {1, "load", "", "1", trawl_v1_Kind_GAUGE, 100, 0},
        {2, "cpu.user", "cpu0", "us", trawl_v1_Kind_COUNT, 1, 0},
        {3, "process.rss", "a,b", "bytes", trawl_v1_Kind_GAUGE, 1, 42},
    };
    const struct block_series rows[] = {
        {1, (int64_t[]){150, 5, BLOCK_GAP}, "no such file"},
        {2, (int64_t[]){7, 8, 9}, ""},
        {3, (int64_t[]){BLOCK_GAP, -1, 2}, "not there yet"},
    };
    describe(spool, 5, list, 3);
    block(spool, 5, WALL_US, rows, 3, 3);
    struct failure f = {0};
    CHECK_EQ_INT(lookback_counters(spool, WALL_US, WALL_US + 5000000, append, &text, missing,
                                   sizeof missing, &f),
                 0);
    CHECK_EQ_STR(buf_str(&text),
                 "time,cpu.user{cpu0} [us],load [1],\"process.rss{a,b} [bytes](42)\"\n"
                 "2027-01-15T08:00:00.000Z,7,1.50,\n"
                 "2027-01-15T08:00:01.000Z,8,0.05,-1\n"
                 "2027-01-15T08:00:02.000Z,9,,2\n");
    CHECK_EQ_STR(missing, "load [1]: no such file; process.rss{a,b} [bytes](42): not there yet");
    close_spool(spool);
}

TEST(the_window_cuts_lines_and_says_where_the_recording_begins)
{
    struct spool *spool = open_spool();
    const trawl_v1_Descriptor one = {1, "load", "", "1", trawl_v1_Kind_GAUGE, 1, 0};
    const struct block_series row = {1, (int64_t[]){1, 2, 3, 4}, ""};
    struct failure f = {0};
    describe(spool, 5, &one, 1);
    block(spool, 5, WALL_US, &row, 1, 4);
    CHECK_EQ_INT(lookback_counters(spool, WALL_US + 1000000, WALL_US + 2000000, append, &text,
                                   missing, sizeof missing, &f),
                 0);
    CHECK_EQ_STR(buf_str(&text),
                 "time,load [1]\n2027-01-15T08:00:01.000Z,2\n2027-01-15T08:00:02.000Z,3\n");
    CHECK_EQ_STR(missing, "");
    buf_clear(&text);
    CHECK_EQ_INT(lookback_counters(spool, WALL_US - 60000000, WALL_US, append, &text, missing,
                                   sizeof missing, &f),
                 0);
    CHECK_EQ_STR(missing, "nothing before 2027-01-15T08:00:00.000Z: the recording begins there");
    CHECK_EQ_INT(lookback_counters(spool, 0, 1000000, append, &text, missing, sizeof missing, &f),
                 ERR_NOTFOUND);
    close_spool(spool);
}

TEST(parts_of_one_second_and_two_runs_of_the_agent_are_one_table)
{
    struct spool *spool = open_spool();
    const trawl_v1_Descriptor before[] = {{1, "a", "", "1", trawl_v1_Kind_GAUGE, 1, 0},
                                          {2, "b", "", "1", trawl_v1_Kind_GAUGE, 1, 0}};
    const trawl_v1_Descriptor after = {1, "b", "", "1", trawl_v1_Kind_GAUGE, 1, 0};
    const struct block_series a = {1, (int64_t[]){1, 2}, ""}, b = {2, (int64_t[]){3, 4}, ""},
                              again = {1, (int64_t[]){5, 6}, ""};
    struct failure f = {0};
    describe(spool, 5, before, 2);
    block(spool, 5, WALL_US, &a, 1, 2);
    block(spool, 5, WALL_US, &b, 1, 2);
    describe(spool, 6, &after, 1);
    block(spool, 6, WALL_US + 10000000, &again, 1, 2);
    CHECK_EQ_INT(lookback_counters(spool, WALL_US, WALL_US + 60000000, append, &text, missing,
                                   sizeof missing, &f),
                 0);
    CHECK_EQ_STR(buf_str(&text), "time,a [1],b [1]\n"
                                 "2027-01-15T08:00:00.000Z,1,3\n"
                                 "2027-01-15T08:00:01.000Z,2,4\n"
                                 "2027-01-15T08:00:10.000Z,,5\n"
                                 "2027-01-15T08:00:11.000Z,,6\n");
    close_spool(spool);
}

TEST(events_become_json_lines)
{
    struct spool *spool = open_spool();
    struct clock_fake clock;
    struct events *events = NULL;
    struct failure f = {0};
    clock_fake_init(&clock, 1000, WALL_US);
    REQUIRE(events_open(&events, spool, &clock.clock, NULL, NULL, NULL) == 0);
    events_add(events, trawl_v1_EventType_AGENT_STARTED, "", 0, "early");
    clock_fake_advance(&clock, 10000000);
    events_add(events, trawl_v1_EventType_PROCESS_EXITED, "re\"dis\x1b", 5, "x");
    CHECK_EQ_INT(lookback_events(spool, WALL_US + 1, WALL_US + 20000000, append, &text, missing,
                                 sizeof missing, &f),
                 0);
    CHECK_EQ_STR(buf_str(&text),
                 "{\"time\":\"2027-01-15T08:00:10.000Z\",\"type\":\"process_exited\",\"process\":"
                 "\"re\\\"dis\\\\x1b\",\"pid\":5,\"text\":\"x\"}\n");
    CHECK_EQ_STR(missing, "");
    events_close(events);
    close_spool(spool);
}

TEST(exceptions_become_json_lines)
{
    struct spool *spool = open_spool();
    trawl_v1_Exception *x = calloc(1, sizeof *x);
    struct failure f = {0};
    REQUIRE(x);
    x->source = trawl_v1_ExceptionSource_CRASH;
    x->wall_us = WALL_US + 10000000;
    x->count = 3;
    x->pid = 5;
    text_copy(x->type, sizeof x->type, "SIGSEGV");
    text_copy(x->message, sizeof x->message, "a \"b\"");
    text_copy(x->process, sizeof x->process, "redis");
    x->frames_count = 3;
    text_copy(x->frames[0].function, sizeof x->frames[0].function, "sell");
    text_copy(x->frames[0].module, sizeof x->frames[0].module, "shop");
    x->frames[0].offset = 0x12;
    text_copy(x->frames[1].module, sizeof x->frames[1].module, "libc.so.6");
    text_copy(x->frames[2].function, sizeof x->frames[2].function, "main");
    text_copy(x->frames[2].file, sizeof x->frames[2].file, "shop.py");
    x->frames[2].line = 7;
    REQUIRE(spool_push_exception(spool, x) == 0);
    CHECK_EQ_INT(lookback_events(spool, WALL_US + 1, WALL_US + 20000000, append, &text, missing,
                                 sizeof missing, &f),
                 0);
    CHECK_EQ_STR(
        buf_str(&text),
        "{\"time\":\"2027-01-15T08:00:10.000Z\",\"type\":\"exception\",\"source\":"
        "\"crash\",\"exception\":\"SIGSEGV\",\"message\":\"a \\\"b\\\"\",\"process\":"
        "\"redis\",\"pid\":5,\"count\":3,\"frames\":[\"sell (shop+0x12)\",\"libc.so.6+0x0\","
        "\"main (shop.py:7)\"]}\n");
    free(x);
    close_spool(spool);
}

TEST(too_many_events_are_counted)
{
    struct spool *spool = open_spool();
    struct clock_fake clock;
    struct events *events = NULL;
    clock_fake_init(&clock, 1000, WALL_US);
    REQUIRE(events_open(&events, spool, &clock.clock, NULL, NULL, NULL) == 0);
    struct os_process_change change = {.started = true, .pid = 9, .name = "sh"};
    for (int i = 0; i < EVENTS_PER_SECOND + 12; i++)
        events_on_process(events, &change);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_EVENTS), EVENTS_PER_SECOND + 1);
    events_tick(events);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_EVENTS), EVENTS_PER_SECOND + 2);
    events_on_process(events, &change);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_EVENTS), EVENTS_PER_SECOND + 3);
    events_close(events);
    close_spool(spool);
}

/* ---- the sampler on this machine, on a clock of ours ---- */

struct lines {
    size_t rows, cells_of_first;
};

static struct lines count_lines(void)
{
    struct lines l = {0};
    const char *at = buf_str(&text);
    for (const char *c = at; *c && *c != '\n'; c++)
        l.cells_of_first += *c == ',';
    for (; *at; at++)
        l.rows += *at == '\n';
    return l;
}

static struct sampler *open_sampler(struct spool *spool, struct clock_fake *clock)
{
    struct sampler *sampler = NULL;
    struct failure f = {0};
    struct sampler_settings settings = {
        .counters = {.root = "", .busiest = 2},
        .clock = &clock->clock,
        .spool = spool,
        .epoch = 3,
    };
    clock_fake_init(clock, 1000000, WALL_US);
    REQUIRE(sampler_open(&sampler, &settings, &f) == 0);
    return sampler;
}

TEST(ten_seconds_are_a_block)
{
    struct spool *spool = open_spool();
    struct clock_fake clock;
    struct sampler *sampler = open_sampler(spool, &clock);
    struct failure f = {0};
    for (int i = 0; i < 25; i++) {
        sampler_sample(sampler);
        clock_fake_advance(&clock, 1000000);
    }
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_BLOCKS), 3);
    sampler_cut(sampler);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_BLOCKS), 4);
    CHECK_EQ_INT(lookback_counters(spool, WALL_US, WALL_US + 60000000, append, &text, missing,
                                   sizeof missing, &f),
                 0);
    struct lines lines = count_lines();
    CHECK_EQ_INT(lines.rows, 26);
    CHECK(lines.cells_of_first > 50);
    sampler_close(sampler);
    close_spool(spool);
}

TEST(missed_seconds_are_gaps_and_a_jump_of_the_clock_is_a_new_block)
{
    struct spool *spool = open_spool();
    struct clock_fake clock;
    struct sampler *sampler = open_sampler(spool, &clock);
    struct failure f = {0};
    sampler_sample(sampler);
    clock_fake_advance(&clock, 4000000); /* three are missed */
    sampler_sample(sampler);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_BLOCKS), 1);
    clock_fake_advance(&clock, 1000000);
    clock.now_wall_us += 3000000; /* somebody set the clock */
    sampler_sample(sampler);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_BLOCKS), 2);
    sampler_cut(sampler);
    CHECK_EQ_INT(lookback_counters(spool, WALL_US, WALL_US + 60000000, append, &text, missing,
                                   sizeof missing, &f),
                 0);
    CHECK_EQ_INT(count_lines().rows, 1 + 5 + 1);
    CHECK(strstr(missing, "the agent did not run for 3 s") != NULL);
    sampler_close(sampler);
    close_spool(spool);
}

TEST(watching_cuts_every_second)
{
    struct spool *spool = open_spool();
    struct clock_fake clock;
    struct sampler *sampler = open_sampler(spool, &clock);
    sampler_sample(sampler);
    sampler_set_watching(sampler, true);
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_BLOCKS), 2);
    for (int i = 0; i < 3; i++) {
        clock_fake_advance(&clock, 1000000);
        sampler_sample(sampler);
    }
    CHECK_EQ_INT(spool_next_seq(spool, SPOOL_BLOCKS), 5);
    sampler_close(sampler);
    close_spool(spool);
}
