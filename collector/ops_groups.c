/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on groups: Groups, ShowGroup, Want, Resolve. A change is answered after its commit.
 * Handler functions for serve.c.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "collector/groups.h"
#include "collector/ops.h"
#include "collector/ops_exceptions.h"
#include "common/log.h"
#include "common/text.h"

#define LISTED_MAX 20000
#define HOSTS_MAX 10000
#define TEXT_MAX_BYTES (64 * 1024)

static int reply_group(struct call *call, const trawl_v1_Group *group)
{
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    int e = codec_put_group(&wire, group);
    if (!e)
        e = call_reply(call, buf_span(&wire));
    buf_done(&wire);
    return e;
}

/* ---- Groups ---- */

struct listed {
    char id[16];
    int64_t last_us;
};

struct listing {
    struct call *call;
    const trawl_v1_GroupsRequest *request;
    const struct ops_hosts *hosts; /* NULL: all */
    struct listed *list;
    size_t count, capacity;
};

static bool is_asked(const trawl_v1_GroupsRequest *r, const trawl_v1_Group *group)
{
    bool over = group->state == trawl_v1_GroupState_GROUP_RESOLVED || group->merged_into[0];
    if (over && !r->resolved)
        return false;
    if (!group->count && !r->resolved)
        return false; /* split off: nothing came yet */
    return group->last_us >= r->from_us && (!r->to_us || group->first_us <= r->to_us);
}

static int is_of_host(void *context, const trawl_v1_GroupHost *host)
{
    return ops_hosts_have(context, host->host) ? 1 : 0;
}

static int list_group(void *context, const trawl_v1_Group *group)
{
    struct listing *l = context;
    if (!is_asked(l->request, group))
        return 0;
    if (l->count == LISTED_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(l->list, l->count, &l->capacity, 64))
        return ERR_NOMEM;
    struct listed *one = &l->list[l->count++];
    text_copy(one->id, sizeof one->id, group->id);
    one->last_us = group->last_us;
    return 0;
}

static int compare_listed(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    return (x->last_us < y->last_us) - (x->last_us > y->last_us);
}

static int reply_listed(struct listing *l)
{
    struct groups *groups = l->call->collector->groups;
    trawl_v1_Group *group = malloc(sizeof(*group));
    int e = group ? 0 : ERR_NOMEM;
    if (l->count)
        qsort(l->list, l->count, sizeof(*l->list), compare_listed);
    for (size_t i = 0; i < l->count && !e; i++) {
        const char *id = l->list[i].id;
        bool asked =
            !l->hosts || groups_each_host(groups, id, is_of_host, (void *)(uintptr_t)l->hosts) == 1;
        if (asked && !groups_get(groups, id, group))
            e = reply_group(l->call, group);
    }
    free(group);
    return e;
}

static int groups_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_GroupsRequest r;
    struct ops_hosts hosts = {.count = 0};
    int e = codec_get_groups_request(&r, request, f);
    text_clean(r.selector);
    if (!e && r.selector[0])
        e = ops_hosts_select(call, r.selector, &hosts, f);
    struct listing l = {.call = call, .request = &r, .hosts = r.selector[0] ? &hosts : NULL};
    if (!e)
        e = groups_each(call->collector->groups, list_group, &l);
    if (!e)
        e = reply_listed(&l);
    free(l.list);
    ops_hosts_done(&hosts);
    if (e < 0)
        return f->code ? e : fail(f, e, "the groups cannot be read: %s", err_text(e));
    call_finish(call, NULL);
    return 0;
}

/* ---- ShowGroup ---- */

static int reply_part(struct call *call, const trawl_v1_GroupPart *part)
{
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    int e = codec_put_group_part(&wire, part);
    if (!e)
        e = call_reply(call, buf_span(&wire));
    buf_done(&wire);
    return e;
}

struct showing {
    struct call *call;
    trawl_v1_GroupPart part;
    trawl_v1_GroupHost *hosts;   /* most occurrences first */
    trawl_v1_Exception *samples; /* newest first */
    size_t host_count, sample_count;
};

static int gather_host(void *context, const trawl_v1_GroupHost *host)
{
    struct showing *s = context;
    if (s->host_count == HOSTS_MAX)
        return 1;
    if (BUF_GROW(s->hosts, s->host_count, NULL, 1))
        return ERR_NOMEM;
    s->hosts[s->host_count++] = *host;
    return 0;
}

static int gather_sample(void *context, const trawl_v1_Exception *sample)
{
    struct showing *s = context;
    if (s->sample_count == GROUP_SAMPLES_MAX)
        return 1;
    s->samples[s->sample_count++] = *sample;
    return 0;
}

static int compare_hosts(const void *a, const void *b)
{
    const trawl_v1_GroupHost *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count)
                                : strcmp(x->host, y->host);
}

static int compare_samples(const void *a, const void *b)
{
    const trawl_v1_Exception *x = a, *y = b;
    return (x->wall_us < y->wall_us) - (x->wall_us > y->wall_us);
}

static int send_records(struct showing *s)
{
    s->part.which_body = trawl_v1_GroupPart_group_tag;
    int e = reply_part(s->call, &s->part);
    s->part.which_body = trawl_v1_GroupPart_host_tag;
    for (size_t i = 0; i < s->host_count && !e; i++) {
        s->part.body.host = s->hosts[i];
        e = reply_part(s->call, &s->part);
    }
    s->part.which_body = trawl_v1_GroupPart_sample_tag;
    for (size_t i = 0; i < s->sample_count && !e; i++) {
        s->part.body.sample = s->samples[i];
        e = reply_part(s->call, &s->part);
    }
    return e;
}

static int send_lines(struct showing *s, struct span text)
{
    struct span line;
    int e = 0;
    s->part.which_body = trawl_v1_GroupPart_line_tag;
    while (!e && !text_take_until(&text, '\n', &line)) {
        text_copy_span(s->part.body.line, sizeof(s->part.body.line), line);
        text_clean(s->part.body.line);
        e = reply_part(s->call, &s->part);
    }
    return e;
}

static int show(struct showing *s, const char *id)
{
    struct groups *groups = s->call->collector->groups;
    struct buf text;
    int e = groups_get(groups, id, &s->part.body.group);
    if (!e)
        e = groups_each_host(groups, id, gather_host, s);
    if (e >= 0)
        e = groups_each_sample(groups, id, gather_sample, s);
    if (e < 0)
        return e;
    if (s->host_count)
        qsort(s->hosts, s->host_count, sizeof(*s->hosts), compare_hosts);
    qsort(s->samples, s->sample_count, sizeof(*s->samples), compare_samples);
    buf_init(&text, TEXT_MAX_BYTES);
    struct group_report in = {&s->part.body.group, s->hosts, s->host_count, s->samples,
                              s->sample_count};
    group_report_text(&in, &text);
    e = send_records(s);
    if (!e)
        e = send_lines(s, buf_span(&text));
    buf_done(&text);
    return e;
}

static int show_group_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_GroupRequest r;
    char id[16];
    int e = codec_get_group_request(&r, request, f);
    text_clean(r.group);
    if (!e)
        e = groups_find(call->collector->groups, r.group, id, f);
    if (e)
        return e;
    struct showing *s = calloc(1, sizeof(*s));
    if (!s || !(s->samples = calloc(GROUP_SAMPLES_MAX, sizeof(*s->samples)))) {
        free(s);
        return fail(f, ERR_NOMEM, "out of memory");
    }
    s->call = call;
    e = show(s, id);
    free(s->hosts);
    free(s->samples);
    free(s);
    if (e < 0)
        return fail(f, e, "group '%s' cannot be shown: %s", id, err_text(e));
    call_finish(call, NULL);
    return 0;
}

/* ---- Want, Resolve ---- */

struct answering {
    struct call *call; /* NULL: the caller is gone */
    char id[16];
};

static void on_changed(void *context, const struct failure *why)
{
    struct answering *a = context;
    struct call *call = a->call;
    trawl_v1_Group *group = malloc(sizeof(*group));
    struct failure f = *why;
    if (call) {
        call->state = NULL;
        int e = f.code   ? f.code
                : !group ? ERR_NOMEM
                         : groups_get(call->collector->groups, a->id, group);
        if (e && !f.code)
            fail(&f, e, "group '%s' cannot be read: %s", a->id, err_text(e));
        if (!f.code)
            reply_group(call, group);
        call_finish(call, f.code ? &f : NULL);
    }
    free(group);
    free(a);
}

static void change_ended(struct call *call)
{
    struct answering *a = call->state;
    if (a)
        a->call = NULL;
}

static struct answering *answering_new(struct call *call, const char *text, struct failure *f)
{
    struct answering *a = calloc(1, sizeof(*a));
    if (!a) {
        fail(f, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (groups_find(call->collector->groups, text, a->id, f)) {
        free(a);
        return NULL;
    }
    a->call = call;
    call->state = a;
    return a;
}

static int not_begun(struct call *call, struct answering *a, const struct failure *f)
{
    call->state = NULL;
    free(a);
    return f->code;
}

static int want_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_WantRequest r;
    char who[96];
    int e = codec_get_want_request(&r, request, f);
    if (e)
        return e;
    text_clean(r.group);
    for (pb_size_t i = 0; i < r.what_count; i++)
        text_clean(r.what[i]);
    struct answering *a = answering_new(call, r.group, f);
    if (!a)
        return f->code;
    text_format(who, sizeof(who), "%s/%.64s", call->who->role, call->who->name);
    if (groups_want(call->collector->groups, a->id, &r, who, on_changed, a, f))
        return not_begun(call, a, f);
    log_info("%s wants more of %u exceptions of %s", who, r.count, a->id);
    return 0;
}

static int resolve_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_GroupRequest r;
    char who[96];
    int e = codec_get_group_request(&r, request, f);
    if (e)
        return e;
    text_clean(r.group);
    struct answering *a = answering_new(call, r.group, f);
    if (!a)
        return f->code;
    text_format(who, sizeof(who), "%s/%.64s", call->who->role, call->who->name);
    if (groups_resolve(call->collector->groups, a->id, who, on_changed, a, f))
        return not_begun(call, a, f);
    log_info("%s marks %s resolved", who, a->id);
    return 0;
}

const struct handler group_handlers[] = {
    {METHOD_OPS_GROUPS, groups_message, NULL, NULL, NULL},
    {METHOD_OPS_SHOW_GROUP, show_group_message, NULL, NULL, NULL},
    {METHOD_OPS_WANT, want_message, NULL, NULL, change_ended},
    {METHOD_OPS_RESOLVE, resolve_message, NULL, NULL, change_ended},
    {.message = NULL},
};
