/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps that are refused, that go another way, or during which something happens: the victim is
 * unharmed, and what is said is true.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "common/port.h"
#include "tests/unit/os/core_reader.h"

/* ---- refusals ---- */

static void check_refused(capture_fn kind, bool live, bool allow_pause, uint32_t pause_max_us,
                          const char *words)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.live = live;
    take.allow_pause = allow_pause;
    take.pause_max_us = pause_max_us;
    CHECK_EQ_INT(capture(kind, &take, &file, &result, &f), ERR_REFUSED);
    CHECK(strstr(f.text, words) != NULL);
    CHECK(!result.paused && result.expected_us > pause_max_us);
    CHECK_EQ_INT(file.begun, 0);
    printf("      %s\n", f.text);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(a_pause_over_the_limit_is_refused)
{
    check_refused(os_core_capture, false, false, 100, "--live takes a core without a snapshot");
    check_refused(os_core_capture, true, false, 100, "--pause-max allows more");
    check_refused(os_mini_capture, false, false, 100, "--pause-max allows more");
}

TEST(a_slow_host_is_refused_what_a_fast_one_is_given)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.pause_max_us = 50000;
    costs.table_gib_us = 50000000; /* 8 MiB of page tables: 390 ms */
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "with --allow-pause") != NULL);
    printf("      %s\n", f.text);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

/* ---- where no snapshot is possible ---- */

/* A system call filter that allows everything: what it would do to an injected call is not known.
 */
static char much[8 << 20];

static void start_filtered(struct victim *v)
{
    int out[2];
    char byte;
    memset(v, 0, sizeof *v);
    REQUIRE(pipe(out) == 0);
    v->pid = fork();
    if (v->pid == 0) {
        struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
        struct sock_fprog program = {1, &allow};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(much, 1, sizeof much);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
            _exit(1);
        (void)!write(out[1], "r", 1);
        for (;;)
            pause();
    }
    close(out[1]);
    REQUIRE(read(out[0], &byte, 1) == 1);
    close(out[0]);
    REQUIRE(os_process_get("", (uint32_t)v->pid, &v->process, NULL) == 0);
    victim_settle(v);
}

static void end_filtered(struct victim *v)
{
    victim_check_free(v);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
}

TEST(without_a_snapshot_the_other_ways_are_named)
{
    struct victim v;
    struct os_result result;
    struct failure f;
    start_filtered(&v);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.allow_pause = false;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "seccomp") != NULL);
    CHECK(strstr(f.text, "--live") != NULL && strstr(f.text, "--allow-pause") != NULL);
    CHECK(!result.paused && file.begun == 0);
    printf("      %s\n", f.text);
    end_filtered(&v);
    file_done(&file);
}

/* Written by a thread of its own, while the one that holds waits. */
static void is_held(const struct file *file)
{
    struct victim v = {.pid = file->pid};
    int traced;
    CHECK_EQ_INT(victim_count(&v, 't', &traced), 1);
    CHECK_EQ_INT(traced, 1);
}

static char known_text[32] = "as it was built";

TEST(a_process_may_be_held_while_it_is_written)
{
    struct victim v;
    struct os_result result;
    struct failure f;
    pid_t first = 0;
    snprintf(known_text, sizeof known_text, "%s", "as it is now");
    start_filtered(&v);
    struct file file = {.pid = v.pid, .on_first = is_held};
    struct os_take take = take_of(&v);
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK(strstr(result.missing, "the process was held") != NULL);
    check_shape(&file);
    CHECK_EQ_INT(count_threads(&file, &first), 1);
    CHECK_TEXT(&file, (uintptr_t)known_text, "as it is now");
    end_filtered(&v);
    file_done(&file);
}

/* A reader that does not read before the process is let go: it must not hold it. */
static void wait_for_release(const struct file *file)
{
    struct victim v = {.pid = file->pid};
    int traced = 1;
    for (int i = 0; i < VICTIM_AWAIT_MS && traced > 0; i++) {
        nap_ms(1);
        victim_count(&v, 't', &traced);
    }
    CHECK_EQ_INT(traced, 0);
}

TEST(a_held_process_is_released_in_time)
{
    struct victim v;
    struct os_result result;
    struct failure f;
    start_filtered(&v);
    struct file file = {.pid = v.pid, .on_first = wait_for_release};
    struct os_take take = take_of(&v);
    take.pause_max_us = 500000;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_TIMEOUT);
    CHECK(result.pause_us >= 500000);
    printf("      %s; pause %llu us\n", f.text, (unsigned long long)result.pause_us);
    end_filtered(&v);
    file_done(&file);
}

/* ---- what may happen meanwhile ---- */

static void check_broken_reader(bool live)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .limit = 3 << 20};
    struct os_take take = take_of(&v);
    take.live = live;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_CLOSED);
    CHECK_EQ_STR(f.text, "reader has gone");
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(the_reader_may_go_away)
{
    check_broken_reader(false);
    check_broken_reader(true);
}

static uint64_t reader_until_us;

static void wait_too_long(const struct file *file)
{
    (void)file;
    while (port_mono_us() < reader_until_us)
        nap_ms(10);
}

/* At its deadline the worker is killed; before that, it gives up by itself and tidies up. */
TEST(it_gives_up_before_its_deadline)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .on_first = wait_too_long};
    struct os_take take = take_of(&v);
    take.deadline_mono_us = reader_until_us = port_mono_us() + 5000000;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_TIMEOUT);
    CHECK(strstr(f.text, "no time left after 1.0 MiB") != NULL);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(a_stopped_process_is_shown_as_stopped)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    int status, traced;
    start_memory(&v, "1", "3", &places);
    kill(v.pid, SIGSTOP);
    REQUIRE(waitpid(v.pid, &status, WUNTRACED) == v.pid && WIFSTOPPED(status));
    struct file file = {.pid = v.pid, .signal = SIGSTOP};
    struct os_take take = take_of(&v);
    pid_t first = 0;
    CHECK_EQ_INT(capture(os_mini_capture, &take, &file, &result, &f), 0);
    CHECK_EQ_INT(count_threads(&file, &first), 4);
    victim_await_many(&v, 'T', 4);
    victim_count(&v, 'T', &traced);
    CHECK_EQ_INT(traced, 0);
    kill(v.pid, SIGCONT);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

static void kill_it(const struct file *file)
{
    kill(file->pid, SIGKILL);
    for (int i = 0; i < VICTIM_AWAIT_MS; i++) {
        struct os_process now;
        if (os_process_get("", (uint32_t)file->pid, &now, NULL) != 0)
            return;
        nap_ms(1);
    }
}

/* A live core cannot go on; zeros must not be taken for memory. */
TEST(it_may_end_while_a_live_core_is_read)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .on_first = kill_it};
    struct os_take take = take_of(&v);
    take.live = true;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_GONE);
    printf("      %s\n", f.text);
    victim_end(&v);
    file_done(&file);
}

/* The snapshot makes way for the process's successor; unless it was read to its end already, and
 * then it is whole. */
TEST(it_may_end_while_its_snapshot_is_read)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .on_first = kill_it};
    struct os_take take = take_of(&v);
    int rc = capture(os_core_capture, &take, &file, &result, &f);
    if (rc == 0) {
        check_core(&file, &places);
    } else {
        CHECK_EQ_INT(rc, ERR_GONE);
        CHECK(strstr(f.text, "process ended while its core was read") != NULL);
    }
    victim_end(&v);
    file_done(&file);
}

static void is_running(const struct file *file)
{
    struct victim v = {.pid = file->pid};
    victim_check_free(&v);
}

/* Not one byte is written while it stands still. */
TEST(nothing_is_written_before_it_is_released)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    static const struct {
        capture_fn kind;
        bool live;
    } cases[] = {{os_mini_capture, false}, {os_core_capture, false}, {os_core_capture, true}};
    for (size_t i = 0; i < 3; i++) {
        start_memory(&v, "1", "3", &places);
        struct file file = {.pid = v.pid, .on_first = is_running};
        struct os_take take = take_of(&v);
        take.live = cases[i].live;
        CHECK_EQ_INT(capture(cases[i].kind, &take, &file, &result, &f), 0);
        victim_end(&v);
        file_done(&file);
    }
}
