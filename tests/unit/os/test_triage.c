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
#include "tests/unit/os/taken.h"
#include "tests/unit/os/tree.h"

static struct taken taken;
static struct failure failure;
static struct os_result result;

static int triage(const char *root, uint32_t pid)
{
    struct os_process process;
    REQUIRE(os_process_get(root, pid, &process, &failure) == 0);
    taken_init(&taken);
    memset(&result, 0, sizeof result);
    return triage_capture(root, &process, &taken.output, &result, &failure);
}

static bool says(const char *text)
{
    bool found = strstr(buf_str(&taken.text), text) != NULL;
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
    REQUIRE(triage(web1(), 1200) == 0);
    CHECK(says("process 1200 redis-server, uid 110, 5 threads, sleeping\n  * "));
    CHECK(says("  * killed for lack of memory 1 times since its control group was made\n"));
    CHECK(says("  * held back by its CPU limit 42 times"));
    CHECK(says("command       /usr/bin/redis-server 127.0.0.1:7399\n"));
    CHECK(says("executable    /usr/bin/redis-server\n"));
    CHECK(says("directory     /var/lib/redis\n"));
    CHECK(says("parent        1 systemd\n"));
    CHECK(says("started       50 m"));
    CHECK(says("unit          redis-server.service\n"));
    CHECK(says("cgroup        0::/system.slice/redis-server.service\n"));
    CHECK(says("its own: mnt\n"));
    CHECK(says("threads (5)\n"));
    CHECK(says("bio_close_file 1201: sleeping"));
    CHECK(says("waits in futex_do_wait"));
    CHECK(says("open files (10)\n"));
    CHECK(says("tcp 127.0.0.1:7399 listening, 0 connections wait to be accepted"));
    CHECK(says("1 tcp established"));
    CHECK(says("established, 0 B unread, 0 B to send"));
    CHECK(says("anon_inode:[eventpoll], watches 3 files: 7,3,6\n"));
    CHECK(says("  open files       10 of "));
    CHECK(says("memory.current         12345678 (11.8 MiB)\n"));
    CHECK(says("nr_throttled 42; throttled_usec 777000\n"));
    CHECK(says("max 7; oom 1; oom_kill 1\n"));
    CHECK(says("some avg10=1.50"));
    CHECK(says("sig. caught   INT ILL"));
    CHECK(says("OOM score     "));
    CHECK_EQ_STR(result.missing, "");
    CHECK_EQ_INT(result.threads, 5);
    CHECK(!result.paused);
    CHECK(strncmp(buf_str(&taken.json), "{\"summary\":[\"", 13) == 0);
    CHECK(strstr(buf_str(&taken.json), "\"open_files\":10,") != NULL);
#ifdef __x86_64__ /* numbers of system calls are the recording's */
    CHECK(says("epoll_wait(5 -> anon_inode:[eventpoll], "));
    CHECK(says("futex(0x55909ac8dbe8, wait)"));
#endif
    taken_done(&taken);
}

TEST(a_hostile_name_cannot_harm_a_terminal)
{
    REQUIRE(triage(web1(), 77) == 0);
    CHECK(says("process 77 odd) (na\\x0ame S 9, uid 1000"));
    CHECK(says("unit          session-3.scope\n"));
    CHECK(strstr(result.missing, "limits: no such") != NULL);
    CHECK(strstr(result.missing, "open files: no such") != NULL);
    CHECK(says("\nmissing: "));
    taken_done(&taken);
}

TEST(another_process_with_the_pid_is_not_the_one)
{
    struct os_process process;
    taken_init(&taken);
    REQUIRE(os_process_get(web1(), 1200, &process, &failure) == 0);
    process.start_ticks++;
    CHECK_EQ_INT(triage_capture(web1(), &process, &taken.output, &result, &failure), ERR_GONE);
    process.pid = 4711;
    CHECK_EQ_INT(triage_capture(web1(), &process, &taken.output, &result, &failure), ERR_GONE);
    CHECK_EQ_STR(failure.text, "process 4711 has ended");
    CHECK_EQ_INT(taken.text.size_bytes, 0);
    taken_done(&taken);
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
    REQUIRE(triage(root, 9) == 0);
    CHECK(says("  pool 9: running or ready to, running, 0.15 s of CPU\n"));
    CHECK(
        says("  11 x pool 10,11,12,13,14,15,...: sleeping, in no system call, waits in pipe_read, "
             "1.65 s of CPU\n"));
    CHECK(says("1 ended while they were looked at"));
    taken_done(&taken);
}

TEST(control_groups_of_version_1)
{
    const char *root = tree_make();
    tree_write(root, "/proc/9/stat", "9 (x) S 1 9 9 0 -1 64 1 0 1 0 1 1 0 0 20 0 1 0 5 4096 7\n");
    tree_write(root, "/proc/9/cgroup", "5:cpu,cpuacct:/a/b\n4:memory:/m\n1:name=systemd:/../up\n");
    tree_write(root, "/sys/fs/cgroup/memory/m/memory.usage_in_bytes", "2048\n");
    tree_write(root, "/sys/fs/cgroup/cpu/a/b/cpu.stat",
               "nr_periods 5\nnr_throttled 4\nthrottled_time 123\n");
    REQUIRE(triage(root, 9) == 0);
    CHECK(says("memory.usage_in_bytes  2048 (2.0 KiB)\n"));
    CHECK(says("nr_periods 5; nr_throttled 4; throttled_time 123\n"));
    /* A group above our own root is not looked for. */
    tree_write(root, "/proc/9/cgroup", "0::/../../etc\n");
    taken_done(&taken);
    REQUIRE(triage(root, 9) == 0);
    CHECK(strstr(result.missing, "control group: none of its files can be read") != NULL);
    taken_done(&taken);
}

TEST(limits_of_groups_above_hold_too)
{
    const char *root = tree_make();
    tree_write(root, "/proc/9/stat", "9 (x) S 1 9 9 0 -1 64 1 0 1 0 1 1 0 0 20 0 1 0 5 4096 7\n");
    tree_write(root, "/proc/9/cgroup", "0::/pods/one/box\n");
    tree_write(root, "/sys/fs/cgroup/pods/one/box/memory.max", "max\n");
    tree_write(root, "/sys/fs/cgroup/pods/one/memory.max", "536870912\n");
    tree_write(root, "/sys/fs/cgroup/pods/memory.max", "max\n");
    tree_write(root, "/sys/fs/cgroup/pods/one/box/cpu.stat", "nr_periods 0\nuser_usec 1\n");
    REQUIRE(triage(root, 9) == 0);
    CHECK(says("memory.max             max; above, in /pods/one: 536870912\n"));
    CHECK(!says("above, in /pods:"));
    taken_done(&taken);
}

TEST(a_32_bit_program_has_other_numbers)
{
    const char *root = tree_make();
    tree_write(root, "/proc/9/stat", "9 (x) S 1 9 9 0 -1 64 1 0 1 0 1 1 0 0 20 0 1 0 5 4096 7\n");
    tree_write(root, "/proc/9/task/9/stat",
               "9 (x) S 1 9 9 0 -1 64 1 0 1 0 1 1 0 0 20 0 1 0 5 4096 7\n");
    tree_write(root, "/proc/9/task/9/syscall", "3 0x5 0x0 0x0 0x0 0x0 0x0 0x1 0x2\n");
    tree_write_bytes(root, "/proc/9/exe", "\177ELF\1\1\1\0\0\0\0\0\0\0\0\0", 16);
    REQUIRE(triage(root, 9) == 0);
    CHECK(says("system call 3 of a 32-bit program"));
    taken_done(&taken);
    tree_write_bytes(root, "/proc/9/exe", "\177ELF\2\1\1\0\0\0\0\0\0\0\0\0", 16);
    REQUIRE(triage(root, 9) == 0);
    CHECK(!says("32-bit"));
    taken_done(&taken);
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
        REQUIRE(triage("", (uint32_t)pid) == 0);
        if (strstr(buf_str(&taken.text), "nanosleep(") || strstr(result.missing, "system calls"))
            break;
        taken_done(&taken);
    }
    CHECK(says("command       sleep 60\n"));
    CHECK(says("threads (1)\n"));
    snprintf(expected, sizeof expected, "parent        %d ", getpid());
    CHECK(says(expected));
    CHECK(says("unix stream established"));
    CHECK(says("started       "));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    taken_done(&taken);
}
