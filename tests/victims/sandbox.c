/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim behind a seccomp filter that kills the whole process for any clone, fork or wait: a call
 * made to happen inside it would be its end. A line on its input is answered by a line. Started by
 * tests/e2e/35_safety.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KILL_ON(number_)                                  \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number_), 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static void *sleeper(void *argument)
{
    while (pause() < 0)
        ;
    return argument;
}

int main(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL_ON(SYS_clone),
        KILL_ON(SYS_fork),
        KILL_ON(SYS_vfork),
        KILL_ON(435), /* clone3 */
        KILL_ON(SYS_wait4),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    pthread_t thread;
    char line[16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_create(&thread, NULL, sleeper, NULL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        puts("here");
        fflush(stdout);
    }
    return 0;
}
