/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that is made to crash: `victim MIB THREADS [random] [huge]` fills so much memory with
 * what compresses about as a heap does ("random": not at all; "huge": on huge pages), starts
 * threads that sleep, listens on a port of 127.0.0.1, and prints the port when it is ready. Started
 * by run.py.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define STACK_BYTES (256u << 10)

static void *sleeper(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void fill(uint64_t *words, size_t count, bool random)
{
    uint64_t x = 88172645463325252ull; /* xorshift64, Marsaglia 2003 */
    for (size_t i = 0; i < count; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = random ? x : (i & 3) ? x & 0xffff : 0;
    }
}

static int serve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 16) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        return -1;
    return ntohs(address.sin_port);
}

static bool has(int argc, char **argv, const char *word)
{
    for (int i = 3; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;
    size_t threads = argc > 2 ? strtoul(argv[2], NULL, 10) : 4;
    pthread_attr_t attributes;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    void *memory =
        mmap(NULL, (mib << 20) + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    if (has(argc, argv, "huge"))
        (void)madvise(memory, mib << 20, MADV_HUGEPAGE);
    fill(memory, (mib << 20) / sizeof(uint64_t), has(argc, argv, "random"));
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (size_t i = 1; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, sleeper, NULL))
            return 1;
    }
    int port = serve();
    if (port < 0)
        return 1;
    printf("%d\n", port);
    fflush(stdout);
    sleeper(NULL);
    return 0;
}
