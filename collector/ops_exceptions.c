/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations.Exceptions: what is known of the past, then, when asked, what comes. Invariant: the
 * counts of all replies about a group's whole life add up to the group's count: samples with their
 * own, and for each host one more for what was only counted there. Handler functions for serve.c.
 */
#include "collector/ops_exceptions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "collector/groups.h"
#include "common/text.h"

#define PAST_MAX 20000

/* ---- hosts asked for ---- */

static int add_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    (void)host;
    struct ops_hosts *hosts = context;
    if (BUF_GROW(hosts->names, hosts->count, &hosts->capacity, 64))
        return ERR_NOMEM;
    text_copy(hosts->names[hosts->count++], sizeof(*hosts->names), view->name);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

int ops_hosts_select(struct call *call, const char *selector, struct ops_hosts *out,
                     struct failure *f)
{
    *out = (struct ops_hosts){.count = 0};
    int e = ops_each_host(call, selector, add_host, out, f);
    if (out->count)
        qsort(out->names, out->count, sizeof(*out->names), compare_names);
    return e;
}

bool ops_hosts_have(const struct ops_hosts *hosts, const char *name)
{
    return hosts->count &&
           bsearch(name, hosts->names, hosts->count, sizeof(*hosts->names), compare_names);
}

void ops_hosts_done(struct ops_hosts *hosts)
{
    free(hosts->names);
}

/* ---- the past ---- */

/* Where a reply lies: read again when it is its turn, so that only its time is held. */
struct past {
    int64_t wall_us;
    char group[16];
    char host[64];
    uint8_t id[16]; /* of a sample */
    uint64_t count; /* of what was only counted; 0: a sample */
};

struct telling {
    struct groups_follower follower;
    struct call *call;
    trawl_v1_ExceptionsRequest request;
    char group[16]; /* ""; all */
    struct ops_hosts hosts;
    bool all_hosts;
    struct past *list;
    size_t count, capacity;
    const trawl_v1_Group *at; /* while gathering */
    trawl_v1_Exception *reply;
    bool following;
};

static struct past *past_add(struct telling *t)
{
    if (t->count == PAST_MAX)
        return NULL;
    if (BUF_GROW(t->list, t->count, &t->capacity, 64))
        return NULL;
    t->list[t->count] = (struct past){.wall_us = 0};
    return &t->list[t->count++];
}

static bool in_window(const struct telling *t, int64_t us)
{
    return us >= t->request.from_us && (!t->request.to_us || us <= t->request.to_us);
}

static bool of_asked_host(const struct telling *t, const char *host)
{
    return t->all_hosts || ops_hosts_have(&t->hosts, host);
}

static int note_sample(void *context, const trawl_v1_Exception *e)
{
    struct telling *t = context;
    if (!in_window(t, e->wall_us) || !of_asked_host(t, e->host))
        return 0;
    struct past *p = past_add(t);
    if (!p)
        return ERR_LIMIT;
    p->wall_us = e->wall_us;
    text_copy(p->group, sizeof p->group, t->at->id);
    text_copy(p->host, sizeof p->host, e->host);
    memcpy(p->id, e->id.bytes, sizeof p->id);
    return 0;
}

struct kept {
    const char *host;
    uint64_t count;
};

static int add_kept(void *context, const trawl_v1_Exception *e)
{
    struct kept *kept = context;
    if (!strcmp(kept->host, e->host))
        kept->count += e->count;
    return 0;
}

static int note_host(void *context, const trawl_v1_GroupHost *host)
{
    struct telling *t = context;
    struct kept kept = {host->host, 0};
    if (!in_window(t, host->last_us) || !of_asked_host(t, host->host))
        return 0;
    int e = groups_each_sample(t->call->collector->groups, t->at->id, add_kept, &kept);
    if (e < 0 || kept.count >= host->count)
        return e < 0 ? e : 0;
    struct past *p = past_add(t);
    if (!p)
        return ERR_LIMIT;
    p->wall_us = host->last_us;
    p->count = host->count - kept.count;
    text_copy(p->group, sizeof p->group, t->at->id);
    text_copy(p->host, sizeof p->host, host->host);
    return 0;
}

static int note_group(void *context, const trawl_v1_Group *group)
{
    struct telling *t = context;
    struct groups *groups = t->call->collector->groups;
    bool other = t->group[0] && strcmp(t->group, group->id) != 0;
    if (other || group->merged_into[0] || group->last_us < t->request.from_us)
        return 0;
    t->at = group;
    int e = groups_each_sample(groups, group->id, note_sample, t);
    return e ? e : groups_each_host(groups, group->id, note_host, t);
}

static int compare_past(const void *a, const void *b)
{
    const struct past *x = a, *y = b;
    return (x->wall_us > y->wall_us) - (x->wall_us < y->wall_us);
}

struct picking {
    const struct past *past;
    trawl_v1_Exception *out;
};

static int pick_sample(void *context, const trawl_v1_Exception *e)
{
    struct picking *p = context;
    if (memcmp(e->id.bytes, p->past->id, sizeof p->past->id) != 0 ||
        strcmp(e->host, p->past->host) != 0)
        return 0;
    *p->out = *e;
    text_copy(p->out->group, sizeof p->out->group, p->past->group);
    return 1;
}

/* Of what was only counted: the group's words, the host, how many, and that it is so. */
static bool fill_counted(struct telling *t, const struct past *p)
{
    trawl_v1_Group *group = malloc(sizeof(*group));
    trawl_v1_Exception *e = t->reply;
    bool ok = group && !groups_get(t->call->collector->groups, p->group, group);
    if (ok) {
        memset(e, 0, sizeof *e);
        e->source = group->source;
        text_copy(e->type, sizeof e->type, group->type);
        text_copy(e->template, sizeof e->template, group->template);
        text_copy(e->message, sizeof e->message, group->template);
        text_copy(e->language, sizeof e->language, group->language);
        text_copy(e->process, sizeof e->process, group->process);
        text_copy(e->group, sizeof e->group, p->group);
        text_copy(e->host, sizeof e->host, p->host);
        if (group->incidents_count)
            text_copy(e->incident, sizeof e->incident, group->incidents[0]);
        e->wall_us = e->last_us = p->wall_us;
        e->count = p->count;
        text_format(e->missing, sizeof e->missing,
                    "only counted: %" PRIu64
                    " on this host beside the samples of %s, the last at this time",
                    p->count, p->group);
    }
    free(group);
    return ok;
}

static int reply(struct telling *t, const trawl_v1_Exception *e)
{
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    int err = codec_put_exception(&wire, e);
    if (!err)
        err = call_reply(t->call, buf_span(&wire));
    buf_done(&wire);
    return err;
}

static int reply_past(struct telling *t)
{
    struct groups *groups = t->call->collector->groups;
    int e = 0;
    if (t->count)
        qsort(t->list, t->count, sizeof(*t->list), compare_past);
    for (size_t i = 0; i < t->count && !e; i++) {
        struct picking pick = {&t->list[i], t->reply};
        bool ok = t->list[i].count
                      ? fill_counted(t, &t->list[i])
                      : groups_each_sample(groups, t->list[i].group, pick_sample, &pick) == 1;
        if (ok)
            e = reply(t, t->reply);
    }
    return e;
}

/* ---- what comes ---- */

static void on_counted(struct groups_follower *follower, const trawl_v1_Exception *e)
{
    struct telling *t = LIST_ENTRY(follower, struct telling, follower);
    bool other = t->group[0] && strcmp(t->group, e->group) != 0;
    if (!other && !t->call->finishing && of_asked_host(t, e->host))
        reply(t, e);
}

static void telling_free(struct telling *t)
{
    if (t->following)
        groups_unfollow(&t->follower);
    ops_hosts_done(&t->hosts);
    free(t->list);
    free(t->reply);
    free(t);
}

static int prepare(struct telling *t, struct failure *f)
{
    trawl_v1_ExceptionsRequest *r = &t->request;
    text_clean(r->selector);
    text_clean(r->group);
    t->all_hosts = !r->selector[0];
    t->reply = calloc(1, sizeof(*t->reply));
    if (!t->reply)
        return fail(f, ERR_NOMEM, "out of memory");
    if (r->to_us && r->to_us < r->from_us)
        return fail(f, ERR_INVALID, "the time asked for ends before it begins");
    int e = t->all_hosts ? 0 : ops_hosts_select(t->call, r->selector, &t->hosts, f);
    if (!e && r->group[0])
        e = groups_find(t->call->collector->groups, r->group, t->group, f);
    return e;
}

static int tell(struct telling *t, struct failure *f)
{
    struct groups *groups = t->call->collector->groups;
    int e = prepare(t, f);
    if (e)
        return e;
    if (!t->request.follow || t->request.from_us) /* following alone begins now */
        e = groups_each(groups, note_group, t);
    if (!e)
        e = reply_past(t);
    return e < 0 ? fail(f, e, "the exceptions cannot be read: %s", err_text(e)) : 0;
}

static int exceptions_message(struct call *call, struct span request, struct failure *f)
{
    struct telling *t = calloc(1, sizeof(*t));
    if (!t)
        return fail(f, ERR_NOMEM, "out of memory");
    t->call = call;
    t->follower.counted = on_counted;
    list_init(&t->follower.link);
    int e = codec_get_exceptions_request(&t->request, request, f);
    if (!e)
        e = tell(t, f);
    if (e || !t->request.follow) {
        telling_free(t);
        if (!e)
            call_finish(call, NULL);
        return e;
    }
    t->following = true;
    call->state = t;
    groups_follow(call->collector->groups, &t->follower);
    return 0;
}

static void exceptions_ended(struct call *call)
{
    if (call->state)
        telling_free(call->state);
}

const struct handler exception_handlers[] = {
    {METHOD_OPS_EXCEPTIONS, exceptions_message, NULL, NULL, exceptions_ended},
    {.message = NULL},
};
