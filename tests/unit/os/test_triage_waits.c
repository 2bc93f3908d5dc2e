/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits on what, of real processes: a triage must say in its first lines who waits for whom,
 * and must not claim it of a process where nobody does. No process is stopped meanwhile.
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/triage.h"
#include "common/port.h"
#include "tests/unit/os/taken.h"
#include "tests/unit/os/victim.h"

#define DEADLINE_US 50000000

static struct taken taken;
static struct failure failure;
static struct os_result result;

static void triage(const struct os_process *process)
{
    struct os_take take = {.process = *process};
    taken_init(&taken);
    memset(&result, 0, sizeof result);
    REQUIRE(os_triage_capture(&take, &taken.output, &result, &failure) == 0);
    CHECK(!result.paused && result.pause_us == 0);
}

static bool says(const char *text)
{
    return strstr(buf_str(&taken.text), text) != NULL;
}

/* The first lines, up to the empty one. */
static bool says_first(const char *text)
{
    const char *found = strstr(buf_str(&taken.text), text);
    const char *end = strstr(buf_str(&taken.text), "\n\n");
    return found && end && found < end;
}

/* Takes triages until one says so. */
static void triage_until(const struct os_process *process, const char *text)
{
    uint64_t end_us = port_mono_us() + DEADLINE_US;
    for (;;) {
        triage(process);
        if (says(text))
            return;
        if (port_mono_us() > end_us) {
            printf("never said '%s':\n%s\n", text, buf_str(&taken.text));
            check_abort();
        }
        taken_done(&taken);
        nap_ms(5);
    }
}

static unsigned open_files(const struct victim *v)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", v->pid);
    DIR *dir = opendir(path);
    REQUIRE(dir != NULL);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2; /* . and .. */
}

static void end(struct victim *v)
{
    victim_check_free(v);
    taken_done(&taken);
    victim_end(v);
}

TEST(two_threads_in_a_deadlock_are_said_first)
{
    struct victim v;
    victim_start(&v, "waits", "deadlock", NULL);
    victim_settle(&v);
    triage_until(&v.process, "  * DEADLOCK: thread ");
    CHECK(says_first("'knot-0' waits for a lock held by thread "));
    CHECK(says_first("'knot-1', which waits for a lock held by thread "));
    CHECK(says_first(" again (if this is a pthread mutex)\n"));
    CHECK(strstr(buf_str(&taken.json), "\"certain\":false") != NULL);
    /* It is the first of the first lines. */
    CHECK(strncmp(strchr(buf_str(&taken.text), '\n') + 1, "  * DEADLOCK", 12) == 0);
    end(&v);
}

/* The kernel refuses the last lock of such a cycle; what it names as a holder is certain. */
TEST(mutexes_with_inheritance_name_their_holder)
{
    struct victim v;
    victim_start(&v, "waits", "three", "pi");
    victim_settle(&v);
    triage_until(&v.process, "which waits, in the end, for thread ");
    CHECK(!says("if this is a pthread"));
    CHECK(strstr(buf_str(&taken.json), "\"certain\":true") != NULL);
    end(&v);
}

TEST(robust_mutexes_are_certain)
{
    struct victim v;
    victim_start(&v, "waits", "three", "robust");
    victim_settle(&v);
    triage_until(&v.process, "  * DEADLOCK: thread ");
    CHECK(!says("if this is a pthread"));
    end(&v);
}

/* Control: threads that wait without a deadlock. */
TEST(no_deadlock_is_claimed_where_there_is_none)
{
    struct victim v;
    victim_start(&v, "waits", "condition", NULL);
    victim_settle(&v);
    triage_until(&v.process, "waits for a condition, a semaphore or the like");
    CHECK(!says("DEADLOCK") && !says("held by thread"));
    end(&v);
    victim_start(&v, "waits", "mutex", "3");
    victim_settle(&v);
    triage_until(&v.process, "3 of 5 threads wait for one lock");
    CHECK(!says("DEADLOCK"));
    end(&v);
}

TEST(many_wait_for_one_that_reads_from_anothers_pipe)
{
    struct victim v;
    char expected[160];
    victim_start(&v, "waits", "mutex", "38");
    victim_settle(&v);
    triage_until(&v.process, "38 of 40 threads wait for one lock held by thread ");
    CHECK(says_first("'holder' (if this is a pthread mutex), which reads from a pipe whose other "
                     "end is held by '"));
    snprintf(expected, sizeof expected, "(pid %d, fd %d)", getpid(), fileno(v.in));
    CHECK(says_first(expected));
    CHECK(says("  38 x worker "));
    CHECK_EQ_INT(result.threads, 40);
    end(&v);
}

TEST(a_writer_that_holds_a_rwlock)
{
    struct victim v;
    victim_start(&v, "waits", "rwlock", NULL);
    victim_settle(&v);
    triage_until(&v.process, "waits for a lock held by thread ");
    CHECK(says("'writer' (if this is a pthread rwlock)"));
    end(&v);
}

TEST(a_thread_that_joins_another)
{
    struct victim v;
    victim_start(&v, "waits", "join", NULL);
    victim_settle(&v);
    triage_until(&v.process, "'sleeper'\n"); /* it names itself after it began */
    CHECK(says("waits for the end of thread "));
    end(&v);
}

TEST(a_lock_of_a_file_and_who_holds_it)
{
    struct victim v;
    char path[] = "/tmp/trawl-lock-XXXXXX", expected[200];
    int fd = mkostemp(path, O_CLOEXEC);
    REQUIRE(fd >= 0 && flock(fd, LOCK_EX) == 0);
    victim_start(&v, "waits", "flock", path);
    victim_settle(&v);
    snprintf(expected, sizeof expected, "it waits for a lock on '%s' held by '", path);
    triage_until(&v.process, expected);
    snprintf(expected, sizeof expected, "(pid %d)\n", getpid());
    CHECK(says_first(expected));
    CHECK(says("waited for by this process"));
    taken_done(&taken);
    /* And from the other side. */
    struct os_process self;
    REQUIRE(os_process_get("", (uint32_t)getpid(), &self, &failure) == 0);
    triage(&self);
    snprintf(expected, sizeof expected, "it holds a lock on '%s' for which 'waits' (pid %d) waits",
             path, v.pid);
    CHECK(says_first(expected));
    CHECK(says("holds a write lock (FLOCK, 0 to EOF)"));
    unlink(path);
    close(fd);
    end(&v);
}

TEST(a_parent_that_waits_for_its_child)
{
    struct os_process process;
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        pid_t child = fork();
        if (child == 0) {
            execl("/bin/sleep", "sleep", "60", (char *)NULL);
            _exit(1);
        }
        waitpid(child, NULL, 0);
        _exit(0);
    }
    REQUIRE(os_process_get("", (uint32_t)pid, &process, &failure) == 0);
    triage_until(&process, "its only thread waits for a child: 'sleep' (pid ");
    taken_done(&taken);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

TEST(a_child_by_vfork_that_does_not_go_on)
{
    struct os_process process;
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1); /* it says "ready" */
        execl(VICTIMS_DIR "/vfork", "vfork", (char *)NULL);
        _exit(1);
    }
    REQUIRE(os_process_get("", (uint32_t)pid, &process, &failure) == 0);
    triage_until(&process, "waits for the child that it made by vfork: '");
    taken_done(&taken);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

TEST(the_other_end_of_a_unix_socket)
{
    struct os_process process;
    int pair[2];
    char expected[120], byte;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        close(pair[0]);
        (void)!read(pair[1], &byte, 1);
        _exit(0);
    }
    close(pair[1]);
    REQUIRE(os_process_get("", (uint32_t)pid, &process, &failure) == 0);
    snprintf(expected, sizeof expected, "(pid %d, fd %d)", getpid(), pair[0]);
    triage_until(&process, "its only thread waits for unix stream established");
    CHECK(says_first("; other end: '"));
    CHECK(says_first(expected));
    taken_done(&taken);
    close(pair[0]);
    waitpid(pid, NULL, 0);
}

TEST(a_full_table_of_files_is_said)
{
    struct victim v;
    char expected[80];
    victim_start(&v, "waits", "files", "1000");
    victim_settle(&v);
    triage(&v.process);
    CHECK(!says("limit nearly reached"));
    taken_done(&taken);
    victim_end(&v);
    struct rlimit limit = {1010, 1010};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    victim_start(&v, "waits", "files", "1000");
    victim_settle(&v);
    triage(&v.process);
    snprintf(expected, sizeof expected, "limit nearly reached: open files %u of 1010\n",
             open_files(&v));
    CHECK(says_first(expected));
    end(&v);
}

TEST_LIMIT(ten_thousand_files, 120)
{
    struct victim v;
    char expected[80];
    victim_start(&v, "waits", "files", "10000");
    victim_settle(&v);
    unsigned count = open_files(&v);
    CHECK(count >= 10003);
    triage(&v.process);
    snprintf(expected, sizeof expected, "open files (%u)\n", count);
    CHECK(says(expected));
    snprintf(expected, sizeof expected, "open files: %u of %u are only counted", count - 500,
             count);
    CHECK(strstr(result.missing, expected) != NULL);
    CHECK(taken.text.size_bytes < 200000);
    end(&v);
}

TEST_LIMIT(no_blocking_call_is_disturbed, 60)
{
    struct victim v;
    char line[4096];
    unsigned kinds = 0, interrupted = 1, other = 1;
    victim_start(&v, "syscalls", NULL, NULL);
    victim_settle(&v);
    victim_ask(&v, line, sizeof line);
    for (int i = 0; i < 20; i++) {
        triage(&v.process);
        victim_check_free(&v);
        taken_done(&taken);
    }
    victim_settle(&v);
    victim_ask(&v, line, sizeof line);
    REQUIRE(sscanf(line, "%u %u %u", &kinds, &interrupted, &other) == 3);
    CHECK(kinds >= 30);
    CHECK_EQ_INT(interrupted, 0);
    victim_end(&v);
}
