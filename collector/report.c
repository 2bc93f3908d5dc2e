/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of an incident. Invariant: what is not known is said in words; no number stands for
 * something that was not measured. Texts that came from hosts are made safe for a terminal here.
 */
#include "collector/report.h"

#include <inttypes.h>
#include <string.h>

#include "collector/group_report.h"
#include "collector/incident.h"
#include "common/text.h"

#define MAX_EVENTS 40
#define MAX_LISTED 50

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
        report_safe(out, i->process.name);
    if (i->process.pid)
        buf_printf(out, "pid %u", i->process.pid);
    if (i->process.unit[0]) {
        buf_append_str(out, "unit ");
        report_safe(out, i->process.unit);
    }
    if (i->process.container[0]) {
        buf_append_str(out, "container ");
        report_safe(out, i->process.container);
    }
    if (i->process.command[0]) {
        buf_append_str(out, "command line ");
        report_safe(out, i->process.command);
    }
    if (i->process.port)
        buf_printf(out, "listening on port %u", i->process.port);
    buf_append_str(out, "\n");
}

/* What differs from what everybody asks. */
static void put_options(struct buf *out, const trawl_v1_Incident *i)
{
    if (!i->pause_max_us)
        return;
    buf_append_str(out, "allowed    a pause of ");
    lasting(out, i->pause_max_us);
    buf_printf(out, "%s%s%s\n", i->allow_pause ? ", a core that holds the process" : "",
               i->live ? ", a live core" : "",
               i->fallback ? ", a lesser kind where one is refused" : "");
}

static void put_head(struct buf *out, const trawl_v1_Incident *i)
{
    buf_printf(out, "%s  %s\n", i->id, i->finished ? "finished" : "open");
    buf_append_str(out, "cause      ");
    report_safe(out, i->cause);
    if (i->note[0]) {
        buf_append_str(out, "\nnote       ");
        report_safe(out, i->note);
    }
    buf_append_str(out, "\ntime       ");
    report_when(out, i->from_us);
    buf_append_str(out, " to ");
    report_when(out, i->to_us > i->created_us ? i->to_us : i->created_us);
    buf_append_str(out, " (collector time)\nhosts      ");
    report_safe(out, i->selector);
    buf_append_str(out, "\n");
    put_process(out, i);
    buf_append_str(out, "what       ");
    for (pb_size_t k = 0; k < i->what_count; k++)
        buf_printf(out, "%s%s", k ? "," : "", i->what[k]);
    buf_append_str(out, "\n");
    put_options(out, i);
    if (i->stopped[0]) {
        buf_append_str(out, "stopped    ");
        report_safe(out, i->stopped);
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
    report_safe(out, t->host);
    for (size_t n = strlen(t->host); n < 20; n++)
        buf_append_byte(out, ' ');
    buf_printf(out, " %-10s", state_name(t->state));
    if (t->processes) {
        buf_printf(out, " %u process%s, pause ", t->processes, t->processes == 1 ? "" : "es");
        lasting(out, t->longest_pause_us);
    }
    if (t->reason[0]) {
        buf_append_str(out, t->processes ? "; " : " ");
        report_safe(out, t->reason);
    }
    if (t->state == trawl_v1_State_QUEUED && t->host_last_seen_us) {
        buf_append_str(out, ", last seen ");
        report_when(out, t->host_last_seen_us);
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

static const char *ending_of(const char *file)
{
    const char *dot = strchr(file, '.');
    return dot && dot[1] ? dot + 1 : "file";
}

/* Files of one taking follow each other: of one kind and process, no form twice. Returns where the
 * next ones begin. */
static size_t group_end(const struct report_input *in, size_t first)
{
    const trawl_v1_Artifact *a = &in->artifacts[first];
    size_t end = first + 1;
    for (; end < in->artifact_count; end++) {
        const trawl_v1_Artifact *b = &in->artifacts[end];
        if (strcmp(a->host, b->host) != 0 || strcmp(a->kind, b->kind) != 0 || a->pid != b->pid ||
            strcmp(a->process, b->process) != 0)
            break;
        for (size_t k = first; k < end; k++)
            if (!strcmp(ending_of(in->artifacts[k].file), ending_of(b->file)))
                return end;
    }
    return end;
}

/* Every form of a taking may name its stacks: they count once. */
static const trawl_v1_Artifact *group_stacks(const struct report_input *in, size_t first,
                                             size_t end)
{
    for (size_t i = first; i < end; i++)
        if (in->artifacts[i].stacks_count)
            return &in->artifacts[i];
    return &in->artifacts[first];
}

size_t report_stacks(const struct report_input *in, trawl_v1_StackGroup *out, size_t max)
{
    size_t count = 0;
    for (size_t a = 0, end; a < in->artifact_count; a = end) {
        end = group_end(in, a);
        const trawl_v1_Artifact *artifact = group_stacks(in, a, end);
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
        report_safe(out, groups[i].process);
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
        report_when(out, e->wall_us);
        buf_append_str(out, "  ");
        report_safe(out, e->host);
        buf_append_str(out, "  ");
        report_safe(out, e->text);
        buf_append_str(out, "\n");
    }
}

/* "stacks redis-server/1234" */
static void put_source(struct buf *out, const trawl_v1_Artifact *a)
{
    report_safe(out, a->kind);
    if (!a->process[0] && !a->pid)
        return;
    buf_append_byte(out, ' ');
    report_safe(out, a->process);
    if (a->pid)
        buf_printf(out, "/%u", a->pid);
}

static void pad(struct buf *out, size_t from, size_t columns)
{
    while (out->size_bytes - from < columns && !buf_append_byte(out, ' ')) {
    }
}

static void put_pause(struct buf *out, const trawl_v1_Artifact *a)
{
    if (!a->paused) {
        buf_append_str(out, "no pause");
        return;
    }
    buf_append_str(out, "pause ");
    lasting(out, a->pause_us);
    if (a->expected_us) {
        buf_append_str(out, " (expected ");
        lasting(out, a->expected_us);
        buf_append_str(out, ")");
    }
}

/* Taken although nobody named it: something above it was refused. */
static bool is_fallback(const struct report_input *in, const trawl_v1_Artifact *a)
{
    const trawl_v1_Incident *incident = in->incident;
    if (!incident->fallback)
        return false;
    for (pb_size_t i = 0; i < incident->what_count; i++)
        if (!strcmp(incident->what[i], a->kind))
            return false;
    for (size_t i = 0; i < in->target_count; i++)
        if (!strcmp(in->targets[i].host, a->host))
            return in->targets[i].capture <= 1; /* what a later capture asked is not known here */
    return false;
}

static void put_group(const struct report_input *in, size_t first, size_t end, struct buf *out)
{
    const trawl_v1_Artifact *a = &in->artifacts[first];
    uint64_t bytes = 0, plain_bytes = 0;
    size_t start = out->size_bytes;
    buf_append_str(out, "  ");
    report_safe(out, a->host);
    pad(out, start, 20);
    buf_append_byte(out, ' ');
    put_source(out, a);
    pad(out, start, 52);
    buf_append_str(out, "  ");
    put_pause(out, a);
    pad(out, start, 64);
    buf_append_str(out, " ");
    for (size_t i = first; i < end; i++) {
        buf_append_byte(out, ' ');
        report_safe(out, ending_of(in->artifacts[i].file));
        bytes += in->artifacts[i].size_bytes;
        plain_bytes += in->artifacts[i].plain_bytes;
    }
    buf_append_str(out, "  ");
    big(out, bytes);
    if (plain_bytes) {
        buf_append_str(out, " (unpacked ");
        big(out, plain_bytes);
        buf_append_str(out, ")");
    }
    buf_append_str(out, is_fallback(in, a) ? "  instead of what was refused\n" : "\n");
}

static void put_artifacts(const struct report_input *in, struct buf *out)
{
    size_t listed = 0, left = 0;
    buf_append_str(out, "\nArtifacts\n");
    for (size_t i = 0, end; i < in->artifact_count; i = end) {
        end = group_end(in, i);
        if (listed++ < MAX_LISTED)
            put_group(in, i, end, out);
        else
            left += end - i;
    }
    if (left)
        buf_printf(out, "  ... and %zu more files (manifest.json has all)\n", left);
}

/* The same of every form is said once. */
static void put_missing(const struct report_input *in, struct buf *out)
{
    size_t listed = 0;
    for (size_t i = 0, end; i < in->artifact_count; i = end) {
        const char *said = "";
        end = group_end(in, i);
        for (size_t k = i; k < end; k++) {
            const trawl_v1_Artifact *a = &in->artifacts[k];
            if (!a->missing[0] || !strcmp(a->missing, said) || listed >= MAX_LISTED)
                continue;
            said = a->missing;
            if (!listed++)
                buf_append_str(out, "\nMissing\n");
            buf_append_str(out, "  ");
            report_safe(out, a->host);
            buf_append_byte(out, ' ');
            put_source(out, a);
            buf_append_str(out, ": ");
            report_safe(out, a->missing);
            buf_append_str(out, "\n");
        }
    }
}

/* ---- of an exception ---- */

static void put_exception(const struct report_input *in, struct buf *out)
{
    const trawl_v1_Group *g = in->group;
    if (!g)
        return;
    buf_printf(out, "\nException %s (%s%s): ", g->id, group_state_name(g->state),
               g->spreading ? ", spreading" : "");
    report_safe(out, g->type);
    buf_append_str(out, " in ");
    report_safe(out, g->process);
    buf_printf(out, "\n  %" PRIu64 " on %u host%s, first ", g->count, g->hosts,
               g->hosts == 1 ? "" : "s");
    report_when(out, g->first_us);
    buf_append_str(out, ", last ");
    report_when(out, g->last_us);
    buf_printf(out, "; trawl group %s\n", g->id);
    if (!in->sample_count)
        return;
    const trawl_v1_Exception *first = &in->samples[in->sample_count - 1];
    buf_append_str(out, "  ");
    report_safe(out, first->message[0] ? first->message : first->type);
    buf_append_str(out, ", on ");
    report_safe(out, first->host);
    buf_append_str(out, "\n");
    group_report_frames(first->frames, first->frames_count, out);
}

int report_text(const struct report_input *in, struct buf *out)
{
    put_head(out, in->incident);
    put_exception(in, out);
    put_targets(in, out);
    put_stacks(in, out);
    put_timeline(in, out);
    put_artifacts(in, out);
    put_missing(in, out);
    return out->size_bytes >= out->limit_bytes - 4096 ? ERR_LIMIT : 0;
}
