/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands about hosts: hosts, caps, label, enroll, revoke. Invariant: a list that matches nothing
 * is an error that says why, never an empty success. Called through the command table.
 */
#include "cli/cmd.h"

#include <string.h>

#include "cli/jsonl.h"
#include "cli/render_host.h"
#include "common/text.h"
#include "proto/codec.h"

#define REPLY_LIMIT (64 * 1024)

/* ---- lists ---- */

struct listing {
    struct cli *cli;
    struct render_table table;
    struct buf line;
};

static void listing_init(struct listing *l, struct cli *cli, const struct render_column *columns,
                         size_t count)
{
    l->cli = cli;
    render_table_init(&l->table, columns, count);
    buf_init(&l->line, REPLY_LIMIT);
}

static void listing_done(struct listing *l)
{
    render_table_done(&l->table);
    buf_done(&l->line);
}

static int write_line(struct listing *l, int rendered, struct failure *f)
{
    if (rendered < 0)
        return fail(f, rendered, "cannot show a line: %s", err_text(rendered));
    return cli_write(l->cli, &l->line, f);
}

static int on_host(void *owner, struct span message, struct failure *f)
{
    struct listing *l = owner;
    trawl_v1_Host host;
    int r = codec_get_host(&host, message, f);
    if (r < 0)
        return r;
    if (l->cli->output == CLI_JSON)
        return write_line(l, render_host_json(&l->line, &host), f);
    render_host_row(&l->table, &host, l->cli->output == CLI_WIDE, l->cli->now_us);
    return 0;
}

static int on_capability(void *owner, struct span message, struct failure *f)
{
    struct listing *l = owner;
    trawl_v1_Capability capability;
    int r = codec_get_capability(&capability, message, f);
    if (r < 0)
        return r;
    if (l->cli->output == CLI_JSON)
        return write_line(l, render_capability_json(&l->line, &capability), f);
    render_capability_row(&l->table, &capability);
    return 0;
}

static int run_list(struct listing *l, enum method_id method, client_reply_fn reply,
                    struct failure *f)
{
    trawl_v1_HostsRequest request = {.selector = ""};
    struct buf wire;
    int r = cli_selector(l->cli, 0, false, request.selector, sizeof request.selector, f);
    if (r < 0)
        return r;
    buf_init(&wire, REPLY_LIMIT);
    r = codec_put_hosts_request(&wire, &request);
    if (r == 0)
        r = cli_call(l->cli, method, &wire, reply, l, f);
    buf_done(&wire);
    if (r == 0)
        r = cli_write_table(l->cli, &l->table, f);
    return r == ERR_NOTFOUND ? cli_explain_no_match(l->cli, request.selector, f) : r;
}

int cmd_hosts(struct cli *cli, struct failure *f)
{
    struct listing l;
    size_t count;
    const struct render_column *columns = render_host_columns(cli->output == CLI_WIDE, &count);
    listing_init(&l, cli, columns, count);
    int r = run_list(&l, METHOD_OPS_HOSTS, on_host, f);
    if (r == 0 && cli->output != CLI_JSON && render_row_count(&l.table) == 0)
        cli_note(cli, "no host is enrolled yet: 'trawl enroll' gives a token for the first");
    listing_done(&l);
    return r;
}

int cmd_caps(struct cli *cli, struct failure *f)
{
    struct listing l;
    size_t count;
    const struct render_column *columns = render_capability_columns(&count);
    listing_init(&l, cli, columns, count);
    int r = run_list(&l, METHOD_OPS_CAPS, on_capability, f);
    if (r == 0 && cli->output != CLI_JSON && render_row_count(&l.table) == 0)
        cli_note(cli, "none of these hosts has said yet what it can give");
    listing_done(&l);
    return r;
}

/* ---- label ---- */

static int bad_label(const char *word, struct failure *f)
{
    return fail(f, ERR_INVALID,
                "invalid label '%.100s': expected KEY=VALUE, or KEY- to remove one; letters, "
                "digits, '.', '_' and '-'",
                word);
}

/* "key=value" into a label. */
static int read_label(const char *word, trawl_v1_Label *label, struct failure *f)
{
    const char *equal = strchr(word, '=');
    if (!equal ||
        text_copy_span(label->key, sizeof label->key, span_of(word, (size_t)(equal - word))) < 0 ||
        text_copy(label->value, sizeof label->value, equal + 1) < 0 || !text_is_name(label->key) ||
        !text_is_name(label->value))
        return bad_label(word, f);
    return 0;
}

static int read_change(const char *word, trawl_v1_LabelRequest *request, struct failure *f)
{
    size_t length = strlen(word);
    if (request->set_count == CLI_COUNT(request->set) ||
        request->remove_count == CLI_COUNT(request->remove))
        return fail(f, ERR_INVALID, "more than %zu labels at once", CLI_COUNT(request->set));
    if (strchr(word, '='))
        return read_label(word, &request->set[request->set_count++], f);
    char *key = request->remove[request->remove_count++];
    if (length < 2 || word[length - 1] != '-' ||
        text_copy_span(key, sizeof request->remove[0], span_of(word, length - 1)) < 0 ||
        !text_is_name(key))
        return bad_label(word, f);
    return 0;
}

struct answer {
    struct cli *cli;
    trawl_v1_Host host;
};

static int on_answer(void *owner, struct span message, struct failure *f)
{
    struct answer *a = owner;
    return codec_get_host(&a->host, message, f);
}

static int show_answer(struct answer *a, const char *what, struct failure *f)
{
    struct buf text, labels;
    buf_init(&text, REPLY_LIMIT);
    buf_init(&labels, REPLY_LIMIT);
    int r;
    if (a->cli->output == CLI_JSON) {
        r = render_host_json(&text, &a->host);
    } else {
        r = render_styled(&text, RENDER_PLAIN, false, a->host.name, 0);
        if (r == 0)
            r = buf_append_str(&text, what[0] ? "  " : "");
        if (r == 0)
            r = buf_append_str(&text, what);
        if (r == 0)
            r = render_labels(&labels, &a->host);
        if (r == 0 && labels.size_bytes)
            r = buf_append_str(&text, "  ");
        if (r == 0)
            r = render_styled(&text, RENDER_PLAIN, false, buf_str(&labels), 0);
        if (r == 0)
            r = buf_append_byte(&text, '\n');
    }
    r = r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(a->cli, &text, f);
    buf_done(&text);
    buf_done(&labels);
    return r;
}

/* "no host 'x'" of the collector, with what is near. */
static int explain_host(struct cli *cli, const char *host, int r, struct failure *f)
{
    return r == ERR_NOTFOUND ? cli_explain_no_match(cli, host, f) : r;
}

int cmd_label(struct cli *cli, struct failure *f)
{
    trawl_v1_LabelRequest request = {.host = ""};
    struct answer answer = {.cli = cli};
    struct buf wire;
    if (text_copy(request.host, sizeof request.host, cli->words[0]) < 0)
        return fail(f, ERR_INVALID, "invalid host '%.80s': expected a host's name", cli->words[0]);
    int r = 0;
    for (int i = 1; r == 0 && i < cli->word_count; i++)
        r = read_change(cli->words[i], &request, f);
    if (r < 0)
        return r;
    buf_init(&wire, REPLY_LIMIT);
    r = codec_put_label_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_LABEL, &wire, on_answer, &answer, f);
    buf_done(&wire);
    if (r == 0)
        return show_answer(&answer, "", f);
    return explain_host(cli, request.host, r, f);
}

/* ---- enroll and revoke ---- */

static int read_labels(const char *list, trawl_v1_EnrollRequest *request, struct failure *f)
{
    struct span rest = span_str(list), word;
    char text[PKI_NAME_SIZE * 2 + 8];
    while (text_take_until(&rest, ',', &word) == 0) {
        if (request->labels_count == CLI_COUNT(request->labels))
            return fail(f, ERR_INVALID, "more than %zu labels", CLI_COUNT(request->labels));
        (void)text_copy_span(text, sizeof text, word);
        int r = read_label(text, &request->labels[request->labels_count++], f);
        if (r < 0)
            return r;
    }
    return 0;
}

static int on_token(void *owner, struct span message, struct failure *f)
{
    return codec_get_enroll_reply(owner, message, f);
}

static int show_token(struct cli *cli, const trawl_v1_EnrollReply *reply, struct failure *f)
{
    char until[RENDER_TEXT_SIZE], address[CONTEXT_ADDRESS_SIZE];
    struct buf text;
    struct jsonl j = {.out = &text};
    context_put_address(&cli->context, address);
    buf_init(&text, REPLY_LIMIT);
    render_clock(reply->expires_us, cli->now_us, until);
    if (cli->output == CLI_JSON) {
        jsonl_object(&j, NULL);
        jsonl_str(&j, "token", reply->token);
        jsonl_time(&j, "expires", reply->expires_us);
        jsonl_str(&j, "collector", address);
        (void)jsonl_line(&j);
    } else {
        j.error = render_styled(&text, RENDER_PLAIN, false, reply->token, 0);
        if (j.error == 0)
            j.error = buf_append_byte(&text, '\n');
    }
    int r = j.error < 0 ? fail(f, j.error, "%s", err_text(j.error)) : cli_write(cli, &text, f);
    buf_done(&text);
    if (r == 0 && cli->output != CLI_JSON) {
        cli_note(cli, "good once, until %s; on the host:", until);
        cli_note(cli, "  trawl-agent run --collector %s --join TOKEN", address);
    }
    return r;
}

int cmd_enroll(struct cli *cli, struct failure *f)
{
    const struct cmd_enroll_options *options = cli->options;
    trawl_v1_EnrollRequest request = {.labels_count = 0};
    trawl_v1_EnrollReply reply = {.token = ""};
    struct buf wire;
    if (options->host[0] && !text_is_name(options->host))
        return fail(f, ERR_INVALID, "invalid host name '%.80s' at --host", options->host);
    text_copy(request.host, sizeof request.host, options->host);
    int r = read_labels(options->label, &request, f);
    if (r < 0)
        return r;
    buf_init(&wire, REPLY_LIMIT);
    r = codec_put_enroll_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_ENROLL, &wire, on_token, &reply, f);
    buf_done(&wire);
    return r == 0 ? show_token(cli, &reply, f) : r;
}

int cmd_revoke(struct cli *cli, struct failure *f)
{
    trawl_v1_RevokeRequest request = {.host = ""};
    struct answer answer = {.cli = cli};
    struct buf wire;
    if (text_copy(request.host, sizeof request.host, cli->words[0]) < 0)
        return fail(f, ERR_INVALID, "invalid host '%.80s': expected a host's name", cli->words[0]);
    buf_init(&wire, REPLY_LIMIT);
    int r = codec_put_revoke_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_REVOKE, &wire, on_answer, &answer, f);
    buf_done(&wire);
    if (r == 0)
        return show_answer(&answer, "revoked", f);
    return explain_host(cli, request.host, r, f);
}
