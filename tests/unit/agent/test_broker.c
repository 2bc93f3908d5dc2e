/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real broker with real workers, on a process of this test: what it gives, what it refuses
 * whatever the agent says, and that nothing of it stays.
 */
#include "agent/broker.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/broker_wire.h"
#include "agent/capture_chunks.h"
#include "agent/os/privilege.h"
#include "common/text.h"
#include "tests/check.h"

struct bench {
    int fd;
    char policy[64];
    struct broker_settings settings;
    pid_t victim;
    struct broker_request request;
    struct broker_reply reply;
};

static struct bench *open_bench(const char *policy)
{
    struct bench *b = calloc(1, sizeof *b);
    struct failure f = {0};
    REQUIRE(b != NULL);
    snprintf(b->policy, sizeof b->policy, "/tmp/trawl-broker-XXXXXX");
    int fd = mkstemp(b->policy);
    REQUIRE(fd >= 0 && write(fd, policy, strlen(policy)) == (ssize_t)strlen(policy));
    fchmod(fd, 0644);
    close(fd);
    b->settings.policy_path = b->policy;
    REQUIRE(os_broker_fork(broker_run, &b->settings, &b->fd, &f) == 0);
    /* Not a child of the broker's own family: those are left out of what is found. */
    int ready[2];
    char byte;
    REQUIRE(pipe(ready) == 0 && fcntl(ready[1], F_SETFD, FD_CLOEXEC) == 0);
    b->victim = fork();
    if (b->victim == 0) {
        execl("/bin/sleep", "sleep", "600", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    (void)!read(ready[0], &byte, 1); /* it closes when the other program was started */
    close(ready[0]);
    return b;
}

static void close_bench(struct bench *b)
{
    close(b->fd);
    kill(b->victim, SIGKILL);
    waitpid(b->victim, NULL, 0);
    unlink(b->policy);
    free(b);
}

static int ask(struct bench *b, enum broker_op op, int pass_fd)
{
    struct failure f = {0};
    b->request.magic = BROKER_MAGIC;
    b->request.op = op;
    b->request.id++;
    REQUIRE(os_message_send(b->fd, &b->request, sizeof b->request, pass_fd, &f) == 0);
    REQUIRE(os_message_receive(b->fd, &b->reply, sizeof b->reply, NULL, 50000, &f) == 0);
    CHECK_EQ_INT(b->reply.id, b->request.id);
    return b->reply.error;
}

static struct os_process victim_of(struct bench *b)
{
    struct os_process process;
    struct failure f = {0};
    REQUIRE(os_process_get("", (uint32_t)b->victim, &process, &f) == 0);
    return process;
}

/* What came through the pipe: files' endings in `endings`, all of their bytes in `out`. */
struct got {
    char *out;
    size_t used, size_bytes;
    char endings[64];
};

static int on_file(void *context, const struct broker_file *file, struct failure *f)
{
    struct got *got = context;
    size_t used = strlen(got->endings);
    snprintf(got->endings + used, sizeof got->endings - used, "%s ", file->ending);
    (void)f;
    return 0;
}

static int on_data(void *context, struct span bytes, struct failure *f)
{
    struct got *got = context;
    (void)f;
    for (size_t i = 0; i < bytes.size_bytes && got->used + 1 < got->size_bytes; i++)
        got->out[got->used++] = (char)bytes.data[i];
    return 0;
}

static const struct capture_chunks_events chunk_events = {on_file, on_data};

static void read_chunks(int fd, struct got *got)
{
    static char buffer[65536];
    struct capture_chunks chunks = {0};
    struct failure f = {0};
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        CHECK_EQ_INT(
            capture_chunks_feed(&chunks, span_of(buffer, (size_t)n), &chunk_events, got, &f), 0);
    CHECK_EQ_INT(capture_chunks_end(&chunks, &f), 0);
    got->out[got->used] = '\0';
}

static void fill_run(struct bench *b, const char *kind)
{
    struct broker_run *r = &b->request.body.run;
    struct os_process victim = victim_of(b);
    memset(&b->request.body, 0, sizeof b->request.body);
    snprintf(r->kind, sizeof r->kind, "%s", kind);
    r->order = b->request.id + 1;
    r->pid = (uint32_t)b->victim;
    r->start_ticks = victim.start_ticks;
    r->exe_device = victim.exe_device;
    r->exe_inode = victim.exe_inode;
    r->pause_max_us = 50000;
    r->deadline_us = 10000000;
}

static int send_run(struct bench *b, char *out, size_t size_bytes)
{
    int ends[2];
    struct got got = {out, 0, size_bytes, ""};
    REQUIRE(pipe(ends) == 0);
    int e = ask(b, BROKER_RUN, ends[1]);
    close(ends[1]);
    read_chunks(ends[0], &got);
    close(ends[0]);
    return e;
}

static int run(struct bench *b, const char *kind, uint64_t start_ticks, uint32_t pause_us,
               char *out, size_t size_bytes)
{
    fill_run(b, kind);
    b->request.body.run.start_ticks = start_ticks;
    b->request.body.run.pause_max_us = pause_us;
    return send_run(b, out, size_bytes);
}

TEST(a_process_is_found_by_name)
{
    struct bench *b = open_bench("");
    snprintf(b->request.body.resolve.name, sizeof b->request.body.resolve.name, "sleep");
    b->request.body.resolve.pid = (uint32_t)b->victim;
    CHECK_EQ_INT(ask(b, BROKER_RESOLVE, -1), 0);
    if (b->reply.body.found.count == 1) /* 0 where our own children count as ourselves */
        CHECK_EQ_INT(b->reply.body.found.list[0].pid, b->victim);
    memset(&b->request.body, 0, sizeof b->request.body);
    snprintf(b->request.body.resolve.name, sizeof b->request.body.resolve.name, "no-such-thing");
    CHECK_EQ_INT(ask(b, BROKER_RESOLVE, -1), 0);
    CHECK_EQ_INT(b->reply.body.found.matched, 0);
    close_bench(b);
}

TEST(a_worker_brings_triage)
{
    struct bench *b = open_bench("");
    char text[4096];
    uint64_t start = victim_of(b).start_ticks;
    int e = run(b, "triage", start, 50000, text, sizeof text);
    if (e)
        fprintf(stderr, "      %s\n", b->reply.text);
    CHECK_EQ_INT(e, 0);
    CHECK(strlen(text) > 20);
    close_bench(b);
}

TEST(another_process_of_the_same_number_is_gone)
{
    struct bench *b = open_bench("");
    char text[64];
    uint64_t start = victim_of(b).start_ticks;
    CHECK_EQ_INT(run(b, "triage", start + 1, 50000, text, sizeof text), ERR_GONE);
    CHECK_EQ_STR(text, "");
    close_bench(b);
}

TEST(the_policy_counts_in_the_broker_itself)
{
    struct bench *b = open_bench("kinds = triage\nnever = sl*\n");
    char text[64];
    uint64_t start = victim_of(b).start_ticks;
    CHECK_EQ_INT(run(b, "stacks", start, 50000, text, sizeof text), ERR_REFUSED);
    CHECK_EQ_STR(b->reply.text, "this host's policy does not allow kind 'stacks'");
    CHECK_EQ_INT(run(b, "triage", start, 50000, text, sizeof text), ERR_REFUSED);
    CHECK_EQ_STR(b->reply.text, "this host's policy does not allow process 'sleep'");
    /* Read anew each time: the owner's change counts at once. */
    FILE *file = fopen(b->policy, "w");
    REQUIRE(file != NULL);
    fclose(file);
    CHECK_EQ_INT(run(b, "triage", start, 50000, text, sizeof text), 0);
    chmod(b->policy, 0666);
    CHECK_EQ_INT(run(b, "triage", start, 50000, text, sizeof text), ERR_REFUSED);
    close_bench(b);
}

TEST(another_program_in_the_same_process_is_gone)
{
    struct bench *b = open_bench("");
    char text[64];
    fill_run(b, "triage");
    CHECK(b->request.body.run.exe_inode != 0);
    b->request.body.run.exe_inode++;
    CHECK_EQ_INT(send_run(b, text, sizeof text), ERR_GONE);
    CHECK(strstr(b->reply.text, "is another program now: 'sleep'") != NULL);
    fill_run(b, "triage"); /* not seen before: not compared */
    b->request.body.run.exe_device = b->request.body.run.exe_inode = 0;
    CHECK_EQ_INT(send_run(b, text, sizeof text), 0);
    close_bench(b);
}

TEST(a_long_pause_needs_a_word_of_the_order_and_the_owner)
{
    struct bench *b = open_bench("pause-max = 400ms\n");
    char text[4096];
    fill_run(b, "triage");
    b->request.body.run.pause_max_us = 300000;
    CHECK_EQ_INT(send_run(b, text, sizeof text), ERR_REFUSED);
    CHECK_EQ_STR(b->reply.text, "a process could be held for 300 ms, the limit is 250 ms: only "
                                "--allow-pause goes beyond it");
    fill_run(b, "triage");
    b->request.body.run.pause_max_us = 300000;
    b->request.body.run.allow_pause = true;
    CHECK_EQ_INT(send_run(b, text, sizeof text), 0);
    close_bench(b);
    b = open_bench("allow-pause = no\n");
    fill_run(b, "triage");
    CHECK_EQ_INT(send_run(b, text, sizeof text), 0);
    fill_run(b, "triage");
    b->request.body.run.allow_pause = true;
    CHECK_EQ_INT(send_run(b, text, sizeof text), ERR_REFUSED);
    CHECK(strstr(b->reply.text, "this host's policy does not allow --allow-pause") != NULL);
    close_bench(b);
}

TEST(a_deadline_has_bounds)
{
    struct bench *b = open_bench("");
    char text[4096];
    const uint64_t bad[] = {0, BROKER_DEADLINE_MIN_US - 1, BROKER_DEADLINE_MAX_US + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fill_run(b, "triage");
        b->request.body.run.deadline_us = bad[i];
        CHECK_EQ_INT(send_run(b, text, sizeof text), ERR_INVALID);
    }
    fill_run(b, "triage");
    b->request.body.run.deadline_us = BROKER_DEADLINE_MAX_US;
    CHECK_EQ_INT(send_run(b, text, sizeof text), 0);
    close_bench(b);
}

TEST(nonsense_is_refused_and_the_broker_goes_on)
{
    struct bench *b = open_bench("");
    char text[64];
    uint64_t start = victim_of(b).start_ticks;
    CHECK_EQ_INT(run(b, "rm -rf", start, 50000, text, sizeof text), ERR_UNSUPPORTED);
    CHECK_EQ_INT(run(b, "stacks", start, 0, text, sizeof text), ERR_REFUSED);
    memset(&b->request.body, 0xff, sizeof b->request.body);
    CHECK_EQ_INT(ask(b, BROKER_RUN, -1), ERR_PROTOCOL);
    memset(&b->request.body, 0xff, sizeof b->request.body);
    CHECK_EQ_INT(ask(b, BROKER_READ_IO, -1), 0);
    CHECK_EQ_INT(b->reply.body.io.count, BROKER_IO_MAX);
    CHECK(b->reply.body.io.list[0].error != 0);
    b->request.body.io.count = 1;
    b->request.body.io.pids[0] = (uint32_t)b->victim;
    CHECK_EQ_INT(ask(b, BROKER_READ_IO, -1), 0);
    CHECK_EQ_INT(b->reply.body.io.list[0].pid, b->victim);
    CHECK_EQ_INT(ask(b, BROKER_USAGE, -1), 0);
    CHECK(b->reply.body.usage.resident_bytes > 0);
    CHECK_EQ_INT(ask(b, BROKER_STOP, -1), 0);
    close_bench(b);
}

static int send_watch(struct bench *b, const char *kind, int pass_fd)
{
    fill_run(b, kind);
    return ask(b, BROKER_WATCH, pass_fd);
}

TEST(a_watch_is_refused_as_a_capture_is)
{
    struct bench *b = open_bench("kinds = stacks\n");
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    CHECK_EQ_INT(send_watch(b, "core", ends[1]), ERR_UNSUPPORTED);
    CHECK_EQ_INT(send_watch(b, "throws", -1), ERR_PROTOCOL);
    CHECK_EQ_INT(send_watch(b, "throws", ends[1]), ERR_REFUSED);
    CHECK(strstr(b->reply.text, "throws") != NULL);
    fill_run(b, "throws");
    b->request.body.run.start_ticks++;
    CHECK_EQ_INT(ask(b, BROKER_WATCH, ends[1]), ERR_GONE);
    close_bench(b);
}

/* `sleep` can throw nothing: its watch waits for that to change, and is watched once. Without
 * privileges it ends by itself, which it says. */
TEST(a_watch_ends_with_its_broker)
{
    struct bench *b = open_bench("");
    int ends[2];
    char byte;
    REQUIRE(pipe(ends) == 0);
    CHECK_EQ_INT(send_watch(b, "throws", ends[1]), 0);
    CHECK_EQ_INT(send_watch(b, "throws", ends[1]), ERR_BUSY);
    CHECK_EQ_INT(ask(b, BROKER_USAGE, -1), 0); /* the broker goes on */
    close(ends[1]);
    close_bench(b);
    while (read(ends[0], &byte, 1) > 0)
        ; /* ends: nobody holds the other end any more */
    close(ends[0]);
    CHECK(1);
}
