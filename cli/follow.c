/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the targets of a capture and decides when there is nothing more to wait for. Invariant:
 * `targets` holds only targets of `capture`. Pure; called by watching.c, cmd_capture.c and
 * cmd_watch.c.
 */
#include "cli/follow.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define FIRST_TARGETS 64
#define BAR_COLUMNS_MIN 10
#define BAR_COLUMNS_MAX 30
#define BAR_BESIDE 48 /* what stands right of the bar */
#define HOST_WIDTH_MAX 40

void follow_init(struct follow *f, uint32_t expected)
{
    *f = (struct follow){.expected = expected};
}

void follow_done(struct follow *f)
{
    free(f->targets);
    f->targets = NULL;
    f->count = f->capacity = 0;
}

static struct follow_target *find(const struct follow *f, const char *host)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->targets[i].record.host, host) == 0)
            return &f->targets[i];
    return NULL;
}

static struct follow_target *add(struct follow *f)
{
    if (BUF_GROW(f->targets, f->count, &f->capacity, FIRST_TARGETS))
        return NULL;
    struct follow_target *t = &f->targets[f->count++];
    memset(t, 0, sizeof *t);
    return t;
}

static int take_target(struct follow *f, const trawl_v1_Target *target,
                       const struct follow_target **changed)
{
    if (target->capture < f->capture)
        return 0;
    if (target->capture > f->capture)
        f->count = 0;
    f->capture = target->capture;
    struct follow_target *t = find(f, target->host);
    if (!t && !(t = add(f)))
        return ERR_NOMEM;
    bool is_change =
        t->record.state != target->state || strcmp(t->record.reason, target->reason) != 0;
    t->record = *target;
    if (is_change)
        *changed = t;
    return 0;
}

int follow_part(struct follow *f, const trawl_v1_IncidentPart *part,
                const struct follow_target **changed)
{
    *changed = NULL;
    switch (part->which_body) {
    case trawl_v1_IncidentPart_incident_tag:
        f->incident = part->body.incident;
        return 0;
    case trawl_v1_IncidentPart_target_tag:
        return take_target(f, &part->body.target, changed);
    case trawl_v1_IncidentPart_artifact_tag:
        f->artifacts++;
        return 0;
    case trawl_v1_IncidentPart_end_tag:
        f->ended = true;
        return 0;
    default:
        return 0;
    }
}

void follow_host(struct follow *f, const trawl_v1_Host *host)
{
    struct follow_target *t = find(f, host->name);
    if (!t)
        return;
    t->offline =
        host->state == trawl_v1_HostState_OFFLINE || host->state == trawl_v1_HostState_REVOKED;
    t->last_seen_us = host->last_seen_us;
}

static int by_host(const void *a, const void *b)
{
    return strcmp(((const struct follow_target *)a)->record.host,
                  ((const struct follow_target *)b)->record.host);
}

void follow_sort(struct follow *f)
{
    if (f->count > 1)
        qsort(f->targets, f->count, sizeof *f->targets, by_host);
}

/* ---- what to make of it ---- */

static bool all_are_known(const struct follow *f)
{
    return f->count > 0 && f->count >= f->expected;
}

uint32_t follow_ended_count(const struct follow *f)
{
    uint32_t ended = 0;
    for (size_t i = 0; i < f->count; i++)
        ended += render_state_is_final(f->targets[i].record.state);
    return ended;
}

bool follow_has_open(const struct follow *f)
{
    return follow_ended_count(f) < f->count;
}

bool follow_is_complete(const struct follow *f)
{
    return all_are_known(f) && !follow_has_open(f);
}

/* An order under way may be cut short by a restart of the agent, which takes a moment. */
static bool waits_for_offline(const struct follow_target *t, int64_t now_us)
{
    if (!t->offline)
        return false;
    return t->record.state == trawl_v1_State_QUEUED ||
           render_difference(now_us, t->last_seen_us) > FOLLOW_VANISHED_US;
}

bool follow_waits_for_offline(const struct follow *f, int64_t now_us)
{
    if (!all_are_known(f) || !follow_has_open(f))
        return false;
    for (size_t i = 0; i < f->count; i++) {
        const struct follow_target *t = &f->targets[i];
        if (!render_state_is_final(t->record.state) && !waits_for_offline(t, now_us))
            return false;
    }
    return true;
}

void follow_counts(const struct follow *f, uint32_t counts[RENDER_STATE_COUNT])
{
    memset(counts, 0, RENDER_STATE_COUNT * sizeof *counts);
    for (size_t i = 0; i < f->count; i++)
        if ((unsigned)f->targets[i].record.state < RENDER_STATE_COUNT)
            counts[f->targets[i].record.state]++;
}

uint64_t follow_longest_pause_us(const struct follow *f)
{
    uint64_t longest = 0;
    for (size_t i = 0; i < f->count; i++)
        if (f->targets[i].record.longest_pause_us > longest)
            longest = f->targets[i].record.longest_pause_us;
    return longest;
}

void follow_open_hosts(const struct follow *f, char *out, size_t size_bytes)
{
    size_t length = 0;
    unsigned terms = 0;
    out[0] = '\0';
    for (size_t i = 0; i < f->count; i++) {
        const trawl_v1_Target *t = &f->targets[i].record;
        if (render_state_is_final(t->state))
            continue;
        if (++terms > 32 || text_format(out + length, size_bytes - length, "%s%s",
                                        length ? "," : "", t->host) < 0) {
            text_copy(out, size_bytes, "*");
            return;
        }
        length += strlen(out + length);
    }
}

int follow_exit_code(const struct follow *f)
{
    uint32_t counts[RENDER_STATE_COUNT];
    follow_counts(f, counts);
    if (f->count > 0 && counts[trawl_v1_State_DONE] == f->count && f->count >= f->expected)
        return 0;
    bool any = counts[trawl_v1_State_DONE] + counts[trawl_v1_State_PARTIAL] > 0;
    return any || follow_has_open(f) || f->count < f->expected ? 3 : 1;
}

/* ---- how it looks ---- */

int follow_progress(const struct follow *f, int64_t elapsed_us, unsigned columns, struct buf *out)
{
    char elapsed[32], pause[32];
    uint32_t ended = follow_ended_count(f);
    uint32_t all = f->expected > f->count ? f->expected : (uint32_t)f->count;
    unsigned width = columns > BAR_BESIDE ? columns - BAR_BESIDE : BAR_COLUMNS_MIN;
    uint64_t longest = follow_longest_pause_us(f);
    text_put_duration(elapsed_us, elapsed, sizeof elapsed);
    text_put_duration((int64_t)longest, pause, sizeof pause);
    if (width < BAR_COLUMNS_MIN)
        width = BAR_COLUMNS_MIN;
    int r =
        render_bar(out, ended, all ? all : 1, width < BAR_COLUMNS_MAX ? width : BAR_COLUMNS_MAX);
    if (r == 0)
        r = buf_printf(out, " %u/%u   %s", ended, all, elapsed);
    if (r == 0 && longest > 0)
        r = buf_printf(out, "    longest pause %s", pause);
    return r;
}

/* "13:58" of today, else with the date. */
static void put_minute(int64_t us, int64_t now_us, char *out)
{
    render_clock(us, now_us, out);
    size_t length = strlen(out);
    if (length > 3 && out[length - 3] == ':')
        out[length - 3] = '\0';
}

/* For an order that waits for its host the collector's reason is completed by what was asked. */
static void complete_reason(const struct follow *f, const struct follow_target *t, int64_t now_us,
                            trawl_v1_Target *shown)
{
    char since[RENDER_TEXT_SIZE], until[RENDER_TEXT_SIZE];
    *shown = t->record;
    if (render_state_is_final(shown->state) || !t->offline)
        return;
    put_minute(t->last_seen_us, now_us, since);
    put_minute(f->incident.expires_us, now_us, until);
    bool is_queued = shown->state == trawl_v1_State_QUEUED;
    text_format(shown->reason, sizeof shown->reason, "offline since %s%s%s%s",
                t->last_seen_us ? since : "it was enrolled",
                is_queued ? "" : ", with the order under way",
                is_queued && f->incident.expires_us ? ", order kept until " : "",
                is_queued && f->incident.expires_us ? until : "");
}

static size_t host_width(const struct follow *f)
{
    size_t width = 6;
    for (size_t i = 0; i < f->count; i++) {
        size_t length = strlen(f->targets[i].record.host);
        if (f->targets[i].record.state != trawl_v1_State_DONE && length > width)
            width = length;
    }
    return width < HOST_WIDTH_MAX ? width : HOST_WIDTH_MAX;
}

int follow_lines(const struct follow *f, int64_t now_us, bool color, struct buf *out)
{
    size_t width = host_width(f);
    int r = 0;
    for (size_t i = 0; r == 0 && i < f->count; i++) {
        trawl_v1_Target shown;
        if (f->targets[i].record.state == trawl_v1_State_DONE)
            continue;
        complete_reason(f, &f->targets[i], now_us, &shown);
        r = render_target_line(out, &shown, width, color);
    }
    return r;
}
