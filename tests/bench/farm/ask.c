/* SPDX-License-Identifier: Apache-2.0 */
/* The call over agent/link.h: the same connection code, the role comes from the certificate. */
#include "ask.h"

#include "common/text.h"

static int on_message(void *owner, struct grpc_call *call, struct span message)
{
    struct ask *ask = owner;
    (void)call;
    ask->replies++;
    if (ask->reply)
        ask->reply(ask->context, message);
    return 0;
}

static void on_done(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct ask *ask = owner;
    if (status != GRPC_OK)
        fail(&ask->why, grpc_call_error(call), "%s", text);
    if (ask->link)
        link_close(ask->link);
}

static const struct grpc_call_events call_events = {on_message, NULL, NULL, on_done};

static void on_opened(void *owner, struct link *link)
{
    struct ask *ask = owner;
    struct grpc_call *call;
    if (grpc_start(link_grpc(link), method_by_id(ask->method)->path, 0, &call_events, ask, &call,
                   &ask->why)) {
        link_close(link);
        return;
    }
    (void)grpc_send(call, buf_span(&ask->request));
    grpc_end(call);
}

static void on_closed(void *owner, const struct failure *why)
{
    struct ask *ask = owner;
    ask->link = NULL;
    if (why->code && !ask->why.code)
        ask->why = *why;
    buf_done(&ask->request);
    ask->is_done = true;
}

static const struct link_events link_events = {on_opened, on_closed};

void ask_start(struct ask *ask)
{
    struct failure f = {0};
    ask->is_done = false;
    ask->why = f;
    ask->replies = 0;
    if (link_open(&ask->link, ask->loop, ask->tls, FARM_ADDRESS, ask->port, FARM_ADDRESS,
                  &link_events, ask, &f)) {
        ask->why = f;
        on_closed(ask, &f);
    }
}

static bool is_done(void *context)
{
    const struct ask *ask = context;
    return ask->is_done;
}

bool ask_wait(struct farm *farm, struct ask *ask, unsigned limit_s)
{
    ask_start(ask);
    if (!farm_wait(farm, is_done, ask, limit_s)) {
        farm_wrong(farm, "%s gave no end in %u s", method_by_id(ask->method)->path, limit_s);
        if (ask->link)
            link_close(ask->link);
        (void)farm_wait(farm, is_done, ask, 15);
    } else if (ask->why.code) {
        farm_wrong(farm, "%s failed: %s", method_by_id(ask->method)->path, ask->why.text);
    }
    return !ask->why.code;
}
