/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How groups look in lists and to programs; their page is in render_group_page.c. Invariant: JSON
 * has every field that the message has. Pure; called by cmd_groups.c.
 */
#include "cli/render_group.h"

#include <string.h>

#include "cli/render_exception.h"
#include "cli/render_incident.h"
#include "common/text.h"

#define TEXT_LIMIT (8 * 1024)

/* ---- lists ---- */

const char *render_group_state(trawl_v1_GroupState state)
{
    static const char *const names[] = {"unknown",   "new",      "known",
                                        "regressed", "resolved", "merged"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : names[0];
}

static enum render_style state_style(const trawl_v1_Group *group)
{
    if (group->spreading || group->state == trawl_v1_GroupState_GROUP_REGRESSED)
        return RENDER_BAD;
    if (group->state == trawl_v1_GroupState_GROUP_NEW)
        return RENDER_WARN;
    return group->state == trawl_v1_GroupState_GROUP_RESOLVED ? RENDER_GOOD : RENDER_PLAIN;
}

const struct render_column *render_group_columns(bool wide, size_t *count)
{
    static const struct render_column columns[] = {
        {"GROUP", false},     {"STATE", false},   {"COUNT", true}, {"HOSTS", true},
        {"LAST SEEN", false}, {"PROCESS", false}, {"WHAT", false}, {"WHERE", false},
    };
    static const struct render_column wide_columns[] = {
        {"GROUP", false},     {"STATE", false},      {"COUNT", true},    {"HOSTS", true},
        {"LAST SEEN", false}, {"FIRST SEEN", false}, {"PER HOUR", true}, {"SOURCE", false},
        {"PROCESS", false},   {"WHAT", false},       {"WHERE", false},   {"SAMPLES", true},
        {"EVIDENCE", true},   {"VERSION", false},    {"WANTS", false},   {"INCIDENT", false},
        {"MESSAGE", false},
    };
    *count =
        wide ? sizeof wide_columns / sizeof wide_columns[0] : sizeof columns / sizeof columns[0];
    return wide ? wide_columns : columns;
}

static void where_cell(struct render_table *t, const trawl_v1_Group *group)
{
    char where[RENDER_FRAME_SIZE] = "";
    if (group->frames_count)
        render_frame_short(&group->frames[0], where);
    render_cell(t, RENDER_PLAIN, where);
}

/* "core (1 more)" */
static void wants_cell(struct render_table *t, const trawl_v1_Group *group)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    for (pb_size_t i = 0; group->want_left && i < group->want_count; i++)
        (void)buf_printf(&text, "%s%s", i ? "," : "", group->want[i]);
    if (text.size_bytes)
        (void)buf_printf(&text, " (%u more)", group->want_left);
    render_cell(t, RENDER_PLAIN, buf_str(&text));
    buf_done(&text);
}

static void wide_end(struct render_table *t, const trawl_v1_Group *group)
{
    char version[2 * sizeof group->versions[0].build_id.bytes + 1] = "";
    if (group->versions_count)
        text_put_hex(group->versions[0].build_id.bytes, group->versions[0].build_id.size, version);
    render_cellf(t, RENDER_PLAIN, "%u", group->samples);
    render_cellf(t, RENDER_PLAIN, "%u", group->evidence);
    render_cellf(t, RENDER_PLAIN, "%.12s", version);
    wants_cell(t, group);
    render_cell(t, RENDER_PLAIN,
                group->incidents_count ? render_short_id(group->incidents[0]) : "");
    render_cell(t, RENDER_PLAIN, group->template[0] ? group->template : " ");
}

void render_group_row(struct render_table *t, const trawl_v1_Group *group, bool wide,
                      int64_t now_us)
{
    char first[RENDER_TEXT_SIZE], last[RENDER_TEXT_SIZE];
    render_clock(group->first_us, now_us, first);
    render_clock(group->last_us, now_us, last);
    render_cell(t, RENDER_BOLD, group->id);
    render_cellf(t, state_style(group), "%s%s", render_group_state(group->state),
                 group->spreading ? ", spreading" : "");
    render_cellf(t, RENDER_PLAIN, "%llu", (unsigned long long)group->count);
    render_cellf(t, RENDER_PLAIN, "%u", group->hosts);
    render_cell(t, RENDER_PLAIN, last);
    if (wide) {
        render_cell(t, RENDER_PLAIN, first);
        render_cellf(t, RENDER_PLAIN, "%llu", (unsigned long long)group->per_hour);
        render_cell(t, RENDER_PLAIN, render_source(group->source));
    }
    render_cell(t, RENDER_PLAIN, group->process);
    render_cell(t, RENDER_PLAIN, group->type);
    where_cell(t, group);
    if (wide)
        wide_end(t, group);
}

/* ---- what was asked for ---- */

static int put_id(struct buf *out, const trawl_v1_Group *group)
{
    int r = render_styled(out, RENDER_PLAIN, false, group->id, 0);
    return r < 0 ? r : buf_append_str(out, "  ");
}

int render_group_wanted(struct buf *out, const trawl_v1_Group *group)
{
    struct buf kinds;
    int r = put_id(out, group);
    if (r == 0 && (group->want_left == 0 || group->want_count == 0))
        return buf_append_str(out, "nothing more is wanted of it\n");
    buf_init(&kinds, TEXT_LIMIT);
    for (pb_size_t i = 0; r == 0 && i < group->want_count; i++)
        r = buf_printf(&kinds, "%s%s", i ? ", " : "", group->want[i]);
    if (r == 0 && group->want_left == 1)
        r = buf_append_str(out, "the next one gives ");
    else if (r == 0)
        r = buf_printf(out, "the next %u give ", group->want_left);
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, false, buf_str(&kinds), 0);
    buf_done(&kinds);
    return r < 0 ? r : buf_append_str(out, " as well\n");
}

int render_group_resolved(struct buf *out, const trawl_v1_Group *group)
{
    int r = put_id(out, group);
    return r < 0 ? r : buf_append_str(out, "resolved; seen again it is told as regressed\n");
}

/* ---- for programs ---- */

static void version_members(struct jsonl *j, const trawl_v1_GroupVersion *version)
{
    jsonl_hex_or_null(j, "build_id", version->build_id.bytes, version->build_id.size);
    jsonl_u64(j, "count", version->count);
    jsonl_time(j, "first_seen", version->first_us);
    jsonl_time(j, "last_seen", version->last_us);
}

static void list_members(struct jsonl *j, const trawl_v1_Group *group)
{
    render_frames_member(j, group->frames, group->frames_count);
    jsonl_list(j, "versions");
    for (pb_size_t i = 0; i < group->versions_count; i++) {
        jsonl_object(j, NULL);
        version_members(j, &group->versions[i]);
        jsonl_end(j);
    }
    jsonl_end(j);
    jsonl_strs(j, "incidents", group->incidents[0], sizeof group->incidents[0],
               group->incidents_count);
    jsonl_strs(j, "want", group->want[0], sizeof group->want[0], group->want_count);
}

void render_group_members(struct jsonl *j, const trawl_v1_Group *group)
{
    jsonl_str(j, "id", group->id);
    jsonl_hex(j, "signature", group->signature.bytes, group->signature.size);
    jsonl_str(j, "state", render_group_state(group->state));
    jsonl_bool(j, "spreading", group->spreading);
    render_source_member(j, "source", group->source);
    jsonl_str(j, "type", group->type);
    jsonl_str(j, "template", group->template);
    jsonl_str_or_null(j, "language", group->language);
    jsonl_str_or_null(j, "process", group->process);
    jsonl_u64(j, "count", group->count);
    jsonl_u64(j, "per_hour", group->per_hour);
    jsonl_time(j, "first_seen", group->first_us);
    jsonl_time(j, "last_seen", group->last_us);
    jsonl_u64(j, "hosts", group->hosts);
    jsonl_u64(j, "samples", group->samples);
    jsonl_u64(j, "evidence", group->evidence);
    list_members(j, group);
    jsonl_u64(j, "want_left", group->want_left);
    jsonl_str_or_null(j, "want_by", group->want_by);
    jsonl_str_or_null(j, "resolved_by", group->resolved_by);
    jsonl_time(j, "resolved", group->resolved_us);
    jsonl_str_or_null(j, "merged_into", group->merged_into);
    jsonl_str_or_null(j, "split_from", group->split_from);
    jsonl_str(j, "note", group->note);
}

int render_group_json(struct buf *out, const trawl_v1_Group *group)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    render_group_members(&j, group);
    return jsonl_line(&j);
}

static void host_members(struct jsonl *j, const trawl_v1_GroupHost *host)
{
    jsonl_str(j, "host", host->host);
    jsonl_u64(j, "count", host->count);
    jsonl_time(j, "first_seen", host->first_us);
    jsonl_time(j, "last_seen", host->last_us);
}

int render_group_part_json(struct buf *out, const trawl_v1_GroupPart *part)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    switch (part->which_body) {
    case trawl_v1_GroupPart_group_tag:
        jsonl_str(&j, "part", "group");
        render_group_members(&j, &part->body.group);
        break;
    case trawl_v1_GroupPart_host_tag:
        jsonl_str(&j, "part", "host");
        host_members(&j, &part->body.host);
        break;
    case trawl_v1_GroupPart_sample_tag:
        jsonl_str(&j, "part", "sample");
        render_exception_members(&j, &part->body.sample);
        break;
    case trawl_v1_GroupPart_line_tag:
        jsonl_str(&j, "part", "line");
        jsonl_str(&j, "line", part->body.line);
        break;
    default:
        jsonl_str(&j, "part", "unknown");
    }
    return jsonl_line(&j);
}
