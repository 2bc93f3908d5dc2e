/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on the rules of the fleet: RulesSet, RulesGet, RulesRemove. A change is answered when
 * it is stored. Handler functions for serve.c's tables.
 */
#include <stdlib.h>
#include <string.h>

#include "collector/collector.h"
#include "collector/rules.h"
#include "collector/serve.h"
#include "common/text.h"

#define REPLY_BYTES (64u << 10)

/* A change that is being stored. */
struct changing {
    struct call *call; /* NULL: the caller is gone; the change stands */
};

static void reply_rules(struct call *call)
{
    trawl_v1_RuleFile *file = malloc(sizeof *file);
    struct failure f;
    struct buf wire;
    buf_init(&wire, REPLY_BYTES);
    if (file)
        rules_view(call->collector->rules, file);
    if (file && !codec_put_rule_file(&wire, file)) {
        call_answer(call, buf_span(&wire));
    } else {
        fail(&f, ERR_NOMEM, "out of memory");
        call_finish(call, &f);
    }
    buf_done(&wire);
    free(file);
}

static int get_message(struct call *call, struct span request, struct failure *f)
{
    (void)request;
    (void)f;
    reply_rules(call);
    return 0;
}

static void on_changed(void *context, const struct failure *why)
{
    struct changing *changing = context;
    struct call *call = changing->call;
    if (call) {
        call->state = NULL;
        if (why->code)
            call_finish(call, why);
        else
            reply_rules(call);
    }
    free(changing);
}

static void change_ended(struct call *call)
{
    struct changing *changing = call->state;
    if (changing)
        changing->call = NULL;
}

static void put_who(const struct call *call, char out[96])
{
    text_format(out, 96, "%s/%.64s", call->who->role, call->who->name);
}

static struct changing *begin(struct call *call, struct failure *f)
{
    struct changing *changing = malloc(sizeof *changing);
    if (!changing) {
        fail(f, ERR_NOMEM, "out of memory");
        return NULL;
    }
    changing->call = call;
    call->state = changing;
    return changing;
}

static void give_up(struct call *call, struct changing *changing)
{
    call->state = NULL;
    free(changing);
}

static int set_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_RuleFile *file = malloc(sizeof *file);
    char who[96];
    int e = file ? codec_get_rule_file(file, request, f) : fail(f, ERR_NOMEM, "out of memory");
    struct changing *changing = e ? NULL : begin(call, f);
    if (changing) {
        put_who(call, who);
        e = rules_set(call->collector->rules, span_of(file->text.bytes, file->text.size),
                      file->any_counter, who, on_changed, changing, f);
        if (e)
            give_up(call, changing);
    }
    free(file);
    return changing || e ? e : f->code;
}

static int remove_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_RuleNames names;
    char who[96];
    int e = codec_get_rule_names(&names, request, f);
    if (e)
        return e;
    struct changing *changing = begin(call, f);
    if (!changing)
        return f->code;
    put_who(call, who);
    e = rules_remove(call->collector->rules, &names, who, on_changed, changing, f);
    if (e)
        give_up(call, changing);
    return e;
}

const struct handler rule_handlers[] = {
    {METHOD_OPS_RULES_SET, set_message, NULL, NULL, change_ended},
    {METHOD_OPS_RULES_GET, get_message, NULL, NULL, NULL},
    {METHOD_OPS_RULES_REMOVE, remove_message, NULL, NULL, change_ended},
    {.message = NULL},
};
