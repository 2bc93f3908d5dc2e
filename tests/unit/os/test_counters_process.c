/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of processes: which are followed, starts and exits, pids in use again, and values that
 * need privilege; on recorded and hand-made trees and with a real process.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/os/sampler.h"

/* ---- processes ---- */

static void put_stat(const char *root, uint32_t pid, const char *name, uint64_t ticks,
                     uint64_t start)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    tree_print(root, path,
               "%u (%s) S 1 %u %u 0 -1 4194304 10 0 1 0 %llu 0 0 0 20 0 1 0 %llu 4096 7 0\n", pid,
               name, pid, pid, (unsigned long long)ticks, (unsigned long long)start);
}

static void put_process(const char *root, uint32_t pid, const char *name, uint64_t ticks)
{
    char path[64];
    put_stat(root, pid, name, ticks, 1000 + pid);
    snprintf(path, sizeof path, "/proc/%u/task/%u/schedstat", pid, pid);
    tree_print(root, path, "%llu000 5000 %llu\n", (unsigned long long)ticks,
               (unsigned long long)ticks + 1);
    snprintf(path, sizeof path, "/proc/%u/io", pid);
    tree_write(root, path, "read_bytes: 11\nwrite_bytes: 22\n");
}

/* Makes the reader list processes anew: it does so when the kernel counts a fork. */
static void put_forks(const char *root, int forks)
{
    tree_print(root, "/proc/stat", "cpu  1 1 1 1 1\nprocesses %d\n", forks);
}

static const char *small_tree(void)
{
    const char *root = tree_make();
    put_forks(root, 1);
    tree_write(root, "/proc/loadavg", "0.00 0.00 0.00 1/91 11898\n");
    return root;
}

TEST(a_recorded_process_has_all_its_counters)
{
    static const char *const names[] = {"redis-server", NULL};
    open_counters(tree_copy("web1"), names, 0);
    sample();
    REQUIRE(is_followed("redis-server", 1200));
    struct row *switches = find_of("process.context_switches", "redis-server", 1200);
    struct row *delay = find_of("process.runqueue_delay", "redis-server", 1200);
    struct row *threads = find_of("process.threads", "redis-server", 1200);
    struct row *rss = find_of("process.rss", "redis-server", 1200);
    struct row *fds = find_of("process.fds", "redis-server", 1200);
    REQUIRE(switches && delay && threads && rss && fds);
    CHECK(switches->value > 5); /* of five threads */
    CHECK(delay->value > 0);
    CHECK_EQ_INT(threads->value, 5);
    CHECK(rss->value > 1000000);
    CHECK(fds->has_gap);
    CHECK(find_of("process.read_bytes", "redis-server", 1200)->has_value);
    CHECK(!is_followed("python3", 700));
    CHECK_EQ_INT(number("processes.followed", ""), 1);
    CHECK_EQ_INT(number("processes.count", ""), 7);
    os_counters_close(counters);
}

TEST(a_name_that_the_kernel_cut_is_completed)
{
    static const char *const names[] = {"very-long-process-name", "python3.11", NULL};
    open_counters(tree_copy("web1"), names, 0);
    sample();
    CHECK(is_followed("very-long-process-name", 600));
    CHECK(is_followed("python3", 700)); /* asked for by its executable's name */
    os_counters_close(counters);
}

TEST(damaged_records_hurt_nobody_else)
{
    open_counters(tree_copy("web1"), NULL, 50);
    sample();
    CHECK(is_followed("odd) (na\nme S 9", 77));
    CHECK(is_followed("huge", 303));
    CHECK(!is_followed("cut off", 300));
    CHECK(!is_followed("kworker/0:1-events", 45)); /* of the kernel */
    CHECK(!is_followed("ended", 500));
    struct row *user = find_of("process.cpu_user", "huge", 303);
    struct row *rss = find_of("process.rss", "huge", 303);
    struct row *reads = find_of("process.read_bytes", "huge", 303);
    REQUIRE(user && reads);
    CHECK_EQ_STR(user->reason, "number is out of range");
    CHECK(!rss || rss->has_gap);
    CHECK(reads->has_gap);
    for (int i = 0; i < 15; i++)
        sample();
    os_counters_close(counters);
}

TEST(starts_and_exits_are_told_after_the_first_scan)
{
    const char *root = small_tree();
    put_process(root, 10, "first", 100);
    tree_write(root, "/proc/11/stat",
               "11 (kthread) I 2 0 0 0 -1 2097216 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0\n");
    open_counters(root, NULL, 5);
    sample();
    CHECK_EQ_STR(sampler.events, "");
    CHECK(is_followed("first", 10));
    put_process(root, 20, "second", 1);
    tree_write(root, "/proc/21/stat",
               "21 (kthread) I 2 0 0 0 -1 2097216 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0\n");
    put_forks(root, 2);
    sample();
    sample(); /* it is named when it has had a second to exec */
    CHECK_EQ_STR(sampler.events, "+20 second;");
    tree_remove(root, "/proc/10");
    tree_remove(root, "/proc/21");
    put_forks(root, 3);
    sample();
    CHECK_EQ_STR(sampler.events, "-10 first;");
    CHECK(!is_followed("first", 10));
    os_counters_close(counters);
}

TEST(a_pid_in_use_again_is_another_process)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    put_process(root, 10, "server", 100);
    open_counters(root, names, 0);
    sample();
    struct row *old = find_of("process.cpu_user", "server", 10);
    REQUIRE(old != NULL);
    put_stat(root, 10, "server", 5, 99999);
    tree_write(root, "/proc/10/task/10/schedstat", "1 1 1\n");
    sample();
    sample();
    CHECK_EQ_STR(sampler.events, "-10 server;+10 server;");
    struct row *new = find_of("process.cpu_user", "server", 10);
    REQUIRE(new != NULL);
    CHECK(old != new && old->retired);
    CHECK_EQ_INT(new->value, 50000);
    os_counters_close(counters);
}

TEST(after_exec_the_series_bear_the_new_name)
{
    static const char *const names[] = {"sh", NULL};
    const char *root = small_tree();
    put_process(root, 10, "sh", 100);
    open_counters(root, names, 0);
    sample();
    CHECK(is_followed("sh", 10));
    put_stat(root, 10, "java", 101, 1010);
    tree_write(root, "/proc/10/task/10/schedstat", "101000 5000 102\n");
    sample();
    CHECK(!is_followed("sh", 10));
    CHECK(is_followed("java", 10));
    os_counters_close(counters);
}

TEST(the_busiest_are_followed_and_stay_for_a_minute)
{
    const char *root = small_tree();
    put_process(root, 10, "idle", 0);
    put_process(root, 20, "busy", 5000);
    put_process(root, 30, "middle", 700);
    open_counters(root, NULL, 1);
    sample();
    CHECK(is_followed("busy", 20)); /* by its life so far */
    CHECK(!is_followed("idle", 10) && !is_followed("middle", 30));
    /* Now the middle one works and the busy one rests. */
    for (uint64_t i = 1; i <= 40; i++) {
        put_process(root, 30, "middle", 700 + i * 50);
        sample();
    }
    CHECK(is_followed("busy", 20));
    CHECK(!is_followed("middle", 30));
    CHECK_EQ_INT(number("processes.left_out", ""), 1);
    for (uint64_t i = 41; i <= 90; i++) {
        put_process(root, 30, "middle", 700 + i * 50);
        sample();
    }
    CHECK(is_followed("middle", 30));
    CHECK(!is_followed("busy", 20));
    CHECK_EQ_INT(number("processes.left_out", ""), 0);
    os_counters_close(counters);
}

TEST(a_process_that_does_not_run_is_not_read_again_at_once)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    put_process(root, 8, "server", 100);
    open_counters(root, names, 0);
    sample();
    put_stat(root, 8, "server", 150, 1008); /* its scheduler statistics stand still */
    sample();
    CHECK_EQ_INT(find_of("process.cpu_user", "server", 8)->value, 1000000);
    for (int i = 0; i < 11; i++)
        sample();
    CHECK_EQ_INT(find_of("process.cpu_user", "server", 8)->value, 1500000);
    tree_write(root, "/proc/8/task/8/schedstat", "5000000 6000 300\n");
    put_stat(root, 8, "server", 160, 1008);
    sample();
    CHECK_EQ_INT(find_of("process.cpu_user", "server", 8)->value, 1600000);
    CHECK_EQ_INT(find_of("process.context_switches", "server", 8)->value, 300);
    CHECK_EQ_INT(find_of("process.runqueue_delay", "server", 8)->value, 6);
    os_counters_close(counters);
}

/* Taken back at the end, so that the tree can be removed. */
static void lose_privileges(void)
{
    if (geteuid() == 0)
        REQUIRE(seteuid(65534) == 0);
}

TEST(what_needs_privilege_is_asked_of_the_broker)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    char path[TREE_PATH];
    uint32_t pids[4];
    put_process(root, 10, "server", 100);
    tree_path(path, root, "/proc/10/io");
    REQUIRE(chmod(path, 0) == 0);
    lose_privileges();
    open_counters(root, names, 0);
    sample();
    struct row *reads = find_of("process.read_bytes", "server", 10);
    REQUIRE(reads && reads->has_gap);
    CHECK(strstr(reads->reason, "/proc/10/io': permission denied") != NULL);
    REQUIRE(os_counters_want_io(counters, pids, 4) == 1);
    CHECK_EQ_INT(pids[0], 10);
    struct os_process_io io = {.pid = 10, .read_bytes = 4096, .write_bytes = 8192};
    os_counters_give_io(counters, &io, 1);
    sample();
    CHECK(reads->has_value);
    CHECK_EQ_INT(reads->value, 4096);
    io = (struct os_process_io){.pid = 10, .error = ESRCH};
    os_counters_give_io(counters, &io, 1);
    io.pid = 999; /* not ours */
    os_counters_give_io(counters, &io, 1);
    sample();
    CHECK(reads->has_gap);
    os_counters_close(counters);
    REQUIRE(seteuid(getuid()) == 0);
}

TEST(the_broker_is_asked_for_all_in_turns)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    uint32_t pid, sum = 0;
    for (uint32_t i = 11; i <= 13; i++) {
        char path[64], full[TREE_PATH];
        put_process(root, i, "server", 100);
        snprintf(path, sizeof path, "/proc/%u/io", i);
        tree_path(full, root, path);
        REQUIRE(chmod(full, 0) == 0);
    }
    lose_privileges();
    open_counters(root, names, 0);
    sample();
    for (int i = 0; i < 3; i++) {
        REQUIRE(os_counters_want_io(counters, &pid, 1) == 1);
        sum = sum * 100 + pid;
    }
    CHECK_EQ_INT(sum, 111213);
    CHECK_EQ_INT(os_counters_want_io(counters, &pid, 0), 0);
    os_counters_close(counters);
    REQUIRE(seteuid(getuid()) == 0);
}

TEST(a_missing_proc_is_a_reason)
{
    const char *root = tree_make();
    open_counters(root, NULL, 5);
    sample();
    CHECK(strstr(reason("processes.count", ""), "/proc'") != NULL);
    CHECK(strstr(reason("cpu.busy", ""), "/proc/stat'") != NULL);
    os_counters_close(counters);
}

/* ---- this machine ---- */

static pid_t start_sleeper(void)
{
    int ready[2];
    REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    char byte;
    close(ready[1]);
    (void)!read(ready[0], &byte, 1); /* ends at exec */
    close(ready[0]);
    return pid;
}

TEST(a_real_process_is_followed_until_it_ends)
{
    static const char *const names[] = {"sleep", NULL};
    pid_t pid = start_sleeper();
    open_counters("", names, 0);
    now_us = port_mono_us();
    sample();
    REQUIRE(is_followed("sleep", (uint32_t)pid));
    struct row *fds = find_of("process.fds", "sleep", (uint32_t)pid);
    struct row *rss = find_of("process.rss", "sleep", (uint32_t)pid);
    struct row *switches = find_of("process.context_switches", "sleep", (uint32_t)pid);
    REQUIRE(fds && rss && switches);
    CHECK(fds->has_gap || fds->value >= 1);
    CHECK(rss->value > 0);
    CHECK(switches->has_gap || switches->value > 0);
    REQUIRE(kill(pid, SIGKILL) == 0);
    REQUIRE(waitpid(pid, NULL, 0) == pid);
    sample();
    CHECK(rss->retired);
    sample();
    CHECK(!is_followed("sleep", (uint32_t)pid));
    os_counters_close(counters);
}
