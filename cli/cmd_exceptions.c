/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl exceptions: what went wrong by itself, as a list, and with --follow as it happens.
 * Invariant: following outlives the connection: after it is lost what came meanwhile is asked for,
 * and nothing is told twice. Called through the table.
 */
#include "cli/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "cli/group_call.h"
#include "cli/render_exception.h"
#include "cli/seen.h"
#include "common/port.h"
#include "common/text.h"

#define LINE_LIMIT (256 * 1024)
#define REQUEST_LIMIT (16 * 1024)
#define FIRST_EXCEPTIONS 64
#define BACKOFF_MS 250
#define BACKOFF_MAX_MS 4000

struct viewer {
    struct cli *cli;
    trawl_v1_ExceptionsRequest request;
    trawl_v1_Exception *list; /* hosts answer one after the other; people want one order in time */
    size_t count, capacity, listed;
    struct render_table table;
    size_t widths[RENDER_EXCEPTION_COLUMNS];
    struct buf line;
    bool is_titled;

    struct seen seen; /* of --follow, as all below */
    struct client_call *call;
    struct failure why; /* of its end */
    bool interrupted, is_lost;
};

/* ---- showing ---- */

static bool is_wide(const struct viewer *v)
{
    return v->cli->output == CLI_WIDE;
}

static int show(struct viewer *v, const trawl_v1_Exception *e, struct failure *f)
{
    int r;
    if (v->cli->output == CLI_JSON) {
        r = render_exception_json(&v->line, e);
    } else {
        render_table_clear(&v->table);
        render_exception_row(&v->table, e, is_wide(v), v->cli->now_us);
        r = render_table_put_more(&v->table, v->widths, !v->is_titled, v->cli->color, &v->line);
        v->is_titled = true;
    }
    if (r < 0)
        return fail(f, r, "cannot show an exception: %s", err_text(r));
    return cli_write(v->cli, &v->line, f);
}

static int show_table(struct viewer *v, struct failure *f)
{
    for (size_t i = 0; i < v->count; i++)
        render_exception_row(&v->table, &v->list[i], is_wide(v), v->cli->now_us);
    return cli_write_table(v->cli, &v->table, f);
}

static int by_time(const void *a, const void *b)
{
    const trawl_v1_Exception *x = a, *y = b;
    if (x->wall_us != y->wall_us)
        return x->wall_us < y->wall_us ? -1 : 1;
    int r = strcmp(x->host, y->host);
    return r ? r : x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* What was gathered, oldest first. */
static int show_list(struct viewer *v, struct failure *f)
{
    int r = 0;
    if (v->count > 1)
        qsort(v->list, v->count, sizeof *v->list, by_time);
    if (v->cli->output != CLI_JSON && !v->seen.now)
        return show_table(v, f);
    for (size_t i = 0; r == 0 && i < v->count; i++)
        r = show(v, &v->list[i], f);
    v->count = 0;
    return r < 0 ? r : cli_flush(v->cli, f);
}

/* ---- asking ---- */

static int gather(struct viewer *v, const trawl_v1_Exception *e)
{
    if (BUF_GROW(v->list, v->count, &v->capacity, FIRST_EXCEPTIONS))
        return ERR_NOMEM;
    v->list[v->count++] = *e;
    v->listed++;
    return 0;
}

static int on_listed(void *owner, struct span message, struct failure *f)
{
    struct viewer *v = owner;
    trawl_v1_Exception e;
    int r = codec_get_exception(&e, message, f);
    if (r < 0 || (v->seen.now && !seen_add(&v->seen, &e)))
        return r;
    return gather(v, &e);
}

static int put_request(struct viewer *v, bool follow, struct buf *wire)
{
    v->request.follow = follow;
    if (v->seen.now)
        v->request.from_us = v->seen.from_us;
    return codec_put_exceptions_request(wire, &v->request);
}

static int list_once(struct viewer *v, struct failure *f)
{
    struct buf wire;
    buf_init(&wire, REQUEST_LIMIT);
    int r = put_request(v, false, &wire);
    if (r == 0)
        r = cli_call(v->cli, METHOD_OPS_EXCEPTIONS, &wire, on_listed, v, f);
    buf_done(&wire);
    return r < 0 ? r : show_list(v, f);
}

/* ---- following ---- */

static int on_followed(void *owner, struct span message, struct failure *f)
{
    struct viewer *v = owner;
    trawl_v1_Exception e;
    int r = codec_get_exception(&e, message, f);
    if (r < 0 || !seen_add(&v->seen, &e))
        return r;
    v->cli->now_us = port_wall_us();
    r = show(v, &e, f);
    return r < 0 ? r : cli_flush(v->cli, f);
}

static void on_done(void *owner, const struct failure *why)
{
    struct viewer *v = owner;
    v->call = NULL;
    v->why = *why;
    client_stop(v->cli->client);
}

static void on_interrupt(void *owner)
{
    struct viewer *v = owner;
    v->interrupted = true;
    client_stop(v->cli->client);
}

/* One call until its end, or until Ctrl-C; the end is in v->why. */
static int run_call(struct viewer *v, bool follow, struct failure *f)
{
    static const struct client_events listing = {on_listed, on_done};
    static const struct client_events following = {on_followed, on_done};
    struct buf wire;
    buf_init(&wire, REQUEST_LIMIT);
    int r = put_request(v, follow, &wire);
    if (r == 0)
        r = client_start(v->cli->client, METHOD_OPS_EXCEPTIONS, buf_span(&wire),
                         follow ? CLIENT_FOREVER : CLIENT_TIMEOUT_US,
                         follow ? &following : &listing, v, &v->call, f);
    buf_done(&wire);
    while (r == 0 && v->call && !v->interrupted)
        client_run(v->cli->client);
    return r;
}

/* What is there and was not told yet, in order. v->why says whether the collector
 * answered. */
static int catch_up(struct viewer *v, struct failure *f)
{
    int r = run_call(v, false, f);
    if (r < 0 || v->interrupted || v->why.code)
        return r;
    if (v->is_lost)
        cli_note(v->cli, "the collector is back");
    v->is_lost = false;
    return show_list(v, f);
}

/* After the stream has ended: again and again, until the collector is back. */
static int come_back(struct viewer *v, struct failure *f)
{
    uint64_t backoff_ms = BACKOFF_MS;
    cli_note(v->cli, "lost the collector (%s): trying again",
             v->why.code ? v->why.text : "it ended the stream");
    v->is_lost = true;
    while (v->is_lost && !v->interrupted) {
        client_wait(v->cli->client, backoff_ms);
        backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
        int r = v->interrupted ? 0 : catch_up(v, f);
        if (r < 0)
            return r;
        if (v->why.code && !client_may_retry(v->why.code))
            return fail(f, v->why.code, "%s", v->why.text);
    }
    return 0;
}

static int follow(struct viewer *v, struct failure *f)
{
    int r = catch_up(v, f);
    if (r == 0 && v->why.code)
        return fail(f, v->why.code, "%s", v->why.text);
    while (r == 0 && !v->interrupted) {
        r = run_call(v, true, f);
        if (r < 0 || v->interrupted)
            return r;
        if (v->why.code && !client_may_retry(v->why.code))
            return fail(f, v->why.code, "%s", v->why.text);
        r = come_back(v, f);
    }
    return r;
}

static int follow_until_interrupted(struct viewer *v, struct failure *f)
{
    int r = cli_connect(v->cli, f);
    if (r == 0 && seen_init(&v->seen, v->request.from_us) < 0)
        r = fail(f, ERR_NOMEM, "out of memory");
    if (r < 0)
        return r;
    render_exception_widths(is_wide(v), v->widths);
    client_on_interrupt(v->cli->client, on_interrupt, v);
    r = follow(v, f);
    client_on_interrupt(v->cli->client, NULL, NULL);
    if (v->call)
        client_abandon(v->call);
    seen_done(&v->seen);
    return r;
}

/* ---- all of it ---- */

static int read_request(struct viewer *v, struct failure *f)
{
    struct cli *cli = v->cli;
    const struct cmd_exceptions_options *options = cli->options;
    trawl_v1_ExceptionsRequest *request = &v->request;
    if (options->follow && options->to[0])
        return fail(f, ERR_INVALID, "--follow and --to exclude each other: following has no end");
    int r = cli_selector(cli, 0, false, request->selector, sizeof request->selector, f);
    if (r == 0 && options->group[0])
        r = group_check_id(options->group, request->group, sizeof request->group, f);
    if (r == 0)
        r = cli_window(cli, options->last_us, options->from, options->to, &request->from_us,
                       &request->to_us, f);
    if (!options->to[0])
        request->to_us = 0; /* also what happens while we ask */
    return r;
}

/* Which of the two it was that does not exist: the group, or every host. */
static int explain(struct viewer *v, int r, struct failure *f)
{
    if (r == ERR_NOTFOUND && v->request.group[0] && strstr(f->text, "group"))
        return group_explain(v->cli, v->request.group, r, f);
    if (r == ERR_NOTFOUND && v->request.selector[0])
        return cli_explain_no_match(v->cli, v->request.selector, f);
    return r;
}

int cmd_exceptions(struct cli *cli, struct failure *f)
{
    const struct cmd_exceptions_options *options = cli->options;
    struct viewer v = {.cli = cli};
    size_t count;
    const struct render_column *columns = render_exception_columns(is_wide(&v), &count);
    int r = read_request(&v, f);
    if (r < 0)
        return r;
    render_table_init(&v.table, columns, count);
    buf_init(&v.line, LINE_LIMIT);
    r = options->follow ? follow_until_interrupted(&v, f) : list_once(&v, f);
    if (r == 0 && !options->follow && v.listed == 0 && cli->output != CLI_JSON)
        cli_note(cli, "no exception in this time on these hosts (--last 1d looks further back)");
    buf_done(&v.line);
    render_table_done(&v.table);
    free(v.list);
    return explain(&v, r, f);
}
