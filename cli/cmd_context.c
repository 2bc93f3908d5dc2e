/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl context: list, show, add, use. Invariant: nothing here asks a collector. Called through the
 * table.
 */
#include "cli/cmd.h"

#include <string.h>

#include "cli/jsonl.h"
#include "common/text.h"

#define LINE_LIMIT (64 * 1024)

struct listing {
    struct cli *cli;
    const char *home, *current;
    struct render_table table;
    struct buf line;
};

static const struct render_column COLUMNS[] = {
    {"", false}, {"NAME", false}, {"COLLECTOR", false}, {"WHO", false}, {"CERTIFICATE", false}};

static int put_json(struct buf *out, const char *name, bool is_current, const struct context *c,
                    const struct failure *why)
{
    char address[CONTEXT_ADDRESS_SIZE];
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "name", name);
    jsonl_bool(&j, "current", is_current);
    if (why->code) {
        jsonl_str(&j, "error", why->text);
        return jsonl_line(&j);
    }
    context_put_address(c, address);
    jsonl_str(&j, "collector", address);
    jsonl_str(&j, "directory", c->directory);
    jsonl_str(&j, "fleet", c->identity.fleet);
    jsonl_str(&j, "role", c->identity.role);
    jsonl_str(&j, "who", c->identity.name);
    jsonl_time(&j, "certificate_not_after", c->identity.not_after_s * 1000000);
    return jsonl_line(&j);
}

static void put_row(struct listing *l, const char *name, const struct context *c,
                    const struct failure *why)
{
    char address[CONTEXT_ADDRESS_SIZE], when[32];
    render_cell(&l->table, RENDER_GOOD, strcmp(name, l->current) == 0 ? "*" : " ");
    render_cell(&l->table, RENDER_PLAIN, name);
    if (why->code) {
        render_cell(&l->table, RENDER_PLAIN, RENDER_GAP);
        render_cell(&l->table, RENDER_PLAIN, RENDER_GAP);
        render_cell(&l->table, RENDER_BAD, why->text);
        return;
    }
    context_put_address(c, address);
    int64_t not_after_us = c->identity.not_after_s * 1000000;
    bool is_expired = not_after_us < l->cli->now_us;
    text_put_time(not_after_us, when, sizeof when);
    render_cell(&l->table, RENDER_PLAIN, address);
    render_cellf(&l->table, RENDER_PLAIN, "%s/%s of %s", c->identity.role, c->identity.name,
                 c->identity.fleet);
    render_cellf(&l->table, is_expired ? RENDER_BAD : RENDER_PLAIN, "%s %.10s",
                 is_expired ? "expired" : "until", when);
}

static int list_one(void *owner, const char *name)
{
    struct listing *l = owner;
    char directory[CONTEXT_PATH_SIZE];
    struct context context = {.port = 0};
    struct failure why = {.code = 0}, f;
    int r = 0;
    if (text_format(directory, sizeof directory, "%s/%s", l->home, name) < 0)
        return ERR_LIMIT;
    (void)context_load(&context, directory, 0, &why);
    if (l->cli->output == CLI_JSON) {
        r = put_json(&l->line, name, strcmp(name, l->current) == 0, &context, &why);
        if (r == 0)
            r = cli_write(l->cli, &l->line, &f);
    } else {
        put_row(l, name, &context, &why);
    }
    context_done(&context);
    return r;
}

static int list(struct cli *cli, const char *home, struct failure *f)
{
    char current[PKI_NAME_SIZE];
    struct listing l = {.cli = cli, .home = home, .current = current};
    int r = context_current(home, current, sizeof current, f);
    if (r < 0)
        return r;
    render_table_init(&l.table, COLUMNS, CLI_COUNT(COLUMNS));
    buf_init(&l.line, LINE_LIMIT);
    r = context_each(home, list_one, &l, f);
    if (r == 0)
        r = cli_write_table(cli, &l.table, f);
    if (r == 0 && cli->output != CLI_JSON && render_row_count(&l.table) == 0)
        cli_note(cli, "no context yet: 'trawl context add NAME DIR' takes one in ('trawl-collector "
                      "init' makes DIR/admin)");
    render_table_done(&l.table);
    buf_done(&l.line);
    return r;
}

/* The one in use, or the one named. */
static int show(struct cli *cli, const char *chosen, struct failure *f)
{
    char directory[CONTEXT_PATH_SIZE];
    struct context context = {.port = 0};
    struct failure none = {.code = 0};
    struct buf text;
    int r = context_find(&cli->env, chosen, directory, sizeof directory, f);
    if (r == 0)
        r = context_load(&context, directory, 0, f);
    if (r < 0)
        return r;
    buf_init(&text, LINE_LIMIT);
    const char *slash = strrchr(directory, '/');
    const char *name = slash && slash[1] ? slash + 1 : directory;
    if (cli->output == CLI_JSON) {
        r = put_json(&text, name, !chosen, &context, &none);
    } else {
        char address[CONTEXT_ADDRESS_SIZE], when[32];
        struct buf raw;
        buf_init(&raw, LINE_LIMIT);
        context_put_address(&context, address);
        text_put_time(context.identity.not_after_s * 1000000, when, sizeof when);
        r = buf_printf(&raw,
                       "directory    %s\ncollector    %s\nwho          %s/%s of %s\n"
                       "certificate  until %.10s\n",
                       directory, address, context.identity.role, context.identity.name,
                       context.identity.fleet, when);
        if (r == 0)
            r = text_append_safe(&text, buf_span(&raw), true);
        buf_done(&raw);
    }
    context_done(&context);
    r = r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}

static int check_count(const struct cli *cli, int count, const char *usage, struct failure *f)
{
    if (cli->word_count == count)
        return 0;
    return fail(f, ERR_INVALID, "%s argument: trawl context %s",
                cli->word_count < count ? "missing" : "unexpected", usage);
}

int cmd_context(struct cli *cli, struct failure *f)
{
    char home[CONTEXT_PATH_SIZE];
    const char *verb = cli->word_count ? cli->words[0] : "list";
    int r = cli_choose("verb", verb, cli->command->words, f);
    if (r == 0)
        r = context_home(&cli->env, home, sizeof home, f);
    if (r < 0)
        return r;
    if (strcmp(verb, "add") == 0) {
        r = check_count(cli, 3, "add NAME DIR", f);
        return r < 0 ? r : context_add(home, cli->words[1], cli->words[2], f);
    }
    if (strcmp(verb, "use") == 0) {
        r = check_count(cli, 2, "use NAME", f);
        return r < 0 ? r : context_use(home, cli->words[1], f);
    }
    if (strcmp(verb, "show") == 0)
        return cli->word_count <= 2 ? show(cli, cli->word_count == 2 ? cli->words[1] : NULL, f)
                                    : check_count(cli, 2, "show [NAME]", f);
    return cli->word_count <= 1 ? list(cli, home, f) : check_count(cli, 1, "list", f);
}
