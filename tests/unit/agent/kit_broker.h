/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broker whose answers follow from the process asked for, and whose workers are children that
 * write what a real one would, or would not. Used by kit.h.
 */
#ifndef TESTS_UNIT_AGENT_KIT_BROKER_H
#define TESTS_UNIT_AGENT_KIT_BROKER_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/broker_wire.h"
#include "agent/os/privilege.h"
#include "common/text.h"

#define PID_FINE 100
#define PID_ALSO_FINE 101
#define PID_REFUSED 666 /* "pause would be 84 ms, limit 50 ms" */
#define PID_HANGS 777   /* its worker goes on until BROKER_STOP */
#define PID_GONE 888
#define PID_MANY 102          /* every kind of it has three files, one of them empty */
#define PID_LIAR 103          /* its worker writes what no worker writes, and says all is well */
#define PID_BROKEN 104        /* two files, then the worker says that it failed */
#define PID_ECHO 105          /* says in `missing` what was asked of it */
#define PID_LARGE 1000000     /* + N: N KiB of noise in one file "core" */
#define PID_LARGE_BAD 2000000 /* the same, but the worker fails at the end */
#define PID_HUGE 3000000      /* + N: N MiB */

static inline void kit_write(int out, const void *data, size_t size_bytes)
{
    const char *at = data;
    while (size_bytes > 0) {
        ssize_t n = write(out, at, size_bytes);
        if (n <= 0)
            _exit(1);
        at += n;
        size_bytes -= (size_t)n;
    }
}

static inline void kit_chunk(int out, uint32_t type, const void *data, size_t size_bytes)
{
    struct broker_chunk head = {BROKER_MAGIC, type, (uint32_t)size_bytes};
    kit_write(out, &head, sizeof head);
    kit_write(out, data, size_bytes);
}

static inline void kit_file(int out, const char *ending, const char *encoding, const char *text)
{
    struct broker_file file = {{0}, {0}};
    text_copy(file.ending, sizeof file.ending, ending);
    text_copy(file.encoding, sizeof file.encoding, encoding);
    kit_chunk(out, BROKER_CHUNK_FILE, &file, sizeof file);
    if (text[0])
        kit_chunk(out, BROKER_CHUNK_DATA, text, strlen(text));
}

/* xorshift (Marsaglia): the same noise here and where it arrives. */
static inline void kit_noise(uint64_t *state, uint8_t *out, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i += sizeof *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        memcpy(out + i, state, sizeof *state);
    }
}

#define KIT_NOISE_SEED UINT64_C(88172645463325252)
static inline void kit_large(int out, uint32_t kib)
{
    static uint8_t block[32768];
    uint64_t state = KIT_NOISE_SEED;
    kit_file(out, "core", "zstd", "");
    for (; kib > 0; kib -= kib < 32 ? kib : 32) {
        size_t some = kib < 32 ? kib * 1024 : sizeof block;
        kit_noise(&state, block, some);
        kit_chunk(out, BROKER_CHUNK_DATA, block, some);
    }
}

/* What the worker of one run writes. Negative enum err and text: its verdict. */
static inline int kit_work(const struct broker_run *run, int out, char *text, size_t size_bytes)
{
    char line[64];
    int n = snprintf(line, sizeof line, "%s of %u\n", run->kind, run->pid);
    bool is_large = run->pid >= PID_LARGE;
    text[0] = '\0';
    if (is_large && strcmp(run->kind, "core") == 0) {
        bool is_huge = run->pid >= PID_HUGE, is_bad = !is_huge && run->pid >= PID_LARGE_BAD;
        kit_large(out, run->pid % PID_LARGE * (is_huge ? 1024 : 1));
        snprintf(text, size_bytes, "the copy was killed");
        return is_bad ? ERR_IO : 0;
    }
    if (run->pid == PID_LIAR) {
        kit_file(out, "txt", "", "first");
        kit_write(out, "no chunk at all, but long enough to be one", 42);
        return 0;
    }
    if (run->pid == PID_REFUSED && strcmp(run->kind, "triage") != 0) {
        snprintf(text, size_bytes, "pause would be 84 ms, limit 50 ms");
        return ERR_REFUSED;
    }
    if (run->pid == PID_GONE) {
        snprintf(text, size_bytes, "process 888 has ended");
        return ERR_GONE;
    }
    if (strcmp(run->kind, "profile") == 0)
        usleep(300000);
    kit_file(out, "txt", "", n > 0 ? line : "");
    if (run->pid == PID_MANY) {
        kit_file(out, "folded", "", "");
        kit_file(out, "json", "", "{}\n");
    }
    if (run->pid == PID_BROKEN) {
        kit_file(out, "json", "", "{}\n");
        snprintf(text, size_bytes, "the worker could not go on");
        return ERR_IO;
    }
    return 0;
}

struct kit_broker {
    struct broker_request request;
    struct broker_reply reply;
    pid_t worker; /* 0: none; it tells its verdict by its exit status */
    uint64_t run_id;
    struct broker_run run;
};

static inline void kit_start(struct kit_broker *b, int out)
{
    char text[FAILURE_TEXT_SIZE];
    b->run = b->request.body.run;
    b->run_id = b->request.id;
    b->worker = fork();
    if (b->worker != 0)
        return;
    if (b->run.pid == PID_HANGS)
        for (;;)
            pause();
    _exit(-kit_work(&b->run, out, text, sizeof text));
}

static inline void kit_tell(struct kit_broker *b, int fd, int status)
{
    struct broker_run nothing = b->run;
    struct broker_reply *reply = &b->reply;
    struct os_result *taken = &reply->body.result.taken;
    int null = open("/dev/null", O_WRONLY);
    memset(reply, 0, sizeof *reply);
    *reply = (struct broker_reply){.magic = BROKER_MAGIC, .op = BROKER_RUN, .id = b->run_id};
    reply->error = WIFEXITED(status) ? -WEXITSTATUS(status) : ERR_CANCELLED;
    if (reply->error && WIFEXITED(status)) { /* once more, for the words */
        nothing.pid = nothing.pid >= PID_LARGE_BAD ? PID_LARGE_BAD : nothing.pid;
        (void)kit_work(&nothing, null, reply->text, sizeof reply->text);
    }
    close(null);
    taken->pause_us = 500;
    taken->paused = strcmp(b->run.kind, "stacks") == 0;
    snprintf(taken->missing, sizeof taken->missing, "%s", b->run.live ? "the heap is racy" : "");
    if (b->run.pid == PID_ECHO)
        snprintf(taken->missing, sizeof taken->missing,
                 "deadline %llu ms, for %llu ms, pause %u ms, live %d, allow_pause %d",
                 (unsigned long long)b->run.deadline_us / 1000,
                 (unsigned long long)b->run.for_us / 1000, b->run.pause_max_us / 1000, b->run.live,
                 b->run.allow_pause);
    taken->top_count = taken->paused;
    taken->tops[0].threads = 1;
    b->worker = 0;
    (void)os_message_send(fd, reply, sizeof *reply, -1, NULL);
}

static inline void kit_find(struct kit_broker *b)
{
    struct broker_found *found = &b->reply.body.found;
    const struct broker_selector *s = &b->request.body.resolve;
    uint32_t pids[] = {s->pid ? s->pid : PID_FINE, PID_ALSO_FINE};
    found->count = strcmp(s->name, "none") == 0 ? 0 : strcmp(s->name, "two") == 0 ? 2 : 1;
    found->matched = found->count;
    for (uint32_t i = 0; i < found->count; i++) {
        found->list[i].pid = pids[i];
        snprintf(found->list[i].name, OS_PROCESS_NAME_SIZE, "victim");
    }
}

static inline void kit_serve(struct kit_broker *b, int fd, int out)
{
    memset(&b->reply, 0, sizeof b->reply);
    b->reply.magic = BROKER_MAGIC;
    b->reply.op = b->request.op;
    b->reply.id = b->request.id;
    if (b->request.op == BROKER_RUN && b->worker) {
        b->reply.error = ERR_BUSY;
    } else if (b->request.op == BROKER_RUN) {
        kit_start(b, out);
        return;
    } else if (b->request.op == BROKER_RESOLVE) {
        kit_find(b);
    } else if (b->request.op == BROKER_STOP && b->worker) {
        kill(b->worker, SIGKILL);
    }
    (void)os_message_send(fd, &b->reply, sizeof b->reply, -1, NULL);
}

static inline int kit_broker(int fd, void *context)
{
    struct kit_broker *b = calloc(1, sizeof *b);
    int e = b ? 0 : ERR_NOMEM;
    (void)context;
    while (e == 0 || e == ERR_TIMEOUT) {
        int out = -1, status;
        e = os_message_receive(fd, &b->request, sizeof b->request, &out, b->worker ? 1 : -1, NULL);
        if (e == 0)
            kit_serve(b, fd, out);
        if (out >= 0)
            close(out);
        if (b->worker && waitpid(b->worker, &status, WNOHANG) == b->worker)
            kit_tell(b, fd, status);
    }
    if (b && b->worker)
        kill(b->worker, SIGKILL);
    free(b);
    return 0;
}

#endif
