/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl rules: set, list, get, rm; test is in cmd_rules_test.c. Invariant: what the collector
 * refused it changed nothing by, and its sentence names the line. Called through the table.
 */
#include "cli/cmd_rules.h"

#include <stdlib.h>
#include <string.h>

#include "cli/jsonl.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define WIRE_LIMIT (64u << 10)
#define LINE_LIMIT (128u << 10)
#define RULE_TEXT_LIMIT (16u << 10) /* of one rule */
#define LIST_SIZE 320

int rules_read_file(const char *path, struct buf *out, struct failure *f)
{
    int r = port_read_file(strcmp(path, "-") == 0 ? "/dev/stdin" : path, out, f);
    if (r == ERR_LIMIT)
        return fail(f, r, "'%.200s' is longer than %u KiB, which is all that rules may have", path,
                    RULES_TEXT_MAX / 1024);
    return r;
}

/* ---- calls ---- */

static int on_file(void *owner, struct span message, struct failure *f)
{
    return codec_get_rule_file(owner, message, f);
}

static int call_names(struct cli *cli, enum method_id method, trawl_v1_RuleFile *reply,
                      struct failure *f)
{
    trawl_v1_RuleNames *names = calloc(1, sizeof *names);
    struct buf wire;
    int r = names ? 0 : fail(f, ERR_NOMEM, "out of memory");
    for (int i = 1; r == 0 && i < cli->word_count; i++) {
        if (names->names_count == CLI_COUNT(names->names))
            r = fail(f, ERR_INVALID, "more than %zu rules at once", CLI_COUNT(names->names));
        else if (text_copy(names->names[names->names_count++], sizeof names->names[0],
                           cli->words[i]))
            r = fail(f, ERR_NOTFOUND, "no rule '%.80s...'", cli->words[i]);
    }
    buf_init(&wire, WIRE_LIMIT);
    if (r == 0)
        r = codec_put_rule_names(&wire, names);
    if (r == 0)
        r = cli_call(cli, method, &wire, on_file, reply, f);
    buf_done(&wire);
    free(names);
    return r;
}

static int call_set(struct cli *cli, struct span text, trawl_v1_RuleFile *reply, struct failure *f)
{
    const struct cmd_rules_options *options = cli->options;
    trawl_v1_RuleFile *file = calloc(1, sizeof *file);
    struct buf wire;
    if (!file)
        return fail(f, ERR_NOMEM, "out of memory");
    buf_init(&wire, WIRE_LIMIT);
    file->any_counter = options->any_counter;
    file->text.size = (pb_size_t)text.size_bytes;
    if (text.size_bytes)
        memcpy(file->text.bytes, text.data, text.size_bytes);
    int r = codec_put_rule_file(&wire, file);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_RULES_SET, &wire, on_file, reply, f);
    buf_done(&wire);
    free(file);
    return r;
}

/* ---- showing ---- */

/* "triage,stacks of redis-server" and the like; cut at the end of `out`. */
static void put_what(const struct rule *rule, char out[LIST_SIZE])
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < rule->what_count; i++, used = strlen(out))
        text_format(out + used, LIST_SIZE - used, "%s%s", i ? "," : "", rule->what[i]);
    if (rule->of[0])
        text_format(out + used, LIST_SIZE - used, " of %s", rule->of);
}

static void put_limit(const struct rule *rule, char out[RENDER_TEXT_SIZE])
{
    text_format(out, RENDER_TEXT_SIZE, "%u/%s", (unsigned)rule->limit,
                rule->limit_us > INT64_C(3600000000) ? "d" : "h");
}

/* The line of the canonical text that begins with "when". */
static void put_when(const struct rule_set *set, const struct rule *rule, char out[LIST_SIZE])
{
    struct buf text;
    buf_init(&text, RULE_TEXT_LIMIT);
    out[0] = '\0';
    if (rule_print(set, rule, &text) == 0) {
        const char *when = strstr(buf_str(&text), "\n    when ");
        const char *end = when ? strchr(when + 1, '\n') : NULL;
        if (end)
            (void)text_copy_span(out, LIST_SIZE,
                                 span_of(when + strlen("\n    when "),
                                         (size_t)(end - when) - strlen("\n    when ")));
    }
    buf_done(&text);
}

static int show_json(struct cli *cli, const struct rule_set *set, struct failure *f)
{
    struct buf line, text;
    int r = 0;
    buf_init(&line, LINE_LIMIT);
    buf_init(&text, RULE_TEXT_LIMIT);
    for (size_t i = 0; r == 0 && i < set->count; i++) {
        const struct rule *rule = &set->rules[i];
        struct jsonl j = {.out = &line};
        char what[LIST_SIZE], limit[RENDER_TEXT_SIZE];
        put_what(rule, what);
        put_limit(rule, limit);
        buf_clear(&text);
        r = rule_print(set, rule, &text);
        jsonl_object(&j, NULL);
        jsonl_str(&j, "rule", rule->name);
        jsonl_str(&j, "on", rule->selector);
        jsonl_str(&j, "capture", what);
        jsonl_str(&j, "limit", limit);
        jsonl_str(&j, "text", buf_str(&text));
        if (r == 0)
            r = jsonl_line(&j);
        r = r < 0 ? fail(f, r, "cannot show rule '%s': %s", rule->name, err_text(r))
                  : cli_write(cli, &line, f);
    }
    buf_done(&line);
    buf_done(&text);
    return r;
}

static int show_table(struct cli *cli, const struct rule_set *set, struct failure *f)
{
    static const struct render_column columns[] = {
        {"RULE", false}, {"ON", false}, {"WHEN", false}, {"CAPTURE", false}, {"LIMIT", true}};
    struct render_table table;
    render_table_init(&table, columns, CLI_COUNT(columns));
    for (size_t i = 0; i < set->count; i++) {
        const struct rule *rule = &set->rules[i];
        char what[LIST_SIZE], when[LIST_SIZE], limit[RENDER_TEXT_SIZE];
        put_what(rule, what);
        put_when(set, rule, when);
        put_limit(rule, limit);
        render_cell(&table, RENDER_PLAIN, rule->name);
        render_cell(&table, RENDER_PLAIN, rule->selector);
        render_cell(&table, RENDER_PLAIN, when);
        render_cell(&table, RENDER_PLAIN, what);
        render_cell(&table, RENDER_PLAIN, limit);
    }
    int r = cli_write_table(cli, &table, f);
    render_table_done(&table);
    return r;
}

static int show_rules(struct cli *cli, const trawl_v1_RuleFile *file, struct failure *f)
{
    struct rule_set *set = NULL;
    int r = rule_parse(span_of(file->text.bytes, file->text.size), NULL, &set, f);
    if (r < 0)
        return r;
    r = cli->output == CLI_JSON ? show_json(cli, set, f) : show_table(cli, set, f);
    if (r == 0 && cli->output != CLI_JSON && set->count == 0)
        cli_note(cli, "there are no rules: 'trawl rules set FILE' gives them");
    rule_set_close(set);
    return r;
}

static int say_changed(struct cli *cli, const trawl_v1_RuleFile *file, struct failure *f)
{
    struct buf line;
    buf_init(&line, LINE_LIMIT);
    int r;
    if (cli->output == CLI_JSON) {
        struct jsonl j = {.out = &line};
        jsonl_object(&j, NULL);
        jsonl_u64(&j, "version", file->version);
        jsonl_u64(&j, "rules", file->count);
        r = jsonl_line(&j);
    } else {
        r = buf_printf(&line, "%u rule%s, version %llu\n", (unsigned)file->count,
                       file->count == 1 ? "" : "s", (unsigned long long)file->version);
    }
    r = r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(cli, &line, f);
    buf_done(&line);
    return r;
}

/* ---- the words ---- */

static int get(struct cli *cli, trawl_v1_RuleFile *file, struct failure *f)
{
    struct buf safe;
    int r = call_names(cli, METHOD_OPS_RULES_GET, file, f);
    if (r < 0)
        return r;
    buf_init(&safe, 8 * RULES_TEXT_MAX);
    r = text_append_safe(&safe, span_of(file->text.bytes, file->text.size), true);
    r = r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(cli, &safe, f);
    buf_done(&safe);
    return r;
}

static int list(struct cli *cli, trawl_v1_RuleFile *file, struct failure *f)
{
    int r = call_names(cli, METHOD_OPS_RULES_GET, file, f);
    return r < 0 ? r : show_rules(cli, file, f);
}

static int set(struct cli *cli, trawl_v1_RuleFile *file, struct failure *f)
{
    struct buf text;
    buf_init(&text, RULES_TEXT_MAX);
    int r = rules_read_file(cli->words[1], &text, f);
    if (r == 0)
        r = call_set(cli, buf_span(&text), file, f);
    buf_done(&text);
    return r < 0 ? r : say_changed(cli, file, f);
}

static int rm(struct cli *cli, trawl_v1_RuleFile *file, struct failure *f)
{
    int r = call_names(cli, METHOD_OPS_RULES_REMOVE, file, f);
    return r < 0 ? r : say_changed(cli, file, f);
}

static int check_words(const struct cli *cli, struct failure *f)
{
    const char *word = cli->words[0];
    bool takes_file = strcmp(word, "set") == 0 || strcmp(word, "test") == 0;
    if (takes_file && cli->word_count != 2)
        return fail(f, ERR_INVALID, "'trawl rules %s' takes one file ('-': standard input)", word);
    if (strcmp(word, "rm") == 0 && cli->word_count < 2)
        return fail(f, ERR_INVALID, "'trawl rules rm' takes names of rules");
    if ((strcmp(word, "list") == 0 || strcmp(word, "get") == 0) && cli->word_count != 1)
        return fail(f, ERR_INVALID, "'trawl rules %s' takes nothing more", word);
    return 0;
}

int cmd_rules(struct cli *cli, struct failure *f)
{
    const char *word = cli->words[0];
    int r = cli_choose("word", word, cli->command->words, f);
    if (r == 0)
        r = check_words(cli, f);
    if (r < 0)
        return r;
    if (strcmp(word, "test") == 0)
        return rules_test(cli, f);
    trawl_v1_RuleFile *file = calloc(1, sizeof *file);
    if (!file)
        return fail(f, ERR_NOMEM, "out of memory");
    r = strcmp(word, "set") == 0    ? set(cli, file, f)
        : strcmp(word, "list") == 0 ? list(cli, file, f)
        : strcmp(word, "get") == 0  ? get(cli, file, f)
                                    : rm(cli, file, f);
    free(file);
    return r;
}
