/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on the fleet brake: ShowBrake, SetBrake. A change is answered when it is stored and
 * the agents that are here obey, or have had their time. Handler functions for serve.c's tables.
 */
#include <stdbool.h>
#include <stdlib.h>

#include "collector/brake.h"
#include "collector/collector.h"
#include "collector/serve.h"
#include "common/text.h"

#define REPLY_BYTES 1024

struct setting {
    struct brake_waiter waiter;
    struct call *call; /* NULL: the caller is gone; the change stands */
    bool stored;
};

static void reply_brake(struct call *call)
{
    trawl_v1_Brake view;
    struct buf wire;
    buf_init(&wire, REPLY_BYTES);
    brake_view(call->collector->brake, &view);
    if (!codec_put_brake(&wire, &view))
        call_answer(call, buf_span(&wire));
    buf_done(&wire);
}

static int brake_message(struct call *call, struct span request, struct failure *f)
{
    (void)request;
    (void)f;
    reply_brake(call);
    return 0;
}

static void on_obeyed(struct brake_waiter *waiter)
{
    struct setting *setting = LIST_ENTRY(waiter, struct setting, waiter);
    struct call *call = setting->call;
    call->state = NULL;
    reply_brake(call);
    free(setting);
}

static void on_set(void *context, const struct failure *why)
{
    struct setting *setting = context;
    struct call *call = setting->call;
    setting->stored = true;
    if (call && !why->code) {
        brake_wait(call->collector->brake, &setting->waiter);
        return;
    }
    if (call) {
        call->state = NULL;
        call_finish(call, why);
    }
    free(setting);
}

static void set_ended(struct call *call)
{
    struct setting *setting = call->state;
    if (!setting)
        return;
    setting->call = NULL;
    if (!setting->stored)
        return; /* on_set() frees it */
    brake_unwait(&setting->waiter);
    free(setting);
}

static int set_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_BrakeRequest r;
    char who[96];
    int e = codec_get_brake_request(&r, request, f);
    if (e)
        return e;
    text_clean(r.note);
    text_format(who, sizeof who, "%s/%.64s", call->who->role, call->who->name);
    struct setting *setting = calloc(1, sizeof *setting);
    if (!setting)
        return fail(f, ERR_NOMEM, "out of memory");
    setting->call = call;
    list_init(&setting->waiter.link);
    setting->waiter.done = on_obeyed;
    e = brake_set(call->collector->brake, &r, who, on_set, setting, f);
    if (e)
        free(setting);
    else
        call->state = setting;
    return e;
}

const struct handler brake_handlers[] = {
    {METHOD_OPS_SHOW_BRAKE, brake_message, NULL, NULL, NULL},
    {METHOD_OPS_SET_BRAKE, set_message, NULL, NULL, set_ended},
    {.message = NULL},
};
