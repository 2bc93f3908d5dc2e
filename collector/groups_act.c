/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was decided becomes incidents and orders. Invariant: an action is a row ("p") from the
 * commit that counted its exception until its captures are stored, and each step is written down
 * before the next, so that a restart goes on where it was; a capture's request_id is made of the
 * exception's, so that a step is not taken twice. Called by groups.c and once a second.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "collector/incident.h"
#include "common/log.h"
#include "common/text.h"
#include "proto/kinds.h"

#define SECOND_US INT64_C(1000000)
#define MINUTE_US (60 * SECOND_US)
#define ACTION_EXPIRE_US (60 * MINUTE_US)
#define LAST_MAX_US (24 * 60 * MINUTE_US)
#define ARRIVES_LATE_US (2 * SECOND_US)

/* ---- as rows ---- */

static void put_action(struct group_rows *rows, const struct action *a)
{
    const uint8_t head[2] = {a->opens, a->done};
    int e = buf_append(&rows->bytes, head, sizeof head);
    if (!e)
        e = buf_append_u32(&rows->bytes, a->kinds);
    if (!e)
        e = buf_append_u32(&rows->bytes, a->wanted);
    if (!e)
        e = buf_append(&rows->bytes, a->because, sizeof a->because);
    if (!e)
        e = buf_append(&rows->bytes, a->incident, sizeof a->incident);
    if (!e)
        e = codec_put_exception(&rows->bytes, &a->exception);
    if (e)
        rows->e = e;
    group_rows_put(rows, keys_group_bytes('p', a->exception.id.bytes));
}

static int get_action(struct action *a, struct span in)
{
    struct span head, because, incident;
    struct failure f;
    if (span_take(&in, 2, &head) || span_take_u32(&in, &a->kinds) ||
        span_take_u32(&in, &a->wanted) || span_take(&in, sizeof a->because, &because) ||
        span_take(&in, sizeof a->incident, &incident))
        return ERR_CORRUPT;
    a->opens = head.data[0] != 0;
    a->done = head.data[1];
    memcpy(a->because, because.data, sizeof a->because - 1);
    memcpy(a->incident, incident.data, sizeof a->incident - 1);
    return codec_get_exception(&a->exception, in, &f);
}

static void fill_action(struct action *a, const trawl_v1_Exception *e,
                        const struct group_decision *decision)
{
    a->exception = *e;
    a->kinds = group_kinds_mask(&decision->kinds);
    a->wanted = group_kinds_mask(&decision->more);
    a->opens = decision->opens;
    text_copy(a->because, sizeof a->because, decision->because);
}

void act_put(struct group_rows *rows, const trawl_v1_Exception *e,
             const struct group_decision *decision)
{
    struct action *a = calloc(1, sizeof(*a));
    if (!a) {
        rows->e = ERR_NOMEM;
        return;
    }
    fill_action(a, e, decision);
    put_action(rows, a);
    free(a);
}

static struct action *action_new(struct groups *groups)
{
    struct action *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->groups = groups;
    a->no = ++groups->action_no;
    list_push(&groups->actions, &a->link);
    groups->action_count++;
    return a;
}

static void action_free(struct action *a)
{
    list_remove(&a->link);
    a->groups->action_count--;
    free(a);
}

static int load_action(void *context, struct span key, struct span value)
{
    (void)key;
    struct groups *groups = context;
    struct action *a = action_new(groups);
    if (!a)
        return ERR_NOMEM;
    if (get_action(a, value))
        action_free(a);
    return groups->action_count == GROUPS_ACTIONS_MAX;
}

int act_load(struct groups *groups)
{
    int e = groups_scan(groups, span_str("p"), load_action, groups);
    return e < 0 ? e : 0;
}

void act_forget(struct groups *groups)
{
    LIST_EACH (at, &groups->actions)
        action_free(LIST_ENTRY(at, struct action, link));
}

/* ---- the requests ---- */

/* One process that lives by its pid, what has gone by its unit. */
static void choose_process(const trawl_v1_Exception *e, bool around, trawl_v1_CaptureRequest *r)
{
    bool by_pid = group_process_lives(e) && e->pid && (!around || !e->unit[0]);
    if (!by_pid && !e->unit[0])
        return;
    r->has_process = true;
    if (by_pid) {
        r->process.pid = e->pid;
        r->process.start_ticks = e->start_ticks;
    } else {
        text_copy(r->process.unit, sizeof r->process.unit, e->unit);
    }
}

static bool is_of_process(const struct group_kinds *kinds)
{
    for (size_t i = 0; i < kinds->count; i++)
        if (strcmp(kinds->list[i], "crash") != 0 && strcmp(kinds->list[i], "counters") != 0 &&
            strcmp(kinds->list[i], "events") != 0)
            return true;
    return false;
}

static void put_kinds(const struct group_kinds *kinds, trawl_v1_CaptureRequest *r)
{
    const pb_size_t max = sizeof r->what / sizeof r->what[0];
    for (size_t i = 0; i < kinds->count && r->what_count < max; i++)
        text_copy(r->what[r->what_count++], sizeof r->what[0], kinds->list[i]);
}

static void fill_common(const struct action *a, trawl_v1_CaptureRequest *r)
{
    const trawl_v1_Exception *e = &a->exception;
    memset(r, 0, sizeof *r);
    text_copy(r->selector, sizeof r->selector, e->host);
    text_copy(r->into, sizeof r->into, a->incident);
    r->pause_max_us = KINDS_PAUSE_DEFAULT_US;
    r->max_parallel = 1;
    r->expire_us = ACTION_EXPIRE_US;
    r->exception.size = r->request_id.size = sizeof r->exception.bytes;
    memcpy(r->exception.bytes, e->id.bytes, sizeof r->exception.bytes);
    memcpy(r->request_id.bytes, e->id.bytes, sizeof r->request_id.bytes);
}

static void fill_first(const struct action *a, trawl_v1_CaptureRequest *r)
{
    struct group_kinds kinds;
    fill_common(a, r);
    group_kinds_of(a->kinds, &kinds);
    put_kinds(&kinds, r);
    r->last_us = MINUTE_US;
    r->for_us = a->wanted ? 10 * SECOND_US : 0; /* of a profile */
    if (is_of_process(&kinds))
        choose_process(&a->exception, false, r);
}

/* The minute before and the minute after. When that is over already, the window reaches back. */
static void fill_around(const struct action *a, int64_t now_us, trawl_v1_CaptureRequest *r)
{
    struct group_kinds kinds;
    int64_t until_us = a->exception.wall_us + MINUTE_US;
    fill_common(a, r);
    r->request_id.bytes[0] ^= 0xFF;
    group_kinds_around(&a->exception, &kinds);
    put_kinds(&kinds, r);
    r->last_us = 2 * MINUTE_US;
    if (until_us > now_us) {
        r->at_us = until_us;
    } else {
        int64_t back_us = now_us - a->exception.wall_us + MINUTE_US;
        r->last_us = (uint64_t)(back_us < LAST_MAX_US ? back_us : LAST_MAX_US);
    }
    if (is_of_process(&kinds))
        choose_process(&a->exception, true, r);
}

static void put_cause(const struct action *a, char *out, size_t size_bytes)
{
    const trawl_v1_Exception *e = &a->exception;
    const char *who = e->process[0] ? e->process : e->unit[0] ? e->unit : "the kernel";
    text_format(out, size_bytes, "exception %.28s in %.20s on %.20s (%s)", e->type, who, e->host,
                e->group);
    text_clean(out);
}

/* ---- steps ---- */

/* A capture that is being stored: the action may be read anew meanwhile, so it is found by id. */
struct storing {
    struct groups *groups;
    uint8_t exception[16];
};

static struct action *find_action(struct groups *groups, const uint8_t exception[16])
{
    LIST_EACH (at, &groups->actions) {
        struct action *a = LIST_ENTRY(at, struct action, link);
        if (!memcmp(a->exception.id.bytes, exception, 16))
            return a;
    }
    return NULL;
}

static void on_chain_landed(void *context, const struct failure *why)
{
    groups_landed(context, why);
}

static void add_incident(struct group *group, const char *id)
{
    trawl_v1_Group *r = &group->record;
    const pb_size_t max = sizeof r->incidents / sizeof r->incidents[0];
    for (pb_size_t i = 0; i < r->incidents_count; i++)
        if (!strcmp(r->incidents[i], id))
            return;
    if (r->incidents_count < max)
        r->incidents_count++;
    memmove(r->incidents[1], r->incidents[0],
            (size_t)(r->incidents_count - 1) * sizeof r->incidents[0]);
    text_copy(r->incidents[0], sizeof r->incidents[0], id);
}

static struct group *group_of(struct groups *groups, const char *id)
{
    int e = 0;
    struct group *group = cache_by_id(groups, id, &e);
    for (int depth = 0; group && group->record.merged_into[0] && depth < 8; depth++)
        group = cache_by_id(groups, group->record.merged_into, &e);
    return group;
}

/* Writes the step down; frees the action when it was the last one. */
static void step_done(struct action *a, uint8_t done)
{
    struct groups *groups = a->groups;
    struct group *group = group_of(groups, a->exception.group);
    struct group_rows *rows = malloc(sizeof(*rows));
    a->busy = false;
    if (!rows)
        return; /* the tick does it again */
    a->done = done;
    group_rows_init(rows);
    if (group && a->incident[0]) {
        add_incident(group, a->incident);
        group_rows_put_group(rows, group);
    }
    bool over = done == ACTION_WAITS && !a->wanted;
    if (over)
        group_rows_delete(rows, keys_group_bytes('p', a->exception.id.bytes));
    else
        put_action(rows, a);
    int e = group_rows_commit(groups, rows, on_chain_landed, groups);
    group_rows_done(rows);
    free(rows);
    if (!e && over)
        action_free(a);
}

static void order_around(struct action *a);

static void on_captured(void *context, const struct failure *why)
{
    struct storing *s = context;
    struct groups *groups = s->groups;
    struct action *a = find_action(groups, s->exception);
    uint8_t exception[16];
    memcpy(exception, s->exception, sizeof exception);
    free(s);
    if (!a)
        return;
    a->busy = false;
    if (why->code) {
        if (a->done == ACTION_NOTHING)
            a->incident[0] = '\0';
        log_warn("evidence of %s on '%s' could not be ordered now: %s", a->exception.group,
                 a->exception.host, why->text);
        return;
    }
    if (groups->broken)
        return; /* it is read anew: the capture is found by its request_id */
    step_done(a, a->done + 1);
    a = groups->broken ? NULL : find_action(groups, exception);
    if (a && !a->busy && a->done == ACTION_FIRST) /* at once: else the incident could end between */
        order_around(a);
}

static void capture(struct action *a, const trawl_v1_CaptureRequest *r)
{
    struct groups *groups = a->groups;
    struct incident *incident = NULL;
    struct host *host = roster_find(groups->collector->roster, a->exception.host);
    struct storing *s = malloc(sizeof(*s));
    struct failure f;
    char text[96];
    put_cause(a, text, sizeof text);
    struct incident_cause cause = {text, a->exception.group, a->exception.wall_us - MINUTE_US,
                                   NULL};
    if (!host || host->revoked || !s) {
        free(s);
        if (!host || host->revoked)
            step_done(a, ACTION_WAITS);
        return;
    }
    s->groups = groups;
    memcpy(s->exception, a->exception.id.bytes, sizeof s->exception);
    a->busy = true;
    int e = incident_capture_for(groups->collector->incidents, r, host, &cause, &incident,
                                 on_captured, s, &f);
    if (e) {
        a->busy = false;
        free(s);
        log_warn("evidence of %s on '%s' is not ordered now: %s", a->exception.group,
                 a->exception.host, f.text);
        return;
    }
    if (!a->incident[0])
        log_info("%s: %s (%s)", incident->record.id, incident->record.cause, a->because);
    text_copy(a->incident, sizeof a->incident, incident->record.id);
}

/* An action of the same group before this one that has not got its incident yet. */
static bool must_wait(const struct action *a)
{
    LIST_EACH (at, &a->groups->actions) {
        const struct action *b = LIST_ENTRY(at, struct action, link);
        if (b->no < a->no && b->done == ACTION_NOTHING &&
            !strcmp(b->exception.group, a->exception.group))
            return true;
    }
    return false;
}

static void order_first(struct action *a)
{
    struct incidents *incidents = a->groups->collector->incidents;
    struct incident *before = incident_by_request(incidents, a->exception.id.bytes);
    struct group *group = group_of(a->groups, a->exception.group);
    trawl_v1_CaptureRequest *r = NULL;
    if (before) { /* ordered, and then the collector stopped */
        text_copy(a->incident, sizeof a->incident, before->record.id);
        step_done(a, ACTION_FIRST);
        return;
    }
    if (must_wait(a) || !(r = malloc(sizeof(*r))))
        return;
    if (!a->opens && group && group->record.incidents_count &&
        incident_by_id(incidents, group->record.incidents[0]))
        text_copy(a->incident, sizeof a->incident, group->record.incidents[0]);
    fill_first(a, r);
    capture(a, r);
    free(r);
}

static void order_around(struct action *a)
{
    struct incident *incident = incident_by_id(a->groups->collector->incidents, a->incident);
    trawl_v1_CaptureRequest *r = malloc(sizeof(*r));
    if (!r)
        return;
    fill_around(a, groups_now_us(a->groups), r);
    if (!incident || incident_capturing(incident, r->request_id.bytes))
        step_done(a, ACTION_WAITS);
    else
        capture(a, r);
    free(r);
}

/* ---- what somebody wants ---- */

struct given {
    const struct action *action;
    uint32_t kinds;
};

static int note_artifact(void *context, const trawl_v1_Artifact *artifact)
{
    struct given *given = context;
    const trawl_v1_Exception *e = &given->action->exception;
    struct group_kinds kind = {{artifact->kind}, 1};
    bool after = artifact->wall_us - artifact->skew_us > e->wall_us - ARRIVES_LATE_US;
    if (!strcmp(artifact->host, e->host) && (after || (artifact->pid && artifact->pid == e->pid)))
        given->kinds |= group_kinds_mask(&kind);
    return 0;
}

/* Whether all that was wanted came. The artifacts' rows tell, whatever the agent said. */
static bool was_given(const struct action *a, struct incident *incident)
{
    struct given given = {a, 0};
    struct incident_rows rows = {NULL, note_artifact, &given};
    if (incident_read(a->groups->collector->incidents, incident, &rows))
        return true; /* cannot be told: it is not asked for again */
    return (a->wanted & ~given.kinds) == 0;
}

static void want_again(struct group *group, const struct action *a)
{
    trawl_v1_Group *r = &group->record;
    if (!r->want_count || group->state.want_tries >= GROUP_WANT_TRIES) {
        text_format(r->note, sizeof r->note,
                    "what is wanted could not be given %u times: see %s for the reason, and ask "
                    "again with 'trawl want'",
                    (unsigned)group->state.want_tries + 1, a->incident);
        return;
    }
    group->state.want_tries++;
    r->want_left++;
    r->want_us = groups_now_us(a->groups); /* the same host may give it, too */
    text_format(r->note, sizeof r->note,
                "host '%s' could not give what is wanted (see %s): the next one is asked",
                a->exception.host, a->incident);
}

/* The capture has ended: did it bring what was wanted? */
static void look_back(struct action *a)
{
    struct groups *groups = a->groups;
    struct incident *incident = incident_by_id(groups->collector->incidents, a->incident);
    if (incident && incident_capturing(incident, a->exception.id.bytes))
        return;
    struct group *group = group_of(groups, a->exception.group);
    struct group_rows *rows = malloc(sizeof(*rows));
    if (!rows)
        return;
    group_rows_init(rows);
    bool again = group && (!incident || !was_given(a, incident));
    if (again) {
        want_again(group, a);
        group_rows_put_group(rows, group);
        want_put(rows, group);
    }
    group_rows_delete(rows, keys_group_bytes('p', a->exception.id.bytes));
    int e = group_rows_commit(groups, rows, on_chain_landed, groups);
    group_rows_done(rows);
    free(rows);
    if (e)
        return;
    if (again)
        want_changed(groups, group);
    action_free(a);
}

static void act(struct action *a)
{
    bool late =
        groups_now_us(a->groups) - a->exception.wall_us > LAST_MAX_US && a->done < ACTION_WAITS;
    if (a->busy || a->groups->broken)
        return;
    if (late)
        step_done(a, ACTION_WAITS);
    else if (a->done == ACTION_NOTHING)
        order_first(a);
    else if (a->done == ACTION_FIRST)
        order_around(a);
    else
        look_back(a);
}

int act_add(struct groups *groups, const trawl_v1_Exception *e,
            const struct group_decision *decision)
{
    struct action *a = groups->action_count < GROUPS_ACTIONS_MAX ? action_new(groups) : NULL;
    if (!a)
        return ERR_LIMIT; /* its row is there: a restart finds it */
    fill_action(a, e, decision);
    act(a);
    return 0;
}

/* An action may end others, or have all read anew: then the rest waits for the next second. */
void act_tick(struct groups *groups)
{
    size_t left = groups->action_count;
    while (left-- && !groups->broken && !list_empty(&groups->actions)) {
        struct list *first = list_first(&groups->actions);
        struct action *a = LIST_ENTRY(first, struct action, link);
        list_remove(first);
        list_push(&groups->actions, first);
        act(a);
    }
}
