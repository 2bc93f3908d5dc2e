/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_take KIND PID [OPTION...]`: takes one kind of evidence of one process as the agent's
 * worker does, without an agent: files go to a folder, one line of JSON says what it cost. For
 * tests, benchmarks and people who look for a fault. Used by tests/bench and tests/e2e.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/os/linux/snapshot.h"
#include "agent/os/privilege.h"
#include "agent/worker.h"
#include "common/port.h"
#include "common/text.h"

struct sink {
    const char *folder, *kind;
    FILE *file;
    uint64_t bytes;
    uint64_t rate; /* bytes a second, as a slow reader takes them; 0: as fast as they come */
    uint64_t began_us;
};

static void usage(void)
{
    fputs("usage: bench_take tidy PID\n"
          "       bench_take KIND PID [-o DIR] [--pause-max DURATION] [--for DURATION]\n"
          "                  [--last DURATION] [--live] [--allow-pause] [--nice] [--rate SIZE]\n"
          "  files are DIR/KIND.ENDING (default: none are written); --nice: with a worker's "
          "priority;\n"
          "  --rate: as a reader that takes so many bytes a second; tidy: has the zombies reaped\n"
          "  that killed workers left in the process\n",
          stderr);
}

static int close_file(struct sink *sink, struct failure *f)
{
    int e = sink->file && fclose(sink->file) ? fail(f, ERR_IO, "cannot write the file") : 0;
    sink->file = NULL;
    return e;
}

static int begin(void *context, const char *ending, struct failure *f)
{
    struct sink *sink = context;
    char path[1024];
    int e = close_file(sink, f);
    if (e || !sink->folder)
        return e;
    snprintf(path, sizeof path, "%s/%s.%s", sink->folder, sink->kind, ending);
    sink->file = fopen(path, "wb");
    return sink->file ? 0 : fail(f, ERR_IO, "cannot create '%s'", path);
}

/* Pages of zeros become holes. */
static int write_sparse(struct sink *sink, struct span bytes, struct failure *f)
{
    static const uint8_t zeros[4096];
    while (bytes.size_bytes > 0) {
        size_t some = bytes.size_bytes < sizeof zeros ? bytes.size_bytes : sizeof zeros;
        bool hole = some == sizeof zeros && memcmp(bytes.data, zeros, some) == 0;
        if (hole ? fseek(sink->file, (long)some, SEEK_CUR) != 0
                 : fwrite(bytes.data, 1, some, sink->file) != some)
            return fail(f, ERR_IO, "cannot write the file");
        bytes = span_of(bytes.data + some, bytes.size_bytes - some);
    }
    return 0;
}

/* Sleeps until so many bytes are due. */
static void slow_down(struct sink *sink)
{
    uint64_t now = port_mono_us();
    if (!sink->rate)
        return;
    if (!sink->began_us)
        sink->began_us = now;
    uint64_t due = sink->began_us + sink->bytes * 1000000 / sink->rate;
    if (due > now)
        usleep((useconds_t)(due - now));
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    struct sink *sink = context;
    sink->bytes += bytes.size_bytes;
    slow_down(sink);
    return sink->file ? write_sparse(sink, bytes, f) : 0;
}

static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void print_json_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text >= ' ')
            putchar(*text);
    }
    putchar('"');
}

static void print(const struct sink *sink, const struct os_result *r, uint64_t wall_us, int e,
                  const struct failure *f)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"kind\":\"%s\",\"error\":\"%s\",\"text\":", sink->kind, e ? err_name(e) : "");
    print_json_text(e ? f->text : "");
    printf(",\"paused\":%s,\"pause_us\":%llu,\"expected_us\":%llu,\"threads\":%u,\"missed\":%u",
           r->paused ? "true" : "false", (unsigned long long)r->pause_us,
           (unsigned long long)r->expected_us, r->threads, r->threads_missed);
    printf(",\"wall_us\":%llu,\"cpu_us\":%llu,\"rss_kib\":%ld,\"bytes\":%llu,\"missing\":",
           (unsigned long long)wall_us, (unsigned long long)cpu_us(), usage.ru_maxrss,
           (unsigned long long)sink->bytes);
    print_json_text(r->missing);
    puts("}");
}

static int take(struct os_take *take, struct sink *sink)
{
    struct os_costs costs;
    struct os_output out = {begin, write_bytes, sink};
    struct failure f = {0, ""}, closing = {0, ""};
    struct os_result *result = calloc(1, sizeof *result);
    if (!result)
        return 1;
    os_costs_default(&costs);
    take->costs = &costs;
    uint64_t began = port_mono_us();
    int e = worker_take(sink->kind, take, &out, result, &f);
    uint64_t wall_us = port_mono_us() - began;
    /* A hole at the end of a sparse file has no bytes: its length is set here. */
    if (sink->file && (fflush(sink->file) || ftruncate(fileno(sink->file), ftell(sink->file))))
        fprintf(stderr, "cannot write the file\n");
    if (close_file(sink, &closing) && !e) {
        e = closing.code;
        f = closing;
    }
    print(sink, result, wall_us, e, &f);
    free(result);
    return e ? err_exit_code(e) : 0;
}

/* What the broker does after a worker that was killed: again and again, as some are left for the
 * next time when there are many. */
static int tidy(const struct os_process *process)
{
    struct failure f = {0, ""};
    int reaped = 0, some;
    while ((some = snapshot_tidy(process, 0, &f)) > 0)
        reaped += some;
    if (some < 0)
        reaped = some;
    printf("{\"kind\":\"tidy\",\"error\":\"%s\",\"reaped\":%d,\"text\":",
           reaped < 0 ? err_name(reaped) : "", reaped < 0 ? 0 : reaped);
    print_json_text(reaped < 0 ? f.text : "");
    puts("}");
    return reaped < 0 ? err_exit_code(reaped) : 0;
}

/* The value of an option, as a duration. */
static bool take_duration(int argc, char **argv, int *i, int64_t *us)
{
    return ++*i < argc && text_duration_us(argv[*i], us) == 0 && *us > 0;
}

static bool take_option(int argc, char **argv, int *i, struct os_take *take, struct sink *sink)
{
    const char *word = argv[*i];
    int64_t us = 0;
    if (strcmp(word, "--live") == 0)
        take->live = true;
    else if (strcmp(word, "--allow-pause") == 0)
        take->allow_pause = true;
    else if (strcmp(word, "--nice") == 0)
        os_be_nice();
    else if (strcmp(word, "--rate") == 0 && *i + 1 < argc)
        return text_size_bytes(argv[++*i], &sink->rate) == 0 && sink->rate > 0;
    else if (strcmp(word, "-o") == 0 && *i + 1 < argc)
        sink->folder = argv[++*i];
    else if (strcmp(word, "--pause-max") == 0 && take_duration(argc, argv, i, &us))
        take->pause_max_us = (uint32_t)us;
    else if (strcmp(word, "--for") == 0 && take_duration(argc, argv, i, &us))
        take->for_us = (uint64_t)us;
    else if (strcmp(word, "--last") == 0 && take_duration(argc, argv, i, &us))
        take->from_us = take->to_us - us;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    struct os_take order = {.pause_max_us = OS_PAUSE_HARD_US, .to_us = port_wall_us()};
    struct sink sink = {.kind = argc > 1 ? argv[1] : ""};
    struct failure f = {0, ""};
    uint64_t pid;
    order.from_us = order.to_us - 60000000;
    if (argc < 3 || text_u64_in(argv[2], 1, INT32_MAX, &pid)) {
        usage();
        return 2;
    }
    for (int i = 3; i < argc; i++) {
        if (!take_option(argc, argv, &i, &order, &sink)) {
            usage();
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    if (os_process_get("", (uint32_t)pid, &order.process, &f)) {
        fprintf(stderr, "%s\n", f.text);
        return 1;
    }
    return strcmp(sink.kind, "tidy") == 0 ? tidy(&order.process) : take(&order, &sink);
}
