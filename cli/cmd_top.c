/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl top: hosts and their busiest processes, drawn over again on a terminal, once (or -n times)
 * otherwise. Invariant: a round is shown when all of it is there, hosts before processes, both in
 * the order asked for. Called through the table.
 */
#include "cli/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "cli/render_host.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define LINE_LIMIT (64 * 1024)
#define SETTLE_MS 100 /* a round has no end mark: it is over when nothing came for so long */
#define FIRST_ROWS 64

static const char *const BY[] = {"cpu", "rss", "read", "write", "threads", NULL};

struct top {
    struct cli *cli;
    trawl_v1_TopRow *rows;
    size_t count, capacity;
    uint32_t round;
    uint64_t heard_us, shown, wanted; /* rounds; wanted 0: until interrupted */
    int by;
    struct client_call *call;
    struct failure why;
    bool interrupted;
};

/* ---- order ---- */

static uint64_t measure(const trawl_v1_TopRow *row, int by)
{
    switch (by) {
    case 0:
        return row->cpu_permille;
    case 1:
        return row->memory_bytes;
    case 2:
        return row->read_bytes_s;
    case 3:
        return row->write_bytes_s;
    default:
        return row->threads;
    }
}

static int compare(const void *a, const void *b, int by)
{
    const trawl_v1_TopRow *x = a, *y = b;
    bool x_host = !x->process[0] && !x->pid, y_host = !y->process[0] && !y->pid;
    if (x_host != y_host)
        return x_host ? -1 : 1;
    uint64_t mx = measure(x, by), my = measure(y, by);
    if (mx != my)
        return mx > my ? -1 : 1;
    int r = strcmp(x->host, y->host);
    return r ? r : x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* qsort() hands on no context; there are few orders. */
static int by_cpu(const void *a, const void *b)
{
    return compare(a, b, 0);
}

static int by_rss(const void *a, const void *b)
{
    return compare(a, b, 1);
}

static int by_read(const void *a, const void *b)
{
    return compare(a, b, 2);
}

static int by_write(const void *a, const void *b)
{
    return compare(a, b, 3);
}

static int by_threads(const void *a, const void *b)
{
    return compare(a, b, 4);
}

static int (*const ORDERS[])(const void *, const void *) = {by_cpu, by_rss, by_read, by_write,
                                                            by_threads};

/* ---- showing ---- */

static int put_json(struct top *t, uint64_t limit, struct buf *out)
{
    uint64_t processes = 0;
    int r = 0;
    for (size_t i = 0; r == 0 && i < t->count; i++) {
        processes += t->rows[i].process[0] || t->rows[i].pid;
        if (processes <= limit)
            r = render_top_json(out, &t->rows[i]);
    }
    return r;
}

static int put_table(struct top *t, uint64_t limit, struct buf *out)
{
    size_t columns_count;
    const struct render_column *columns = render_top_columns(&columns_count);
    struct render_table table;
    uint64_t processes = 0;
    render_table_init(&table, columns, columns_count);
    for (size_t i = 0; i < t->count; i++) {
        bool is_process = t->rows[i].process[0] || t->rows[i].pid;
        processes += is_process;
        if (!is_process || processes <= limit)
            render_top_row(&table, &t->rows[i]);
    }
    int r = render_table_put(&table, t->cli->color, out);
    if (r == 0 && processes > limit)
        r = buf_append_str(out, "... and more processes (--limit)\n");
    render_table_done(&table);
    return r;
}

static int show_round(struct top *t, struct failure *f)
{
    const struct cmd_top_options *options = t->cli->options;
    bool is_live = t->wanted == 0;
    struct buf text;
    buf_init(&text, CLI_OUTPUT_LIMIT);
    if (t->count > 0)
        qsort(t->rows, t->count, sizeof *t->rows, ORDERS[t->by]);
    int r = is_live ? buf_append_str(&text, "\033[H\033[J") : 0;
    if (r == 0 && t->cli->output == CLI_JSON)
        r = put_json(t, options->limit, &text);
    else if (r == 0)
        r = put_table(t, options->limit, &text);
    r = r < 0 ? fail(f, r, "cannot show the round: %s", err_text(r)) : cli_write(t->cli, &text, f);
    buf_done(&text);
    t->count = 0;
    t->shown++;
    return r < 0 ? r : cli_flush(t->cli, f);
}

/* ---- the stream ---- */

static int keep_row(struct top *t, const trawl_v1_TopRow *row)
{
    if (BUF_GROW(t->rows, t->count, &t->capacity, FIRST_ROWS))
        return ERR_NOMEM;
    t->rows[t->count++] = *row;
    return 0;
}

static bool has_enough(const struct top *t)
{
    return t->wanted > 0 && t->shown >= t->wanted;
}

static int on_row(void *owner, struct span message, struct failure *f)
{
    struct top *t = owner;
    trawl_v1_TopRow row;
    int r = codec_get_top_row(&row, message, f);
    if (r == 0 && t->count > 0 && row.round != t->round)
        r = show_round(t, f);
    if (r < 0)
        return r;
    if (has_enough(t))
        return 1;
    t->round = row.round;
    t->heard_us = port_mono_us();
    return keep_row(t, &row);
}

static void on_done(void *owner, const struct failure *why)
{
    struct top *t = owner;
    t->call = NULL;
    t->why = *why;
    client_stop(t->cli->client);
}

static void on_tick(void *owner)
{
    struct top *t = owner;
    struct failure f;
    if (t->count == 0 || port_mono_us() - t->heard_us < SETTLE_MS * 1000)
        return;
    if (show_round(t, &f) < 0) {
        t->why = f;
        t->interrupted = true;
    }
    if (t->interrupted || has_enough(t))
        client_stop(t->cli->client);
}

static void on_interrupt(void *owner)
{
    struct top *t = owner;
    t->interrupted = true;
    client_stop(t->cli->client);
}

static int start(struct top *t, const trawl_v1_TopRequest *request, struct failure *f)
{
    static const struct client_events events = {on_row, on_done};
    struct buf wire;
    int r = cli_connect(t->cli, f);
    if (r < 0)
        return r;
    buf_init(&wire, LINE_LIMIT);
    r = codec_put_top_request(&wire, request);
    if (r == 0)
        r = client_start(t->cli->client, METHOD_OPS_TOP, buf_span(&wire), CLIENT_FOREVER, &events,
                         t, &t->call, f);
    buf_done(&wire);
    return r;
}

static int follow(struct top *t, struct failure *f)
{
    client_every(t->cli->client, SETTLE_MS, on_tick, t);
    client_on_interrupt(t->cli->client, on_interrupt, t);
    while (t->call && !t->interrupted && !has_enough(t))
        client_run(t->cli->client);
    client_every(t->cli->client, 0, NULL, NULL);
    client_on_interrupt(t->cli->client, NULL, NULL);
    if (t->call)
        client_abandon(t->call);
    int r = t->why.code ? fail(f, t->why.code, "%s", t->why.text) : 0;
    if (r == 0 && !t->interrupted && t->count > 0 && !has_enough(t))
        r = show_round(t, f);
    return r;
}

int cmd_top(struct cli *cli, struct failure *f)
{
    const struct cmd_top_options *options = cli->options;
    /* One more than is shown: so it is known whether there are more. */
    trawl_v1_TopRequest request = {.limit = (uint32_t)options->limit + 1};
    struct top t = {.cli = cli, .wanted = options->rounds};
    int r = cli_choose("order", options->by, BY, f);
    if (r == 0)
        r = cli_selector(cli, 0, false, request.selector, sizeof request.selector, f);
    if (r < 0)
        return r;
    while (strcmp(BY[t.by], options->by) != 0)
        t.by++;
    text_copy(request.by, sizeof request.by, options->by);
    if (t.wanted == 0 && (!cli->out_is_terminal || cli->output == CLI_JSON))
        t.wanted = 1;
    request.follow = t.wanted != 1;
    r = start(&t, &request, f);
    if (r == 0)
        r = follow(&t, f);
    if (r == 0 && t.shown == 0 && !t.interrupted)
        cli_note(cli, "no samples yet: hosts that are online are shown a few seconds after they "
                      "connect");
    free(t.rows);
    return r == ERR_NOTFOUND ? cli_explain_no_match(cli, request.selector, f) : r;
}
