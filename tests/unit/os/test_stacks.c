/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks from a process to the text that a person reads: grouping and writing on made-up stacks,
 * then whole captures of victims.
 */
#include "agent/os/stacks.h"

#include "agent/os/linux/stacks_text.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/os/victim.h"

#define TEXT_MAX (4u << 20)
#define PAUSE_MAX_US 1000000

/* ---- made-up stacks ---- */

static const struct unwind_module app = {.name = "app",
                                         .path = "/opt/app",
                                         .start = 0x1000,
                                         .end = 0x9000,
                                         .build_id = {0xab, 0xcd},
                                         .build_id_bytes = 2};
static const struct unwind_module plain = {
    .name = "old.so", .path = "/opt/\x1b[31mold.so", .start = 0x10000, .end = 0x19000};

/* Five threads: 1, 3 and 5 alike, 2 and 4 on their own. */
static void make_set(struct stacks_set *set)
{
    static const uint64_t stacks[3][3] = {
        {0x1010, 0x1020, 0x1030}, {0x1010, 0x1020, 0x10040}, {0x1010, 0x1020, 0}};
    memset(set, 0, sizeof *set);
    set->threads = calloc(5, sizeof *set->threads);
    set->places = calloc(15, sizeof *set->places);
    REQUIRE(set->threads && set->places);
    for (size_t i = 0; i < 5; i++) {
        size_t kind = i == 1 ? 1 : i == 3 ? 2 : 0;
        struct stacks_thread *thread = &set->threads[i];
        thread->tid = (pid_t)(i + 1);
        snprintf(thread->comm, sizeof thread->comm, "t%zu", i + 1);
        thread->first = i * 3;
        for (size_t k = 0; k < 3 && stacks[kind][k]; k++) {
            set->places[thread->first + k] = (struct unwind_place){stacks[kind][k], k == 0};
            thread->count++;
        }
    }
    set->thread_count = 5;
    REQUIRE(stacks_group(set, NULL) == 0);
}

static void name_set(struct stacks_set *set)
{
    static const char *const names[] = {"leaf@@V_1", "evil;na\x1bme", "root"};
    for (size_t i = 0; i < set->known_count; i++) {
        uint64_t pc = set->known[i].place.pc;
        struct unwind_frame frame = {.module = pc < 0x10000 ? &app : &plain};
        frame.offset = pc - frame.module->start;
        if (pc < 0x10000) {
            frame.function = names[i];
            frame.function_offset = 4;
        }
        struct unwind_frame both[2] = {frame, frame};
        both[0].function = "small";
        both[0].inlined = true;
        both[0].file = "small.c";
        both[0].line = 7;
        bool inlined = pc == 0x1030;
        REQUIRE(stacks_set_names(set, i, inlined ? both : &frame, inlined ? 2 : 1) == 0);
    }
    for (size_t i = 0; i < set->group_count; i++)
        stacks_signature(set, &set->threads[set->order[set->groups[i].first]],
                         set->groups[i].signature);
}

TEST(equal_stacks_are_brought_together)
{
    struct stacks_set set;
    make_set(&set);
    CHECK_EQ_INT(set.group_count, 3);
    CHECK_EQ_INT(set.groups[0].count, 3);
    CHECK_EQ_INT(set.threads[set.order[set.groups[0].first]].tid, 1);
    CHECK_EQ_INT(set.threads[set.order[set.groups[0].first + 2]].tid, 5);
    CHECK_EQ_INT(set.threads[set.order[set.groups[1].first]].tid, 2);
    CHECK_EQ_INT(set.threads[set.order[set.groups[2].first]].tid, 4);
    CHECK_EQ_INT(set.known_count, 4);
    stacks_set_done(&set);
}

static const char golden[] = "stacks of 'a\\x1bpp', pid 77, 2026-11-23T14:02:05.123Z\n"
                             "5 threads, pause 0.2 ms (expected 0.3 ms)\n"
                             "missing: nothing much\n"
                             "\n3 threads: t1 (1), t3 (3), t5 (5)\n"
                             "#0   leaf+0x4 (app+0x10)\n"
                             "#1   evil;na\\x1bme+0x4 (app+0x20)\n"
                             "#2   small at small.c:7 (inlined, app+0x30)\n"
                             "#3   root+0x4 (app+0x30)\n"
                             "\n1 thread: t2 (2)\n"
                             "#0   leaf+0x4 (app+0x10)\n"
                             "#1   evil;na\\x1bme+0x4 (app+0x20)\n"
                             "#2   ?? (old.so+0x40)\n"
                             "\n1 thread: t4 (4)\n"
                             "#0   leaf+0x4 (app+0x10)\n"
                             "#1   evil;na\\x1bme+0x4 (app+0x20)\n"
                             "\n--- modules ---\n"
                             "0x000000001000-0x000000009000 abcd /opt/app\n"
                             "0x000000010000-0x000000019000 - /opt/\\x1b[31mold.so\n"
                             "\n--- folded ---\n"
                             "a\\x1bpp;root;small;evil:na\\x1bme;leaf 3\n"
                             "a\\x1bpp;old.so+0x40;evil:na\\x1bme;leaf 1\n"
                             "a\\x1bpp;evil:na\\x1bme;leaf 1\n";

static const struct stacks_head head = {.process = "a\x1bpp",
                                        .pid = 77,
                                        .wall_us = 1795442525123000,
                                        .pause_us = 210,
                                        .expected_us = 320,
                                        .threads = 5,
                                        .missing = "nothing much"};

TEST(the_text_is_as_documented)
{
    struct stacks_set set;
    struct buf out;
    size_t left_out = 9;
    const struct unwind_module modules[] = {app, plain};
    make_set(&set);
    name_set(&set);
    buf_init(&out, TEXT_MAX);
    CHECK_EQ_INT(stacks_write(&set, &head, modules, 2, &out, &left_out), 0);
    CHECK_EQ_INT(left_out, 0);
    CHECK_EQ_STR(buf_str(&out), golden);
    buf_done(&out);
    stacks_set_done(&set);
}

/* However little room there is: whole groups, never half of one. */
TEST(a_text_that_does_not_fit_is_cut_between_groups)
{
    struct stacks_set set;
    const struct unwind_module modules[] = {app, plain};
    size_t seen[4] = {0, 0, 0, 0};
    make_set(&set);
    name_set(&set);
    for (size_t limit = 1; limit < sizeof golden + 8; limit++) {
        struct buf out;
        size_t left_out = 0;
        buf_init(&out, limit);
        int rc = stacks_write(&set, &head, modules, 2, &out, &left_out);
        CHECK(rc == 0 || rc == ERR_LIMIT);
        CHECK(rc == 0 || out.size_bytes == 0);
        CHECK(strncmp(buf_str(&out), golden, out.size_bytes) == 0);
        CHECK(out.size_bytes == 0 || out.data[out.size_bytes - 1] == '\n');
        seen[rc == 0 ? left_out : 3]++;
        buf_done(&out);
    }
    CHECK(seen[0] && seen[1] && seen[2] && seen[3]);
    stacks_set_done(&set);
}

/*
 * What a signature stands for must never change: records on many hosts are compared by it. The
 * values are those of another implementation.
 */
TEST(a_signature_is_of_module_and_offset)
{
    struct stacks_set set;
    char text[33];
    struct os_result result = {.pause_us = 0};
    make_set(&set);
    name_set(&set);
    stacks_tops(&set, &result);
    REQUIRE(result.top_count == 3);
    text_put_hex(result.tops[0].signature, 16, text);
    CHECK_EQ_STR(text, "079ba7e7c5256048edbf1b38c19392fb");
    text_put_hex(result.tops[1].signature, 16, text);
    CHECK_EQ_STR(text, "858c3670a61b0bb3294117c9c3f13382");
    CHECK_EQ_INT(result.tops[0].threads, 3);
    CHECK_EQ_STR(result.tops[0].frames, "leaf;evil:na\x1bme;small;root");
    CHECK_EQ_STR(result.tops[1].frames, "leaf;evil:na\x1bme;old.so+0x40");
    stacks_set_done(&set);
}

/* ---- whole captures ---- */

static int capture(const struct victim *v, uint32_t pause_max_us, struct buf *out,
                   struct os_result *result, struct failure *f)
{
    buf_init(out, TEXT_MAX);
    return os_stacks_capture(&v->process, pause_max_us, out, result, f);
}

/* Whether the words stand in the text one after the other. */
static bool in_order(const char *text, const char *const *words)
{
    for (; *words; words++) {
        text = strstr(text, *words);
        if (!text) {
            printf("      not found in its place: %s\n", *words);
            return false;
        }
        text += strlen(*words);
    }
    return true;
}

TEST(nested_functions_are_named)
{
    struct victim v;
    struct buf out;
    struct os_result result;
    struct failure f = {0, ""};
    static const char *const words[] = {"stacks of 'threads'",
                                        "4 threads, pause",
                                        "3 threads: sleeper (",
                                        "victim_inner+0x",
                                        "threads.c:",
                                        "(threads+0x",
                                        "victim_middle+0x",
                                        "victim_outer+0x",
                                        "sleeper+0x",
                                        "1 thread: threads (",
                                        " main+0x",
                                        "--- modules ---",
                                        "/threads\n",
                                        "--- folded ---",
                                        ";sleeper;victim_outer;victim_middle;",
                                        " 3\n",
                                        NULL};
    victim_start(&v, "threads", "3", NULL);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US, &out, &result, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK(in_order(buf_str(&out), words));
    CHECK_EQ_INT(result.threads, 4);
    CHECK_EQ_INT(result.threads_missed, 0);
    CHECK(result.paused && result.pause_us > 0);
    CHECK_EQ_STR(result.missing, "");
    CHECK_EQ_INT(result.top_count, 2);
    CHECK_EQ_INT(result.tops[0].threads, 3);
    CHECK(strstr(result.tops[0].frames, ";victim_inner;victim_middle;victim_outer;") != NULL);
    victim_check_free(&v);
    buf_done(&out);
    victim_end(&v);
}

TEST(two_processes_of_one_program_have_one_signature)
{
    struct os_result results[2];
    for (int i = 0; i < 2; i++) {
        struct victim v;
        struct buf out;
        victim_start(&v, "threads", "2", NULL);
        CHECK_EQ_INT(capture(&v, PAUSE_MAX_US, &out, &results[i], NULL), 0);
        buf_done(&out);
        victim_end(&v);
    }
    CHECK_EQ_MEM(results[0].tops[0].signature, results[1].tops[0].signature, 16);
    CHECK(memcmp(results[0].tops[0].signature, results[0].tops[1].signature, 16) != 0);
}

TEST_LIMIT(two_hundred_threads_are_captured, 60)
{
    struct victim v;
    struct buf out;
    struct os_result result;
    struct failure f = {0, ""};
    victim_start(&v, "threads", "199", NULL);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US, &out, &result, &f), 0);
    CHECK_EQ_INT(result.threads, 200);
    CHECK_EQ_INT(result.tops[0].threads, 199);
    CHECK(strstr(buf_str(&out), "and 191 more\n") != NULL);
    printf("      pause %llu us\n", (unsigned long long)result.pause_us);
    buf_done(&out);
    victim_end(&v);
}

TEST(a_pause_that_would_be_too_long_is_refused)
{
    struct victim v;
    struct buf out;
    struct os_result result;
    struct failure f = {0, ""};
    victim_start(&v, "threads", "100", NULL);
    CHECK_EQ_INT(capture(&v, 2000, &out, &result, &f), ERR_REFUSED);
    CHECK(strncmp(f.text, "pause would be ", 15) == 0);
    CHECK(strstr(f.text, "limit ") != NULL);
    CHECK_EQ_INT(out.size_bytes, 0);
    CHECK(!result.paused);
    buf_done(&out);
    victim_end(&v);
}

TEST(a_process_that_is_gone_is_said_to_be)
{
    struct victim v;
    struct buf out;
    struct os_result result;
    struct failure f = {0, ""};
    victim_start(&v, "idle", NULL, NULL);
    victim_end(&v);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US, &out, &result, &f), ERR_GONE);
    CHECK(f.text[0] != '\0');
    CHECK_EQ_INT(out.size_bytes, 0);
    buf_done(&out);
}

TEST(what_did_not_stop_is_named)
{
    struct victim v;
    struct buf out;
    struct os_result result;
    struct failure f = {0, ""};
    victim_start(&v, "vfork", NULL, NULL);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US, &out, &result, &f), 0);
    CHECK_EQ_INT(result.threads, 1);
    CHECK_EQ_INT(result.threads_missed, 1);
    CHECK(strstr(result.missing, "'forker' did not stop in time: state D in ") != NULL);
    CHECK(strstr(buf_str(&out), "missing: thread ") != NULL);
    victim_check_free(&v);
    buf_done(&out);
    victim_end(&v);
}

TEST(too_little_room_is_a_limit)
{
    struct victim v;
    struct buf out;
    struct os_result result;
    struct failure f = {0, ""};
    victim_start(&v, "threads", "3", NULL);
    buf_init(&out, 40);
    CHECK_EQ_INT(os_stacks_capture(&v.process, PAUSE_MAX_US, &out, &result, &f), ERR_LIMIT);
    buf_done(&out);
    buf_init(&out, 400);
    CHECK_EQ_INT(os_stacks_capture(&v.process, PAUSE_MAX_US, &out, &result, &f), 0);
    CHECK(strstr(result.missing, "text limit of 400 bytes") != NULL);
    buf_done(&out);
    victim_check_free(&v);
    victim_end(&v);
}

/* The whole of a capture, killed at any instant, as the broker does at the deadline. */
TEST_LIMIT(a_killed_capture_leaves_it_running, 60)
{
    struct victim v;
    unsigned seed = 11;
    char line[64];
    victim_start(&v, "threads", "20", NULL);
    for (int i = 0; i < 50; i++) {
        int traced;
        pid_t worker = fork();
        if (worker == 0) {
            struct buf out;
            struct os_result result;
            for (;;) {
                capture(&v, PAUSE_MAX_US, &out, &result, NULL);
                buf_done(&out);
            }
        }
        struct timespec t = {0, 1000000 + rand_r(&seed) % 30000000};
        nanosleep(&t, NULL);
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
        CHECK_EQ_INT(victim_count(&v, 't', &traced), 0);
        CHECK_EQ_INT(traced, 0);
    }
    victim_ask(&v, line, sizeof line);
    victim_end(&v);
}
