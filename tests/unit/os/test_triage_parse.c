/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pure parts of triage: system calls in words, what a futex tells of its holder, kernel stacks,
 * fdinfo, /proc/locks, signals and capabilities.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"
#include "tests/check.h"

static char text[512];

/* ---- system calls ---- */

static bool target(void *context, uint64_t fd, char *out, size_t size)
{
    (void)context;
    return fd == 5 && text_copy(out, size, "socket:[77]") == 0;
}

/* The process's memory: 64 bytes at 0x1000. */
static uint8_t memory[64];

static int read_memory(void *context, uint64_t address, void *out, size_t size)
{
    (void)context;
    if (address < 0x1000 || size > sizeof memory || address - 0x1000 > sizeof memory - size)
        return ERR_DENIED;
    memcpy(out, memory + (address - 0x1000), size);
    return 0;
}

static const struct triage_eyes eyes = {target, read_memory, NULL};

static const char *described(const char *line)
{
    struct triage_call call;
    REQUIRE(triage_parse_call(span_str(line), &call) == 0);
    REQUIRE(triage_describe_call(&call, &eyes, text, sizeof text) == 0);
    return text;
}

TEST(system_calls_in_words)
{
#ifdef __x86_64__
    static const char *const cases[][2] = {
        {"0 0x5 0x7ffc 0x400 0x0 0x0 0x0 0x7ffd 0x7ffe\n", "read(5 -> socket:[77], 1024 B)"},
        {"1 0x6 0x7ffc 0x400 0x0 0x0 0x0 0x7ffd 0x7ffe\n", "write(6, 1024 B)"},
        {"202 0x55aa 0x80 0x0 0x0 0x0 0x0 0x1 0x2\n", "futex(0x55aa, wait)"},
        {"7 0x55aa 0x3 0xffffffff 0x0 0x0 0x0 0x1 0x2\n", "poll(3 files, no time limit)"},
        {"61 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x0 0x1 0x2\n", "wait4(pid -1)"},
        {"35 0x1 0x2 0x3 0x0 0x0 0x0 0x1 0x2\n", "nanosleep(a time limit)"},
        {"73 0x5 0x2 0x3 0x0 0x0 0x0 0x1 0x2\n", "flock(5 -> socket:[77], write lock)"},
        {"257 0xffffff9c 0x2 0x0 0x0 0x0 0x0 0x1 0x2\n", "openat(here, 0x2, 0x0)"},
        {"9999 0x1 0x2 0x3 0x0 0x0 0x0 0x1 0x2\n", "system call 9999"},
        {"running\n", "running"},
        {"-1 0x7ffc 0x7ffd\n", "in no system call"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ_STR(described(cases[i][0]), cases[i][1]);
#endif
    struct triage_call call;
    CHECK_EQ_INT(triage_parse_call(span_str(""), &call), ERR_CORRUPT);
    CHECK_EQ_INT(triage_parse_call(span_str("0 5"), &call), ERR_CORRUPT);
}

#ifdef __x86_64__
TEST(arguments_in_memory)
{
    struct timespec half = {2, 500000000};
    memcpy(memory, &half, sizeof half);
    CHECK_EQ_STR(described("35 0x1000 0x0 0x0 0x0 0x0 0x0 0x1 0x2"), "nanosleep(2.5 s)");
    half.tv_nsec = -1;
    memcpy(memory, &half, sizeof half);
    CHECK_EQ_STR(described("35 0x1000 0x0 0x0 0x0 0x0 0x0 0x1 0x2"), "nanosleep(a time limit)");
    memset(memory, 0, sizeof memory);
    memcpy(memory + 16, "\x02\0\x1f\x90\x7f\0\0\x01", 8); /* 127.0.0.1:8080 */
    CHECK_EQ_STR(described("42 0x6 0x1010 0x10 0x0 0x0 0x0 0x1 0x2"), "connect(6, 127.0.0.1:8080)");
    memcpy(memory, "\x05\0\0\0\x01\0\0\0\x07\0\0\0\x01\0\0\0", 16);
    CHECK_EQ_STR(described("7 0x1000 0x2 0x64 0x0 0x0 0x0 0x1 0x2"),
                 "poll(2 files: 5 -> socket:[77] and 7, 100 ms)");
}

TEST(the_file_of_a_call)
{
    struct triage_call call;
    bool writes;
    REQUIRE(triage_parse_call(span_str("1 0x6 0x0 0x0 0x0 0x0 0x0 0x1 0x2"), &call) == 0);
    CHECK_EQ_INT(triage_call_file(&call, &eyes, &writes), 6);
    CHECK(writes);
    memcpy(memory, "\x05\0\0\0\x01\0\0\0", 8);
    REQUIRE(triage_parse_call(span_str("7 0x1000 0x1 0x0 0x0 0x0 0x0 0x1 0x2"), &call) == 0);
    CHECK_EQ_INT(triage_call_file(&call, &eyes, &writes), 5);
    CHECK(!writes);
    REQUIRE(triage_parse_call(span_str("202 0x1000 0x0 0x0 0x0 0x0 0x0 0x1 0x2"), &call) == 0);
    CHECK_EQ_INT(triage_call_file(&call, &eyes, &writes), -1);
}
#endif

/* ---- futexes ---- */

static bool exists(void *context, uint32_t tid, bool shared)
{
    (void)context;
    return tid == 4711 || (shared && tid == 900);
}

static enum triage_futex judged(uint64_t operation, uint32_t expected, const uint32_t *words,
                                size_t count, uint32_t *holder)
{
    *holder = 0;
    return triage_judge_futex(operation, expected, words, count, exists, NULL, holder);
}

#define PRIVATE_WAIT (FUTEX_WAIT | FUTEX_PRIVATE_FLAG)

TEST(a_pthread_mutex_names_its_holder)
{
    uint32_t holder, mutex[] = {2, 0, 4711, 1, 0};
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 2, mutex, 5, &holder), FUTEX_MUTEX);
    CHECK_EQ_INT(holder, 4711);
    mutex[2] = 4712; /* not a thread: not a mutex of this kind */
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 2, mutex, 5, &holder), FUTEX_LOCK);
    mutex[2] = 900; /* another process's, and the mutex is not shared */
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 2, mutex, 5, &holder), FUTEX_LOCK);
    mutex[4] = 0x80;
    CHECK_EQ_INT(judged(FUTEX_WAIT, 2, mutex, 5, &holder), FUTEX_MUTEX);
    CHECK_EQ_INT(holder, 900);
    mutex[4] = 0x12345678; /* no kind of mutex */
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 2, mutex, 5, &holder), FUTEX_LOCK);
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 2, mutex, 1, &holder), FUTEX_LOCK);
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 2, mutex, 0, &holder), FUTEX_UNKNOWN);
}

TEST(words_that_hold_their_owner)
{
    uint32_t holder, word = 4711 | FUTEX_WAITERS;
    CHECK_EQ_INT(judged(FUTEX_LOCK_PI_PRIVATE, 0, &word, 1, &holder), FUTEX_HELD);
    CHECK_EQ_INT(holder, 4711);
    CHECK_EQ_INT(judged(PRIVATE_WAIT, word, &word, 1, &holder), FUTEX_HELD);
    word = 4712 | FUTEX_WAITERS;
    CHECK_EQ_INT(judged(FUTEX_LOCK_PI_PRIVATE, 0, &word, 1, &holder), FUTEX_LOCK);
}

TEST(ends_of_threads_locks_of_writers_and_conditions)
{
    uint32_t holder, word = 4711, zero = 0;
    CHECK_EQ_INT(judged(FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 4711, &word, 1, &holder),
                 FUTEX_THREAD_END);
    CHECK_EQ_INT(holder, 4711);
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 4711, &word, 1, &holder), FUTEX_UNKNOWN);
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 0, &zero, 1, &holder), FUTEX_UNKNOWN);
    uint32_t phase[] = {3, 3, 0, 0, 4711}, writers[] = {3, 0, 0, 4711, 0};
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 3, phase, 5, &holder), FUTEX_RWLOCK);
    CHECK_EQ_INT(holder, 4711);
    CHECK_EQ_INT(judged(PRIVATE_WAIT, 3, writers, 5, &holder), FUTEX_RWLOCK);
    CHECK_EQ_INT(judged(FUTEX_WAKE, 3, writers, 5, &holder), FUTEX_UNKNOWN);
}

/* ---- texts of the kernel ---- */

TEST(kernel_stacks_in_a_line)
{
    triage_kernel_stack(span_str("[<0>] futex_do_wait+0x38/0x60\n"
                                 "[<0>] do_futex+0x105/0x1d0\n"
                                 "[<0>] do_syscall_64+0x71/0x280\n"
                                 "[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e\n"),
                        text, sizeof text);
    CHECK_EQ_STR(text, "futex_do_wait < do_futex");
    triage_kernel_stack(span_str("nonsense\n[<0>]\n"), text, sizeof text);
    CHECK_EQ_STR(text, "");
}

TEST(fdinfo_in_words)
{
    static const struct {
        const char *target, *info, *words;
    } cases[] = {
        {"/var/log/x", "pos:\t92\nflags:\t0102001\nmnt_id:\t27\nino:\t1\n",
         "for writing, appending, at 92"},
        {"/var/lock/x",
         "pos:\t0\nflags:\t02\nlock:\t1: FLOCK  ADVISORY  WRITE 13974 fe:00:11215264 0 EOF\n",
         "for reading and writing, at 0, holds a write lock (FLOCK, 0 to EOF)"},
        {"pipe:[1]", "pos:\t0\nflags:\t04001\n", "for writing, not blocking"},
        {"anon_inode:[eventfd]", "flags:\t02\neventfd-count:                3\n", "count 3"},
        {"anon_inode:[timerfd]",
         "flags:\t02\nclockid: 1\nit_value: (1, 500000000)\nit_interval: (2, 0)\n",
         "fires in 1.5 s, then every 2.0 s"},
        {"anon_inode:[timerfd]", "it_value: (0, 0)\nit_interval: (0, 0)\n", "not armed"},
        {"anon_inode:inotify", "flags:\t00\ninotify wd:1 ino:3\ninotify wd:2 ino:4\n", "2 watches"},
        {"anon_inode:[signalfd]", "sigmask:\t0000000000000200\n", "signals USR1"},
        {"anon_inode:[pidfd]", "Pid:\t14015\n", "of process 14015"},
        {"anon_inode:[eventpoll]", "tfd:        6 events:       19\n", "watches 1 files: 6"},
        {"socket:[1]", "flags:\t0zz\n", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        triage_describe_fdinfo(span_str(cases[i].info), cases[i].target, text, sizeof text);
        CHECK_EQ_STR(text, cases[i].words);
    }
    triage_describe_fdinfo(span_str(cases[1].info), cases[1].target, text, 8);
    CHECK_EQ_STR(text, "for rea");
}

TEST(locks_of_files)
{
    struct triage_file_lock lock;
    REQUIRE(triage_parse_lock(span_str("1: -> FLOCK  ADVISORY  WRITE 14015 fe:00:11215264 0 EOF"),
                              &lock) == 0);
    CHECK(lock.waits && lock.id == 1 && lock.pid == 14015 && lock.inode == 11215264);
    CHECK_EQ_STR(lock.class, "FLOCK");
    CHECK_EQ_STR(lock.mode, "WRITE");
    CHECK_EQ_STR(lock.range, "0 to EOF");
    REQUIRE(triage_parse_lock(span_str("2: OFDLCK ADVISORY  READ -1 08:01:5 7 9"), &lock) == 0);
    CHECK(!lock.waits && lock.pid == -1);
    CHECK_EQ_INT(triage_parse_lock(span_str("2: FLOCK ADVISORY READ 1 08:01 x"), &lock),
                 ERR_CORRUPT);
    CHECK_EQ_INT(triage_parse_lock(span_str("FLOCK ADVISORY"), &lock), ERR_CORRUPT);
    CHECK_EQ_INT(triage_parse_lock(span_str(""), &lock), ERR_CORRUPT);
}

TEST(names_of_signals_and_capabilities)
{
    triage_put_signals(0x400000003ULL, text, sizeof text);
    CHECK_EQ_STR(text, "HUP INT 35");
    triage_put_capabilities(0, text, sizeof text);
    CHECK_EQ_STR(text, "none");
    triage_put_capabilities(0x400, text, sizeof text);
    CHECK_EQ_STR(text, "net_bind_service");
    triage_put_capabilities(0x1ffffffffffULL, text, sizeof text);
    CHECK_EQ_STR(text, "all");
    triage_put_capabilities(0x1fffeffffffULL, text, sizeof text);
    CHECK_EQ_STR(text, "all but sys_resource");
}
