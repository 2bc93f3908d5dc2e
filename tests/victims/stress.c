/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that does a bit of everything and checks all of it: registers and red zones around
 * system calls and in loops, floating point in SSE, AVX and x87, pipes with known data, signals
 * with numbers to a handler on a stack of its own, forks and vforks, epoll, futexes, timers,
 * mappings that come and go. A line on its input is answered by "WRONG IDLE INTERRUPTED FIRST...":
 * how much was wrong since the start, how many workers got nowhere since the last line, how often
 * epoll_wait failed with EINTR, and the first wrong thing in words (or the idle). Started by
 * tests/e2e/35_safety.
 *
 * All signals but one are blocked in all threads but one, so an EINTR anywhere is wrong. That of
 * epoll_wait is counted by itself: a tracer that dies between a stop and its mending leaves it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define PAGE 4096
#define OUTSTANDING 8
#define CHILD_CODE 42
#define WAIT_MS 20000 /* longer than any capture: a wake-up that was lost */

struct worker {
    const char *name;
    void (*step)(void);
    _Atomic uint64_t steps;
    uint64_t reported;
};

static _Atomic uint64_t wrongs, interrupted;
static char first_wrong[160];
static pthread_mutex_t first_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t signalled;

static void wrong(const char *who, const char *what, uint64_t got)
{
    pthread_mutex_lock(&first_lock);
    if (wrongs++ == 0)
        snprintf(first_wrong, sizeof first_wrong, "%s: %s (%llx)", who, what,
                 (unsigned long long)got);
    pthread_mutex_unlock(&first_lock);
}

static void nap_us(long us)
{
    struct timespec t = {0, us * 1000};
    if (nanosleep(&t, NULL) != 0)
        wrong("nap", strerror(errno), 0);
}

/* ---- registers and the red zone ---- */

#define REGISTERS 13 /* rax rdi rsi rdx r10 r8 r9 rbx rbp r12 r13 r14 r15 */
#define RED_MARK 0x5ca1ab1e5ca1ab1e

/*
 * Loads all registers, fills the red zone, makes the system call in rax (or turns a loop when it is
 * negative), and stores what the registers then are; returns how many words of the red zone differ.
 */
uint64_t around_call(const uint64_t in[REGISTERS], uint64_t out[REGISTERS]);
__asm__(".text\n.globl around_call\n.type around_call,@function\naround_call:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\npush %rsi\n"
        "mov %rdi,%rcx\n"
        "movabs $0x5ca1ab1e5ca1ab1e,%rax\n"
        "i=8\n.rept 16\nmov %rax,-i(%rsp)\ni=i+8\n.endr\n"
        "mov 0(%rcx),%rax\nmov 8(%rcx),%rdi\nmov 16(%rcx),%rsi\nmov 24(%rcx),%rdx\n"
        "mov 32(%rcx),%r10\nmov 40(%rcx),%r8\nmov 48(%rcx),%r9\nmov 56(%rcx),%rbx\n"
        "mov 64(%rcx),%rbp\nmov 72(%rcx),%r12\nmov 80(%rcx),%r13\nmov 88(%rcx),%r14\n"
        "mov 96(%rcx),%r15\n"
        "test %rax,%rax\njs 1f\nsyscall\njmp 3f\n"
        "1: mov $300000,%ecx\n2: dec %ecx\njnz 2b\n"
        "3: mov (%rsp),%r11\n"
        "mov %rax,0(%r11)\nmov %rdi,8(%r11)\nmov %rsi,16(%r11)\nmov %rdx,24(%r11)\n"
        "mov %r10,32(%r11)\nmov %r8,40(%r11)\nmov %r9,48(%r11)\nmov %rbx,56(%r11)\n"
        "mov %rbp,64(%r11)\nmov %r12,72(%r11)\nmov %r13,80(%r11)\nmov %r14,88(%r11)\n"
        "mov %r15,96(%r11)\n"
        "movabs $0x5ca1ab1e5ca1ab1e,%rcx\nxor %eax,%eax\n"
        "i=8\n.rept 16\ncmp %rcx,-i(%rsp)\nje 4f\ninc %eax\n4: i=i+8\n.endr\n"
        "pop %rsi\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
        ".size around_call,.-around_call\n");

static void check_around(const char *who, uint64_t call, uint64_t first, uint64_t result)
{
    uint64_t in[REGISTERS] = {call, first, 0}, out[REGISTERS];
    for (size_t i = 3; i < REGISTERS; i++)
        in[i] = 0x0101010101010101 * i;
    uint64_t red = around_call(in, out);
    in[0] = result;
    if (red)
        wrong(who, "red zone", red);
    for (size_t i = 0; i < REGISTERS; i++)
        if (in[i] != out[i])
            wrong(who, "register", out[i]);
}

static void step_call(void)
{
    static const struct timespec nap = {0, 2000000};
    check_around("call", SYS_nanosleep, (uint64_t)(uintptr_t)&nap, 0);
}

/* Blocks until its partner writes: rdi, rsi and rdx are those of a read(2). */
static int poke[2], poked[2];

static void step_wait(void)
{
    static uint64_t byte;
    uint64_t in[REGISTERS] = {SYS_read, (uint64_t)poke[0], (uint64_t)(uintptr_t)&byte, 1};
    uint64_t out[REGISTERS];
    for (size_t i = 4; i < REGISTERS; i++)
        in[i] = 0x1111111111111111 * i;
    uint64_t red = around_call(in, out);
    in[0] = 1;
    if (red || memcmp(in, out, sizeof in) != 0)
        wrong("wait", "registers or red zone", out[0]);
    if (write(poked[1], &byte, 1) != 1)
        wrong("wait", strerror(errno), 0);
}

static void step_poke(void)
{
    char byte = 'p';
    nap_us(5000);
    if (write(poke[1], &byte, 1) != 1 || read(poked[0], &byte, 1) != 1)
        wrong("poke", strerror(errno), 0);
}

static void step_loop(void)
{
    check_around("loop", (uint64_t)-1, 7, (uint64_t)-1);
    nap_us(1000);
}

/* ---- floating point ---- */

static double sum_double(volatile double *x)
{
    double sum = 0;
    for (int i = 1; i < 20000; i++)
        sum += *x / i - *x / (i + 1);
    return sum;
}

static void step_sse(void)
{
    static volatile double x = 3.25;
    static double expected;
    double got = sum_double(&x);
    if (expected == 0)
        expected = got;
    if (memcmp(&got, &expected, sizeof got) != 0)
        wrong("sse", "sum", (uint64_t)got);
    nap_us(1000);
}

static void step_x87(void)
{
    static volatile long double x = 1.5L;
    static long double expected;
    long double sum = 0;
    for (int i = 1; i < 20000; i++)
        sum += x / i - x / (i + 2);
    if (expected == 0)
        expected = sum;
    if (sum != expected)
        wrong("x87", "sum", (uint64_t)sum);
    nap_us(1000);
}

/* Both halves of four vector registers over a loop, and a rounding mode of its own. */
__attribute__((target("avx"))) static void step_avx(void)
{
    static const uint8_t in[128] __attribute__((aligned(32))) = {1, 2, 3, 5, 8, 13, 21, 34, 55};
    uint8_t out[128] __attribute__((aligned(32)));
    uint32_t control = 0x3f80, after; /* round up */
    uint32_t usual;
    __asm__ volatile("stmxcsr %0\nldmxcsr %2\n"
                     "vmovdqa (%3),%%ymm4\nvmovdqa 32(%3),%%ymm5\n"
                     "vmovdqa 64(%3),%%ymm14\nvmovdqa 96(%3),%%ymm15\n"
                     "mov $1000000,%%ecx\n1: dec %%ecx\njnz 1b\n"
                     "vmovdqa %%ymm4,(%4)\nvmovdqa %%ymm5,32(%4)\n"
                     "vmovdqa %%ymm14,64(%4)\nvmovdqa %%ymm15,96(%4)\n"
                     "stmxcsr %1\nldmxcsr %0\nvzeroupper\n"
                     : "=m"(usual), "=m"(after)
                     : "m"(control), "r"(in), "r"(out)
                     : "rcx", "memory", "xmm4", "xmm5", "xmm14", "xmm15");
    if (memcmp(in, out, sizeof in) != 0)
        wrong("avx", "registers", out[0]);
    if ((after & 0x7f80) != control)
        wrong("avx", "mxcsr", after);
    nap_us(1000);
}

/* ---- data through pipes ---- */

static int data[2];

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)((at * 0x9e3779b97f4a7c15) >> 56);
}

static void step_writer(void)
{
    static uint64_t at;
    uint8_t block[5000];
    size_t size = 1 + at % sizeof block;
    for (size_t i = 0; i < size; i++)
        block[i] = byte_at(at + i);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(data[1], block + done, size - done);
        if (n <= 0) {
            wrong("writer", strerror(errno), 0);
            return;
        }
        done += (size_t)n;
    }
    at += size;
    nap_us(200);
}

static void step_reader(void)
{
    static uint64_t at;
    uint8_t block[3000];
    ssize_t n = read(data[0], block, sizeof block);
    if (n <= 0)
        wrong("reader", strerror(errno), 0);
    for (ssize_t i = 0; i < n; i++)
        if (block[i] != byte_at(at++))
            wrong("reader", "byte", at);
}

/* ---- waking each other ---- */

static int ping = -1, pong = -1;

static void step_epoll(void)
{
    static int set = -1;
    struct epoll_event event = {.events = EPOLLIN};
    uint64_t one = 1;
    if (set < 0) {
        set = epoll_create1(0);
        epoll_ctl(set, EPOLL_CTL_ADD, pong, &event);
    }
    if (write(ping, &one, 8) != 8)
        wrong("epoll", "write", 0);
    int n;
    while ((n = epoll_wait(set, &event, 1, WAIT_MS)) < 0 && errno == EINTR)
        interrupted++;
    if (n != 1 || read(pong, &one, 8) != 8 || one != 1)
        wrong("epoll", n < 0 ? strerror(errno) : "no event", one);
    nap_us(300);
}

static void step_answer(void)
{
    uint64_t count;
    if (read(ping, &count, 8) != 8 || count != 1 || write(pong, &count, 8) != 8)
        wrong("answer", "count", count);
}

static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static uint64_t turn;

static void take_turn(uint64_t mine)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&turn_lock);
    while (turn % 2 != mine)
        if (pthread_cond_timedwait(&turned, &turn_lock, &until) != 0) {
            wrong("futex", "no turn", turn);
            break;
        }
    turn++;
    pthread_cond_signal(&turned);
    pthread_mutex_unlock(&turn_lock);
    nap_us(200);
}

static void step_futex_even(void)
{
    take_turn(0);
}

static void step_futex_odd(void)
{
    take_turn(1);
}

static void step_timer(void)
{
    static int fd = -1;
    struct itimerspec each = {{0, 1000000}, {0, 1000000}};
    uint64_t times = 0;
    if (fd < 0) {
        fd = timerfd_create(CLOCK_MONOTONIC, 0);
        timerfd_settime(fd, 0, &each, NULL);
    }
    if (read(fd, &times, 8) != 8 || times == 0)
        wrong("timer", "read", times);
}

/* ---- signals ---- */

static _Atomic uint64_t queued, delivered;

static void on_signal(int number, siginfo_t *info, void *context)
{
    static volatile double x = 0.7;
    static double expected;
    static int last = -1;
    (void)number;
    (void)context;
    double got = sum_double(&x);
    if (expected == 0)
        expected = got;
    if (memcmp(&got, &expected, sizeof got) != 0)
        wrong("handler", "sum", (uint64_t)got);
    if (info->si_value.sival_int != last + 1)
        wrong("handler", "signal lost or doubled", (uint64_t)info->si_value.sival_int);
    last = info->si_value.sival_int;
    delivered++;
}

/* Computes, so that most signals come to a running thread with live FP registers. */
static void step_signalled(void)
{
    static bool made;
    if (!made) {
        stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
        sigset_t wanted;
        sigaltstack(&stack, NULL);
        sigemptyset(&wanted);
        sigaddset(&wanted, SIGRTMIN);
        signalled = pthread_self();
        pthread_sigmask(SIG_UNBLOCK, &wanted, NULL);
        made = true;
    }
    check_around("signalled", (uint64_t)-1, 9, (uint64_t)-1);
    for (int i = 0; i < 3; i++) {
        struct timespec t = {0, 300000};
        nanosleep(&t, NULL); /* may be interrupted: signals are for this thread */
    }
}

static void step_sender(void)
{
    union sigval value = {.sival_int = (int)queued};
    if (queued - delivered < OUTSTANDING && signalled &&
        pthread_sigqueue(signalled, SIGRTMIN, value) == 0)
        queued++;
    else if (queued - delivered >= OUTSTANDING)
        sched_yield();
    nap_us(500);
}

/* ---- processes and memory ---- */

static uint8_t pattern[1 << 18];

static void step_forker(void)
{
    static unsigned number;
    bool brief = number++ % 4 == 3;
    pid_t child = brief ? vfork() : fork();
    if (child == 0) {
        if (brief)
            _exit(CHILD_CODE);
        prctl(PR_SET_NAME, "offspring");
        for (size_t i = 0; i < sizeof pattern; i++)
            if (pattern[i] != byte_at(i))
                _exit(1);
        _exit(CHILD_CODE);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        wrong("forker", strerror(errno), 0);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != CHILD_CODE)
        wrong("forker", "child ended otherwise", (uint64_t)status);
    nap_us(8000);
}

static void step_mapper(void)
{
    static uint64_t number;
    size_t size_bytes = (1 + number % 40) * PAGE;
    uint64_t mark = ++number * 0x100000001b3;
    uint8_t *area =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        wrong("mapper", strerror(errno), 0);
        return;
    }
    if (number % 3 == 0)
        madvise(area, size_bytes, MADV_DONTFORK);
    if (number % 3 == 1)
        madvise(area, size_bytes, MADV_WIPEONFORK);
    for (size_t at = 0; at < size_bytes; at += PAGE)
        memcpy(area + at, &mark, sizeof mark);
    mprotect(area, size_bytes, PROT_READ);
    nap_us(700);
    area = mremap(area, size_bytes, 2 * size_bytes, MREMAP_MAYMOVE);
    for (size_t at = 0; at < size_bytes; at += PAGE)
        if (memcmp(area + at, &mark, sizeof mark) != 0)
            wrong("mapper", "memory changed", at);
    munmap(area, 2 * size_bytes);
}

/* ---- */

static struct worker workers[] = {
    {"call", step_call, 0, 0},
    {"wait", step_wait, 0, 0},
    {"poke", step_poke, 0, 0},
    {"loop", step_loop, 0, 0},
    {"sse", step_sse, 0, 0},
    {"x87", step_x87, 0, 0},
    {"avx", step_avx, 0, 0},
    {"writer", step_writer, 0, 0},
    {"reader", step_reader, 0, 0},
    {"epoll", step_epoll, 0, 0},
    {"answer", step_answer, 0, 0},
    {"futex-even", step_futex_even, 0, 0},
    {"futex-odd", step_futex_odd, 0, 0},
    {"timer", step_timer, 0, 0},
    {"signalled", step_signalled, 0, 0},
    {"sender", step_sender, 0, 0},
    {"forker", step_forker, 0, 0},
    {"mapper", step_mapper, 0, 0},
};
#define WORKERS (sizeof workers / sizeof workers[0])

static void *work(void *argument)
{
    struct worker *w = argument;
    pthread_setname_np(pthread_self(), w->name);
    for (;; w->steps++)
        w->step();
    return NULL;
}

static void report(void)
{
    char idle[256] = "";
    size_t count = 0;
    for (size_t i = 0; i < WORKERS; i++) {
        uint64_t now = workers[i].steps;
        if (now == workers[i].reported) {
            size_t used = strlen(idle);
            snprintf(idle + used, sizeof idle - used, " %s", workers[i].name);
            count++;
        }
        workers[i].reported = now;
    }
    printf("%llu %zu %llu %s%s\n", (unsigned long long)wrongs, count,
           (unsigned long long)interrupted, first_wrong, idle);
    fflush(stdout);
}

int main(void)
{
    char line[16];
    sigset_t all;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    ping = eventfd(0, 0);
    pong = eventfd(0, 0);
    if (pipe(poke) != 0 || pipe(poked) != 0 || pipe(data) != 0)
        return 1;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = byte_at(i);
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_t thread;
        if (workers[i].step == step_avx && !__builtin_cpu_supports("avx"))
            workers[i].step = step_sse;
        pthread_create(&thread, NULL, work, &workers[i]);
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        report();
    return 0;
}
