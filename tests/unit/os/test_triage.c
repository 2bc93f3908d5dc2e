/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Triage of recorded processes and of a real one: everything that a person looks for is there, in
 * words; what could not be read is said; nothing from the process can harm a terminal.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/triage.h"
#include "common/text.h"
#include "tests/unit/os/tree.h"

static struct buf out;
static char missing[2048];
static struct failure failure;

static int triage(const char *root, uint32_t pid, size_t limit)
{
    struct os_process process;
    buf_init(&out, limit);
    REQUIRE(os_process_get(root, pid, &process, &failure) == 0);
    return os_triage_capture(root, &process, &out, missing, sizeof missing, &failure);
}

static bool says(const char *text)
{
    bool found = strstr(buf_str(&out), text) != NULL;
    if (!found)
        printf("not said: %s\n", text);
    return found;
}

static const char *web1(void)
{
    return TESTS_DIR "/fixtures/proc/web1";
}

TEST(a_recorded_redis)
{
    REQUIRE(triage(web1(), 1200, 1 << 20) == 0);
    CHECK(says("process     1200 redis-server, uid 110, 5 threads, sleeping\n"));
    CHECK(says("command     /usr/bin/redis-server 127.0.0.1:7399\n"));
    CHECK(says("executable  /usr/bin/redis-server\n"));
    CHECK(says("directory   /var/lib/redis\n"));
    CHECK(says("parent      1 systemd\n"));
    CHECK(says("started     50 m"));
    CHECK(says("unit        redis-server.service\n"));
    CHECK(says("cgroup      0::/system.slice/redis-server.service\n"));
    CHECK(says("its own: mnt\n"));
    CHECK(says("threads (5)\n"));
    CHECK(says("bio_close_file 1201: sleeping"));
    CHECK(says("waits in futex_do_wait"));
    CHECK(says("open files (10)\n"));
    CHECK(says("tcp 127.0.0.1:7399 listening, 0 connections wait to be accepted\n"));
    CHECK(says("1 tcp established"));
    CHECK(says("established, 0 B to send, 0 B received\n"));
    CHECK(says("eventpoll"));
    CHECK(says("open files           "));
    CHECK(says(", in use 10\n"));
    CHECK(says("memory.current         12345678 (11.8 MiB)\n"));
    CHECK(says("nr_throttled 42; throttled_usec 777000\n"));
    CHECK(says("max 7; oom 1; oom_kill 1\n"));
    CHECK(says("some avg10=1.50"));
    CHECK(says("caught           INT ILL"));
    CHECK(says("OOM score   "));
    CHECK_EQ_STR(missing, "");
#ifdef __x86_64__ /* numbers of system calls are the recording's */
    CHECK(says("epoll_wait(5 -> anon_inode:[eventpoll])"));
    CHECK(says("futex(0x55909ac8dbe8, wait)"));
#endif
    buf_done(&out);
}

TEST(a_hostile_name_cannot_harm_a_terminal)
{
    REQUIRE(triage(web1(), 77, 1 << 20) == 0);
    CHECK(says("process     77 odd) (na\\x0ame S 9, uid 1000"));
    CHECK(says("unit        session-3.scope\n"));
    CHECK(strstr(missing, "limits: cannot read '") != NULL);
    CHECK(strstr(missing, "open files: cannot read '") != NULL);
    buf_done(&out);
}

TEST(another_process_with_the_pid_is_not_the_one)
{
    struct os_process process;
    buf_init(&out, 1 << 20);
    REQUIRE(os_process_get(web1(), 1200, &process, &failure) == 0);
    process.start_ticks++;
    CHECK_EQ_INT(os_triage_capture(web1(), &process, &out, missing, sizeof missing, &failure),
                 ERR_GONE);
    process.pid = 4711;
    CHECK_EQ_INT(os_triage_capture(web1(), &process, &out, missing, sizeof missing, &failure),
                 ERR_GONE);
    CHECK_EQ_STR(failure.text, "process 4711 has ended");
    CHECK_EQ_INT(out.size_bytes, 0);
    buf_done(&out);
}

TEST(a_full_buffer_is_an_error_and_leaves_it_as_it_was)
{
    CHECK_EQ_INT(triage(web1(), 1200, 300), ERR_LIMIT);
    CHECK_EQ_INT(out.size_bytes, 0);
    buf_done(&out);
}

TEST(a_short_missing_text_is_cut_not_overrun)
{
    struct os_process process;
    char small[8];
    buf_init(&out, 1 << 20);
    REQUIRE(os_process_get(web1(), 77, &process, &failure) == 0);
    REQUIRE(os_triage_capture(web1(), &process, &out, small, sizeof small, &failure) == 0);
    CHECK_EQ_INT(strlen(small), 7);
    buf_done(&out);
}

TEST(threads_that_do_the_same_are_one_line)
{
    const char *root = tree_make();
    char path[128];
    tree_write(root, "/proc/9/stat",
               "9 (pool) D 1 9 9 0 -1 64 1 0 1 0 1 1 0 0 20 0 12 0 5 4096 7\n");
    for (int tid = 9; tid < 21; tid++) {
        snprintf(path, sizeof path, "/proc/9/task/%d/stat", tid);
        tree_print(root, path, "%d (pool) %c 1 9 9 0 -1 64 1 0 1 0 10 5 0 0 20 0 12 0 5 4096 7\n",
                   tid, tid == 9 ? 'R' : 'S');
        snprintf(path, sizeof path, "/proc/9/task/%d/wchan", tid);
        tree_write(root, path, tid == 9 ? "0" : "pipe_read");
        snprintf(path, sizeof path, "/proc/9/task/%d/syscall", tid);
        tree_write(root, path, tid == 9 ? "running\n" : "-1 0x7ffc 0x7ffd\n");
    }
    tree_write(root, "/proc/9/task/22/wchan", "x"); /* ends while it is looked at */
    REQUIRE(triage(root, 9, 1 << 20) == 0);
    CHECK(says("  pool 9: running or ready to, running, 0.15 s of CPU\n"));
    CHECK(
        says("  11 x pool 10,11,12,13,14,15,...: sleeping, in no system call, waits in pipe_read, "
             "1.65 s of CPU\n"));
    CHECK(says("1 ended while they were looked at"));
    buf_done(&out);
}

static bool target(void *context, uint64_t fd, char *text, size_t size)
{
    (void)context;
    return fd == 5 && text_copy(text, size, "socket:[77]") == 0;
}

TEST(system_calls_in_words)
{
    char text[128];
#ifdef __x86_64__
    static const char *const cases[][2] = {
        {"0 0x5 0x7ffc 0x400 0x0 0x0 0x0 0x7ffd 0x7ffe\n", "read(5 -> socket:[77])"},
        {"1 0x6 0x7ffc 0x400 0x0 0x0 0x0 0x7ffd 0x7ffe\n", "write(6)"},
        {"202 0x55aa 0x80 0x0 0x0 0x0 0x0 0x1 0x2\n", "futex(0x55aa, wait)"},
        {"7 0x55aa 0x3 0xffffffff 0x0 0x0 0x0 0x1 0x2\n", "poll(3 files)"},
        {"61 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x0 0x1 0x2\n", "wait4(pid -1)"},
        {"35 0x1 0x2 0x3 0x0 0x0 0x0 0x1 0x2\n", "nanosleep()"},
        {"9999 0x1 0x2 0x3 0x0 0x0 0x0 0x1 0x2\n", "system call 9999"},
        {"running\n", "running"},
        {"-1 0x7ffc 0x7ffd\n", "in no system call"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        REQUIRE(triage_describe_syscall(span_str(cases[i][0]), target, NULL, text, sizeof text) ==
                0);
        CHECK_EQ_STR(text, cases[i][1]);
    }
#endif
    CHECK_EQ_INT(triage_describe_syscall(span_str(""), target, NULL, text, sizeof text),
                 ERR_CORRUPT);
    CHECK_EQ_INT(triage_describe_syscall(span_str("0 5"), target, NULL, text, sizeof text),
                 ERR_CORRUPT);
}

TEST(control_groups_of_version_1)
{
    const char *root = tree_make();
    tree_write(root, "/proc/9/stat", "9 (x) S 1 9 9 0 -1 64 1 0 1 0 1 1 0 0 20 0 1 0 5 4096 7\n");
    tree_write(root, "/proc/9/cgroup", "5:cpu,cpuacct:/a/b\n4:memory:/m\n1:name=systemd:/../up\n");
    tree_write(root, "/sys/fs/cgroup/memory/m/memory.usage_in_bytes", "2048\n");
    tree_write(root, "/sys/fs/cgroup/cpu/a/b/cpu.stat",
               "nr_periods 5\nnr_throttled 4\nthrottled_time 123\n");
    REQUIRE(triage(root, 9, 1 << 20) == 0);
    CHECK(says("memory.usage_in_bytes  2048 (2.0 KiB)\n"));
    CHECK(says("nr_periods 5; nr_throttled 4; throttled_time 123\n"));
    /* A group above our own root is not looked for. */
    tree_write(root, "/proc/9/cgroup", "0::/../../etc\n");
    buf_done(&out);
    REQUIRE(triage(root, 9, 1 << 20) == 0);
    CHECK(strstr(missing, "control group: none of its files can be read") != NULL);
    buf_done(&out);
}

TEST(a_real_process)
{
    int ends[2], ready[2];
    char expected[64];
    REQUIRE(pipe2(ready, O_CLOEXEC) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    char byte;
    close(ready[1]);
    (void)!read(ready[0], &byte, 1);
    /* exec has closed the pipe, but perhaps it does not sleep yet. */
    for (int i = 0; i < 1000; i++) {
        REQUIRE(triage("", (uint32_t)pid, 1 << 20) == 0);
        if (strstr(buf_str(&out), "nanosleep()") || strstr(missing, "system calls"))
            break;
        buf_done(&out);
    }
    CHECK(says("command     sleep 60\n"));
    CHECK(says("threads (1)\n"));
    snprintf(expected, sizeof expected, "parent      %d ", getpid());
    CHECK(says(expected));
    CHECK(says("unix stream"));
    CHECK(says("started     "));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    buf_done(&out);
}
