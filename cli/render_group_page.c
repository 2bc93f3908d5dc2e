/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of a group: gathered from the parts that ShowGroup sends, then printed. Invariant: it
 * keeps at most RENDER_GROUP_HOSTS hosts and RENDER_GROUP_SAMPLES samples, and says how many it
 * left out. Pure; called by cmd_groups.c.
 */
#include "cli/render_group.h"

#include <stdlib.h>
#include <string.h>

#include "cli/render_exception.h"
#include "cli/render_incident.h"
#include "common/text.h"

#define TEXT_LIMIT (64 * 1024)
#define HOSTS_SHOWN 10
#define VERSION_DIGITS 12

/* ---- gathering ---- */

int render_group_part(struct render_group *g, const trawl_v1_GroupPart *part)
{
    int r = 0;
    switch (part->which_body) {
    case trawl_v1_GroupPart_group_tag:
        g->group = part->body.group;
        break;
    case trawl_v1_GroupPart_host_tag:
        if (g->host_count == RENDER_GROUP_HOSTS)
            g->hosts_left_out++;
        else if ((r = BUF_GROW(g->hosts, g->host_count, NULL, 1)) == 0)
            g->hosts[g->host_count++] = part->body.host;
        break;
    case trawl_v1_GroupPart_sample_tag:
        if (g->sample_count == RENDER_GROUP_SAMPLES)
            g->samples_left_out++;
        else if ((r = BUF_GROW(g->samples, g->sample_count, NULL, 1)) == 0)
            g->samples[g->sample_count++] = part->body.sample;
        break;
    default:
        break;
    }
    return r;
}

void render_group_done(struct render_group *g)
{
    free(g->hosts);
    free(g->samples);
    *g = (struct render_group){.hosts = NULL};
}

/* ---- the page ---- */

static int put_value(struct buf *out, const char *title, const char *text)
{
    int r = buf_printf(out, "  %-12s", title);
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, false, text, 0);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

static int put_text(struct buf *out, const char *title, const char *text)
{
    return text[0] ? put_value(out, title, text) : 0;
}

/* "G-7F2QK  SIGSEGV in bio_close (bio.c:42)   new, spreading" */
static int put_title(struct buf *out, const trawl_v1_Group *g, bool color)
{
    char where[RENDER_FRAME_SIZE] = "";
    if (g->frames_count)
        render_frame_short(&g->frames[0], where);
    int r = render_styled(out, RENDER_BOLD, color, g->id, 0);
    if (r == 0)
        r = buf_append_str(out, "  ");
    if (r == 0)
        r = render_styled(out, RENDER_BAD, color, g->type, 0);
    if (r == 0 && where[0])
        r = buf_append_str(out, " in ");
    if (r == 0)
        r = render_styled(out, RENDER_BOLD, color, where, 0);
    if (r == 0)
        r = buf_printf(out, "   %s%s\n", render_group_state(g->state),
                       g->spreading ? ", spreading" : "");
    return r;
}

static int put_counts(struct buf *out, const trawl_v1_Group *g, int64_t now_us)
{
    char when[RENDER_TEXT_SIZE], ago[RENDER_TEXT_SIZE], text[2 * RENDER_TEXT_SIZE + 8];
    text_format(text, sizeof text, "%llu; %llu in the hour before the last",
                (unsigned long long)g->count, (unsigned long long)g->per_hour);
    int r = put_value(out, "count", text);
    render_clock(g->first_us, now_us, when);
    if (r == 0)
        r = put_value(out, "first seen", when);
    render_clock(g->last_us, now_us, when);
    render_ago(g->last_us, now_us, ago);
    text_format(text, sizeof text, "%s (%s)", when, ago);
    if (r == 0)
        r = put_value(out, "last seen", text);
    text_format(text, sizeof text, "%s%s%s", render_source(g->source), g->language[0] ? ", " : "",
                g->language);
    if (r == 0)
        r = put_value(out, "source", text);
    return r < 0 ? r : put_text(out, "process", g->process);
}

static int put_hosts(struct buf *out, const struct render_group *g)
{
    struct buf text;
    int r = 0;
    buf_init(&text, TEXT_LIMIT);
    for (size_t i = 0; r == 0 && i < g->host_count && i < HOSTS_SHOWN; i++)
        r = buf_printf(&text, "%s%s (%llu)", i ? ", " : "", g->hosts[i].host,
                       (unsigned long long)g->hosts[i].count);
    size_t all = g->group.hosts > g->host_count ? g->group.hosts : g->host_count;
    if (r == 0 && g->host_count == 0)
        r = buf_printf(&text, "%u", g->group.hosts);
    else if (r == 0 && all > HOSTS_SHOWN)
        r = buf_printf(&text, ", and %zu more (-o json has all)", all - HOSTS_SHOWN);
    if (r == 0)
        r = put_value(out, "hosts", buf_str(&text));
    buf_done(&text);
    return r;
}

static int put_versions(struct buf *out, const trawl_v1_Group *g)
{
    struct buf text;
    int r = 0;
    buf_init(&text, TEXT_LIMIT);
    for (pb_size_t i = 0; r == 0 && i < g->versions_count; i++) {
        const trawl_v1_GroupVersion *v = &g->versions[i];
        char build_id[2 * sizeof v->build_id.bytes + 1];
        text_put_hex(v->build_id.bytes, v->build_id.size, build_id);
        if (strlen(build_id) > VERSION_DIGITS)
            build_id[VERSION_DIGITS] = '\0';
        r = buf_printf(&text, "%s%s (%llu)", i ? ", " : "",
                       build_id[0] ? build_id : "without build-id", (unsigned long long)v->count);
    }
    if (r == 0)
        r = put_text(out, "versions", buf_str(&text));
    buf_done(&text);
    return r;
}

static int put_kept(struct buf *out, const trawl_v1_Group *g)
{
    char text[160];
    text_format(text, sizeof text, "%u sample%s, %u with evidence", g->samples,
                g->samples == 1 ? "" : "s", g->evidence);
    int r = put_value(out, "kept", text);
    for (pb_size_t i = 0; r == 0 && i < g->incidents_count; i++) {
        text_format(text, sizeof text, "%s   trawl show %s", g->incidents[i],
                    render_short_id(g->incidents[i]));
        r = put_value(out, i ? "" : "incidents", text);
    }
    return r;
}

static int put_wanted(struct buf *out, const trawl_v1_Group *g)
{
    struct buf text;
    int r = 0;
    if (g->want_left == 0 || g->want_count == 0)
        return 0;
    buf_init(&text, TEXT_LIMIT);
    for (pb_size_t i = 0; r == 0 && i < g->want_count; i++)
        r = buf_printf(&text, "%s%s", i ? ", " : "", g->want[i]);
    if (r == 0)
        r = buf_printf(&text, " of the next %u", g->want_left);
    if (r == 0 && g->want_by[0])
        r = buf_printf(&text, ", asked for by %s", g->want_by);
    if (r == 0)
        r = put_value(out, "wants", buf_str(&text));
    buf_done(&text);
    return r;
}

static int put_history(struct buf *out, const trawl_v1_Group *g, int64_t now_us)
{
    char when[RENDER_TEXT_SIZE], text[sizeof g->resolved_by + RENDER_TEXT_SIZE + 8];
    int r = 0;
    render_clock(g->resolved_us, now_us, when);
    if (g->resolved_us) {
        text_format(text, sizeof text, "%s%s%s", when, g->resolved_by[0] ? " by " : "",
                    g->resolved_by);
        r = put_value(out, "resolved", text);
    }
    if (r == 0)
        r = put_text(out, "merged into", g->merged_into);
    if (r == 0)
        r = put_text(out, "split from", g->split_from);
    return r < 0 ? r : put_text(out, "note", g->note);
}

/* The newest in whole, the others as a list. */
static int put_samples(struct buf *out, const struct render_group *g, int64_t now_us, bool color)
{
    struct render_table t;
    size_t count;
    int r = g->sample_count ? buf_append_str(out, "\nnewest sample: ") : 0;
    if (r == 0 && g->sample_count)
        r = render_exception_page(out, &g->samples[0], &g->group, now_us, color);
    if (r < 0 || g->sample_count < 2)
        return r;
    const struct render_column *columns = render_exception_columns(false, &count);
    render_table_init(&t, columns, count);
    for (size_t i = 1; i < g->sample_count; i++)
        render_exception_row(&t, &g->samples[i], false, now_us);
    r = buf_append_str(out, "\nother samples:\n");
    if (r == 0)
        r = render_table_put(&t, color, out);
    render_table_done(&t);
    return r;
}

int render_group_page(struct buf *out, const struct render_group *g, int64_t now_us, bool color)
{
    int r = put_title(out, &g->group, color);
    if (r == 0)
        r = put_text(out, "message", g->group.template);
    if (r == 0)
        r = put_counts(out, &g->group, now_us);
    if (r == 0)
        r = put_hosts(out, g);
    if (r == 0)
        r = put_versions(out, &g->group);
    if (r == 0)
        r = put_kept(out, &g->group);
    if (r == 0)
        r = put_wanted(out, &g->group);
    if (r == 0)
        r = put_history(out, &g->group, now_us);
    return r < 0 ? r : put_samples(out, g, now_us, color);
}
