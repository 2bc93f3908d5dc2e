/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that is watched: does what its words say, one after the other. Prints "ready" first.
 *     listen PORT   listens                 sleep MS     sleeps
 *     exit CODE     ends                    raise N      a signal to itself, no core
 *     loop MS       waits in epoll_wait, 10 ms at a time, for so long
 *     spin          computes without end    read         reads standard input
 *     vfork MS      waits so long for a child that it has lent its memory to (state D)
 *     deaf          never accepts           serve        accepts and answers each line with +OK
 *     http CODE     accepts and answers with that status
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int listener = -1;

static void nap_ms(long ms)
{
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void begin_listening(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 64) < 0)
        exit(98);
}

static void loop(long ms)
{
    int fd = epoll_create1(0);
    struct epoll_event event;
    for (long t = 0; t < ms; t += 10)
        epoll_wait(fd, &event, 1, 10);
    close(fd);
}

static void serve(const char *answer)
{
    char line[512];
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (read(fd, line, sizeof line) > 0 && write(fd, answer, strlen(answer)) < 0)
            break;
        close(fd);
    }
}

static void lend_memory(long ms)
{
    if (vfork() == 0) {
        nap_ms(ms);
        _exit(0);
    }
}

static void do_word(const char *word, long number)
{
    static volatile unsigned long sink;
    char c, answer[64];
    if (strcmp(word, "listen") == 0)
        begin_listening((int)number);
    else if (strcmp(word, "sleep") == 0)
        nap_ms(number);
    else if (strcmp(word, "exit") == 0)
        exit((int)number);
    else if (strcmp(word, "raise") == 0)
        raise((int)number);
    else if (strcmp(word, "loop") == 0)
        loop(number);
    else if (strcmp(word, "spin") == 0)
        for (;;)
            sink++;
    else if (strcmp(word, "read") == 0)
        while (read(0, &c, 1) < 0)
            ;
    else if (strcmp(word, "vfork") == 0)
        lend_memory(number);
    else if (strcmp(word, "deaf") == 0)
        pause();
    else if (strcmp(word, "serve") == 0)
        serve("+OK\r\n");
    snprintf(answer, sizeof answer, "HTTP/1.1 %ld X\r\nContent-Length: 0\r\n\r\n", number);
    if (strcmp(word, "http") == 0)
        serve(answer);
}

int main(int argc, char **argv)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    puts("ready");
    fflush(stdout);
    for (int i = 1; i < argc; i++)
        do_word(argv[i], i + 1 < argc ? strtol(argv[i + 1], NULL, 10) : 0);
    return 0;
}
