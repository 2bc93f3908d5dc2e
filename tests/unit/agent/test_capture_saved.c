/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders about an exception: evidence that the crash handler left on this host, a process that has
 * ended, a pid that is another's by now. The collector and the broker are kit.h's.
 */
#include "kit.h"

#include "agent/crash_spool.h"

static const uint8_t id[16] = {0xc0, 0xff, 0xee, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};

static void put(struct crash_spool *spool, const char *ending, struct span data)
{
    char name[CRASH_NAME_SIZE];
    struct failure f;
    crash_spool_name(id, ending, name);
    REQUIRE(crash_spool_put(spool, name, data, &f) == 0);
}

/* What the handler leaves behind. */
static void leave_evidence(struct kit *k, struct crash_spool *spool)
{
    trawl_v1_Exception *about = calloc(1, sizeof *about);
    char path[128];
    struct failure f;
    struct buf encoded;
    snprintf(path, sizeof path, "%s/crash", k->directory);
    REQUIRE(about && crash_spool_make(spool, path, &f) == 0);
    memcpy(about->id.bytes, id, sizeof id);
    about->id.size = sizeof id;
    about->pid = 4711;
    about->start_ticks = 99;
    about->wall_us = KIT_WALL_US - 5000000;
    text_copy(about->process, sizeof about->process, "redis/server");
    text_copy(about->missing, sizeof about->missing, "vector registers");
    buf_init(&encoded, 65536);
    REQUIRE(codec_put_exception(&encoded, about) == 0);
    put(spool, "told", buf_span(&encoded));
    put(spool, "txt", span_str("crash of redis\n"));
    put(spool, "json", span_str("{}\n"));
    put(spool, "folded", span_str("redis;main 1\n"));
    put(spool, "core.zst", span_str("packed small core"));
    put(spool, "full.zst", span_str("packed core"));
    put(spool, "log", span_str("last words\n"));
    buf_done(&encoded);
    free(about);
}

static void order_of(struct kit *k, uint64_t number, const char *what, const char *unit,
                     uint32_t pid, uint64_t ticks, bool of_exception)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    trawl_v1_Order *o = &m.body.order;
    struct span kinds = span_str(what), kind;
    o->order = number;
    snprintf(o->incident, sizeof o->incident, "INC-1");
    while (!text_take_until(&kinds, ',', &kind))
        text_copy_span(o->what[o->what_count++], sizeof o->what[0], kind);
    o->has_process = pid != 0 || unit[0];
    text_copy(o->process.unit, sizeof o->process.unit, unit);
    o->process.pid = pid;
    o->process.start_ticks = ticks;
    o->last_us = 60000000;
    o->pause_max_us = 50000;
    o->expires_in_us = 3600000000;
    if (of_exception) {
        memcpy(o->exception.bytes, id, sizeof id);
        o->exception.size = sizeof id;
    }
    kit_say(k, &m);
    kit_settle(k);
}

static void order(struct kit *k, uint64_t number, const char *what, uint32_t pid, uint64_t ticks,
                  bool of_exception)
{
    order_of(k, number, what, "", pid, ticks, of_exception);
}

/* Seals what waits; the names of the files, with kind and encoding. */
static int seal(struct kit *k, char *names, size_t size_bytes)
{
    struct capture_artifact a;
    struct failure fine = {0};
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    int count = 0;
    names[0] = '\0';
    REQUIRE(meta);
    while (capture_peek_artifact(k->capture, &a) == 0 && count++ < 100) {
        size_t used = strlen(names);
        REQUIRE(evidence_load(a.directory, a.no, meta, &fine) == 0);
        snprintf(names + used, size_bytes - used, "%s:%s:%s:%u ", meta->kind, meta->file,
                 meta->encoding, (unsigned)meta->pid);
        fine.code = 0;
        capture_artifact_ended(k->capture, &a, &fine);
    }
    free(meta);
    return count;
}

TEST(what_the_handler_left_is_handed_over)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    char names[2048];
    leave_evidence(k, &spool);
    kit_connect(k, 0, 0);
    order(k, 1, "crash,core,logs", 0, 0, true);
    kit_wait_artifact(k);
    for (int i = 0; i < 10; i++)
        kit_settle(k);
    CHECK_EQ_INT(seal(k, names, sizeof names), 6);
    CHECK(strstr(names, "crash:crash-redis_server-4711.txt::4711 ") != NULL);
    CHECK(strstr(names, "crash:crash-redis_server-4711.json::4711 ") != NULL);
    CHECK(strstr(names, "crash:crash-redis_server-4711.folded::4711 ") != NULL);
    CHECK(strstr(names, "crash:crash-redis_server-4711.core:zstd:4711 ") != NULL);
    CHECK(strstr(names, "core:core-redis_server-4711.core:zstd:4711 ") != NULL);
    CHECK(strstr(names, "logs:logs-redis_server-4711.txt::4711 ") != NULL);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    /* What the collector has need not be here twice; what was told stays. */
    CHECK(!crash_spool_has(&spool, id, "core.zst"));
    CHECK(!crash_spool_has(&spool, id, "full.zst"));
    CHECK(crash_spool_has(&spool, id, "told"));
    CHECK(crash_spool_has(&spool, id, "txt"));
    crash_spool_close(&spool);
    kit_close(k);
}

/* By its unit: who is in it by now is another process, of which no memory is taken. */
TEST(after_a_crash_the_unit_has_another_process)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    char names[2048];
    leave_evidence(k, &spool);
    crash_spool_remove(&spool, id, "log");
    kit_connect(k, 0, 0);
    order_of(k, 1, "core,stacks,logs", "redis.service", 0, 0, true);
    kit_wait_artifact(k);
    for (int i = 0; i < 10; i++)
        kit_settle(k);
    CHECK_EQ_INT(seal(k, names, sizeof names), 2);
    CHECK(strstr(names, "core:core-redis_server-4711.core:zstd:4711 ") != NULL);
    CHECK(strstr(names, "logs:logs-victim-100.txt::100 ") !=
          NULL); /* the unit's, by who is there */
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_PARTIAL));
    CHECK(strstr(kit_verdict(k, 1)->reason, "stacks: process 'redis/server' (4711) has ended"));
    crash_spool_close(&spool);
    kit_close(k);
}

TEST(evidence_has_the_time_of_the_crash_and_what_is_missing)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    struct capture_artifact a;
    struct failure f;
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    leave_evidence(k, &spool);
    kit_connect(k, 0, 0);
    order(k, 1, "crash", 0, 0, true);
    kit_wait_artifact(k);
    REQUIRE(meta && capture_peek_artifact(k->capture, &a) == 0);
    REQUIRE(evidence_load(a.directory, a.no, meta, &f) == 0);
    CHECK_EQ_INT(meta->wall_us, KIT_WALL_US - 5000000);
    CHECK_EQ_STR(meta->missing, "vector registers");
    free(meta);
    crash_spool_close(&spool);
    kit_close(k); /* with artifacts that wait */
}

TEST(nothing_that_was_kept_is_said)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    order(k, 1, "crash", 0, 0, true);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_GONE));
    CHECK(strstr(kit_verdict(k, 1)->reason, "nothing of this kind is kept") != NULL);
    kit_close(k);
}

TEST(what_needs_the_process_says_that_it_has_ended)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    char names[1024];
    leave_evidence(k, &spool);
    kit_connect(k, 0, 0);
    order(k, 1, "stacks,events,logs", 0, 0, true);
    kit_wait_artifact(k);
    for (int i = 0; i < 10; i++)
        kit_settle(k);
    CHECK_EQ_INT(seal(k, names, sizeof names), 2); /* logs, events; nobody who is followed */
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_PARTIAL));
    CHECK(strstr(kit_verdict(k, 1)->reason, "stacks: process 'redis/server' (4711) has ended"));
    crash_spool_close(&spool);
    kit_close(k);
}

/* The broker's processes began at 0. */
TEST(a_pid_that_is_anothers_by_now_is_nobody)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    order(k, 1, "stacks", PID_FINE, 7, false);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_GONE));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason,
                 "process 100 has ended: its pid is that of 'victim' now");
    order(k, 2, "stacks", PID_FINE, 7, true);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_GONE));
    CHECK(strstr(kit_verdict(k, 2)->reason, "has ended") != NULL);
    kit_close(k);
}

TEST(a_living_process_of_an_exception_is_looked_at)
{
    struct kit *k = kit_open();
    char names[1024];
    kit_connect(k, 0, 0);
    order(k, 1, "stacks", PID_FINE, 0, true);
    kit_wait_artifact(k);
    CHECK_EQ_INT(seal(k, names, sizeof names), 1);
    CHECK(strstr(names, "stacks:stacks-victim-100.txt::100 ") != NULL);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    kit_close(k);
}

TEST(without_an_exception_there_is_no_crash)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    order(k, 1, "crash", PID_FINE, 0, false);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    CHECK(strstr(kit_verdict(k, 1)->reason, "evidence of an exception") != NULL);
    kit_close(k);
}

TEST(the_owner_has_the_last_word)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    leave_evidence(k, &spool);
    text_copy(k->policy.never, sizeof k->policy.never, "redis*");
    kit_connect(k, 0, 0);
    order(k, 1, "crash", 0, 0, true);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    crash_spool_close(&spool);
    kit_close(k);
}

/* It has begun, and no turn of the loop has come yet. */
static void begin(struct kit *k)
{
    trawl_v1_Order *o = calloc(1, sizeof *o);
    REQUIRE(o);
    o->order = 1;
    o->what_count = 1;
    text_copy(o->what[0], sizeof o->what[0], "crash");
    o->pause_max_us = 50000;
    o->expires_in_us = 3600000000;
    memcpy(o->exception.bytes, id, sizeof id);
    o->exception.size = sizeof id;
    capture_order(k->capture, o);
    free(o);
}

TEST(cancelled_in_the_middle_leaves_nothing)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    struct capture_artifact a;
    trawl_v1_CancelOrder cancel = {.order = 1};
    leave_evidence(k, &spool);
    kit_connect(k, 0, 0);
    begin(k);
    capture_cancel(k->capture, &cancel);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_CANCELLED));
    CHECK_EQ_INT(capture_peek_artifact(k->capture, &a), ERR_NOTFOUND);
    CHECK(crash_spool_has(&spool, id, "core.zst"));
    order(k, 2, "crash", 0, 0, true); /* the next one is not in its way */
    kit_wait_artifact(k);
    crash_spool_close(&spool);
    kit_close(k);
}

TEST(an_end_in_the_middle_leaves_nothing_open)
{
    struct kit *k = kit_open();
    struct crash_spool spool;
    leave_evidence(k, &spool);
    begin(k);
    crash_spool_close(&spool);
    kit_close(k);
}
