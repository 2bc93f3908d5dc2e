/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions on their way into the ring: equal ones are counted together and the sums are exact;
 * one death is told once, by whoever knows most, with what only the others knew.
 */
#include "agent/watcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/codec.h"
#include "tests/check.h"

#define SECOND_US UINT64_C(1000000)
#define TOLD_MAX 2048

struct kit {
    char directory[64];
    struct clock_fake clock;
    struct spool *spool;
    struct watcher *watcher;
    size_t count;
    uint64_t sum;
    trawl_v1_Exception told[TOLD_MAX];
};

static struct kit *open_kit(void)
{
    static const uint64_t floor[SPOOL_LANES];
    struct kit *k = calloc(1, sizeof *k);
    struct spool_opened how;
    struct failure f;
    REQUIRE(k != NULL);
    snprintf(k->directory, sizeof k->directory, "/tmp/trawl-watcher-XXXXXX");
    REQUIRE(mkdtemp(k->directory) != NULL);
    clock_fake_init(&k->clock, 1000 * SECOND_US, INT64_C(1800000000000000));
    REQUIRE(spool_open(&k->spool, k->directory, 4 << 20, floor, &how, &f) == 0);
    REQUIRE(watcher_open(&k->watcher, k->spool, &k->clock.clock, NULL, NULL) == 0);
    return k;
}

static void read_ring(struct kit *k)
{
    static trawl_v1_AgentMessage m;
    struct spool_item item;
    while (spool_peek(k->spool, SPOOL_EVENTS, &item) == 0) {
        REQUIRE(!item.is_gap && codec_get_agent_message(&m, item.message, NULL) == 0);
        REQUIRE(m.which_body == trawl_v1_AgentMessage_exception_tag && k->count < TOLD_MAX);
        k->told[k->count++] = m.body.exception;
        k->sum += m.body.exception.count;
        spool_advance(k->spool, SPOOL_EVENTS);
    }
}

static void pass(struct kit *k, uint64_t us)
{
    for (; us > 0; us -= us < SECOND_US ? us : SECOND_US) {
        clock_fake_advance(&k->clock, us < SECOND_US ? us : SECOND_US);
        watcher_tick(k->watcher);
    }
    read_ring(k);
}

static void close_kit(struct kit *k)
{
    char path[128];
    static const char *const names[] = {"counters.ring", "events.ring"};
    watcher_close(k->watcher);
    spool_close(k->spool);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", k->directory, names[i]);
        unlink(path);
    }
    rmdir(k->directory);
    free(k);
}

static struct os_exception *make(enum os_exception_source source, const char *type, uint32_t pid)
{
    static struct os_exception e;
    memset(&e, 0, sizeof e);
    e.source = source;
    e.pid = pid;
    snprintf(e.type, sizeof e.type, "%s", type);
    snprintf(e.process, sizeof e.process, "shop");
    return &e;
}

static struct os_exception *say(const char *language, const char *type, uint32_t pid,
                                const char *message)
{
    struct os_exception *e = make(OS_LOG_TRACE, type, pid);
    snprintf(e->language, sizeof e->language, "%s", language);
    snprintf(e->message, sizeof e->message, "%s", message);
    return e;
}

/* ---- counting ---- */

TEST(the_first_are_told_at_once_and_the_rest_once_a_second)
{
    struct kit *k = open_kit();
    char message[32];
    for (int i = 0; i < 100; i++) {
        snprintf(message, sizeof message, "cart %d", i);
        watcher_report(k->watcher, say("python", "ValueError", 7, message));
    }
    read_ring(k);
    CHECK_EQ_INT(k->count, WATCHER_WHOLE);
    CHECK_EQ_STR(k->told[0].template, "cart <n>");
    pass(k, SECOND_US);
    CHECK_EQ_INT(k->count, WATCHER_WHOLE + 1);
    CHECK_EQ_INT(k->sum, 100);
    CHECK_EQ_INT(k->told[WATCHER_WHOLE].count, 100 - WATCHER_WHOLE);
    close_kit(k);
}

TEST(sums_are_exact_with_more_kinds_than_are_kept_apart)
{
    struct kit *k = open_kit();
    char type[32];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < WATCHER_KINDS + 100; i++) {
            struct os_exception *e;
            snprintf(type, sizeof type, "Error%d", i);
            e = say("python", type, 0, "x");
            e->count = 3;
            if (round > 3 || i < 150)
                watcher_report(k->watcher, e);
        }
        pass(k, SECOND_US / 4);
    }
    pass(k, 3 * SECOND_US);
    CHECK_EQ_INT(k->sum, 3 * (4 * 150 + WATCHER_KINDS + 100));
    close_kit(k);
}

TEST(what_waits_is_told_when_it_closes)
{
    struct kit *k = open_kit();
    for (int i = 0; i < 10; i++)
        watcher_report(k->watcher, say("java", "X", 0, "same"));
    watcher_report(k->watcher, say("c++", "std::logic_error", 12, "no"));
    watcher_close(k->watcher);
    k->watcher = NULL;
    read_ring(k);
    CHECK_EQ_INT(k->sum, 11);
    close_kit(k);
}

/* ---- one death ---- */

TEST(a_crash_after_the_kernels_line_is_told_once)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, make(OS_FAULT_LINE, "segfault", 42));
    read_ring(k);
    CHECK_EQ_INT(k->count, 0);
    struct os_exception *crash = make(OS_CRASH, "SIGSEGV", 42);
    crash->signal = 11;
    watcher_report(k->watcher, crash);
    watcher_report(k->watcher, make(OS_PROCESS_EXIT, "exit", 42));
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 1);
    CHECK_EQ_INT(k->told[0].source, trawl_v1_ExceptionSource_CRASH);
    close_kit(k);
}

TEST(a_fault_line_alone_is_told_after_a_while)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, make(OS_FAULT_LINE, "segfault", 42));
    pass(k, SECOND_US);
    CHECK_EQ_INT(k->count, 0);
    pass(k, SECOND_US);
    CHECK_EQ_INT(k->sum, 1);
    close_kit(k);
}

TEST(a_fault_line_waits_for_a_crash_that_is_looked_at_for_long)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, make(OS_FAULT_LINE, "segfault", 42));
    for (int i = 0; i < 30; i++) { /* as long as its handler lives */
        watcher_expect(k->watcher, 42);
        pass(k, SECOND_US);
    }
    CHECK_EQ_INT(k->count, 0);
    watcher_report(k->watcher, make(OS_CRASH, "SIGSEGV", 42));
    pass(k, 60 * SECOND_US);
    REQUIRE(k->count == 1);
    CHECK_EQ_INT(k->told[0].source, trawl_v1_ExceptionSource_CRASH);
    close_kit(k);
}

TEST(a_fault_line_whose_crash_never_comes_is_told)
{
    struct kit *k = open_kit();
    watcher_expect(k->watcher, 42);
    watcher_report(k->watcher, make(OS_FAULT_LINE, "segfault", 42));
    watcher_report(k->watcher, make(OS_FAULT_LINE, "segfault", 43));
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->count, 1); /* of 43, of which nothing was said */
    pass(k, WATCHER_EXPECT_US);
    CHECK_EQ_INT(k->sum, 2);
    close_kit(k);
}

TEST(more_fault_lines_than_can_wait_are_not_told_beside_their_crashes)
{
    struct kit *k = open_kit();
    for (uint32_t pid = 1; pid <= 200; pid++) {
        watcher_expect(k->watcher, pid);
        watcher_report(k->watcher, make(OS_FAULT_LINE, "segfault", pid));
    }
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 0);
    for (uint32_t pid = 1; pid <= 200; pid++)
        watcher_report(k->watcher, make(OS_CRASH, "SIGSEGV", pid));
    pass(k, 60 * SECOND_US);
    CHECK_EQ_INT(k->sum, 200);
    close_kit(k);
}

TEST(a_python_trace_and_the_exit_behind_it_are_one)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, say("python", "ValueError", 42, "x"));
    watcher_report(k->watcher, make(OS_PROCESS_EXIT, "exit", 42));
    watcher_report(k->watcher, make(OS_PROCESS_EXIT, "exit", 43)); /* of another */
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 2);
    CHECK_EQ_STR(k->told[0].type, "ValueError");
    CHECK_EQ_INT(k->told[1].pid, 43);
    close_kit(k);
}

TEST(an_exit_noticed_before_its_trace_is_taken_into_it)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, make(OS_PROCESS_EXIT, "exit", 42));
    watcher_report(k->watcher, say("python", "ValueError", 42, "x"));
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 1);
    CHECK_EQ_STR(k->told[0].type, "ValueError");
    CHECK_EQ_STR(k->told[0].tags[0].key, "also");
    close_kit(k);
}

TEST(last_words_become_the_crashs_message)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, say("c++", "std::out_of_range", 0, "__n (which is 7)"));
    struct os_exception *crash = make(OS_CRASH, "SIGABRT", 42);
    crash->signal = 6;
    watcher_report(k->watcher, crash);
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 1);
    CHECK_EQ_STR(k->told[0].message, "std::out_of_range: __n (which is 7)");
    CHECK_EQ_STR(k->told[0].template, "std::out_of_range: __n (which is <n>)");
    close_kit(k);
}

TEST(last_words_without_a_crash_are_told_by_themselves)
{
    struct kit *k = open_kit();
    watcher_report(k->watcher, say("sanitizer", "AddressSanitizer: SEGV", 42, "x"));
    struct os_exception *crash = make(OS_CRASH, "SIGSEGV", 43);
    crash->signal = 11;
    watcher_report(k->watcher, crash);
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 2);
    close_kit(k);
}

TEST(what_was_logged_before_a_crash_is_not_lost_in_it)
{
    struct kit *k = open_kit();
    struct os_exception *crash = make(OS_CRASH, "SIGSEGV", 42);
    crash->signal = 11;
    watcher_report(k->watcher, crash);
    for (int i = 0; i < 10; i++) /* read only now */
        watcher_report(k->watcher, say("java", "java.io.IOException", 42, "x"));
    pass(k, 5 * SECOND_US);
    CHECK_EQ_INT(k->sum, 11);
    close_kit(k);
}
