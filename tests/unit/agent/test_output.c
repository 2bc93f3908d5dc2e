/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker writes: files as they are, cores packed, a share of the processor that is kept, and
 * an agent that is no longer there.
 */
#include "agent/worker_output.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/capture_chunks.h"
#include "common/port.h"
#include "tests/check.h"

struct got {
    struct buf bytes[BROKER_FILES_MAX];
    char names[128];
    uint32_t files;
};

static int on_file(void *context, const struct broker_file *file, struct failure *f)
{
    struct got *got = context;
    size_t used = strlen(got->names);
    (void)f;
    snprintf(got->names + used, sizeof got->names - used, "%s:%s ", file->ending, file->encoding);
    buf_init(&got->bytes[got->files++], (size_t)64 << 20);
    return 0;
}

static int on_data(void *context, struct span bytes, struct failure *f)
{
    struct got *got = context;
    (void)f;
    return buf_append_span(&got->bytes[got->files - 1], bytes);
}

/* Runs `work` in a child with the writing end; 0: it returned 0 and all of its chunks are right. */
static int collect(int (*work)(int fd), struct got *got)
{
    static const struct capture_chunks_events events = {on_file, on_data};
    static char buffer[65536];
    struct capture_chunks chunks = {0};
    struct failure f = {0};
    int ends[2], status;
    ssize_t n;
    memset(got, 0, sizeof *got);
    REQUIRE(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        _exit(work(ends[1]) != 0);
    }
    close(ends[1]);
    while ((n = read(ends[0], buffer, sizeof buffer)) > 0)
        CHECK_EQ_INT(capture_chunks_feed(&chunks, span_of(buffer, (size_t)n), &events, got, &f), 0);
    close(ends[0]);
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK_EQ_INT(capture_chunks_end(&chunks, &f), 0);
    return status;
}

static void release(struct got *got)
{
    for (uint32_t i = 0; i < got->files; i++)
        buf_done(&got->bytes[i]);
}

static char large[300000];

static int write_three(int fd)
{
    struct worker_output output;
    struct failure f = {0};
    if (worker_output_open(&output, fd, 0, &f))
        return 1;
    struct os_output out = worker_output_of(&output);
    memset(large, 'x', sizeof large);
    int e = os_output_file(&out, "txt", span_of(large, sizeof large), &f);
    if (!e)
        e = os_output_file(&out, "core", span_of(large, sizeof large), &f);
    if (!e)
        e = os_output_file(&out, "json", span_str("{}"), &f);
    if (!e)
        e = worker_output_end(&output, &f);
    worker_output_close(&output);
    return e;
}

TEST(cores_are_packed_and_the_rest_is_as_it_is)
{
    struct got got;
    struct buf plain;
    CHECK_EQ_INT(collect(write_three, &got), 0);
    CHECK_EQ_STR(got.names, "txt: core:zstd json: ");
    REQUIRE(got.files == 3);
    memset(large, 'x', sizeof large);
    CHECK(span_equal(buf_span(&got.bytes[0]), span_of(large, sizeof large)));
    CHECK(got.bytes[1].size_bytes < 1000);
    buf_init(&plain, sizeof large);
    CHECK_EQ_INT(zip_unpack(buf_span(&got.bytes[1]), &plain), 0);
    CHECK(span_equal(buf_span(&plain), span_of(large, sizeof large)));
    CHECK_EQ_STR(buf_str(&got.bytes[2]), "{}");
    buf_done(&plain);
    release(&got);
}

TEST(nobody_who_reads_is_an_error)
{
    struct worker_output output;
    struct failure f = {0};
    int ends[2];
    signal(SIGPIPE, SIG_IGN);
    REQUIRE(pipe(ends) == 0 && worker_output_open(&output, ends[1], 0, &f) == 0);
    struct os_output out = worker_output_of(&output);
    close(ends[0]);
    CHECK_EQ_INT(out.begin(out.context, "core", &f), ERR_CLOSED);
    CHECK_EQ_STR(f.text, "cannot hand over the evidence: nobody reads it any more");
    worker_output_close(&output);
    close(ends[1]);
    /* The same inside the packing. */
    REQUIRE(pipe(ends) == 0 && worker_output_open(&output, ends[1], 0, &f) == 0);
    out = worker_output_of(&output);
    REQUIRE(out.begin(out.context, "core", &f) == 0);
    close(ends[0]);
    f = (struct failure){0};
    int e = out.write(out.context, span_of(large, sizeof large), &f);
    if (!e)
        e = worker_output_end(&output, &f);
    CHECK_EQ_INT(e, ERR_CLOSED);
    CHECK_EQ_STR(f.text, "cannot hand over the evidence: nobody reads it any more");
    worker_output_close(&output);
    close(ends[1]);
}

/* ---- the share of the processor ---- */

#define NOISE_BYTES ((size_t)24 << 20)
#define SHARE 20
#define TRIES 20 /* of the control, until the machine lets it have more */

static int write_noise(int fd, uint32_t percent)
{
    struct worker_output output;
    struct failure f = {0};
    uint64_t state = 1;
    uint8_t *noise = malloc(NOISE_BYTES);
    if (!noise || worker_output_open(&output, fd, percent, &f))
        return 1;
    for (size_t i = 0; i < NOISE_BYTES; i++)
        noise[i] = (uint8_t)((state = state * 6364136223846793005u + 1) >> 60);
    struct os_output out = worker_output_of(&output);
    int e = out.begin(out.context, "core", &f);
    uint64_t began_us = port_mono_us(), used_us = output.began_cpu_us;
    for (size_t at = 0; !e && at < NOISE_BYTES; at += 65536)
        e = out.write(out.context, span_of(noise + at, 65536), &f);
    if (!e)
        e = worker_output_end(&output, &f);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    used_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
              (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) - used_us;
    uint64_t passed_us = port_mono_us() - began_us;
    worker_output_close(&output);
    free(noise);
    if (e)
        return e;
    unsigned share = (unsigned)(used_us * 100 / (passed_us ? passed_us : 1));
    fprintf(stderr, "      limit %u %%: %u %% of a core\n", percent, share);
    return share > SHARE + 5;
}

static int write_noise_slowly(int fd)
{
    return write_noise(fd, SHARE);
}

static int write_noise_freely(int fd)
{
    return write_noise(fd, 0);
}

TEST(packing_keeps_to_its_share_of_the_processor)
{
    struct got got;
    CHECK_EQ_INT(collect(write_noise_slowly, &got), 0);
    CHECK(got.files == 1 && got.bytes[0].size_bytes > 1000000);
    release(&got);
    int is_over = 0; /* without a limit the same check fails */
    for (int i = 0; i < TRIES && !is_over; i++) {
        is_over = collect(write_noise_freely, &got);
        release(&got);
    }
    CHECK(is_over);
}
