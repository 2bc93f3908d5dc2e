/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_capture_echo_client PORT`: what a client outside sees of a capture: one byte to the echo
 * port of tests/victims/beat.c every 100 us, and the longest time until it was back. Each line on
 * its input is answered by "LONGEST_US COUNT" since the last line. Started by run.py.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/port.h"
#include "common/text.h"

static _Atomic uint64_t longest_us, count;

static void *ask_for_ever(void *argument)
{
    const int fd = *(const int *)argument;
    const struct timespec nap = {0, 100000};
    char byte = 'x';
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        uint64_t began = port_mono_us();
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
            return NULL;
        uint64_t took = port_mono_us() - began;
        if (took > longest_us)
            longest_us = took;
        count++;
        nanosleep(&nap, NULL);
    }
}

int main(int argc, char **argv)
{
    uint64_t port;
    char line[16];
    int one = 1;
    pthread_t thread;
    if (argc != 2 || text_u64_in(argv[1], 1, UINT16_MAX, &port)) {
        fputs("usage: bench_capture_echo_client PORT\n", stderr);
        return 2;
    }
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("connect");
        return 1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (pthread_create(&thread, NULL, ask_for_ever, &fd) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%llu %llu\n", (unsigned long long)atomic_exchange(&longest_us, 0),
               (unsigned long long)atomic_exchange(&count, 0));
        fflush(stdout);
    }
    return 0;
}
