/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks from a process to the text that a person reads: grouping and writing on made-up stacks,
 * then whole captures of victims.
 */
#include "agent/os/stacks.h"

#include <sys/ptrace.h>

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
            set->places[thread->first + k] =
                (struct unwind_place){.pc = stacks[kind][k], .exact = k == 0};
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
                             "0x000000010000-0x000000019000 - /opt/\\x1b[31mold.so\n";

static const char golden_folded[] = "a\\x1bpp;root;small;evil:na\\x1bme;leaf 3\n"
                                    "a\\x1bpp;old.so+0x40;evil:na\\x1bme;leaf 1\n"
                                    "a\\x1bpp;evil:na\\x1bme;leaf 1\n";

static const struct stacks_head head = {.kind = "stacks",
                                        .process = "a\x1bpp",
                                        .pid = 77,
                                        .wall_us = 1795442525123000,
                                        .paused = true,
                                        .pause_us = 210,
                                        .expected_us = 320,
                                        .threads = 5,
                                        .missing = "nothing much"};

static void check_form(stacks_write_fn write, const char *expected)
{
    struct stacks_set set;
    struct buf out;
    size_t left_out = 9;
    const struct unwind_module modules[] = {app, plain};
    make_set(&set);
    name_set(&set);
    buf_init(&out, TEXT_MAX);
    CHECK_EQ_INT(write(&set, &head, modules, 2, &out, &left_out), 0);
    CHECK_EQ_INT(left_out, 0);
    CHECK_EQ_STR(buf_str(&out), expected);
    buf_done(&out);
    stacks_set_done(&set);
}

TEST(the_text_is_as_documented)
{
    check_form(stacks_write, golden);
}

TEST(the_folded_form_is_as_flame_graph_tools_read_it)
{
    check_form(stacks_write_folded, golden_folded);
}

/* However little room there is: valid to the end, whole groups. */
TEST(json_that_does_not_fit_is_cut_between_groups)
{
    struct stacks_set set;
    const struct unwind_module modules[] = {app, plain};
    size_t seen[5] = {0, 0, 0, 0, 0};
    make_set(&set);
    name_set(&set);
    for (size_t limit = 200; limit < 3600; limit++) {
        struct buf out;
        size_t left_out = 0;
        buf_init(&out, limit);
        int rc = stacks_write_json(&set, &head, modules, 2, &out, &left_out);
        if (rc == 0) {
            const char *text = buf_str(&out);
            char expected[64];
            snprintf(expected, sizeof expected, "],\"groups_left_out\":%zu}\n", left_out);
            CHECK(strcmp(text + out.size_bytes - strlen(expected), expected) == 0);
            CHECK(strncmp(text, "{\"kind\":\"stacks\",\"process\":\"a\\u001bpp\",", 38) == 0);
        }
        seen[rc ? 4 : left_out]++;
        buf_done(&out);
    }
    CHECK(seen[0] && seen[1] && seen[2] && seen[3] && seen[4]);
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

/* A Python function counts by its file's base name and its own: neither line nor folder. */
TEST(a_python_function_is_the_same_wherever_its_file_lies)
{
    static const char *const files[] = {"/opt/a/app.py", "/srv/b/app.py", "/srv/b/other.py"};
    uint8_t signatures[3][16];
    for (int i = 0; i < 3; i++) {
        struct stacks_set set;
        make_set(&set);
        for (size_t k = 0; k < set.known_count; k++) {
            struct unwind_frame frame = {
                .kind = UNWIND_PYTHON, .function = "f", .file = files[i], .line = 10 + i};
            REQUIRE(stacks_set_names(&set, k, &frame, 1) == 0);
        }
        stacks_signature(&set, &set.threads[0], signatures[i]);
        stacks_set_done(&set);
    }
    CHECK_EQ_MEM(signatures[0], signatures[1], 16);
    CHECK(memcmp(signatures[0], signatures[2], 16) != 0);
}

/* ---- whole captures ---- */

#define FILES 3

/* What a capture gave: txt, folded, json. */
struct given {
    struct buf file[FILES];
    char endings[64];
    int next;
    int refuse; /* error for the first file; 0: none */
    struct os_result result;
    struct failure failure;
};

static struct given given;

static int begin(void *context, const char *ending, struct failure *f)
{
    struct given *g = context;
    if (g->refuse)
        return fail(f, g->refuse, "no room");
    REQUIRE(g->next < FILES);
    g->next++;
    strncat(g->endings, ending, 15);
    strncat(g->endings, " ", 2);
    return 0;
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    struct given *g = context;
    (void)f;
    return buf_append_span(&g->file[g->next - 1], bytes);
}

static void forget(void)
{
    for (int i = 0; i < FILES; i++)
        buf_done(&given.file[i]);
    memset(&given, 0, sizeof given);
}

typedef int (*capture_fn)(const struct os_take *take, const struct os_output *out,
                          struct os_result *result, struct failure *f);

static int capture_by(capture_fn kind, const struct victim *v, uint32_t pause_max_us)
{
    struct os_costs costs;
    struct os_take take = {.process = v->process, .pause_max_us = pause_max_us, .costs = &costs};
    struct os_output out = {begin, write_bytes, &given};
    int refuse = given.refuse;
    os_costs_default(&costs);
    forget();
    given.refuse = refuse;
    for (int i = 0; i < FILES; i++)
        buf_init(&given.file[i], TEXT_MAX);
    return kind(&take, &out, &given.result, &given.failure);
}

static int capture(const struct victim *v, uint32_t pause_max_us)
{
    return capture_by(os_stacks_capture, v, pause_max_us);
}

static const char *text(void)
{
    return buf_str(&given.file[0]);
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
                                        NULL};
    victim_start(&v, "threads", "3", NULL);
    victim_settle(&v);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), 0);
    CHECK_EQ_STR(given.failure.text, "");
    CHECK(in_order(text(), words));
    CHECK_EQ_INT(given.result.threads, 4);
    CHECK_EQ_INT(given.result.threads_missed, 0);
    CHECK(given.result.paused && given.result.pause_us > 0);
    CHECK_EQ_STR(given.result.missing, "");
    CHECK_EQ_INT(given.result.top_count, 2);
    CHECK_EQ_INT(given.result.tops[0].threads, 3);
    CHECK_EQ_STR(given.endings, "txt folded json ");
    CHECK(strstr(buf_str(&given.file[1]), ";sleeper;victim_outer;victim_middle;victim_inner;"));
    CHECK(strstr(buf_str(&given.file[2]), "\"function\":\"victim_inner\""));
    CHECK(strstr(given.result.tops[0].frames, ";victim_inner;victim_middle;victim_outer;") != NULL);
    victim_check_free(&v);
    victim_end(&v);
}

TEST_LIMIT(two_processes_of_one_program_have_one_signature, 60)
{
    struct os_result results[2];
    for (int i = 0; i < 2; i++) {
        struct victim v;
        victim_start(&v, "threads", "2", NULL);
        victim_settle(&v);
        CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), 0);
        results[i] = given.result;
        victim_end(&v);
    }
    CHECK_EQ_MEM(results[0].tops[0].signature, results[1].tops[0].signature, 16);
    CHECK(memcmp(results[0].tops[0].signature, results[0].tops[1].signature, 16) != 0);
}

TEST_LIMIT(two_hundred_threads_are_captured, 60)
{
    struct victim v;
    victim_start(&v, "threads", "199", NULL);
    victim_settle(&v);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), 0);
    CHECK_EQ_INT(given.result.threads, 200);
    CHECK_EQ_INT(given.result.tops[0].threads, 199);
    CHECK(strstr(text(), "and 191 more\n") != NULL);
    printf("      pause %llu us\n", (unsigned long long)given.result.pause_us);
    victim_end(&v);
}

TEST(a_pause_that_would_be_too_long_is_refused)
{
    struct victim v;
    victim_start(&v, "threads", "100", NULL);
    CHECK_EQ_INT(capture(&v, 2000), ERR_REFUSED);
    CHECK(strncmp(given.failure.text, "pause would be ", 15) == 0);
    CHECK(strstr(given.failure.text, "limit 2.0 ms: --pause-max allows more, 'stacks0' stops "
                                     "nothing") != NULL);
    CHECK_EQ_INT(given.next, 0);
    CHECK_EQ_INT(given.file[0].size_bytes, 0);
    CHECK(!given.result.paused);
    victim_end(&v);
}

TEST(a_process_that_is_gone_is_said_to_be)
{
    struct victim v;
    victim_start(&v, "idle", NULL, NULL);
    victim_end(&v);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), ERR_GONE);
    CHECK(given.failure.text[0] != '\0');
    CHECK_EQ_INT(given.file[0].size_bytes, 0);
}

TEST(what_did_not_stop_is_named)
{
    struct victim v;
    victim_start(&v, "vfork", NULL, NULL);
    victim_await(&v, 'D');
    victim_await(&v, 'S');
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), 0);
    CHECK_EQ_INT(given.result.threads, 1);
    CHECK_EQ_INT(given.result.threads_missed, 1);
    CHECK(strstr(given.result.missing, "'forker' did not stop in time: state D in ") != NULL);
    CHECK(strstr(text(), "missing: thread ") != NULL);
    victim_check_free(&v);
    victim_end(&v);
}

TEST(an_output_that_fails_ends_it)
{
    struct victim v;
    victim_start(&v, "threads", "3", NULL);
    given.refuse = ERR_FULL;
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), ERR_FULL);
    CHECK_EQ_STR(given.failure.text, "no room");
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
    victim_settle(&v);
    for (int i = 0; i < 50; i++) {
        int traced;
        pid_t worker = fork();
        if (worker == 0) {
            for (;;)
                capture(&v, PAUSE_MAX_US);
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

/* ---- stacks0 ---- */

TEST_LIMIT(stacks_are_the_same_without_a_stop, 60)
{
    struct victim v;
    uint8_t signatures[2][16];
    victim_start(&v, "threads", "5", NULL);
    victim_settle(&v);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), 0);
    memcpy(signatures[0], given.result.tops[0].signature, 16);
    CHECK_EQ_INT(capture_by(os_stacks0_capture, &v, PAUSE_MAX_US), 0);
    memcpy(signatures[1], given.result.tops[0].signature, 16);
    CHECK_EQ_MEM(signatures[0], signatures[1], 16);
    CHECK_EQ_INT(given.result.tops[0].threads, 5);
    CHECK_EQ_INT(given.result.threads, 6);
    CHECK_EQ_INT(given.result.threads_missed, 0);
    CHECK(!given.result.paused);
    CHECK_EQ_INT(given.result.pause_us, 0);
    CHECK_EQ_INT(given.result.expected_us, 0);
    CHECK(strstr(given.result.missing, "frames of") == NULL);
    CHECK_EQ_STR(given.endings, "txt folded json ");
    CHECK(strstr(text(), "6 threads, not stopped\n") != NULL);
    victim_end(&v);
}

TEST(a_thread_on_a_processor_is_said_to_run)
{
    struct victim v;
    victim_start(&v, "threads", "2", "1");
    victim_settle_but(&v, 1);
    CHECK_EQ_INT(capture_by(os_stacks0_capture, &v, PAUSE_MAX_US), 0);
    CHECK_EQ_INT(given.result.threads, 4);
    CHECK_EQ_INT(given.result.threads_missed, 1);
    CHECK(strstr(given.result.missing, "frames of 1 thread: it was running") != NULL);
    CHECK(strstr(text(), "1 thread: heartbeat (") != NULL);
    CHECK(strstr(text(), "(no frames: it was running)") != NULL);
    CHECK(strstr(buf_str(&given.file[2]), "\"why_no_more\":\"it was running\"") != NULL);
    victim_end(&v);
}

/* A thread that wakes every few microseconds: whole or not at all, never a mixture. */
TEST_LIMIT(a_thread_that_moves_is_never_a_mixture, 60)
{
    struct victim v;
    int whole = 0, none = 0;
    victim_start(&v, "frames", "moving", NULL);
    for (int i = 0; i < 30; i++) {
        CHECK_EQ_INT(capture_by(os_stacks0_capture, &v, PAUSE_MAX_US), 0);
        const char *one = strstr(text(), " moving (");
        REQUIRE(one != NULL);
        bool is_whole = strstr(one, "odd_leaf+") && strstr(one, "odd_root+");
        is_whole |= strstr(one, "even_leaf+") && strstr(one, "even_root+");
        bool mixed = strstr(one, "odd_") && strstr(one, "even_");
        CHECK(!mixed);
        whole += is_whole;
        none += !is_whole;
    }
    printf("      %d whole, %d not\n", whole, none);
    victim_end(&v);
}

TEST(a_traced_process_is_looked_at_without_a_stop)
{
    struct victim v, gone;
    victim_start(&v, "threads", "2", NULL);
    REQUIRE(ptrace(PTRACE_SEIZE, v.pid, 0, 0) == 0);
    CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), ERR_REFUSED);
    CHECK_EQ_INT(capture_by(os_stacks0_capture, &v, PAUSE_MAX_US), 0);
    CHECK_EQ_INT(given.result.threads, 3);
    victim_end(&v);
    victim_start(&gone, "idle", NULL, NULL);
    victim_end(&gone);
    CHECK_EQ_INT(capture_by(os_stacks0_capture, &gone, PAUSE_MAX_US), ERR_GONE);
}

/* ---- odd stacks: tests/victims/frames.c ---- */

/* Captures a victim by both kinds; `words` must stand in both texts, in order. */
static void check_frames(const char *how, const char *const *words, const char *missing)
{
    static const capture_fn kinds[] = {os_stacks_capture, os_stacks0_capture};
    struct victim v;
    victim_start(&v, "frames", how, NULL);
    victim_settle(&v);
    for (size_t i = 0; i < 2; i++) {
        CHECK_EQ_INT(capture_by(kinds[i], &v, PAUSE_MAX_US), 0);
        CHECK(in_order(text(), words));
        CHECK(strstr(given.result.missing, missing) != NULL);
        /* Source lines may be given up on a slow machine, frames not. */
        CHECK(missing[0] || strstr(given.result.missing, "frames of") == NULL);
    }
    victim_check_free(&v);
    victim_end(&v);
}

TEST(a_signal_handler_stands_between_its_frames)
{
    static const char *const words[] = {"in_handler+", "on_signal+", "[signal handler called]",
                                        "raiser+",     " main+",     NULL};
    check_frames("signal", words, "");
}

TEST(a_handler_on_a_stack_of_its_own_leads_back)
{
    static const char *const words[] = {"in_handler+", "on_signal+", "[signal handler called]",
                                        "raiser+",     " main+",     NULL};
    check_frames("altstack", words, "");
}

TEST(a_stack_deeper_than_the_copy_says_so)
{
    static const char *const words[] = {"deep+", "deep+", "(no more frames: ", NULL};
    check_frames("deep", words, "frames of 1 thread: the stack goes on beyond what was copied");
}

TEST(more_frames_than_the_limit_are_said)
{
    static const char *const words[] = {"many+", "many+", "more frames than the limit", NULL};
    check_frames("many", words, "frames of 1 thread: more frames than the limit");
}

/* On the processor all the time: only a stop sees it. */
static void check_busy(const char *how, const char *const *words)
{
    struct victim v;
    bool found = false;
    victim_start(&v, "frames", how, NULL);
    for (int i = 0; i < 200 && !found; i++) {
        CHECK_EQ_INT(capture(&v, PAUSE_MAX_US), 0);
        found = strstr(text(), words[0]) != NULL;
    }
    CHECK(in_order(text(), words));
    CHECK(strstr(given.result.missing, "frames of") == NULL);
    victim_check_free(&v);
    victim_end(&v);
}

TEST_LIMIT(a_thread_in_the_vdso_is_unwound, 60)
{
    static const char *const words[] = {"([vdso]+", "asker+", " main+", NULL};
    check_busy("vdso", words);
}

TEST_LIMIT(a_thread_in_a_plt_stub_is_unwound, 60)
{
    static const char *const words[] = {"stub_caller+", " main+", NULL};
    check_busy("plt", words);
}

TEST(a_call_of_nothing_shows_its_caller)
{
    static const char *const words[] = {
        "in_handler+", "on_signal+", "[signal handler called]", "?? (0x0)", "caller_of_nothing+",
        " main+",      NULL};
    check_frames("null", words, "");
}
