/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that knows how long it stood still: memory of a given size, threads asleep in a mixture
 * of calls, and one that wakes every 50 us, writes a page of that memory and keeps the longest time
 * between two of its beats. A port of the loopback echoes what comes. Each line on its input is
 * answered by "LONGEST_US BEATS" since the last line. Started by tests/bench/capture and tests/e2e.
 *
 * Why a heart that sleeps: one that spins owns a core, and is then put aside by the scheduler for
 * whole slices whenever anybody else has work; its gaps would be those of the machine. What is left
 * of that is the noise floor, which the benchmark measures without any capture.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define HUGE_BYTES ((size_t)2 << 20)
#define STACK_BYTES ((size_t)64 << 10)
#define BEAT_NS 50000
#define MARK "trawl-beat-heap-mark"

static struct {
    size_t memory_bytes;
    bool huge, half, spin, quiet, realtime, unforkable;
    int threads;
} options = {.memory_bytes = (size_t)64 << 20};

static uint8_t *memory;
static _Atomic uint64_t longest_us, beats;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- memory ---- */

/* Pseudo-random words, or with --half every second block of 64 bytes zero. */
static void fill(uint8_t *page, uint64_t *state)
{
    uint64_t *words = (uint64_t *)page;
    for (size_t i = 0; i < PAGE / sizeof *words; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        words[i] = options.half && (i & 8) ? 0 : *state;
    }
}

static void make_memory(void)
{
    uint64_t state = 0x9e3779b97f4a7c15;
    size_t size_bytes = options.memory_bytes + HUGE_BYTES;
    memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        exit(3);
    memory += HUGE_BYTES - (uintptr_t)memory % HUGE_BYTES;
    madvise(memory, options.memory_bytes, options.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (size_t at = 0; at < options.memory_bytes; at += PAGE)
        fill(memory + at, &state);
    memcpy(memory, MARK, sizeof MARK);
}

/* Untouched memory in one mapping that is larger than the machine: made of two that are not. The
 * kernel then refuses any copy of this process with ENOMEM, as it does in more cases when
 * vm.overcommit_memory is 2. */
static void become_unforkable(void)
{
    struct sysinfo machine;
    sysinfo(&machine);
    size_t half = (machine.totalram + machine.totalswap) / PAGE * machine.mem_unit * 6 / 10 * PAGE;
    uint8_t *all = mmap(NULL, 2 * half, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < 2 && all != MAP_FAILED; i++)
        if (mmap(all + i * half, half, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            exit(3);
}

/* ---- threads ---- */

static void in_futex(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&lock);
    for (;;)
        pthread_cond_wait(&never, &lock);
}

static void in_epoll(void)
{
    struct epoll_event event;
    int fd = epoll_create1(0);
    while (epoll_wait(fd, &event, 1, -1) >= 0 || errno == EINTR)
        ;
}

static void in_sleep(void)
{
    for (;;)
        sleep(3600);
}

static void in_read(void)
{
    static int quiet[2] = {-1, -1};
    char byte;
    if (quiet[0] < 0 && pipe(quiet) != 0)
        exit(3);
    while (read(quiet[0], &byte, 1) != 0)
        ;
}

static void *sleeper(void *argument)
{
    static void (*const calls[])(void) = {in_futex, in_epoll, in_sleep, in_read};
    calls[(uintptr_t)argument % (sizeof calls / sizeof calls[0])]();
    return NULL;
}

/* Runs before everything that is ordinary: then only a stop, not another's work, makes a gap. */
static void be_first(void)
{
    struct sched_param first = {.sched_priority = 1};
    if (options.realtime && pthread_setschedparam(pthread_self(), SCHED_FIFO, &first) != 0) {
        fputs("beat: no real-time priority here\n", stderr);
        exit(3);
    }
}

static void *heart(void *argument)
{
    const struct timespec nap = {0, BEAT_NS};
    size_t pages = options.memory_bytes / PAGE, number = 1;
    uint64_t last = now_us();
    (void)argument;
    prctl(PR_SET_TIMERSLACK, 1);
    be_first();
    for (;;) {
        if (!options.spin)
            nanosleep(&nap, NULL);
        if (!options.quiet)
            memory[number++ % pages * PAGE + PAGE / 2]++;
        uint64_t now = now_us();
        if (now - last > longest_us)
            longest_us = now - last;
        last = now;
        beats++;
    }
    return NULL;
}

static void *echo(void *argument)
{
    char block[256];
    int one = 1;
    be_first();
    for (;;) {
        int fd = accept((int)(intptr_t)argument, NULL, NULL);
        ssize_t n;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while ((n = read(fd, block, sizeof block)) > 0 && write(fd, block, (size_t)n) == n)
            ;
        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

static int listen_on_loopback(int *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) != 0)
        return -1;
    *port = ntohs(at.sin_port);
    return fd;
}

static void start(void *(*run)(void *), intptr_t argument, const char *name)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (pthread_create(&thread, &attributes, run, (void *)argument) != 0) {
        fprintf(stderr, "beat: cannot start thread '%s'\n", name);
        exit(3);
    }
    pthread_setname_np(thread, name);
}

/* ---- */

static void usage(void)
{
    fputs("usage: beat [--mib N] [--huge] [--half] [--threads N] [--spin] [--quiet]\n"
          "            [--realtime] [--unforkable]\n"
          "  --mib N      touched memory (64); --huge: of huge pages; --half: half of it zeros\n"
          "  --threads N  how many threads in all, at least 4 (4)\n"
          "  --spin       the heart never sleeps; --quiet: it writes no memory\n"
          "  --realtime   the heart and the echo run before everything else\n"
          "  --unforkable the kernel refuses to copy it: not enough memory\n"
          "prints \"ready PORT\"; a line is answered by \"LONGEST_US BEATS\" since the last one\n",
          stderr);
    exit(2);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--huge") == 0)
            options.huge = true;
        else if (strcmp(argv[i], "--half") == 0)
            options.half = true;
        else if (strcmp(argv[i], "--spin") == 0)
            options.spin = true;
        else if (strcmp(argv[i], "--quiet") == 0)
            options.quiet = true;
        else if (strcmp(argv[i], "--realtime") == 0)
            options.realtime = true;
        else if (strcmp(argv[i], "--unforkable") == 0)
            options.unforkable = true;
        else if (strcmp(argv[i], "--mib") == 0 && i + 1 < argc)
            options.memory_bytes = (size_t)strtoul(argv[++i], NULL, 10) << 20;
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            options.threads = (int)strtol(argv[++i], NULL, 10);
        else
            usage();
    }
    if (options.memory_bytes == 0)
        usage();
}

int main(int argc, char **argv)
{
    char line[64];
    int port = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    parse(argc, argv);
    int fd = listen_on_loopback(&port);
    make_memory();
    if (options.unforkable)
        become_unforkable();
    start(heart, 0, "heart");
    start(echo, fd, "echo");
    for (int i = 3; i < options.threads; i++)
        start(sleeper, i, "sleeper");
    /* The fourth in the smallest case, so that there is always one that sleeps for good. */
    if (options.threads <= 3)
        start(sleeper, 0, "sleeper");
    printf("ready %d\n", port);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%llu %llu\n", (unsigned long long)atomic_exchange(&longest_us, 0),
               (unsigned long long)atomic_exchange(&beats, 0));
        fflush(stdout);
    }
    for (;;)
        pause();
}
