/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching memory while a twin is there: a process stands for the twin, a made-up host for memory.
 */
#include "agent/os/linux/dump_linux.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/check.h"
#include "tests/unit/os/tree.h"

#define MIB (1ull << 20)

static void host_with(const char *root, unsigned long long free_mib)
{
    tree_print(root, "/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: %llu kB\n",
               free_mib * 1024);
}

static const char *make_host(pid_t pid, unsigned long long free_mib)
{
    const char *root = tree_make();
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
    tree_write(root, path, "0::/\n");
    host_with(root, free_mib);
    return root;
}

static pid_t start_twin(void)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    while (pid == 0)
        pause();
    return pid;
}

static void nap_ms(long ms)
{
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

TEST(a_twin_is_killed_when_memory_becomes_short)
{
    struct dump_watch watch;
    struct failure f = {0, ""};
    int status = 0;
    pid_t pid = start_twin();
    const char *root = make_host(pid, 512);
    REQUIRE(dump_watch_start(&watch, root, pid, -1, &f) == 0);
    nap_ms(200);
    CHECK_EQ_INT(waitpid(pid, &status, WNOHANG), 0);
    host_with(root, 90);
    CHECK_EQ_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_EQ_INT(dump_watch_stop(&watch, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "8.7 % of the memory of the host would be free, limit 10.0 %") != NULL);
    CHECK(strstr(f.text, "--live") != NULL);
    printf("      %s\n", f.text);
}

TEST(a_twin_lives_while_there_is_memory)
{
    struct dump_watch watch;
    struct failure f = {0, ""};
    pid_t pid = start_twin();
    const char *root = make_host(pid, 120);
    REQUIRE(dump_watch_start(&watch, root, pid, -1, &f) == 0);
    nap_ms(200);
    CHECK_EQ_INT(dump_watch_stop(&watch, &f), 0);
    CHECK_EQ_INT(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* It holds the process's ports and files: a successor must not find them taken. */
TEST(a_twin_does_not_outlive_its_process)
{
    struct dump_watch watch;
    struct failure f = {0, ""};
    int status = 0;
    pid_t pid = start_twin(), process = start_twin();
    const char *root = make_host(pid, 512);
    int fd = (int)syscall(SYS_pidfd_open, process, 0);
    if (fd < 0)
        check_skip("no pidfd_open(2) in this kernel");
    REQUIRE(dump_watch_start(&watch, root, pid, fd, &f) == 0);
    nap_ms(200);
    CHECK_EQ_INT(waitpid(pid, &status, WNOHANG), 0);
    kill(process, SIGKILL);
    CHECK_EQ_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_EQ_INT(dump_watch_stop(&watch, &f), ERR_GONE);
    CHECK(strstr(f.text, "process ended while its core was read") != NULL);
    waitpid(process, NULL, 0);
    close(fd);
}

/* A moment without an answer is no reason to end it. */
TEST(what_cannot_be_read_kills_nobody)
{
    struct dump_watch watch;
    struct failure f = {0, ""};
    pid_t pid = start_twin();
    const char *root = make_host(pid, 512);
    tree_write(root, "/proc/meminfo", "nothing\n");
    REQUIRE(dump_watch_start(&watch, root, pid, -1, &f) == 0);
    nap_ms(200);
    CHECK_EQ_INT(dump_watch_stop(&watch, &f), 0);
    CHECK_EQ_INT(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

TEST(what_is_going_to_be_taken_counts)
{
    struct failure f = {0, ""};
    const char *root = make_host(getpid(), 200);
    CHECK_EQ_INT(dump_check_headroom(root, getpid(), 0, &f), 0);
    CHECK_EQ_INT(dump_check_headroom(root, getpid(), 50 * MIB, &f), 0);
    CHECK_EQ_INT(dump_check_headroom(root, getpid(), 150 * MIB, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "4.8 %") != NULL);
    CHECK_EQ_INT(dump_check_headroom(root, getpid(), 1 << 30, &f), ERR_REFUSED);
}
