/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to look for error traces: CPU seconds for 100 MB of an ordinary log and of a log
 * that is nothing but traces, beside `grep -c -E` on the same file in the same run.
 *
 *     bench_trace               makes both logs, measures
 *     bench_trace FILE...       measures these
 *     bench_trace --show FILE   prints the traces that are in it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/agent/kit_trace.h"

#define LOG_BYTES ((size_t)100 * 1000 * 1000)
#define PIECE 65536

struct count {
    uint64_t told, sum;
    bool show;
};

static void on_trace(void *context, const struct os_exception *e, uint64_t begin)
{
    struct count *c = context;
    c->told++;
    c->sum += e->count;
    if (!c->show)
        return;
    struct buf text;
    buf_init(&text, 1 << 20);
    kit_trace_text(&text, e);
    printf("%s", buf_str(&text));
    (void)begin;
    buf_done(&text);
}

static double cpu_s(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int read_all(const char *path, struct count *count)
{
    static uint8_t piece[PIECE];
    struct trace *trace;
    FILE *file = fopen(path, "rb");
    size_t got;
    if (!file || trace_open(&trace, on_trace, count))
        return 1;
    while ((got = fread(piece, 1, sizeof piece, file)) > 0)
        trace_feed(trace, span_of(piece, got), 1, mono_us());
    trace_end(trace);
    trace_close(trace);
    return fclose(file);
}

static double grep_s(const char *path)
{
    double before = cpu_s(RUSAGE_CHILDREN);
    int ends[2];
    char number[32];
    if (pipe(ends)) /* into /dev/null, grep would not count */
        return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execlp("grep", "grep", "-c", "-E", "Traceback|Exception|panic", path, (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    while (read(ends[0], number, sizeof number) > 0)
        continue;
    close(ends[0]);
    waitpid(child, NULL, 0);
    return cpu_s(RUSAGE_CHILDREN) - before;
}

static int measure(const char *path)
{
    struct count count = {0};
    double before = cpu_s(RUSAGE_SELF);
    int e = read_all(path, &count);
    double ours = cpu_s(RUSAGE_SELF) - before, theirs = grep_s(path);
    printf("%-24s %.3f s, grep -c -E %.3f s, ratio %.2f; %llu traces in %llu records\n", path, ours,
           theirs, ours / theirs, (unsigned long long)count.sum, (unsigned long long)count.told);
    return e;
}

/* ---- logs ---- */

static size_t put_ordinary(FILE *file, unsigned i)
{
    int n = i % 3 == 0
                ? fprintf(file,
                          "10.0.%u.%u - - [23/Nov/2026:14:%02u:%02u +0000] \"GET /cart/%u?item=%u "
                          "HTTP/1.1\" 200 %u \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n",
                          i % 200, i % 250, i / 60 % 60, i % 60, i, i * 7, i % 9000)
            : i % 3 == 1
                ? fprintf(file,
                          "2026-11-23 14:%02u:%02u.%03u INFO  [http-nio-8080-exec-%u] "
                          "c.e.shop.CartService - cart %u of user %u saved in %u ms\n",
                          i / 60 % 60, i % 60, i % 1000, i % 16, i, i * 3, i % 40)
                : fprintf(file,
                          "Nov 23 14:%02u:%02u web-1 shop[%u]: connection from 10.1.%u.%u port %u "
                          "closed, %u bytes in %u requests\n",
                          i / 60 % 60, i % 60, 700 + i % 4, i % 200, i % 250, i % 60000, i, i % 30);
    return n > 0 ? (size_t)n : LOG_BYTES;
}

static size_t put_traces(FILE *file, unsigned i)
{
    int n = i % 2 == 0
                ? fprintf(file,
                          "Traceback (most recent call last):\n"
                          "  File \"/srv/shop.py\", line 21, in <module>\n    total(items)\n"
                          "  File \"/srv/shop.py\", line %u, in total\n    return int(text)\n"
                          "ValueError: invalid literal for int() with base 10: '%u'\n",
                          i % 5, i)
                : fprintf(file,
                          "2026-11-23 14:00:00 ERROR java.lang.IllegalStateException: cart %u\n"
                          "\tat com.example.Shop.total(Shop.java:5)\n"
                          "\tat com.example.Shop.main(Shop.java:%u)\n"
                          "Caused by: java.io.IOException: closed\n"
                          "\tat com.example.Net.read(Net.java:77)\n\t... 2 more\n",
                          i, i % 5);
    return n > 0 ? (size_t)n : LOG_BYTES;
}

static int make(char *path, size_t (*put)(FILE *file, unsigned i))
{
    int fd = mkstemp(path);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file)
        return 1;
    size_t size = 0;
    for (unsigned i = 0; size < LOG_BYTES; i++)
        size += put(file, i);
    return fclose(file);
}

int main(int argc, char **argv)
{
    char ordinary[] = "/tmp/trawl-ordinary-XXXXXX", traces[] = "/tmp/trawl-traces-XXXXXX";
    int e = 0;
    if (argc == 3 && strcmp(argv[1], "--show") == 0) {
        struct count count = {.show = true};
        return read_all(argv[2], &count);
    }
    for (int i = 1; i < argc; i++)
        e |= measure(argv[i]);
    if (argc > 1)
        return e;
    e = make(ordinary, put_ordinary) || make(traces, put_traces) || measure(ordinary) ||
        measure(traces);
    unlink(ordinary);
    unlink(traces);
    return e;
}
