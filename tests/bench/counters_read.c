/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reading counters costs on this machine: values in a sample, ns for each, share of one core
 * at one sample a second, memory; beside it, in the same run, the bare cost of opening, reading and
 * closing the same number of files. With --list: prints one sample instead. Run by hand and by the
 * release notes.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/counters.h"
#include "common/port.h"
#include "common/text.h"

#define SERIES_MAX 8192

struct row {
    char name[96];
    char instance[64];
    const char *unit;
    uint32_t pid, scale;
};

struct sampler {
    struct row rows[SERIES_MAX];
    int count;
    uint64_t values, gaps, retired;
    bool print;
};

static int define(void *context, const struct os_counter *counter)
{
    struct sampler *s = context;
    if (s->count == SERIES_MAX)
        return ERR_LIMIT;
    struct row *row = &s->rows[s->count];
    (void)text_copy(row->name, sizeof row->name, counter->name);
    (void)text_copy(row->instance, sizeof row->instance, counter->instance);
    row->unit = counter->unit;
    row->pid = counter->pid;
    row->scale = counter->scale;
    return s->count++;
}

static void value(void *context, int slot, int64_t v)
{
    struct sampler *s = context;
    s->values++;
    if (s->print)
        printf("%-32s %-20s %8u %20" PRId64 " %s /%u\n", s->rows[slot].name, s->rows[slot].instance,
               s->rows[slot].pid, v, s->rows[slot].unit, s->rows[slot].scale);
}

static void gap(void *context, int slot, const char *reason)
{
    struct sampler *s = context;
    s->gaps++;
    if (s->print)
        printf("%-32s %-20s %8u gap: %s\n", s->rows[slot].name, s->rows[slot].instance,
               s->rows[slot].pid, reason);
}

static void retire(void *context, int slot)
{
    (void)slot;
    ((struct sampler *)context)->retired++;
}

static double cpu_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static uint64_t resident_kib(const char *key)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof line, file)) {
        struct span s = span_str(line);
        struct span name;
        if (text_take_until(&s, ':', &name) < 0 || !span_equal(name, span_str(key)))
            continue;
        while (s.size_bytes > 0 && *s.data == ' ')
            s = span_of(s.data + 1, s.size_bytes - 1);
        (void)text_take_u64(&s, &kib);
    }
    if (file)
        fclose(file);
    return kib;
}

/* The peer: what a reader pays that opens its file each time. */
static double open_read_close_us(int times)
{
    char data[4096];
    double start = cpu_us();
    for (int i = 0; i < times; i++) {
        int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, data, sizeof data) < 0)
            exit(1);
        close(fd);
    }
    return (cpu_us() - start) / times;
}

static int compare(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static struct sampler sampler;
    uint64_t seconds = 60, busiest = 50;
    bool list = argc > 1 && strcmp(argv[1], "--list") == 0;
    if (argc > 1 && !list && text_u64_in(argv[1], 1, 3600, &seconds) < 0)
        return 2;
    if (argc > 2 && text_u64_in(argv[2], 0, 512, &busiest) < 0)
        return 2;
    struct os_counter_settings settings = {.root = "", .busiest = (uint32_t)busiest};
    struct os_counter_sink sink = {define, value, gap, retire, &sampler};
    struct os_counters *counters;
    struct failure f;
    if (os_counters_open(&counters, &settings, &sink, &f) < 0) {
        fprintf(stderr, "%s\n", f.text);
        return 1;
    }
    os_counters_sample(counters, port_mono_us());
    sampler.print = list;
    sampler.values = sampler.gaps = 0;
    if (list) {
        os_counters_sample(counters, port_mono_us());
        os_counters_close(counters);
        return 0;
    }
    static double samples[3600];
    double busy = 0;
    for (uint64_t i = 0; i < seconds; i++) {
        struct timespec pause = {1, 0};
        nanosleep(&pause, NULL);
        double start = cpu_us();
        os_counters_sample(counters, port_mono_us());
        samples[i] = cpu_us() - start;
        busy += samples[i];
    }
    qsort(samples, seconds, sizeof samples[0], compare);
    double per_sample = busy / (double)seconds;
    double values = (double)sampler.values / (double)seconds;
    printf("values a second      %10.0f\n", values);
    printf("gaps a second        %10.1f\n", (double)sampler.gaps / (double)seconds);
    printf("series defined       %10d, retired %" PRIu64 "\n", sampler.count, sampler.retired);
    printf("CPU a sample         %10.1f us; least %.1f, median %.1f, most %.1f\n", per_sample,
           samples[0], samples[seconds / 2], samples[seconds - 1]);
    printf("CPU a value          %10.0f ns\n", per_sample * 1000 / values);
    printf("share of a core      %10.4f %%\n", per_sample / 1e4);
    printf("of 1,000 values      %10.4f %%\n", per_sample / 1e4 * 1000 / values);
    printf("open, read, close    %10.2f us for one small file; ratio to a value %.1f\n",
           open_read_close_us(2000), open_read_close_us(2000) * values / per_sample);
    printf("resident             %10" PRIu64 " KiB, private dirty %" PRIu64 " KiB\n",
           resident_kib("Rss"), resident_kib("Private_Dirty"));
    os_counters_close(counters);
    return 0;
}
