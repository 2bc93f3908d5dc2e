/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arbitrary bytes into a gRPC server or client, with the owner doing things in between. Input: a
 * mode byte, then steps of one operation byte and its argument (see `step`). Held: no crash, `done`
 * exactly once per call and last, memory of a call and output bounded, callbacks only out of the
 * functions that may call back.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/grpc.h"

#define MAX_CALLS 8
#define MESSAGE_BYTES 20000
#define WINDOW_BYTES 65535
#define MODE_CLIENT 1   /* else server */
#define MODE_NO_HELLO 2 /* the preface is the input's business too */

enum behaviour { ECHO, HOLD, FINISH, PAUSE, REFUSE_MESSAGE, CANCEL, BEHAVIOURS };

struct live {
    struct grpc_call *call; /* NULL: free */
    enum behaviour behaviour;
    bool ended;
};

struct world {
    struct grpc *g;
    struct live calls[MAX_CALLS];
    uint64_t now_us;
    bool inside; /* a function that may call back */
    unsigned started;
};

static int on_message(void *owner, struct grpc_call *call, struct span message)
{
    struct live *l = owner;
    assert(l->call == call && !l->ended);
    assert(message.size_bytes <= MESSAGE_BYTES);
    unsigned sum = 0;
    for (size_t i = 0; i < message.size_bytes; i++)
        sum += message.data[i];
    if (l->behaviour == ECHO)
        (void)grpc_send(call, message);
    else if (l->behaviour == PAUSE)
        grpc_pause(call);
    else if (l->behaviour == CANCEL)
        grpc_cancel(call);
    assert(grpc_send_queued_bytes(call) <= WINDOW_BYTES);
    return l->behaviour == REFUSE_MESSAGE && sum % 2 ? ERR_INVALID : 0;
}

static void on_end(void *owner, struct grpc_call *call)
{
    struct live *l = owner;
    assert(l->call == call && !l->ended);
    l->ended = true;
}

static void on_writable(void *owner, struct grpc_call *call)
{
    struct live *l = owner;
    assert(l->call == call);
    (void)grpc_send(call, span_str("more"));
}

static void on_done(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct live *l = owner;
    assert(l->call == call);
    assert((int)status >= 0 && status <= GRPC_UNAUTHENTICATED && strlen(text) <= 1024);
    (void)grpc_call_error(call);
    assert(grpc_send(call, span_str("late")) == ERR_CLOSED);
    *l = (struct live){0};
}

static const struct grpc_call_events CALL_EVENTS = {on_message, on_end, on_writable, on_done};

static struct live *free_slot(struct world *w)
{
    for (size_t i = 0; i < MAX_CALLS; i++)
        if (!w->calls[i].call)
            return &w->calls[i];
    return NULL;
}

static int on_call(void *owner, struct grpc_call *call, const char *path,
                   const struct grpc_call_events **events, void **call_owner, struct failure *f)
{
    struct world *w = owner;
    struct live *l = free_slot(w);
    assert(w->inside);
    size_t length = strlen(path);
    if (!l || length % 7 == 6)
        return fail(f, ERR_DENIED, "no '%s' here", path);
    *l = (struct live){.call = call, .behaviour = (enum behaviour)(length % BEHAVIOURS)};
    if (l->behaviour == FINISH)
        grpc_finish(call, GRPC_OK, path);
    *events = &CALL_EVENTS;
    *call_owner = l;
    return 0;
}

static const struct grpc_events EVENTS = {on_call, NULL};
static const struct grpc_events CLIENT_EVENTS = {NULL, NULL};

static void start_call(struct world *w, uint8_t arg)
{
    static const uint8_t big[MESSAGE_BYTES];
    struct live *l = free_slot(w);
    if (!l || w->started++ > 64)
        return;
    l->behaviour = (enum behaviour)(arg % BEHAVIOURS);
    if (grpc_start(w->g, "/a.B/C", arg & 0x80 ? 1000u * arg : 0, &CALL_EVENTS, l, &l->call, NULL)) {
        *l = (struct live){0};
        return;
    }
    (void)grpc_send(l->call, span_of(big, arg & 0x40 ? MESSAGE_BYTES : 10));
    if (arg & 0x20)
        grpc_end(l->call);
}

/* What an owner may do between feeds; `which` chooses the call. */
static void act(struct world *w, bool client, uint8_t which)
{
    struct live *l = &w->calls[which % MAX_CALLS];
    if (!l->call)
        return;
    switch (which / MAX_CALLS % 6) {
    case 0:
        grpc_pause(l->call);
        break;
    case 1:
        grpc_resume(l->call);
        break;
    case 2:
        grpc_cancel(l->call);
        break;
    case 3:
        while (grpc_send(l->call, span_str("0123456789")) == 0 && which & 0x80)
            ;
        break;
    case 4:
        if (client)
            grpc_end(l->call);
        else
            grpc_finish(l->call, GRPC_ABORTED, "50% done\n");
        break;
    default:
        grpc_drain(w->g);
    }
}

static int pull(struct world *w)
{
    struct buf out;
    buf_init(&out, 128 * 1024);
    int r = grpc_pull(w->g, &out, w->now_us, NULL);
    assert(out.size_bytes <= 82 * 1024);
    buf_done(&out);
    return r;
}

/* Operations: 0..3 feed `arg` bytes, 4 pull, 5 tick by arg * 10 ms, 6 act, 7 start a call (client)
 * or act. */
static int step(struct world *w, bool client, struct span *in)
{
    uint8_t op, arg;
    struct span bytes;
    uint64_t next;
    if (span_take_u8(in, &op) < 0 || span_take_u8(in, &arg) < 0)
        return -1;
    size_t n = arg < in->size_bytes ? arg : in->size_bytes;
    switch (op % 8) {
    case 4:
        return pull(w);
    case 5:
        w->now_us += arg * UINT64_C(10000);
        return grpc_tick(w->g, w->now_us, &next, NULL);
    case 6:
        act(w, client, arg);
        return 0;
    case 7:
        if (client)
            start_call(w, arg);
        else
            act(w, client, arg);
        return 0;
    default:
        return span_take(in, n, &bytes) < 0 ? -1 : grpc_feed(w->g, bytes, w->now_us, NULL);
    }
}

static void say_hello(struct world *w, bool client)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    size_t skip = client ? 24 : 0; /* servers send SETTINGS only */
    int r = grpc_feed(w->g, span_of(hello + skip, sizeof hello - 1 - skip), 0, NULL);
    assert(r == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct grpc_limits limits = {.max_calls = MAX_CALLS,
                                       .max_message_bytes = MESSAGE_BYTES,
                                       .send_queue_bytes = 30000,
                                       .window_bytes = WINDOW_BYTES,
                                       .keepalive_ms = 5000};
    struct span in = span_of(data, size);
    struct world w = {.inside = true};
    uint8_t mode;
    if (span_take_u8(&in, &mode) < 0)
        return 0;
    bool client = mode & MODE_CLIENT;
    int r = client ? grpc_open_client(&w.g, &limits, &CLIENT_EVENTS, &w, "h:1", 0)
                   : grpc_open_server(&w.g, &limits, &EVENTS, &w, 0);
    assert(r == 0);
    if (client)
        start_call(&w, (uint8_t)(mode >> 2));
    if (!(mode & MODE_NO_HELLO))
        say_hello(&w, client);
    while (r == 0 && in.size_bytes > 0)
        r = step(&w, client, &in);
    for (int i = 0; i < 3 && r == 0; i++)
        r = pull(&w);
    grpc_close(w.g, "end of input");
    for (size_t i = 0; i < MAX_CALLS; i++)
        assert(!w.calls[i].call);
    return 0;
}
