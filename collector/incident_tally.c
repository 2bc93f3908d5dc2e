/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a capture and an incident know of their targets without walking them. Invariants: a tally is
 * the number of targets whose `counted` has its bit; a target is in the list of those that are due
 * exactly while its host is here and nothing of it is on its way to the store; an incident's sums
 * are those of the rows that are committed. Called by incident*.c and dispatch.c.
 */
#include "collector/incident_store.h"

#include <string.h>

#include "collector/fleet.h"

#define COUNTED_RUNNING 1u
#define COUNTED_CANARY 2u
#define COUNTED_UNSETTLED 4u

/* ---- of a capture ---- */

static unsigned count_of(const struct target *t)
{
    trawl_v1_State state = t->record.state;
    bool under_way = state == trawl_v1_State_SENT || state == trawl_v1_State_RUNNING;
    bool canary = t->capture->request.canary && !t->record.wave;
    return (under_way && t->host->session ? COUNTED_RUNNING : 0) |
           (canary && !state_is_final(state) ? COUNTED_CANARY : 0) |
           (t->storing || t->dirty ? COUNTED_UNSETTLED : 0);
}

static void move_tally(uint32_t *tally, unsigned before, unsigned now, unsigned bit)
{
    *tally += (now & bit) != 0;
    *tally -= (before & bit) != 0;
}

static struct list *due_list(struct target *t)
{
    const struct session *session = t->host->session;
    if (!session || !session_is_ready(session) || t->storing || t->dirty)
        return NULL;
    if (t->record.state == trawl_v1_State_SENT && !t->told)
        return &t->capture->unsent;
    return t->record.state == trawl_v1_State_QUEUED ? &t->capture->queued[t->record.wave != 0]
                                                    : NULL;
}

/* Who stays in its list keeps its place. */
static void put_due(struct target *t)
{
    struct list *list = due_list(t);
    if (list == t->due_in)
        return;
    list_remove(&t->due);
    t->due_in = list;
    if (list)
        list_push(list, &t->due);
}

void target_recount(struct target *t)
{
    struct capture *c = t->capture;
    unsigned before = t->counted, now = count_of(t);
    trawl_v1_State state = t->record.state;
    t->counted = now;
    move_tally(&c->running, before, now, COUNTED_RUNNING);
    move_tally(&c->canaries_open, before, now, COUNTED_CANARY);
    move_tally(&c->unsettled, before, now, COUNTED_UNSETTLED);
    if (c->request.canary && !t->record.wave &&
        (state == trawl_v1_State_FAILED || state == trawl_v1_State_EXPIRED))
        c->bad_canary = t;
    put_due(t);
}

/* ---- of an incident ---- */

/* In the order of states, so that it is the same whoever came first. */
void incident_count_state(trawl_v1_Incident *sum, trawl_v1_State state, int by)
{
    trawl_v1_StateCount *list = sum->states;
    pb_size_t i = 0, most = sizeof(sum->states) / sizeof(sum->states[0]);
    while (i < sum->states_count && list[i].state < state)
        i++;
    bool found = i < sum->states_count && list[i].state == state;
    if (!found && (by < 0 || sum->states_count == most))
        return;
    if (!found) {
        memmove(list + i + 1, list + i, (sum->states_count - i) * sizeof(list[0]));
        list[i] = (trawl_v1_StateCount){state, 0};
        sum->states_count++;
    }
    list[i].count += (uint32_t)by;
    if (list[i].count)
        return;
    sum->states_count--;
    memmove(list + i, list + i + 1, (sum->states_count - i) * sizeof(list[0]));
}

void target_sum(struct target *t)
{
    trawl_v1_Incident *sum = &t->capture->incident->record;
    if (t->summed.state)
        incident_count_state(sum, t->summed.state, -1);
    incident_count_state(sum, t->record.state, 1);
    sum->processes += t->record.processes - t->summed.processes;
    if (t->record.longest_pause_us > sum->longest_pause_us)
        sum->longest_pause_us = t->record.longest_pause_us;
    t->summed.state = t->record.state;
    t->summed.processes = t->record.processes;
}

void incident_sum_artifact(struct incident *incident, uint64_t size_bytes)
{
    incident->record.artifacts++;
    incident->record.size_bytes += size_bytes;
}
