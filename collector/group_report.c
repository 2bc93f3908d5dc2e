/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group in words. Invariant: what is only counted is told apart from what is kept, and texts from
 * hosts are made safe for a terminal. Called by ops_groups.c, ops_show.c and report.c.
 */
#include "collector/group_report.h"

#include <inttypes.h>
#include <string.h>

#include "common/text.h"

#define HOST_LINES_MAX 20

void report_safe(struct buf *out, const char *text)
{
    text_append_safe(out, span_str(text), false);
}

void report_when(struct buf *out, int64_t us)
{
    char text[32];
    text_put_time(us, text, sizeof(text));
    buf_append_str(out, text);
}

static const char *group_source_name(trawl_v1_ExceptionSource source)
{
    static const char *const names[] = {"unknown",      "crash",    "oom kill",    "fault line",
                                        "hung task",    "hardware", "unit result", "process exit",
                                        "log trace",    "throw",    "hang",        "reported",
                                        "windows error"};
    return (size_t)source < sizeof names / sizeof names[0] ? names[source] : "unknown";
}

const char *group_state_name(trawl_v1_GroupState state)
{
    static const char *const names[] = {"unknown",   "new",      "known",
                                        "regressed", "resolved", "merged"};
    return (size_t)state < sizeof names / sizeof names[0] ? names[state] : "unknown";
}

void group_exception_line(const trawl_v1_Exception *e, char *out, size_t size_bytes)
{
    const char *who = e->process[0] ? e->process : e->unit[0] ? e->unit : "the kernel";
    int cut;
    if (e->pid)
        cut = text_format(out, size_bytes, "exception %.100s in %.63s/%u (%s)", e->type, who,
                          e->pid, e->group);
    else
        cut =
            text_format(out, size_bytes, "exception %.100s in %.63s (%s)", e->type, who, e->group);
    if (!cut && e->count > 1) {
        size_t used = strlen(out);
        text_format(out + used, size_bytes - used, ", %" PRIu64 " times", e->count);
    }
    text_clean(out);
}

void group_report_frames(const trawl_v1_Frame *frames, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        const trawl_v1_Frame *frame = &frames[i];
        buf_printf(out, "    #%-2zu ", i);
        report_safe(out, frame->function[0] ? frame->function : frame->module);
        if (!frame->function[0])
            buf_printf(out, "+0x%" PRIx64, frame->offset);
        if (frame->file[0]) {
            buf_append_str(out, " at ");
            report_safe(out, frame->file);
            if (frame->line)
                buf_printf(out, ":%u", frame->line);
        } else if (frame->function[0] && frame->module[0]) {
            buf_append_str(out, " in ");
            report_safe(out, frame->module);
        }
        buf_append_str(out, "\n");
    }
}

static void put_head(struct buf *out, const trawl_v1_Group *g)
{
    buf_printf(out, "%s  %s%s\n", g->id, group_state_name(g->state),
               g->spreading ? ", spreading" : "");
    buf_append_str(out, "exception  ");
    report_safe(out, g->type);
    buf_append_str(out, " in ");
    report_safe(out, g->process);
    buf_printf(out, " (%s)\n", group_source_name(g->source));
    if (g->template[0]) {
        buf_append_str(out, "message    ");
        report_safe(out, g->template);
        buf_append_str(out, "\n");
    }
    buf_printf(out,
               "count      %" PRIu64 " on %u host%s, %" PRIu64 " in the hour before the last\n",
               g->count, g->hosts, g->hosts == 1 ? "" : "s", g->per_hour);
    buf_append_str(out, "first      ");
    report_when(out, g->first_us);
    buf_append_str(out, "\nlast       ");
    report_when(out, g->last_us);
    buf_printf(out, " (collector time)\nkept       %u whole, evidence of %u, the others counted\n",
               g->samples, g->evidence);
}

static void put_people(struct buf *out, const trawl_v1_Group *g)
{
    if (g->resolved_us && g->resolved_by[0]) {
        buf_append_str(out, "resolved   ");
        report_when(out, g->resolved_us);
        buf_append_str(out, " by ");
        report_safe(out, g->resolved_by);
        buf_append_str(out, "\n");
    }
    if (g->want_left) {
        buf_append_str(out, "wanted     ");
        for (pb_size_t i = 0; i < g->want_count; i++) {
            buf_append_str(out, i ? "," : "");
            report_safe(out, g->want[i]);
        }
        buf_printf(out, " of the next %u, asked by ", g->want_left);
        report_safe(out, g->want_by);
        buf_append_str(out, "\n");
    }
    if (g->split_from[0])
        buf_printf(out, "split from %s: what was counted before is there\n", g->split_from);
    if (g->note[0]) {
        buf_append_str(out, "note       ");
        report_safe(out, g->note);
        buf_append_str(out, "\n");
    }
    for (pb_size_t i = 0; i < g->incidents_count; i++)
        buf_printf(out, "%s  trawl show %s\n", i ? "          " : "incident  ", g->incidents[i]);
}

static void put_versions(struct buf *out, const trawl_v1_Group *g)
{
    char hex[2 * sizeof g->versions[0].build_id.bytes + 1];
    if (g->versions_count)
        buf_append_str(out, "\nBuilds\n");
    for (pb_size_t i = 0; i < g->versions_count; i++) {
        const trawl_v1_GroupVersion *v = &g->versions[i];
        text_put_hex(v->build_id.bytes, v->build_id.size, hex);
        buf_printf(out, "  %-40s %8" PRIu64 "  last ", hex, v->count);
        report_when(out, v->last_us);
        buf_append_str(out, "\n");
    }
}

static void put_hosts(struct buf *out, const struct group_report *in)
{
    if (in->host_count)
        buf_append_str(out, "\nHosts\n");
    for (size_t i = 0; i < in->host_count && i < HOST_LINES_MAX; i++) {
        buf_printf(out, "  %-30s %8" PRIu64 "  last ", in->hosts[i].host, in->hosts[i].count);
        report_when(out, in->hosts[i].last_us);
        buf_append_str(out, "\n");
    }
    if (in->host_count > HOST_LINES_MAX)
        buf_printf(out, "  ... and %zu more\n", in->host_count - HOST_LINES_MAX);
}

static void put_sample(struct buf *out, const trawl_v1_Exception *e)
{
    buf_append_str(out, "\nSample of ");
    report_when(out, e->wall_us);
    buf_append_str(out, " on ");
    report_safe(out, e->host);
    buf_append_str(out, "\n  ");
    report_safe(out, e->type);
    if (e->message[0]) {
        buf_append_str(out, ": ");
        report_safe(out, e->message);
    }
    buf_append_str(out, "\n  ");
    report_safe(out, e->process);
    if (e->pid)
        buf_printf(out, "/%u", e->pid);
    if (e->thread[0]) {
        buf_append_str(out, ", thread ");
        report_safe(out, e->thread);
    }
    if (e->has_fault_address)
        buf_printf(out, ", address 0x%" PRIx64, e->fault_address);
    buf_append_str(out, "\n");
    group_report_frames(e->frames, e->frames_count, out);
    if (e->frames_left_out)
        buf_printf(out, "    ... and %u more\n", e->frames_left_out);
    if (e->missing[0]) {
        buf_append_str(out, "  missing: ");
        report_safe(out, e->missing);
        buf_append_str(out, "\n");
    }
}

void group_report_text(const struct group_report *in, struct buf *out)
{
    put_head(out, in->group);
    put_people(out, in->group);
    put_versions(out, in->group);
    put_hosts(out, in);
    if (in->sample_count)
        put_sample(out, &in->samples[0]);
    if (in->sample_count > 1)
        buf_printf(out, "  ... and %zu more samples (-o json has them)\n", in->sample_count - 1);
}
