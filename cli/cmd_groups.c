/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands about groups of exceptions: groups, group, want, resolve. Invariant: a group is named by
 * any unique part of its ID, and one that does not exist is answered with those that do. Called
 * through the table.
 */
#include "cli/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "cli/group_call.h"
#include "cli/render_group.h"
#include "common/text.h"
#include "proto/kinds.h"

#define LINE_LIMIT (256 * 1024)
#define REQUEST_LIMIT (16 * 1024)
#define FIRST_GROUPS 64

static int write_text(struct cli *cli, struct buf *text, int rendered, struct failure *f)
{
    if (rendered < 0)
        return fail(f, rendered, "cannot show a group: %s", err_text(rendered));
    return cli_write(cli, text, f);
}

/* ---- groups ---- */

struct listing {
    trawl_v1_Group *groups;
    size_t count, capacity;
};

static int on_group(void *owner, struct span message, struct failure *f)
{
    struct listing *l = owner;
    if (BUF_GROW(l->groups, l->count, &l->capacity, FIRST_GROUPS))
        return ERR_NOMEM;
    int r = codec_get_group(&l->groups[l->count], message, f);
    l->count += r == 0;
    return r;
}

/* What happened last is what is looked for. */
static int newest_first(const void *a, const void *b)
{
    const trawl_v1_Group *x = a, *y = b;
    if (x->last_us != y->last_us)
        return x->last_us > y->last_us ? -1 : 1;
    return strcmp(x->id, y->id);
}

static int show_groups(struct cli *cli, struct listing *l, struct failure *f)
{
    struct render_table table;
    struct buf line;
    size_t count;
    bool wide = cli->output == CLI_WIDE;
    const struct render_column *columns = render_group_columns(wide, &count);
    int r = 0;
    if (l->count > 1)
        qsort(l->groups, l->count, sizeof *l->groups, newest_first);
    render_table_init(&table, columns, count);
    buf_init(&line, LINE_LIMIT);
    for (size_t i = 0; r == 0 && i < l->count; i++) {
        if (cli->output == CLI_JSON)
            r = write_text(cli, &line, render_group_json(&line, &l->groups[i]), f);
        else
            render_group_row(&table, &l->groups[i], wide, cli->now_us);
    }
    if (r == 0)
        r = cli_write_table(cli, &table, f);
    buf_done(&line);
    render_table_done(&table);
    return r;
}

int cmd_groups(struct cli *cli, struct failure *f)
{
    const struct cmd_groups_options *options = cli->options;
    trawl_v1_GroupsRequest request = {.resolved = options->resolved};
    struct listing l = {.groups = NULL};
    struct buf wire;
    int r = cli_selector(cli, 0, false, request.selector, sizeof request.selector, f);
    if (r == 0)
        r = cli_window(cli, options->last_us, options->from, options->to, &request.from_us,
                       &request.to_us, f);
    if (r < 0)
        return r;
    if (!options->to[0])
        request.to_us = 0; /* also what happens while we ask */
    buf_init(&wire, REQUEST_LIMIT);
    r = codec_put_groups_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_GROUPS, &wire, on_group, &l, f);
    buf_done(&wire);
    if (r == 0)
        r = show_groups(cli, &l, f);
    if (r == 0 && l.count == 0 && cli->output != CLI_JSON)
        cli_note(cli, "no group in this time%s (--last 7d looks further back)",
                 options->resolved ? "" : " that is not resolved");
    free(l.groups);
    return r == ERR_NOTFOUND && request.selector[0] ? cli_explain_no_match(cli, request.selector, f)
                                                    : r;
}

/* ---- group ---- */

struct page {
    struct cli *cli;
    struct render_group group;
    struct buf lines, line;
};

static int on_part(void *owner, struct span message, struct failure *f)
{
    struct page *p = owner;
    trawl_v1_GroupPart part;
    int r = codec_get_group_part(&part, message, f);
    if (r < 0)
        return r;
    if (p->cli->output == CLI_JSON)
        return part.which_body == trawl_v1_GroupPart_line_tag
                   ? 0
                   : write_text(p->cli, &p->line, render_group_part_json(&p->line, &part), f);
    if (part.which_body != trawl_v1_GroupPart_line_tag)
        return render_group_part(&p->group, &part);
    r = text_append_safe(&p->lines, span_str(part.body.line), true);
    return r < 0 ? r : buf_append_byte(&p->lines, '\n');
}

int cmd_group(struct cli *cli, struct failure *f)
{
    struct page p = {.cli = cli};
    buf_init(&p.line, LINE_LIMIT);
    buf_init(&p.lines, LINE_LIMIT);
    int r = group_call(cli, METHOD_OPS_SHOW_GROUP, cli->words[0], on_part, &p, f);
    if (r == 0 && cli->output != CLI_JSON && p.group.group.id[0])
        r = write_text(cli, &p.line, render_group_page(&p.line, &p.group, cli->now_us, cli->color),
                       f);
    if (r == 0 && p.lines.size_bytes)
        r = cli_write(cli, &p.lines, f);
    buf_done(&p.line);
    buf_done(&p.lines);
    render_group_done(&p.group);
    return r;
}

/* ---- want and resolve ---- */

static int on_changed(void *owner, struct span message, struct failure *f)
{
    return codec_get_group(owner, message, f);
}

static int take_what(const char *list, trawl_v1_WantRequest *request, struct failure *f)
{
    struct span rest = span_str(list), word;
    while (text_take_until(&rest, ',', &word) == 0) {
        char kind[32];
        bool fits = text_copy_span(kind, sizeof kind, word) == 0;
        int r = cli_choose("kind", fits ? kind : list, KINDS, f);
        if (r < 0)
            return r;
        if (request->what_count == CLI_COUNT(request->what))
            return fail(f, ERR_INVALID, "more than %zu kinds at --what", CLI_COUNT(request->what));
        text_copy(request->what[request->what_count++], sizeof request->what[0], kind);
    }
    return 0;
}

static int read_want(const struct cli *cli, trawl_v1_WantRequest *request, struct failure *f)
{
    const struct cmd_want_options *options = cli->options;
    int r = group_check_id(cli->words[0], request->group, sizeof request->group, f);
    if (r == 0)
        r = take_what(options->what, request, f);
    request->count = (uint32_t)options->count;
    if (r == 0 && request->count && request->what_count == 0)
        return fail(f, ERR_INVALID,
                    "nothing is wanted: give --what core, or -n 0 to want nothing "
                    "any more");
    return r;
}

int cmd_want(struct cli *cli, struct failure *f)
{
    trawl_v1_WantRequest request = {.group = ""};
    trawl_v1_Group group = {.id = ""};
    struct buf wire, text;
    int r = read_want(cli, &request, f);
    if (r < 0)
        return r;
    buf_init(&wire, REQUEST_LIMIT);
    buf_init(&text, LINE_LIMIT);
    r = codec_put_want_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_WANT, &wire, on_changed, &group, f);
    r = group_explain(cli, request.group, r, f);
    if (r == 0)
        r = write_text(cli, &text,
                       cli->output == CLI_JSON ? render_group_json(&text, &group)
                                               : render_group_wanted(&text, &group),
                       f);
    buf_done(&wire);
    buf_done(&text);
    return r;
}

int cmd_resolve(struct cli *cli, struct failure *f)
{
    trawl_v1_Group group = {.id = ""};
    struct buf text;
    int r = group_call(cli, METHOD_OPS_RESOLVE, cli->words[0], on_changed, &group, f);
    if (r < 0)
        return r;
    buf_init(&text, LINE_LIMIT);
    r = write_text(cli, &text,
                   cli->output == CLI_JSON ? render_group_json(&text, &group)
                                           : render_group_resolved(&text, &group),
                   f);
    buf_done(&text);
    return r;
}
