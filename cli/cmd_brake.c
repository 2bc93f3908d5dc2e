/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands on the fleet brake: freeze, thaw. Invariant: they say how many hosts obey, and end with
 * "partial" when one that is online does not. Called through the command table.
 */
#include "cli/cmd.h"

#include "cli/jsonl.h"
#include "common/text.h"
#include "proto/codec.h"

#define LINE_LIMIT 4096

static int on_brake(void *owner, struct span message, struct failure *f)
{
    return codec_get_brake(owner, message, f);
}

static int put_json(struct buf *out, const trawl_v1_Brake *b)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_bool(&j, "frozen", b->on);
    if (b->no) {
        jsonl_str(&j, "by", b->by);
        jsonl_str(&j, "note", b->note);
        jsonl_time(&j, "since", b->since_us);
    }
    jsonl_u64(&j, "hosts", b->hosts);
    jsonl_u64(&j, "online", b->online);
    jsonl_u64(&j, "obeying", b->no ? b->obeying : b->online);
    return jsonl_line(&j);
}

static int put_text(struct buf *out, const struct cli *cli, const trawl_v1_Brake *b)
{
    char since[RENDER_TEXT_SIZE];
    if (!b->no)
        return buf_printf(out, "not frozen, and never was\n");
    render_clock(b->since_us, cli->now_us, since);
    int r = buf_printf(out, "%s since %s by %s", b->on ? "frozen" : "not frozen", since, b->by);
    if (r == 0 && b->note[0])
        r = buf_printf(out, ": %s", b->note);
    if (r == 0)
        r = buf_printf(out, "\n%u of %u hosts online, %u of them obey%s\n", (unsigned)b->online,
                       (unsigned)b->hosts, (unsigned)b->obeying, b->obeying == 1 ? "s" : "");
    return r;
}

static int show(struct cli *cli, const trawl_v1_Brake *b, struct failure *f)
{
    struct buf text, safe;
    buf_init(&text, LINE_LIMIT);
    buf_init(&safe, LINE_LIMIT);
    int r = cli->output == CLI_JSON ? put_json(&safe, b) : put_text(&text, cli, b);
    if (r == 0 && cli->output != CLI_JSON)
        r = text_append_safe(&safe, buf_span(&text), true);
    r = r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(cli, &safe, f);
    buf_done(&text);
    buf_done(&safe);
    return r;
}

static int call_brake(struct cli *cli, enum method_id method, const trawl_v1_BrakeRequest *request,
                      struct failure *f)
{
    trawl_v1_Brake brake = {.on = false};
    struct buf wire;
    buf_init(&wire, LINE_LIMIT);
    int r = codec_put_brake_request(&wire, request);
    if (r == 0)
        r = cli_call(cli, method, &wire, on_brake, &brake, f);
    buf_done(&wire);
    if (r == 0)
        r = show(cli, &brake, f);
    if (r < 0)
        return r;
    if (cli->output != CLI_JSON && brake.no && brake.obeying < brake.online)
        cli_note(cli, "%u of the hosts that are online %s not said yet that they obey",
                 (unsigned)(brake.online - brake.obeying),
                 brake.online - brake.obeying == 1 ? "has" : "have");
    if (cli->output != CLI_JSON && brake.no && brake.online < brake.hosts)
        cli_note(cli, "the other %u are told when they come back",
                 (unsigned)(brake.hosts - brake.online));
    return brake.no && brake.obeying < brake.online ? CLI_PARTIAL : CLI_DONE;
}

static int set_brake(struct cli *cli, bool on, const char *note, struct failure *f)
{
    trawl_v1_BrakeRequest request = {.on = on};
    if (text_copy(request.note, sizeof request.note, note) < 0)
        return fail(f, ERR_INVALID, "the note is longer than %zu bytes", sizeof request.note - 1);
    return call_brake(cli, METHOD_OPS_SET_BRAKE, &request, f);
}

int cmd_freeze(struct cli *cli, struct failure *f)
{
    const struct cmd_brake_options *options = cli->options;
    static const trawl_v1_BrakeRequest nothing;
    if (options->status && options->note[0])
        return fail(f, ERR_INVALID, "--status changes nothing: it takes no --note");
    return options->status ? call_brake(cli, METHOD_OPS_SHOW_BRAKE, &nothing, f)
                           : set_brake(cli, true, options->note, f);
}

int cmd_thaw(struct cli *cli, struct failure *f)
{
    const struct cmd_brake_options *options = cli->options;
    return set_brake(cli, false, options->note, f);
}
