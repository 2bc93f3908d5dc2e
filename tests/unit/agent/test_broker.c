/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real broker with real workers, on a process of this test: what it gives, what it refuses
 * whatever the agent says, and that nothing of it stays.
 */
#include "agent/broker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/broker_wire.h"
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
    b->victim = fork();
    if (b->victim == 0) {
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    usleep(50000);
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
    REQUIRE(os_message_receive(b->fd, &b->reply, sizeof b->reply, NULL, 15000, &f) == 0);
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

static int run(struct bench *b, const char *kind, uint64_t start_ticks, uint32_t pause_us,
               char *out, size_t size_bytes)
{
    int ends[2];
    struct broker_run *r = &b->request.body.run;
    REQUIRE(pipe(ends) == 0);
    memset(&b->request.body, 0, sizeof b->request.body);
    snprintf(r->kind, sizeof r->kind, "%s", kind);
    r->order = b->request.id + 1;
    r->pid = (uint32_t)b->victim;
    r->start_ticks = start_ticks;
    r->pause_max_us = pause_us;
    r->deadline_us = 10000000;
    int e = ask(b, BROKER_RUN, ends[1]);
    close(ends[1]);
    ssize_t n = read(ends[0], out, size_bytes - 1);
    out[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    return e;
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
