/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the broker and a table of those that wait for their reply. The socket is watched by
 * uv_poll and read only when it is readable, so the loop never waits. Called by capture, sampler
 * and agent.
 */
#include "agent/broker_client.h"

#include <stdlib.h>
#include <string.h>

#include "agent/os/privilege.h"
#include "common/port.h"

#define WAITING_MAX 16

struct waiting {
    uint64_t id; /* 0: free */
    broker_done_fn done;
    void *context;
};

struct broker_client {
    uv_poll_t poll;
    int fd;
    bool is_alive;
    uint64_t last_id;
    struct waiting waiting[WAITING_MAX];
    struct broker_reply reply;
    int passed_fd; /* came with the reply; -1: none, or taken */
    void (*closed)(void *context);
    void *closed_context;
};

static void fail_all(struct broker_client *client)
{
    struct failure f;
    fail(&f, ERR_CLOSED, "the privileged process of this agent has ended");
    for (size_t i = 0; i < WAITING_MAX; i++) {
        struct waiting w = client->waiting[i];
        client->waiting[i].id = 0;
        if (w.id)
            w.done(w.context, NULL, &f);
    }
}

static void deliver(struct broker_client *client)
{
    const struct broker_reply *reply = &client->reply;
    if (reply->magic != BROKER_MAGIC)
        return;
    for (size_t i = 0; i < WAITING_MAX; i++) {
        struct waiting w = client->waiting[i];
        if (w.id == 0 || w.id != reply->id)
            continue;
        struct failure f = {0};
        if (reply->error)
            fail(&f, reply->error, "%.*s", FAILURE_TEXT_SIZE - 1, reply->text);
        client->waiting[i].id = 0;
        w.done(w.context, reply, &f);
        return;
    }
}

int broker_client_take_fd(struct broker_client *client)
{
    int fd = client->passed_fd;
    client->passed_fd = -1;
    return fd;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct broker_client *client = poll->data;
    (void)events;
    for (;;) {
        int e = status ? ERR_CLOSED
                       : os_message_receive(client->fd, &client->reply, sizeof client->reply,
                                            &client->passed_fd, 0, NULL);
        if (e == ERR_TIMEOUT)
            return;
        if (e) {
            uv_poll_stop(poll);
            client->is_alive = false;
            fail_all(client);
            return;
        }
        deliver(client);
        port_close(broker_client_take_fd(client));
    }
}

int broker_client_open(struct broker_client **out, uv_loop_t *loop, int fd, struct failure *f)
{
    struct broker_client *client = calloc(1, sizeof *client);
    if (!client)
        return fail(f, ERR_NOMEM, "out of memory");
    client->fd = fd;
    client->is_alive = true;
    client->passed_fd = -1;
    client->poll.data = client;
    int e = uv_poll_init(loop, &client->poll, fd);
    if (!e)
        e = uv_poll_start(&client->poll, UV_READABLE, on_readable);
    if (e) {
        free(client);
        return fail(f, ERR_IO, "cannot watch the broker: %s", uv_strerror(e));
    }
    *out = client;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct broker_client *client = handle->data;
    port_close(client->fd);
    if (client->closed)
        client->closed(client->closed_context);
    free(client);
}

void broker_client_close(struct broker_client *client, void (*closed)(void *context), void *context)
{
    if (!client)
        return;
    client->closed = closed;
    client->closed_context = context;
    uv_close((uv_handle_t *)&client->poll, on_closed);
}

bool broker_client_is_alive(const struct broker_client *client)
{
    return client->is_alive;
}

int broker_client_send(struct broker_client *client, enum broker_op op,
                       struct broker_request *request, int pass_fd, broker_done_fn done,
                       void *context, struct failure *f)
{
    size_t i = 0;
    if (!client->is_alive)
        return fail(f, ERR_CLOSED, "the privileged process of this agent has ended");
    while (i < WAITING_MAX && client->waiting[i].id)
        i++;
    if (i == WAITING_MAX)
        return fail(f, ERR_LIMIT, "too many requests wait for the broker");
    request->magic = BROKER_MAGIC;
    request->op = op;
    request->id = client->last_id + 1;
    int e = os_message_send(client->fd, request, sizeof *request, pass_fd, f);
    if (e)
        return e;
    client->waiting[i] = (struct waiting){++client->last_id, done, context};
    return 0;
}
