/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process to die: listens on a port, touches memory, has threads that sleep some frames deep, and
 * ends of a signal when a line comes on its input.
 *
 * usage: crash THREADS MIB PORT segv|abort|setuid   (PORT 0: none; setuid: not dumpable)
 * Prints "ready" when all is there.
 */
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile int *nowhere;

__attribute__((noinline)) static void sleep_deep(int depth)
{
    char room[256];
    memset(room, depth, sizeof room);
    if (depth > 0)
        sleep_deep(depth - 1);
    else
        for (;;)
            pause();
    __asm__ volatile("" : : "r"(room) : "memory");
}

static void *thread_main(void *context)
{
    (void)context;
    sleep_deep(8);
    return NULL;
}

static void listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0)
        exit(3);
}

__attribute__((noinline)) static void fail_here(const char *how)
{
    if (strcmp(how, "abort") == 0)
        abort();
    *nowhere = 1;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    size_t bytes = (size_t)atol(argv[2]) << 20;
    char *memory =
        bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
              : NULL;
    for (size_t i = 0; memory && i < bytes; i += 4096)
        memory[i] = (char)(i >> 12 | 1);
    if (atoi(argv[3]))
        listen_on(atoi(argv[3]));
    for (int i = 0; i < atoi(argv[1]); i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
            return 3;
    }
    if (strcmp(argv[4], "setuid") == 0)
        prctl(PR_SET_DUMPABLE, 0);
    printf("ready\n");
    fflush(stdout);
    (void)getchar();
    fail_here(argv[4]);
    return 0;
}
