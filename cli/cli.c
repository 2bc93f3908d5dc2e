/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands share: reaching the collector, selectors, moments, printing. Invariant: nothing
 * from outside reaches a stream but through text_append_safe(). Called by every cmd_*.c.
 */
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#include "cli/names.h"
#include "cli/nomatch.h"
#include "common/text.h"
#include "proto/codec.h"

#define NOTE_LIMIT 4096

/* ---- the collector ---- */

static int load_context(struct cli *cli, struct failure *f)
{
    char directory[CONTEXT_PATH_SIZE];
    int r = context_find(&cli->env, cli->common->context, directory, sizeof directory, f);
    if (r == 0)
        r = context_load(&cli->context, directory, cli->now_us / 1000000, f);
    if (r == 0 && cli->common->collector[0])
        r = context_address(cli->common->collector, cli->context.host, sizeof cli->context.host,
                            &cli->context.port, f);
    return r;
}

int cli_connect(struct cli *cli, struct failure *f)
{
    if (cli->client)
        return 0;
    int r = load_context(cli, f);
    if (r < 0)
        return r;
    struct client_settings settings = {
        .host = cli->context.host,
        .port = cli->context.port,
        .ca_pem = buf_span(&cli->context.ca_pem),
        .cert_pem = buf_span(&cli->context.cert_pem),
        .key_pem = buf_span(&cli->context.key_pem),
    };
    return client_open(&cli->client, &settings, f);
}

int cli_call(struct cli *cli, enum method_id method, const struct buf *request,
             client_reply_fn reply, void *owner, struct failure *f)
{
    int r = cli_connect(cli, f);
    if (r < 0)
        return r;
    return client_call(cli->client, method, buf_span(request), CLIENT_TIMEOUT_US, reply, owner, f);
}

/* ---- what was asked for ---- */

static int join_term(char *out, size_t size_bytes, const char *term, struct failure *f)
{
    size_t length = strlen(out);
    if (!term[0])
        return fail(f, ERR_INVALID, "empty host name");
    if (text_format(out + length, size_bytes - length, "%s%s", length ? "," : "", term) < 0)
        return fail(f, ERR_INVALID, "hosts are more than %zu characters together: use a glob or -l",
                    size_bytes - 1);
    return 0;
}

int cli_selector(const struct cli *cli, int from, bool needed, char *out, size_t size_bytes,
                 struct failure *f)
{
    int r = 0;
    out[0] = '\0';
    if (cli->common->select[0])
        r = join_term(out, size_bytes, cli->common->select, f);
    for (int i = from; r == 0 && i < cli->word_count; i++)
        r = join_term(out, size_bytes, cli->words[i], f);
    if (r < 0 || out[0])
        return r;
    if (needed)
        return fail(f, ERR_INVALID,
                    "no hosts selected: give -l key=value, host names or globs, or '*' for all");
    return 0;
}

static int on_known_host(void *owner, struct span message, struct failure *f)
{
    trawl_v1_Host host;
    int r = codec_get_host(&host, message, f);
    if (r == 0)
        nomatch_host(owner, &host);
    return r;
}

int cli_explain_no_match(struct cli *cli, const char *selector, struct failure *f)
{
    struct nomatch n;
    trawl_v1_HostsRequest all = {.selector = ""};
    struct buf request;
    nomatch_init(&n, selector);
    buf_init(&request, sizeof all + 64);
    int r = codec_put_hosts_request(&request, &all);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_HOSTS, &request, on_known_host, &n, f);
    if (r == 0)
        r = nomatch_fail(&n, selector, f);
    buf_done(&request);
    nomatch_done(&n);
    return r;
}

int cli_choose(const char *what, const char *text, const char *const *names, struct failure *f)
{
    for (size_t i = 0; names[i]; i++)
        if (strcmp(names[i], text) == 0)
            return 0;
    return names_fail(f, ERR_INVALID, what, text, names);
}

int cli_moment(const struct cli *cli, const char *option, const char *text, int64_t *out,
               struct failure *f)
{
    if (text_time_us(text, cli->now_us, out) == 0)
        return 0;
    return fail(f, ERR_INVALID,
                "invalid time '%.60s' at %s: expected 14:02, 14:02:05 (UTC), -10m, +2s or "
                "2026-11-23T14:02:05Z",
                text, option);
}

int cli_window(const struct cli *cli, int64_t last_us, const char *from, const char *to,
               int64_t *from_us, int64_t *to_us, struct failure *f)
{
    int64_t start, end = cli->now_us;
    int r = to[0] ? cli_moment(cli, "--to", to, &end, f) : 0;
    if (r < 0)
        return r;
    start = end - last_us;
    r = from[0] ? cli_moment(cli, "--from", from, &start, f) : 0;
    if (r < 0)
        return r;
    if (start >= end)
        return fail(f, ERR_INVALID, "the window ends before it begins: check --from and --to");
    *from_us = start;
    *to_us = end;
    return 0;
}

/* ---- printing ---- */

/* A reader that went away (`trawl hosts | head`) is nothing to talk about. */
static int fail_writing(struct failure *f)
{
    if (errno == EPIPE) {
        fail(f, ERR_IO, "%s", "");
        return ERR_IO;
    }
    return fail_errno(f, ERR_IO, errno, "cannot write the output");
}

int cli_write(struct cli *cli, struct buf *text, struct failure *f)
{
    errno = 0;
    if (text->size_bytes == 0)
        return 0;
    size_t written = fwrite(text->data, 1, text->size_bytes, cli->out);
    bool all = written == text->size_bytes;
    buf_clear(text);
    return all ? 0 : fail_writing(f);
}

int cli_flush(struct cli *cli, struct failure *f)
{
    errno = 0;
    return fflush(cli->out) == 0 && !ferror(cli->out) ? 0 : fail_writing(f);
}

int cli_write_table(struct cli *cli, const struct render_table *table, struct failure *f)
{
    struct buf text;
    if (table->error == 0 && render_row_count(table) == 0)
        return 0;
    buf_init(&text, CLI_OUTPUT_LIMIT);
    int r = render_table_put(table, cli->color, &text);
    r = r < 0 ? fail(f, r, "cannot show the table: %s", err_text(r)) : cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}

void cli_note(struct cli *cli, const char *format, ...)
{
    char text[FAILURE_TEXT_SIZE * 2];
    struct buf safe;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cli_progress_clear(cli);
    buf_init(&safe, NOTE_LIMIT);
    if (length >= 0 && text_append_safe(&safe, span_str(text), false) == 0)
        fprintf(cli->err, "trawl: %s\n", buf_str(&safe));
    buf_done(&safe);
}

void cli_progress(struct cli *cli, const char *line)
{
    if (!cli->err_is_terminal)
        return;
    fprintf(cli->err, "\r%s\033[K", line);
    fflush(cli->err);
    cli->has_progress = true;
}

static void leave_progress(struct cli *cli, const char *with)
{
    if (!cli->has_progress)
        return;
    fputs(with, cli->err);
    fflush(cli->err);
    cli->has_progress = false;
}

void cli_progress_clear(struct cli *cli)
{
    leave_progress(cli, "\r\033[K");
}

void cli_progress_end(struct cli *cli)
{
    leave_progress(cli, "\n");
}
