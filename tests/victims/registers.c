/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that knows what it has in its registers: `registers MODE [thread]` fills all of them
 * (general, x87, SSE, AVX where there is), its red zone, its signal mask and alternate stack, then
 * waits for a line on its input in one system call, or spins, and looks at everything again. Each
 * line is answered by "ROUNDS WRONG EINTR WHAT". With "thread", the main thread sleeps on a stack
 * from the heap, as coroutines do, and another does this. With "heap", all of them do. Started by
 * tests of the os layer.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* What the assembly below reads and writes. */
uint8_t in_vector[16][32], out_vector[16][32];
uint32_t in_mxcsr, out_mxcsr;
uint16_t in_control, out_control;
uint8_t out_x87[3][16];
uint64_t in_general[12], out_general[12]; /* rbx rbp r12 r13 r14 r15 rdi rsi rdx r10 r8 r9 */
uint64_t out_red_zone[16], out_carry, spins, has_avx;

/* rdi: number, rsi rdx rcx r8 r9: arguments; number -1: spin. */
long guarded_call(long number, long a, long b, long c, long d, long e);
__asm__(
    ".text\n.globl guarded_call\n.type guarded_call,@function\nguarded_call:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\n"
    "mov $0x1234567,%r9\n"
    "movabs $0x1111222233334444,%rbx\nmovabs $0x2222333344445555,%rbp\n"
    "movabs $0x3333444455556666,%r12\nmovabs $0x4444555566667777,%r13\n"
    "movabs $0x5555666677778888,%r14\nmovabs $0x6666777788889999,%r15\n"
    "mov %rbx,in_general(%rip)\nmov %rbp,8+in_general(%rip)\nmov %r12,16+in_general(%rip)\n"
    "mov %r13,24+in_general(%rip)\nmov %r14,32+in_general(%rip)\nmov %r15,40+in_general(%rip)\n"
    "mov %rdi,48+in_general(%rip)\nmov %rsi,56+in_general(%rip)\nmov %rdx,64+in_general(%rip)\n"
    "mov %r10,72+in_general(%rip)\nmov %r8,80+in_general(%rip)\nmov %r9,88+in_general(%rip)\n"
    "fninit\nfldcw in_control(%rip)\nldmxcsr in_mxcsr(%rip)\nfldpi\nfldl2e\nfld1\n"
    "mov $16,%ecx\n1: mov %rcx,-136(%rsp,%rcx,8)\nloop 1b\n"
    "testq $1,has_avx(%rip)\njz 2f\n"
    ".irp k,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "vmovdqu \\k*32+in_vector(%rip),%ymm\\k\n.endr\njmp 3f\n"
    "2:\n.irp k,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "movdqu \\k*32+in_vector(%rip),%xmm\\k\n.endr\n"
    "3: cmp $-1,%rax\nje 4f\nstc\nsyscall\njmp 6f\n"
    "4: mov spins(%rip),%rcx\nstc\n5: dec %rcx\njnz 5b\n"
    "6: setc out_carry(%rip)\n"
    "mov %rbx,out_general(%rip)\nmov %rbp,8+out_general(%rip)\nmov %r12,16+out_general(%rip)\n"
    "mov %r13,24+out_general(%rip)\nmov %r14,32+out_general(%rip)\nmov %r15,40+out_general(%rip)\n"
    "mov %rdi,48+out_general(%rip)\nmov %rsi,56+out_general(%rip)\nmov %rdx,64+out_general(%rip)\n"
    "mov %r10,72+out_general(%rip)\nmov %r8,80+out_general(%rip)\nmov %r9,88+out_general(%rip)\n"
    "testq $1,has_avx(%rip)\njz 7f\n"
    ".irp k,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "vmovdqu %ymm\\k,\\k*32+out_vector(%rip)\n.endr\njmp 8f\n"
    "7:\n.irp k,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
    "movdqu %xmm\\k,\\k*32+out_vector(%rip)\n.endr\n"
    "8: stmxcsr out_mxcsr(%rip)\nfnstcw out_control(%rip)\n"
    "fstpt out_x87(%rip)\nfstpt 16+out_x87(%rip)\nfstpt 32+out_x87(%rip)\n"
    "mov $16,%ecx\nlea out_red_zone(%rip),%rsi\n"
    "9: mov -136(%rsp,%rcx,8),%rdx\nmov %rdx,-8(%rsi,%rcx,8)\nloop 9b\n"
    "fninit\nmovl $0x1f80,in_plain(%rip)\nldmxcsr in_plain(%rip)\n"
    "testq $1,has_avx(%rip)\njz 10f\nvzeroupper\n10:\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
    ".size guarded_call,.-guarded_call\n.data\nin_plain: .long 0x1f80\n.text\n");

static unsigned long rounds, wrong, interrupted;
static char what[256];
static sigset_t blocked;
static stack_t own_stack;

static void check(int holds, const char *name)
{
    if (holds)
        return;
    wrong++;
    if (strlen(what) + strlen(name) + 2 < sizeof what) {
        strcat(what, " ");
        strcat(what, name);
    }
}

/* fld1 is on top, then log2(e), then pi. */
static int x87_is_right(void)
{
    long double one, log2e, pi;
    memcpy(&one, out_x87[0], 10);
    memcpy(&log2e, out_x87[1], 10);
    memcpy(&pi, out_x87[2], 10);
    return one == 1.0L && log2e > 1.44269L && log2e < 1.44270L && pi > 3.14159L && pi < 3.1416L;
}

static void look(void)
{
    sigset_t now;
    stack_t stack;
    size_t width = has_avx ? 32 : 16;
    for (int i = 0; i < 16; i++)
        check(memcmp(in_vector[i], out_vector[i], width) == 0, "vector");
    check(in_mxcsr == out_mxcsr, "mxcsr");
    check(in_control == out_control, "control");
    check(x87_is_right(), "x87");
    check(memcmp(in_general, out_general, sizeof in_general) == 0, "general");
    for (uint64_t i = 0; i < 16; i++)
        check(out_red_zone[i] == i + 1, "red-zone");
    check(out_carry == 1, "flags");
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    check(memcmp(&now, &blocked, 8) == 0, "mask");
    sigaltstack(NULL, &stack);
    check(stack.ss_sp == own_stack.ss_sp && stack.ss_size == own_stack.ss_size, "altstack");
}

static void on_signal(int number)
{
    (void)number;
}

static int wait_for_input(const char *mode, int epoll)
{
    struct epoll_event event;
    struct pollfd fd = {0, POLLIN, 0};
    struct timespec hour = {3600, 0};
    sigset_t open_mask;
    sigemptyset(&open_mask);
    long result = 0;
    if (strcmp(mode, "epoll") == 0)
        result = guarded_call(SYS_epoll_wait, epoll, (long)&event, 1, -1, 0);
    else if (strcmp(mode, "ppoll") == 0)
        result = guarded_call(SYS_ppoll, (long)&fd, 1, (long)&hour, (long)&open_mask, 8);
    else if (strcmp(mode, "poll") == 0)
        result = guarded_call(SYS_poll, (long)&fd, 1, 3600000, 0, 0);
    else if (strcmp(mode, "user") == 0)
        guarded_call(-1, 0, 0, 0, 0, 0);
    else
        return 1;
    look();
    interrupted += result == -EINTR;
    check(result == -EINTR || result >= 0, "result");
    return poll(&fd, 1, 0) == 1;
}

static void run(const char *mode)
{
    char line[64];
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    own_stack = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&own_stack, NULL);
    puts("ready");
    fflush(stdout);
    for (;;) {
        while (!wait_for_input(mode, epoll))
            ;
        long got;
        if (strcmp(mode, "read") == 0) {
            got = guarded_call(SYS_read, 0, (long)line, sizeof line, 0, 0);
            look();
            interrupted += got == -EINTR;
            if (got == -EINTR)
                continue;
        } else {
            got = read(0, line, sizeof line);
        }
        if (got <= 0)
            exit(0);
        printf("%lu %lu %lu%s\n", ++rounds, wrong, interrupted, what);
        fflush(stdout);
        what[0] = '\0';
        wrong = interrupted = 0;
    }
}

static char *mode;

/* As a coroutine: where a snapshot must not write. */
static void sleep_on_heap(void)
{
    for (;;)
        pause();
}

static void run_on_heap(void)
{
    run(mode);
}

static void leave_stack(void (*where)(void))
{
    static ucontext_t here, there;
    size_t size = 256 << 10;
    getcontext(&there);
    there.uc_stack.ss_sp = malloc(size);
    there.uc_stack.ss_size = size;
    makecontext(&there, where, 0);
    swapcontext(&here, &there);
}

static void *run_thread(void *unused)
{
    (void)unused;
    run(mode);
    return NULL;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mode = argc > 1 ? argv[1] : "read";
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGRTMIN + 3);
    has_avx = __builtin_cpu_supports("avx") ? 1 : 0;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 32; k++)
            in_vector[i][k] = (uint8_t)(i * 37 + k * 5 + 1);
    in_mxcsr = 0x7fa0;   /* round to zero, one exception flag */
    in_control = 0x0e7f; /* round to zero, double precision */
    spins = 2000000;
    if (argc > 2 && strcmp(argv[2], "heap") == 0)
        leave_stack(run_on_heap);
    if (argc > 2) {
        pthread_t thread;
        pthread_create(&thread, NULL, run_thread, NULL);
        leave_stack(sleep_on_heap);
    }
    run(mode);
}
