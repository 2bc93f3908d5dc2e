/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_crash DIR P p I i u g d s t c [F]`: a crash handler for one crash, without an agent, as
 * core(5) starts it: "|/path/bench_crash DIR %P %p %I %i %u %g %d %s %t %c". Files go to
 * DIR/crash-PID.ENDING, what came of it to DIR/crash-PID.out. For tests, benchmarks and people who
 * look for a fault. Used by tests/e2e/71_crash_frames.py.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "agent/os/crash.h"
#include "common/port.h"
#include "common/text.h"

#define STACK_BYTES (256u << 10)
#define POOL_BYTES (64u << 20)
#define ARGUMENTS 10

struct sink {
    const char *folder;
    uint32_t pid;
    FILE *file;
};

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
    if (e)
        return e;
    snprintf(path, sizeof path, "%s/crash-%" PRIu32 ".%s", sink->folder, sink->pid, ending);
    sink->file = fopen(path, "wb");
    return sink->file ? 0 : fail(f, ERR_IO, "cannot create '%s'", path);
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    struct sink *sink = context;
    return bytes.size_bytes == 0 ||
                   fwrite(bytes.data, 1, bytes.size_bytes, sink->file) == bytes.size_bytes
               ? 0
               : fail(f, ERR_IO, "cannot write the file");
}

static bool read_arguments(char **argv, struct os_crash_arguments *out)
{
    uint64_t n[ARGUMENTS];
    for (int i = 0; i < ARGUMENTS; i++)
        if (text_u64(argv[i], &n[i]))
            return false;
    *out = (struct os_crash_arguments){.pid = (uint32_t)n[0],
                                       .inner_pid = (uint32_t)n[1],
                                       .tid = (uint32_t)n[2],
                                       .inner_tid = (uint32_t)n[3],
                                       .uid = (uint32_t)n[4],
                                       .gid = (uint32_t)n[5],
                                       .dumpable = (uint32_t)n[6],
                                       .signal = (uint32_t)n[7],
                                       .time_s = (int64_t)n[8],
                                       .core_limit = n[9],
                                       .pidfd = -1};
    return true;
}

static void print(FILE *to, const struct os_exception *e, uint64_t held_us, uint64_t describe_us,
                  int rc, const struct failure *f)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    fprintf(to,
            "%s\ntype %s\nmessage %s\nheld_us %" PRIu64 "\ndescribe_us %" PRIu64 "\nrss_kib %ld\n",
            rc ? f->text : "ok", e->type, e->message, held_us, describe_us, usage.ru_maxrss);
    fprintf(to, "left_out %" PRIu32 "\nmissing %s\n", e->frames_left_out, e->missing);
    for (uint32_t i = 0; i < e->frame_count; i++) {
        const struct os_frame *frame = &e->frames[i];
        fprintf(to, "frame %s+0x%" PRIx64 "%s %s %s:%" PRIu32 "\n", frame->module, frame->offset,
                frame->exact ? "!" : "", frame->function[0] ? frame->function : "??", frame->file,
                frame->line);
    }
}

int main(int argc, char **argv)
{
    struct sink sink = {.folder = argc > 1 ? argv[1] : ""};
    struct os_output out = {begin, write_bytes, &sink};
    struct os_crash_limits limits = {true, STACK_BYTES, POOL_BYTES, false};
    struct os_crash_arguments arguments;
    struct os_exception *exception = calloc(1, sizeof *exception);
    struct os_result *result = calloc(1, sizeof *result);
    struct failure f = {0, ""};
    struct os_crash *crash = NULL;
    struct span head;
    if (argc < ARGUMENTS + 2 || !exception || !result || !read_arguments(argv + 2, &arguments))
        return 2;
    sink.pid = arguments.pid;
    os_crash_identify(&arguments);
    int rc = os_crash_take(&arguments, &limits, 0, false, &crash, &head, &f);
    if (!crash)
        return 1;
    uint64_t began_us = port_mono_us();
    os_crash_head(crash, exception);
    rc = os_crash_describe(crash, &out, exception, result, &f);
    uint64_t describe_us = port_mono_us() - began_us;
    if (close_file(&sink, &f) == 0 && begin(&sink, "out", &f) == 0)
        print(sink.file, exception, os_crash_held_us(crash), describe_us, rc, &f);
    (void)close_file(&sink, &f);
    os_crash_close(crash);
    free(exception);
    free(result);
    return rc ? 1 : 0;
}
