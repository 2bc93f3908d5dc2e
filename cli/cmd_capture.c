/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl capture: one order to many hosts. Invariant: the request carries an ID of its own, so that
 * asking again after a lost answer gives the same incident, not a second capture; leaving this
 * command ends nothing on the hosts. Called through the table.
 */
#include "cli/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "cli/jsonl.h"
#include "cli/names.h"
#include "cli/summary.h"
#include "cli/watching.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/kinds.h"

#define REQUEST_LIMIT (64 * 1024)
#define RETRIES 5
#define RETRY_MS 500

/* ---- the request ---- */

static int take_kind(const char *kind, trawl_v1_CaptureRequest *request, struct failure *f)
{
    int r = cli_choose("kind", kind, KINDS, f);
    if (r < 0)
        return r;
    for (pb_size_t i = 0; i < request->what_count; i++)
        if (strcmp(request->what[i], kind) == 0)
            return 0;
    return text_copy(request->what[request->what_count++], sizeof request->what[0], kind);
}

static int take_what(const char *list, trawl_v1_CaptureRequest *request, struct failure *f)
{
    struct span rest = span_str(list), word;
    char kind[64];
    int r = 0;
    while (r == 0 && text_take_until(&rest, ',', &word) == 0) {
        (void)text_copy_span(kind, sizeof kind, word);
        r = take_kind(kind, request, f);
    }
    return r;
}

static int take_process(const struct cmd_capture_options *o, trawl_v1_CaptureRequest *request,
                        struct failure *f)
{
    trawl_v1_ProcessSelector *p = &request->process;
    int given = !!o->process[0] + !!o->unit[0] + (o->pid > 0) + (o->port > 0) + !!o->container[0] +
                !!o->command[0];
    if (given > 1)
        return fail(f, ERR_INVALID,
                    "more than one of --process, --pid, --unit, --port, --container and --command: "
                    "give the one that names the process");
    request->has_process = given > 0;
    text_copy(p->name, sizeof p->name, o->process);
    text_copy(p->unit, sizeof p->unit, o->unit);
    text_copy(p->container, sizeof p->container, o->container);
    text_copy(p->command, sizeof p->command, o->command);
    p->pid = (uint32_t)o->pid;
    p->port = (uint32_t)o->port;
    return 0;
}

/* "+2s" is counted by the collector, so that our clock does not matter; else an instant. */
static int take_instant(const struct cli *cli, const char *at, trawl_v1_CaptureRequest *request,
                        struct failure *f)
{
    int64_t us;
    if (!at[0])
        return 0;
    if (at[0] == '+' && text_duration_us(at + 1, &us) == 0 && us > 0) {
        request->in_us = (uint64_t)us;
        return 0;
    }
    int r = cli_moment(cli, "--at", at, &request->at_us, f);
    if (r == 0 && request->at_us <= cli->now_us)
        return fail(f, ERR_INVALID, "the instant '%s' at --at has passed: --last looks back", at);
    return r;
}

static int build_request(struct cli *cli, trawl_v1_CaptureRequest *request, struct failure *f)
{
    const struct cmd_capture_options *o = cli->options;
    if (o->wait && o->no_wait)
        return fail(f, ERR_INVALID, "--wait and --no-wait exclude each other");
    int r = cli_selector(cli, 0, true, request->selector, sizeof request->selector, f);
    if (r == 0)
        r = take_what(o->what, request, f);
    if (r == 0)
        r = take_process(o, request, f);
    if (r == 0)
        r = take_instant(cli, o->at, request, f);
    if (r == 0 && text_copy(request->into, sizeof request->into, o->into) < 0)
        r = fail(f, ERR_INVALID, "invalid incident '%.60s' at --into", o->into);
    if (r < 0)
        return r;
    text_copy(request->note, sizeof request->note, o->note);
    request->last_us = (uint64_t)o->last_us;
    request->for_us = (uint64_t)o->for_us;
    request->pause_max_us = (uint32_t)o->pause_max_us;
    request->expire_us = (uint64_t)o->expire_us;
    request->canary = (uint32_t)o->canary;
    request->sample = (uint32_t)o->sample;
    text_copy(request->spread, sizeof request->spread, o->spread);
    request->max_parallel = (uint32_t)o->max_parallel;
    request->dry_run = o->dry_run;
    request->fallback = o->fallback;
    request->live = o->live;
    request->allow_pause = o->allow_pause;
    request->request_id.size = sizeof request->request_id.bytes;
    port_random(request->request_id.bytes, sizeof request->request_id.bytes);
    return kinds_complete(request, f);
}

static int on_reply(void *owner, struct span message, struct failure *f)
{
    return codec_get_capture_reply(owner, message, f);
}

/* The answer may be lost with the connection: the same request again is harmless. */
static int send_request(struct cli *cli, const trawl_v1_CaptureRequest *request,
                        trawl_v1_CaptureReply *reply, bool *again, struct failure *f)
{
    struct buf wire;
    buf_init(&wire, REQUEST_LIMIT);
    int r = codec_put_capture_request(&wire, request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_CAPTURE, &wire, on_reply, reply, f);
    bool was_sent = r != ERR_UNREACHABLE;
    for (int i = 0; was_sent && client_may_retry(r) && i < RETRIES; i++) {
        *again = true;
        cli_note(cli, "no answer (%s): asking again", f->text);
        client_wait(cli->client, (uint64_t)RETRY_MS << i);
        r = cli_call(cli, METHOD_OPS_CAPTURE, &wire, on_reply, reply, f);
    }
    buf_done(&wire);
    return r;
}

/* ---- what is shown at once ---- */

static int print(struct cli *cli, struct buf *text, int r, struct failure *f)
{
    r = r < 0 ? fail(f, r, "cannot show the answer: %s", err_text(r)) : cli_write(cli, text, f);
    buf_done(text);
    return r < 0 ? r : cli_flush(cli, f);
}

static int put_names(const trawl_v1_CaptureReply *reply, struct buf *out)
{
    int r = buf_printf(out, "%u hosts match, %u of them online; nothing was captured\n",
                       reply->hosts, reply->online);
    for (pb_size_t i = 0; r == 0 && i < reply->names_count; i++) {
        r = buf_append_str(out, "  ");
        if (r == 0)
            r = text_append_safe(out, span_str(reply->names[i]), false);
        if (r == 0)
            r = buf_append_byte(out, '\n');
    }
    if (r == 0 && reply->hosts > reply->names_count)
        r = buf_printf(out, "  ... and %u more\n", reply->hosts - reply->names_count);
    return r;
}

static int put_reply_json(const trawl_v1_CaptureReply *reply, bool is_dry_run, struct buf *out)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "type", "capture");
    if (is_dry_run)
        jsonl_bool(&j, "dry_run", true);
    else
        jsonl_str(&j, "incident", reply->incident);
    jsonl_u64(&j, "hosts", reply->hosts);
    jsonl_u64(&j, "online", reply->online);
    if (is_dry_run) {
        jsonl_list(&j, "names");
        for (pb_size_t i = 0; i < reply->names_count; i++)
            jsonl_str(&j, NULL, reply->names[i]);
    }
    return jsonl_line(&j);
}

static int show_reply(struct cli *cli, const trawl_v1_CaptureReply *reply, bool is_dry_run,
                      struct failure *f)
{
    struct buf text;
    buf_init(&text, REQUEST_LIMIT);
    return print(cli, &text,
                 cli->output == CLI_JSON ? put_reply_json(reply, is_dry_run, &text)
                                         : put_names(reply, &text),
                 f);
}

static int show_headline(struct cli *cli, const trawl_v1_CaptureReply *reply, bool again,
                         struct failure *f)
{
    struct buf text;
    if (cli->output == CLI_JSON)
        return 0;
    buf_init(&text, REQUEST_LIMIT);
    int r = text_append_safe(&text, span_str(reply->incident), false);
    if (r == 0 && again)
        r = buf_printf(&text, "  %u hosts\n", reply->hosts);
    else if (r == 0)
        r = buf_printf(&text, "  %u of %u hosts online\n", reply->online, reply->hosts);
    return print(cli, &text, r, f);
}

/* ---- waiting for its end ---- */

static void leave_word(struct cli *cli, const char *incident)
{
    const char *id = render_short_id(incident);
    cli_note(cli, "the capture goes on: 'trawl watch %s' follows it, 'trawl cancel %s' stops it",
             id, id);
}

/* The bar stays on the screen as it was last. */
static void end_progress(struct cli *cli, const struct follow *follow, int64_t elapsed_us)
{
    struct buf line;
    buf_init(&line, REQUEST_LIMIT);
    if (cli->err_is_terminal && follow_progress(follow, elapsed_us, cli->columns, &line) == 0) {
        cli_progress(cli, buf_str(&line));
        cli_progress_end(cli);
    }
    buf_done(&line);
}

static int show_end(struct cli *cli, const struct follow *follow,
                    const trawl_v1_CaptureReply *reply, int64_t elapsed_us, struct failure *f)
{
    if (cli->output == CLI_JSON)
        return summary_json(cli, follow, reply->online, elapsed_us, f);
    int r = summary_targets(cli, follow, f);
    return r < 0 ? r : summary_line(cli, follow, f);
}

static int wait_for_end(struct cli *cli, const trawl_v1_CaptureReply *reply, struct failure *f)
{
    const struct cmd_capture_options *o = cli->options;
    struct watching_settings settings = {
        .incident = reply->incident, .known = true, .wait_for_offline = o->wait};
    struct follow follow;
    enum watching_end end;
    uint64_t started_us = port_mono_us();
    follow_init(&follow, reply->hosts);
    text_copy(follow.incident.id, sizeof follow.incident.id, reply->incident);
    int r = watching_run(cli, &settings, &follow, &end, f);
    int64_t elapsed_us = (int64_t)(port_mono_us() - started_us);
    end_progress(cli, &follow, elapsed_us);
    if (r == 0)
        r = show_end(cli, &follow, reply, elapsed_us, f);
    if (r < 0 || end == WATCHING_INTERRUPTED)
        leave_word(cli, reply->incident);
    if (r == 0)
        r = follow_exit_code(&follow);
    follow_done(&follow);
    return r;
}

static int capture(struct cli *cli, const trawl_v1_CaptureRequest *request,
                   trawl_v1_CaptureReply *reply, struct failure *f)
{
    const struct cmd_capture_options *o = cli->options;
    bool again = false;
    int r = send_request(cli, request, reply, &again, f);
    if (r == ERR_NOTFOUND && !request->into[0])
        return cli_explain_no_match(cli, request->selector, f);
    if (r < 0)
        return r;
    if (o->dry_run)
        return show_reply(cli, reply, true, f);
    r = show_headline(cli, reply, again, f);
    if (r == 0 && o->no_wait) {
        if (cli->output == CLI_JSON)
            return show_reply(cli, reply, false, f);
        leave_word(cli, reply->incident);
        return 0;
    }
    return r < 0 ? r : wait_for_end(cli, reply, f);
}

int cmd_capture(struct cli *cli, struct failure *f)
{
    trawl_v1_CaptureRequest request = {.dry_run = false};
    trawl_v1_CaptureReply *reply = calloc(1, sizeof *reply);
    if (!reply)
        return fail(f, ERR_NOMEM, "out of memory");
    int r = build_request(cli, &request, f);
    if (r == 0)
        r = capture(cli, &request, reply, f);
    free(reply);
    return r;
}
