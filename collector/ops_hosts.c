/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on hosts: Hosts, Caps, Label, Revoke, and the table row of Top (ops_top.c). Handler
 * functions for serve.c's tables.
 */
#include "collector/serve.h"

#include <stdlib.h>
#include <string.h>

#include "collector/fleet.h"
#include "collector/ops.h"
#include "collector/rules.h"
#include "common/log.h"
#include "common/text.h"

/* ---- selecting ---- */

struct selecting {
    struct roster *roster;
    const struct select *select;
    ops_host_fn each;
    void *context;
    size_t matched;
};

static int select_one(void *context, struct host *host)
{
    struct selecting *s = context;
    trawl_v1_Host view;
    roster_view(s->roster, host, &view);
    if (!select_match(s->select, &view))
        return 0;
    s->matched++;
    return s->each(s->context, host, &view);
}

int ops_each_host(struct call *call, const char *selector, ops_host_fn each, void *context,
                  struct failure *f)
{
    struct select select;
    int e = select_parse(*selector ? selector : "*", &select, f);
    if (e)
        return e;
    struct selecting s = {call->collector->roster, &select, each, context, 0};
    e = roster_each(s.roster, select_one, &s);
    if (!e && !s.matched && *selector)
        return fail(f, ERR_NOTFOUND,
                    "no host matches '%s': 'trawl hosts' lists %zu hosts with their labels",
                    selector, roster_count(s.roster));
    return e;
}

/* ---- Hosts, Caps ---- */

static int reply_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    (void)host;
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    int e = codec_put_host(&wire, view);
    if (!e)
        e = call_reply(context, buf_span(&wire));
    buf_done(&wire);
    return e;
}

static int reply_caps(void *context, struct host *host, const trawl_v1_Host *view)
{
    int e = 0;
    for (size_t i = 0; i < host->cap_count && !e; i++) {
        trawl_v1_Capability cap = {.available = host->caps[i].available};
        struct buf wire;
        buf_init(&wire, 1024);
        text_copy(cap.host, sizeof(cap.host), view->name);
        text_copy(cap.name, sizeof(cap.name), host->caps[i].name);
        text_copy(cap.reason, sizeof(cap.reason), host->caps[i].reason);
        e = codec_put_capability(&wire, &cap);
        if (!e)
            e = call_reply(context, buf_span(&wire));
        buf_done(&wire);
    }
    return e;
}

static int list_hosts(struct call *call, struct span request, ops_host_fn each, struct failure *f)
{
    trawl_v1_HostsRequest r;
    int e = codec_get_hosts_request(&r, request, f);
    if (!e)
        e = ops_each_host(call, r.selector, each, call, f);
    if (!e)
        call_finish(call, NULL);
    return e;
}

static int hosts_message(struct call *call, struct span request, struct failure *f)
{
    return list_hosts(call, request, reply_host, f);
}

static int caps_message(struct call *call, struct span request, struct failure *f)
{
    return list_hosts(call, request, reply_caps, f);
}

/* ---- changes: answered when stored ---- */

struct change {
    struct call *call; /* NULL: the caller is gone; the change stands */
    struct host *host;
    struct collector *collector;
};

static void on_changed(void *context, const struct failure *why)
{
    struct change *change = context;
    struct call *call = change->call;
    if (!why->code)
        rules_host_changed(change->collector->rules, change->host);
    if (call && why->code) {
        call_finish(call, why);
    } else if (call) {
        trawl_v1_Host view;
        roster_view(call->collector->roster, change->host, &view);
        if (!reply_host(call, change->host, &view))
            call_finish(call, NULL);
    }
    if (call)
        call->state = NULL;
    free(change);
}

static void change_ended(struct call *call)
{
    struct change *change = call->state;
    if (change)
        change->call = NULL;
}

static struct change *change_new(struct call *call, const char *name, struct failure *f)
{
    struct host *host = roster_find(call->collector->roster, name);
    if (!host) {
        fail(f, ERR_NOTFOUND, "no host '%s': 'trawl hosts' lists them", name);
        return NULL;
    }
    struct change *change = malloc(sizeof(*change));
    if (!change) {
        fail(f, ERR_NOMEM, "out of memory");
        return NULL;
    }
    *change = (struct change){call, host, call->collector};
    return change;
}

static int put_label(trawl_v1_Host *host, const trawl_v1_Label *label, struct failure *f)
{
    if (!text_is_name(label->key) || !text_is_name(label->value))
        return fail(
            f, ERR_INVALID,
            "label '%s=%s' is not a key=value of letters, digits, '.', '_' and '-' (1 to 63, "
            "first and last a letter or digit)",
            label->key, label->value);
    for (pb_size_t i = 0; i < host->labels_count; i++)
        if (!strcmp(host->labels[i].key, label->key)) {
            host->labels[i] = *label;
            return 0;
        }
    if (host->labels_count == sizeof(host->labels) / sizeof(host->labels[0]))
        return fail(f, ERR_LIMIT, "host '%s' has 32 labels already", host->name);
    host->labels[host->labels_count++] = *label;
    return 0;
}

static void remove_label(trawl_v1_Host *host, const char *key)
{
    for (pb_size_t i = 0; i < host->labels_count; i++)
        if (!strcmp(host->labels[i].key, key)) {
            host->labels[i] = host->labels[--host->labels_count];
            return;
        }
}

static int label_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_LabelRequest r;
    int e = codec_get_label_request(&r, request, f);
    if (e)
        return e;
    struct change *change = change_new(call, r.host, f);
    if (!change)
        return f->code;
    trawl_v1_Host before = change->host->record;
    for (pb_size_t i = 0; i < r.set_count && !e; i++)
        e = put_label(&change->host->record, &r.set[i], f);
    for (pb_size_t i = 0; i < r.remove_count; i++)
        remove_label(&change->host->record, r.remove[i]);
    if (!e) {
        e = roster_save(call->collector->roster, change->host, on_changed, change);
        if (e)
            fail(f, e, "labels of '%s' cannot be stored now: %s", r.host, err_text(e));
    }
    if (e) {
        change->host->record = before;
        free(change);
        return e;
    }
    log_info("%s/%s changed labels of '%s'", call->who->role, call->who->name, r.host);
    call->state = change;
    return 0;
}

static int revoke_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_RevokeRequest r;
    int e = codec_get_revoke_request(&r, request, f);
    if (e)
        return e;
    struct change *change = change_new(call, r.host, f);
    if (!change)
        return f->code;
    e = roster_revoke(call->collector->roster, change->host, on_changed, change);
    if (e) {
        free(change);
        return fail(f, e, "host '%s' cannot be revoked now: %s", r.host, err_text(e));
    }
    log_info("%s/%s revoked '%s'", call->who->role, call->who->name, r.host);
    call->state = change;
    return 0;
}

const struct handler host_handlers[] = {
    {METHOD_OPS_HOSTS, hosts_message, NULL, NULL, NULL},
    {METHOD_OPS_CAPS, caps_message, NULL, NULL, NULL},
    {METHOD_OPS_TOP, top_message, NULL, NULL, top_ended},
    {METHOD_OPS_LABEL, label_message, NULL, NULL, change_ended},
    {METHOD_OPS_REVOKE, revoke_message, NULL, NULL, change_ended},
    {.message = NULL},
};
