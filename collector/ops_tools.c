/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For generic gRPC tools: health checking and server reflection. Handler functions for serve.c.
 */
#include "collector/serve.h"
#include "proto/health.h"
#include "proto/reflect.h"

#define ANSWER_MAX (128 * 1024)

static int reply(struct call *call, struct buf *answer, int e)
{
    if (!e)
        e = call_reply(call, buf_span(answer));
    buf_done(answer);
    return e;
}

static int check_message(struct call *call, struct span request, struct failure *f)
{
    struct buf answer;
    buf_init(&answer, ANSWER_MAX);
    int e = reply(call, &answer, health_answer(request, !call->collector->stopping, &answer, f));
    if (!e)
        call_finish(call, NULL);
    return e;
}

/* The state changes only when the collector stops, and then the stream ends. */
static int watch_message(struct call *call, struct span request, struct failure *f)
{
    struct buf answer;
    buf_init(&answer, ANSWER_MAX);
    return reply(call, &answer,
                 health_watch_answer(request, !call->collector->stopping, &answer, f));
}

static int reflect_message(struct call *call, struct span request, struct failure *f)
{
    struct buf answer;
    buf_init(&answer, ANSWER_MAX);
    return reply(call, &answer, reflect_answer(request, &answer, f));
}

static int stream_end(struct call *call, struct failure *f)
{
    (void)f;
    call_finish(call, NULL);
    return 0;
}

const struct handler tool_handlers[] = {
    {METHOD_HEALTH_CHECK, check_message, NULL, NULL, NULL},
    {METHOD_HEALTH_WATCH, watch_message, NULL, NULL, NULL},
    {METHOD_REFLECTION_V1ALPHA, reflect_message, stream_end, NULL, NULL},
    {METHOD_REFLECTION_V1, reflect_message, stream_end, NULL, NULL},
    {.message = NULL},
};
