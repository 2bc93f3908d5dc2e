/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot does to a process: nothing that it can notice but the moment. Deaths of the
 * worker in the middle of it are in test_snapshot_death.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "common/text.h"
#include "tests/unit/os/snapshot_kit.h"

#define TIMES 20

static void ask_registers(struct victim *v, const char *where)
{
    char line[512], *at = line;
    victim_ask(v, line, sizeof line);
    strtoul(at, &at, 10);
    unsigned long wrong = strtoul(at, &at, 10);
    unsigned long interrupted = strtoul(at, &at, 10);
    if (wrong || interrupted)
        printf("      %s: %s", where, line);
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(interrupted, 0);
}

static void take_often(const char *mode, const char *thread)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    victim_start(&v, "registers", mode, thread);
    for (int i = 0; i < TIMES; i++) {
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
        CHECK_EQ_STR(kit.f.text, "");
        ask_registers(&v, mode);
    }
    victim_check_free(&v);
    CHECK_EQ_INT(kit_zombies(&v), 0);
    victim_end(&v);
}

TEST_LIMIT(registers_are_as_they_were, 120)
{
    take_often("read", NULL);
    take_often("epoll", NULL);
    take_often("ppoll", NULL);
    take_often("poll", NULL);
    take_often("user", NULL);
}

TEST_LIMIT(registers_of_a_thread_are_as_they_were, 120)
{
    take_often("read", "thread");
    take_often("epoll", "thread");
    take_often("ppoll", "thread");
    take_often("poll", "thread");
    take_often("user", "thread");
}

/* Goroutines and coroutines stand in the heap, where what lies below is somebody's. */
TEST(a_stack_on_the_heap_is_never_written)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    victim_start(&v, "registers", "read", "heap");
    CHECK_EQ_INT(kit_take(&kit, &v.process), ERR_REFUSED);
    CHECK_EQ_STR(kit.f.text, "no snapshot is possible: no thread stands on a stack of its own; "
                             "--live takes a core without a snapshot");
    victim_check_free(&v);
    ask_registers(&v, "heap");
    victim_end(&v);
}

/* ---- system calls and signals ---- */

struct calls {
    unsigned long kinds, interrupted, other;
    char names[2048];
};

static void ask_calls(struct victim *v, struct calls *calls)
{
    char line[2200], *at = line;
    victim_settle(v); /* calls that were interrupted have returned when their threads sleep again */
    victim_ask(v, line, sizeof line);
    calls->kinds = strtoul(at, &at, 10);
    calls->interrupted = strtoul(at, &at, 10);
    calls->other = strtoul(at, &at, 10);
    snprintf(calls->names, sizeof calls->names, "%.*s", (int)strcspn(at, "\n"), at);
}

/* Each thread, which stands in a call of its own kind, is the one that is made to call clone(2),
 * and wait4(2). */
TEST_LIMIT(no_system_call_is_interrupted_by_the_one_that_is_injected, 120)
{
    struct victim v;
    struct calls calls;
    uint32_t *threads = NULL;
    size_t count = 0, taken = 0;
    char path[64];
    victim_start(&v, "syscalls", NULL, NULL);
    victim_settle(&v);
    snprintf(path, sizeof path, "/proc/%d/task", v.pid);
    REQUIRE(proc_numbers(path, &threads, &count, 1000, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        struct kit kit = {.clone_controls = {.only = (pid_t)threads[i]},
                          .reap_controls = {.only = (pid_t)threads[i]}};
        int rc = kit_take(&kit, &v.process);
        CHECK_EQ_INT(rc, 0);
        CHECK_EQ_STR(kit.f.text, "");
        taken += rc == 0;
    }
    free(threads);
    victim_check_free(&v);
    ask_calls(&v, &calls);
    CHECK(calls.kinds >= 30);
    CHECK(taken > calls.kinds);
    CHECK_EQ_INT(calls.interrupted, 0);
    CHECK_EQ_INT(calls.other, 0);
    CHECK_EQ_STR(calls.names, "");
    CHECK_EQ_INT(kit_zombies(&v), 0);
    printf("      %lu kinds, %zu threads\n", calls.kinds, taken);
    victim_end(&v);
}

TEST_LIMIT(no_signal_is_lost_and_no_child_is_seen, 120)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    char line[128], *at = line;
    unsigned passed = 0;
    victim_start(&v, "storm", NULL, NULL);
    for (int i = 0; i < 2 * TIMES || (passed == 0 && i < 50 * TIMES); i++) {
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
        passed += kit.stop.signals_passed;
    }
    victim_check_free(&v);
    CHECK_EQ_INT(kit_zombies(&v), 0);
    victim_ask(&v, line, sizeof line);
    unsigned long sent = strtoul(at, &at, 10);
    CHECK(sent > 100);
    CHECK(passed > 0);
    CHECK_EQ_INT(strtoul(at, &at, 10), sent);
    CHECK_EQ_INT(strtoul(at, &at, 10), 0); /* out of order */
    CHECK_EQ_INT(strtoul(at, &at, 10), 0); /* SIGCHLD */
    printf("      %lu signals, %u of them met a hold\n", sent, passed);
    victim_end(&v);
}

/* ---- processes of all sorts ---- */

TEST(a_stopped_process_stays_stopped)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    int status, traced;
    victim_start(&v, "registers", "read", NULL);
    kill(v.pid, SIGSTOP);
    REQUIRE(waitpid(v.pid, &status, WUNTRACED) == v.pid && WIFSTOPPED(status));
    for (int i = 0; i < TIMES; i++)
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
    CHECK_EQ_STR(kit.f.text, "");
    victim_await(&v, 'T');
    CHECK_EQ_INT(victim_count(&v, 'T', &traced), 1);
    CHECK_EQ_INT(traced, 0);
    CHECK_EQ_INT(kit_zombies(&v), 0);
    /* Its parent heard of one stop only. */
    CHECK_EQ_INT(waitpid(v.pid, &status, WUNTRACED | WNOHANG), 0);
    kill(v.pid, SIGCONT);
    ask_registers(&v, "stopped");
    victim_end(&v);
}

static size_t read_twin(struct kit *kit, bool pin)
{
    static char piece[1 << 20];
    size_t bytes = 0;
    for (size_t i = 0; i < kit->maps.count; i++) {
        const struct map *map = &kit->maps.list[i];
        for (uint64_t at = map->start; map->readable && map->writable && at < map->end;) {
            size_t size = map->end - at < sizeof piece ? (size_t)(map->end - at) : sizeof piece;
            struct iovec local = {piece, size}, remote = {(void *)(uintptr_t)at, size};
            ssize_t got = pin ? process_vm_readv(kit->snapshot.pid, &local, 1, &remote, 1, 0)
                              : pread(kit->snapshot.mem_fd, piece, size, (off_t)at);
            if (got <= 0)
                break;
            bytes += (size_t)got;
            at += (uint64_t)got;
        }
    }
    return bytes;
}

static uint64_t pss_kib(pid_t pid)
{
    char data[4096];
    struct span text, value;
    uint64_t kib = 0;
    REQUIRE(proc_read_pid("", (uint32_t)pid, "smaps_rollup", data, sizeof data, &text, NULL) == 0);
    REQUIRE(proc_find_key(text, "Pss:", &value) == 0 && text_take_u64(&value, &kib) == 0);
    return kib;
}

struct reading {
    bool pin;
    uint64_t before_kib, after_kib;
    size_t bytes;
};

static void read_and_weigh(struct kit *kit)
{
    struct reading *reading = kit->context;
    reading->before_kib = pss_kib(kit->snapshot.pid);
    reading->bytes = read_twin(kit, reading->pin);
    reading->after_kib = pss_kib(kit->snapshot.pid);
}

#define WEIGHT_MIB 32

TEST(reading_the_twin_copies_nothing)
{
    struct victim v;
    struct reading reading = {.pin = false};
    struct kit kit = {.look = read_and_weigh, .context = &reading};
    victim_start(&v, "bulk", "32", NULL);
    CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
    CHECK(reading.bytes > WEIGHT_MIB << 20);
    /* Some of it was shared and no longer is: the process has touched it, or another has ended. */
    CHECK(reading.after_kib < reading.before_kib + 256);
    CHECK(reading.before_kib > WEIGHT_MIB * 1024 / 2);
    printf("      Pss %llu KiB before, %llu after\n", (unsigned long long)reading.before_kib,
           (unsigned long long)reading.after_kib);
    victim_end(&v);
}

TEST(control_reading_by_pinning_is_seen)
{
    struct victim v;
    struct reading reading = {.pin = true};
    struct kit kit = {.look = read_and_weigh, .context = &reading};
    victim_start(&v, "bulk", "32", NULL);
    CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
    CHECK(reading.after_kib > reading.before_kib + WEIGHT_MIB * 1024 / 4);
    victim_end(&v);
}

/* A mapping larger than memory: not even one child can be accounted for. As with
 * vm.overcommit_memory=2. */
TEST(no_memory_for_a_child_is_said)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    char mib[32];
    long pages = sysconf(_SC_PHYS_PAGES);
    snprintf(mib, sizeof mib, "%ld", pages / 256 / 100 * 180);
    victim_start(&v, "bulk", mib, "vast");
    int rc = kit_take(&kit, &v.process);
    if (rc == 0) {
        victim_end(&v);
        SKIP("this host overcommits without a limit");
    }
    CHECK_EQ_INT(rc, ERR_REFUSED);
    CHECK_EQ_STR(kit.f.text,
                 "no snapshot is possible: not enough memory for a copy of the process, as "
                 "vm.overcommit_memory counts it; --live takes a core without a snapshot");
    victim_check_free(&v);
    victim_ask(&v, mib, sizeof mib);
    victim_end(&v);
}

/* A victim that is a child of this program, and its other end. */
static void start_child(struct victim *v, int *from, void (*run)(int out))
{
    int out[2];
    char byte;
    REQUIRE(pipe(out) == 0);
    memset(v, 0, sizeof *v);
    v->pid = fork();
    if (v->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(out[1]);
    }
    close(out[1]);
    *from = out[0];
    REQUIRE(read(*from, &byte, 1) == 1);
    REQUIRE(os_process_get("", (uint32_t)v->pid, &v->process, NULL) == 0);
    victim_settle(v);
}

static void end_child(struct victim *v, int from)
{
    close(from);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
}

#define LONELY_USER 54321

static void be_the_last_process(int out)
{
    struct rlimit one = {1, 1};
    if (setrlimit(RLIMIT_NPROC, &one) || setgid(LONELY_USER) || setuid(LONELY_USER))
        _exit(1);
    (void)!write(out, "r", 1);
    for (;;)
        pause();
}

TEST(a_limit_of_processes_is_said)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    int from;
    if (geteuid() != 0)
        SKIP("needs root");
    start_child(&v, &from, be_the_last_process);
    CHECK_EQ_INT(kit_take(&kit, &v.process), ERR_REFUSED);
    CHECK_EQ_STR(kit.f.text,
                 "no snapshot is possible: the process may not have another child (limit of "
                 "processes of its user or control group); --live takes a core without a snapshot");
    victim_check_free(&v);
    CHECK_EQ_INT(kit_children(&v), 0);
    end_child(&v, from);
}

static void filter_calls(int out)
{
    /* Mode 1: nothing but read, write, _exit and sigreturn, at the cost of one's life. */
    (void)!write(out, "r", 1);
    if (prctl(PR_SET_SECCOMP, 1) != 0)
        _exit(1);
    char byte;
    int never[2] = {0, 0};
    for (;;)
        (void)!read(never[0], &byte, 1);
}

TEST(a_process_under_seccomp_is_refused)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    int from, quiet[2];
    REQUIRE(pipe(quiet) == 0);
    dup2(quiet[0], 0);
    start_child(&v, &from, filter_calls);
    CHECK_EQ_INT(kit_take(&kit, &v.process), ERR_REFUSED);
    CHECK(strstr(kit.f.text, "runs under a seccomp filter") != NULL);
    CHECK(strstr(kit.f.text, "--live takes a core without a snapshot") != NULL);
    CHECK_EQ_INT(waitpid(v.pid, NULL, WNOHANG), 0);
    end_child(&v, from);
}

static void unshare_children(int out)
{
    if (unshare(CLONE_NEWPID) != 0)
        _exit(1);
    (void)!write(out, "r", 1);
    for (;;)
        pause();
}

/* The twin would be the first process of that namespace, and its end the namespace's end. */
TEST(a_process_whose_children_get_another_namespace_is_refused)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    int from;
    if (geteuid() != 0)
        SKIP("needs root");
    start_child(&v, &from, unshare_children);
    CHECK_EQ_INT(kit_take(&kit, &v.process), ERR_REFUSED);
    CHECK(strstr(kit.f.text, "are born into another pid namespace") != NULL);
    end_child(&v, from);
}

/* Runs a victim as pid 1 of a pid namespace, below a shell: its own tools, its own /proc. */
static void start_inside(struct victim *v, pid_t *outer)
{
    char command[640];
    uint32_t *all = NULL;
    size_t count = 0;
    const char *dir = getenv("TRAWL_VICTIMS");
    snprintf(command, sizeof command, "exec unshare --pid --fork --mount-proc %s/registers read",
             dir ? dir : VICTIMS_DIR);
    victim_run(v, "/bin/sh", "sh", "-c", command);
    *outer = v->pid;
    REQUIRE(proc_numbers("/proc", &all, &count, 100000, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        struct os_process process;
        char data[PROC_STAT_SIZE];
        struct span text;
        struct proc_stat stat;
        if (proc_read_pid("", all[i], "stat", data, sizeof data, &text, NULL) == 0 &&
            proc_parse_stat(text, &stat) == 0 && stat.parent == (uint32_t)*outer &&
            os_process_get("", all[i], &process, NULL) == 0) {
            v->process = process;
            v->pid = (pid_t)process.pid;
        }
    }
    free(all);
    REQUIRE(v->pid != *outer);
}

TEST_LIMIT(a_process_in_a_pid_namespace_can_be_taken, 60)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    pid_t outer;
    if (geteuid() != 0)
        SKIP("needs root");
    start_inside(&v, &outer);
    for (int i = 0; i < TIMES; i++) {
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
        CHECK_EQ_STR(kit.f.text, "");
        ask_registers(&v, "namespace");
    }
    CHECK_EQ_INT(kit_zombies(&v), 0);
    victim_check_free(&v);
    kill(v.pid, SIGKILL);
    v.pid = outer;
    victim_end(&v);
}

TEST_LIMIT(thousands_of_threads_can_be_taken, 120)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    victim_start(&v, "bulk", "1", "small,3000");
    victim_settle(&v);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
        CHECK_EQ_STR(kit.f.text, "");
    }
    printf("      %.1f ms for 3001 threads\n", (double)kit.stop.pause_us / 1000);
    CHECK_EQ_INT(kit_zombies(&v), 0);
    victim_check_free(&v);
    victim_end(&v);
}

/* ---- what is given up ---- */

TEST_LIMIT(a_snapshot_that_takes_too_long_is_given_up, 60)
{
    struct victim v;
    struct kit kit = {.pause_max_us = 1200};
    char line[64];
    int late = 0;
    victim_start(&v, "bulk", "512", "small,3");
    victim_settle(&v);
    for (int i = 0; i < TIMES / 4; i++) {
        int rc = kit_take(&kit, &v.process);
        CHECK(rc == ERR_TIMEOUT || rc == 0);
        late += rc == ERR_TIMEOUT;
    }
    CHECK(late > 0);
    victim_check_free(&v);
    victim_ask(&v, line, sizeof line);
    struct failure f = {0, ""};
    CHECK(snapshot_tidy(&v.process, v.process.start_ticks, &f) >= 0);
    CHECK_EQ_INT(kit_children(&v), 0);
    victim_end(&v);
}

static void kill_process(struct kit *kit)
{
    CHECK(!snapshot_is_orphan(&kit->snapshot));
    kill((pid_t)kit->stop.process.pid, SIGKILL);
    for (int i = 0; i < VICTIM_AWAIT_MS && !snapshot_is_orphan(&kit->snapshot); i++)
        nap_ms(1);
    CHECK(snapshot_is_orphan(&kit->snapshot));
}

/* The twin can still be read; its zombie is another's then. */
TEST_LIMIT(the_process_may_die_meanwhile, 60)
{
    for (int i = 0; i < TIMES; i++) {
        struct victim v;
        struct kit kit = {.look = kill_process};
        victim_start(&v, "bulk", "4", "small,3");
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
        victim_end(&v);
    }
}

/* The end of a pid namespace waits until all in it are reaped: not for the end of a capture. */
static void kill_namespace(struct kit *kit)
{
    pid_t pid = (pid_t)kit->stop.process.pid;
    kill(pid, SIGKILL);
    for (int i = 0; i < VICTIM_AWAIT_MS && kill(pid, 0) == 0; i++)
        nap_ms(1);
    CHECK(kill(pid, 0) != 0);
}

TEST(the_namespace_may_end_meanwhile)
{
    struct victim v;
    struct kit kit = {.look = kill_namespace};
    pid_t outer;
    if (geteuid() != 0)
        SKIP("needs root");
    start_inside(&v, &outer);
    CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
    v.pid = outer;
    victim_end(&v);
}

/* ---- threads that stop late ---- */

struct forker {
    bool stands; /* the thread stood for all the time that was given to it */
};

/* The child of vfork(2) ends, so its parent leaves its uninterruptible sleep, into a stop. */
static void end_vfork(struct kit *kit)
{
    struct forker *forker = kit->context;
    struct victim v = {.process = kit->stop.process, .pid = (pid_t)kit->stop.process.pid};
    uint32_t *all = NULL;
    size_t count = 0;
    int traced = 1;
    REQUIRE(proc_numbers("/proc", &all, &count, 100000, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        char data[PROC_STAT_SIZE];
        struct span text;
        struct proc_stat stat;
        if (proc_read_pid("", all[i], "stat", data, sizeof data, &text, NULL) == 0 &&
            proc_parse_stat(text, &stat) == 0 && stat.parent == kit->stop.process.pid &&
            (pid_t)all[i] != kit->snapshot.pid)
            kill((pid_t)all[i], SIGKILL);
    }
    free(all);
    int most_ms = kit->stop_controls.leave_late ? 1000 : VICTIM_AWAIT_MS;
    for (int i = 0; i < most_ms && traced > 0; i++) {
        nap_ms(1);
        victim_count(&v, 't', &traced);
    }
    forker->stands = traced > 0;
}

static bool late_thread_stands(bool leave_late)
{
    struct victim v;
    struct forker forker = {true};
    struct kit kit = {.look = end_vfork,
                      .context = &forker,
                      .stop_controls = {.leave_late = leave_late},
                      .pause_max_us = 500000};
    victim_start(&v, "vfork", NULL, NULL);
    victim_await(&v, 'D');
    victim_await(&v, 'S');
    CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
    CHECK_EQ_STR(kit.f.text, "");
    victim_check_free(&v);
    victim_end(&v);
    return forker.stands;
}

TEST(a_thread_that_stops_late_is_let_go_at_once)
{
    CHECK(!late_thread_stands(false));
}

TEST(control_a_thread_that_stops_late_would_stand)
{
    CHECK(late_thread_stands(true));
}
