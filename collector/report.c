/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of an incident. Invariant: what is not known is said in words; no number stands for
 * something that was not measured. Texts that came from hosts are made safe for a terminal here.
 */
#include "collector/report.h"

#include <inttypes.h>
#include <string.h>

#include "collector/incident.h"
#include "common/text.h"

#define MAX_EVENTS 40
#define MAX_LISTED 50

static void safe(struct buf *out, const char *text)
{
    text_append_safe(out, span_str(text), false);
}

static void when(struct buf *out, int64_t us)
{
    char text[32];
    text_put_time(us, text, sizeof(text));
    buf_append_str(out, text);
}

static void lasting(struct buf *out, uint64_t us)
{
    char text[32];
    text_put_duration((int64_t)us, text, sizeof(text));
    buf_append_str(out, text);
}

static void big(struct buf *out, uint64_t bytes)
{
    char text[32];
    text_put_size(bytes, text, sizeof(text));
    buf_append_str(out, text);
}

/* ---- the head ---- */

static void put_process(struct buf *out, const trawl_v1_Incident *i)
{
    if (!i->has_process)
        return;
    buf_append_str(out, "process    ");
    if (i->process.name[0])
        safe(out, i->process.name);
    if (i->process.pid)
        buf_printf(out, "pid %u", i->process.pid);
    if (i->process.unit[0]) {
        buf_append_str(out, "unit ");
        safe(out, i->process.unit);
    }
    if (i->process.port)
        buf_printf(out, "listening on port %u", i->process.port);
    buf_append_str(out, "\n");
}

static void put_head(struct buf *out, const trawl_v1_Incident *i)
{
    buf_printf(out, "%s  %s\n", i->id, i->finished ? "finished" : "open");
    buf_append_str(out, "cause      ");
    safe(out, i->cause);
    if (i->note[0]) {
        buf_append_str(out, "\nnote       ");
        safe(out, i->note);
    }
    buf_append_str(out, "\ntime       ");
    when(out, i->from_us);
    buf_append_str(out, " to ");
    when(out, i->to_us > i->created_us ? i->to_us : i->created_us);
    buf_append_str(out, " (collector time)\nhosts      ");
    safe(out, i->selector);
    buf_append_str(out, "\n");
    put_process(out, i);
    buf_append_str(out, "what       ");
    for (pb_size_t k = 0; k < i->what_count; k++)
        buf_printf(out, "%s%s", k ? "," : "", i->what[k]);
    buf_append_str(out, "\n");
    if (i->stopped[0]) {
        buf_append_str(out, "stopped    ");
        safe(out, i->stopped);
        buf_append_str(out, "\n");
    }
    buf_append_str(out, "targets    ");
    for (pb_size_t k = 0; k < i->states_count; k++)
        buf_printf(out, "%s%u %s", k ? ", " : "", i->states[k].count,
                   state_name(i->states[k].state));
    buf_printf(out, "\nprocesses  %u captured, longest pause ", i->processes);
    lasting(out, i->longest_pause_us);
    buf_printf(out, "\nartifacts  %u, ", i->artifacts);
    big(out, i->size_bytes);
    buf_append_str(out, "\n");
}

/* ---- targets ---- */

static void put_target(struct buf *out, const trawl_v1_Target *t)
{
    buf_append_str(out, "  ");
    safe(out, t->host);
    for (size_t n = strlen(t->host); n < 20; n++)
        buf_append_byte(out, ' ');
    buf_printf(out, " %-10s", state_name(t->state));
    if (t->processes) {
        buf_printf(out, " %u process%s, pause ", t->processes, t->processes == 1 ? "" : "es");
        lasting(out, t->longest_pause_us);
    }
    if (t->reason[0]) {
        buf_append_str(out, t->processes ? "; " : " ");
        safe(out, t->reason);
    }
    if (t->state == trawl_v1_State_QUEUED && t->host_last_seen_us) {
        buf_append_str(out, ", last seen ");
        when(out, t->host_last_seen_us);
    }
    buf_append_str(out, "\n");
}

/* What did not go well first: that is what a reader looks for. */
static bool is_well(const trawl_v1_Target *t)
{
    return t->state == trawl_v1_State_DONE;
}

static void put_targets(const struct report_input *in, struct buf *out)
{
    size_t listed = 0;
    buf_append_str(out, "\nHosts\n");
    for (int well = 0; well < 2; well++)
        for (size_t i = 0; i < in->target_count; i++)
            if (is_well(&in->targets[i]) == (well == 1) && listed++ < MAX_LISTED)
                put_target(out, &in->targets[i]);
    if (listed > MAX_LISTED)
        buf_printf(out, "  ... and %zu more (manifest.json has all)\n", listed - MAX_LISTED);
}

/* ---- stacks ---- */

static trawl_v1_StackGroup *find_group(trawl_v1_StackGroup *list, size_t count,
                                       const trawl_v1_StackGroup *g)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].signature.size == g->signature.size &&
            !memcmp(list[i].signature.bytes, g->signature.bytes, g->signature.size) &&
            !strcmp(list[i].process, g->process))
            return &list[i];
    return NULL;
}

static void sort_groups(trawl_v1_StackGroup *list, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t k = i; k && list[k].count > list[k - 1].count; k--) {
            trawl_v1_StackGroup swap = list[k];
            list[k] = list[k - 1];
            list[k - 1] = swap;
        }
}

size_t report_stacks(const struct report_input *in, trawl_v1_StackGroup *out, size_t max)
{
    size_t count = 0;
    for (size_t a = 0; a < in->artifact_count; a++) {
        const trawl_v1_Artifact *artifact = &in->artifacts[a];
        for (pb_size_t s = 0; s < artifact->stacks_count; s++) {
            trawl_v1_StackGroup g = artifact->stacks[s];
            if (!g.process[0])
                text_copy(g.process, sizeof(g.process), artifact->process);
            trawl_v1_StackGroup *have = find_group(out, count, &g);
            if (!have && count == max)
                continue;
            if (!have) {
                have = &out[count++];
                *have = g;
                have->count = have->hosts = 0;
            }
            have->count += g.count;
            have->hosts++;
        }
    }
    sort_groups(out, count);
    return count;
}

static void put_frames(struct buf *out, const char *frames)
{
    for (int depth = 0; *frames; depth++) {
        const char *end = strchr(frames, ';');
        size_t size = end ? (size_t)(end - frames) : strlen(frames);
        buf_printf(out, "    #%-2d ", depth);
        text_append_safe(out, span_of(frames, size), false);
        buf_append_str(out, "\n");
        frames += size + (end != NULL);
    }
}

static void put_stacks(const struct report_input *in, struct buf *out)
{
    trawl_v1_StackGroup groups[8];
    size_t count = report_stacks(in, groups, 8);
    if (!count)
        return;
    buf_append_str(out, "\nCommonest stacks\n");
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, "  %u thread%s in %u capture%s of ", groups[i].count,
                   groups[i].count == 1 ? "" : "s", groups[i].hosts,
                   groups[i].hosts == 1 ? "" : "s");
        safe(out, groups[i].process);
        buf_append_str(out, "\n");
        put_frames(out, groups[i].frames);
    }
}

/* ---- timeline, artifacts, what is missing ---- */

static void put_timeline(const struct report_input *in, struct buf *out)
{
    if (!in->event_count)
        return;
    size_t first = in->event_count > MAX_EVENTS ? in->event_count - MAX_EVENTS : 0;
    buf_append_str(out, "\nTimeline (collector time)\n");
    if (first)
        buf_printf(out, "  ... %zu earlier events are in the events artifacts\n", first);
    for (size_t i = first; i < in->event_count; i++) {
        const trawl_v1_Event *e = &in->events[i];
        buf_append_str(out, "  ");
        when(out, e->wall_us);
        buf_append_str(out, "  ");
        safe(out, e->host);
        buf_append_str(out, "  ");
        safe(out, e->text);
        buf_append_str(out, "\n");
    }
}

static void put_artifacts(const struct report_input *in, struct buf *out)
{
    buf_append_str(out, "\nArtifacts\n");
    for (size_t i = 0; i < in->artifact_count && i < MAX_LISTED; i++) {
        const trawl_v1_Artifact *a = &in->artifacts[i];
        buf_append_str(out, "  ");
        safe(out, a->host);
        buf_append_str(out, "/");
        safe(out, a->file);
        buf_append_str(out, "  ");
        big(out, a->size_bytes);
        if (a->paused) {
            buf_append_str(out, ", pause ");
            lasting(out, a->pause_us);
        } else {
            buf_append_str(out, ", no pause");
        }
        buf_append_str(out, "\n");
    }
    if (in->artifact_count > MAX_LISTED)
        buf_printf(out, "  ... and %zu more\n", in->artifact_count - MAX_LISTED);
}

static void put_missing(const struct report_input *in, struct buf *out)
{
    size_t listed = 0;
    for (size_t i = 0; i < in->artifact_count; i++) {
        const trawl_v1_Artifact *a = &in->artifacts[i];
        if (!a->missing[0] || listed >= MAX_LISTED)
            continue;
        if (!listed++)
            buf_append_str(out, "\nMissing\n");
        buf_append_str(out, "  ");
        safe(out, a->host);
        buf_append_str(out, "/");
        safe(out, a->file);
        buf_append_str(out, ": ");
        safe(out, a->missing);
        buf_append_str(out, "\n");
    }
}

int report_text(const struct report_input *in, struct buf *out)
{
    put_head(out, in->incident);
    put_targets(in, out);
    put_stacks(in, out);
    put_timeline(in, out);
    put_artifacts(in, out);
    put_missing(in, out);
    return out->size_bytes >= out->limit_bytes - 4096 ? ERR_LIMIT : 0;
}
