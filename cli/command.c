/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a command line against the table. Invariant: `line->options` is one calloc'd struct of the
 * command's size, whose first member is struct cli_common. Called by command_main() and tests.
 */
#include "cli/command.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cli/names.h"
#include "common/port.h"
#include "common/text.h"

#define SHORTS_MAX 16
#define HELP_LIMIT (64 * 1024)
#define ENV_SIZE 1024

const char *const CLI_OUTPUTS[] = {"table", "wide", "json", NULL};
static const char *const OUTPUTS_CSV[] = {"table", "wide", "json", "csv", NULL};

/* Known from PRODUCT's command line, and on their way. */
static const char *const LATER[] = {"retry",  "diff", "rules",  "audit",
                                    "freeze", "thaw", "import", NULL};

struct common_row {
    unsigned takes; /* 0: every command */
    struct conf_row row;
    char letter;
};

#define COMMON(member) CLI_OPTIONS(cli_common, member)

static const struct common_row COMMON_ROWS[] = {
    {TAKES_SELECT,
     {"select", CONF_LIST, COMMON(select), 0, 0, NULL, "SEL",
      "hosts: key=value, key!=value, name or glob, joined by ','", true},
     'l'},
    {TAKES_OUTPUT,
     {"output", CONF_STRING, COMMON(output), 0, 0, "table", "FORM",
      "table, wide or json (an object per line)", true},
     'o'},
    {TAKES_COLLECTOR,
     {"context", CONF_STRING, COMMON(context), 0, 0, NULL, "NAME",
      "context, or the directory of one (with a '/')", true},
     0},
    {TAKES_COLLECTOR,
     {"collector", CONF_STRING, COMMON(collector), 0, 0, NULL, "HOST[:PORT]",
      "another address than the context's", true},
     0},
    {0,
     {"color", CONF_BOOL, COMMON(color), 0, 0, "yes", NULL, "plain text on a terminal", true},
     0},
    {0, {"help", CONF_BOOL, COMMON(help), 0, 0, NULL, NULL, "this text", true}, 'h'},
};

/* ---- the table ---- */

const struct command *command_find(const struct command *commands, const char *name)
{
    for (; commands->name; commands++)
        if (strcmp(commands->name, name) == 0)
            return commands;
    return NULL;
}

size_t command_rows(const struct command *command, struct conf_row *rows)
{
    size_t count = 0;
    assert(command->row_count + CLI_COUNT(COMMON_ROWS) <= CONF_ROWS_MAX);
    for (; count < command->row_count; count++)
        rows[count] = command->rows[count];
    for (size_t i = 0; i < CLI_COUNT(COMMON_ROWS); i++) {
        unsigned takes = COMMON_ROWS[i].takes;
        if (takes && !(command->takes & takes))
            continue;
        rows[count] = COMMON_ROWS[i].row;
        if (takes == TAKES_OUTPUT && command->takes & TAKES_CSV)
            rows[count].help = "table, wide, json (an object per line) or csv";
        count++;
    }
    return count;
}

size_t command_shorts(const struct command *command, struct conf_short *shorts, size_t max)
{
    size_t count = 0;
    for (; count < command->short_count && count < max; count++)
        shorts[count] = command->shorts[count];
    for (size_t i = 0; i < CLI_COUNT(COMMON_ROWS) && count < max; i++) {
        unsigned takes = COMMON_ROWS[i].takes;
        if (COMMON_ROWS[i].letter && (!takes || command->takes & takes))
            shorts[count++] = (struct conf_short){COMMON_ROWS[i].letter, COMMON_ROWS[i].row.name};
    }
    return count;
}

/* ---- reading a line ---- */

/* The common option that a word is, or NULL. */
static const struct common_row *common_of(const char *word)
{
    size_t length = strcspn(word, "=");
    for (size_t i = 0; i < CLI_COUNT(COMMON_ROWS); i++) {
        const struct common_row *c = &COMMON_ROWS[i];
        bool is_bool = c->row.type == CONF_BOOL;
        const char *name = word + 2 + (is_bool && strncmp(word, "--no-", 5) == 0 ? 3 : 0);
        size_t name_length = length > (size_t)(name - word) ? length - (size_t)(name - word) : 0;
        if (word[1] != '-' && word[1] == c->letter)
            return c;
        if (word[1] == '-' && name_length == strlen(c->row.name) &&
            strncmp(name, c->row.name, name_length) == 0)
            return c;
    }
    return NULL;
}

/* What stands before the command can only be common: no command's own options are known yet. */
static int fail_unknown_common(const char *word, struct failure *f)
{
    struct names known = {.list = NULL};
    char name[64];
    for (size_t i = 0; i < CLI_COUNT(COMMON_ROWS); i++) {
        text_format(name, sizeof name, "--%s", COMMON_ROWS[i].row.name);
        (void)names_add(&known, name);
    }
    int r = names_fail(f, ERR_INVALID, "flag before the command", word, names_list(&known));
    names_done(&known);
    return r;
}

/* *at: the index of the first word that is not an option (or is --version), or argc. */
static int find_command_word(int argc, char **argv, int *at, struct failure *f)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        const struct common_row *c = common_of(argv[i]);
        if (strcmp(argv[i], "--version") == 0)
            break;
        if (!c)
            return fail_unknown_common(argv[i], f);
        bool has_value = strchr(argv[i], '=') || (argv[i][1] != '-' && argv[i][2]);
        if (c && c->row.type != CONF_BOOL && !has_value)
            i++;
    }
    *at = i < argc ? i : argc;
    return 0;
}

static int fail_unknown_command(const struct command *commands, const char *name, struct failure *f)
{
    struct names known = {.list = NULL};
    for (size_t i = 0; LATER[i]; i++)
        if (strcmp(LATER[i], name) == 0)
            return fail(f, ERR_INVALID,
                        "command '%s' is not in this version ('trawl help' lists "
                        "what is)",
                        name);
    for (const struct command *c = commands; c->name; c++)
        (void)names_add(&known, c->name);
    int r = names_fail(f, ERR_INVALID, "command", name, names_list(&known));
    names_done(&known);
    return r;
}

static int check_words(const struct command *command, const struct command_line *line,
                       struct failure *f)
{
    if (line->word_count < command->words_min)
        return fail(f, ERR_INVALID, "missing argument: trawl %s %s", command->name,
                    command->arguments);
    if (line->word_count <= command->words_max)
        return 0;
    const char *extra = line->words[command->words_max];
    if (command->words_max == 0)
        return fail(f, ERR_INVALID, "unexpected argument '%.80s': trawl %s takes none", extra,
                    command->name);
    return fail(f, ERR_INVALID, "unexpected argument '%.80s': trawl %s %s", extra, command->name,
                command->arguments);
}

static int read_output(const struct command *command, const char *text, enum cli_output *out,
                       struct failure *f)
{
    const char *const *names = command->takes & TAKES_CSV ? OUTPUTS_CSV : CLI_OUTPUTS;
    if (!(command->takes & TAKES_OUTPUT))
        return 0;
    int r = cli_choose("output", text, names, f);
    for (int i = 0; r == 0 && names[i]; i++)
        if (strcmp(names[i], text) == 0)
            *out = (enum cli_output)i;
    return r;
}

static int read_options(struct command_line *line, int argc, char **argv, struct failure *f)
{
    const struct command *command = line->command;
    struct conf_row rows[CONF_ROWS_MAX];
    struct conf_short shorts[SHORTS_MAX];
    size_t row_count = command_rows(command, rows);
    size_t short_count = command_shorts(command, shorts, SHORTS_MAX);
    size_t size = command->options_size ? command->options_size : sizeof(struct cli_common);
    line->options = calloc(1, size);
    if (!line->options)
        return fail(f, ERR_NOMEM, "out of memory");
    conf_defaults(rows, row_count, line->options);
    int r = conf_args(rows, row_count, shorts, short_count, line->options, &argc, argv, f);
    if (r < 0)
        return r;
    const struct cli_common *common = line->options;
    line->words = argv + 1;
    line->word_count = argc - 1;
    line->help = common->help;
    if (line->help)
        return 0;
    r = read_output(command, common->output, &line->output, f);
    return r < 0 ? r : check_words(command, line, f);
}

int command_parse(const struct command *commands, int argc, char **argv, struct command_line *line,
                  struct failure *f)
{
    *line = (struct command_line){.command = NULL};
    int at = argc;
    int r = find_command_word(argc, argv, &at, f);
    if (r < 0)
        return r;
    const char *name = at < argc ? argv[at] : "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    line->command = command_find(commands, name);
    if (!line->command)
        return fail_unknown_command(commands, name, f);
    for (int i = at; i < argc - 1; i++)
        argv[i] = argv[i + 1];
    return read_options(line, at < argc ? argc - 1 : argc, argv, f);
}

void command_line_done(struct command_line *line)
{
    free(line->options);
    line->options = NULL;
}

/* ---- help ---- */

int command_help(const struct command *command, struct buf *out)
{
    struct conf_row rows[CONF_ROWS_MAX];
    struct conf_short shorts[SHORTS_MAX];
    size_t row_count = command_rows(command, rows);
    size_t short_count = command_shorts(command, shorts, SHORTS_MAX);
    int r = buf_printf(out, "usage: trawl %s%s%s [options]\n\n%s\n\noptions:\n", command->name,
                       command->arguments[0] ? " " : "", command->arguments, command->help);
    if (r == 0)
        r = conf_help(rows, row_count, shorts, short_count, out);
    if (r == 0)
        r = buf_printf(out, "\nexamples:\n%s", command->example);
    return r;
}

int command_overview(const struct command *commands, struct buf *out)
{
    int r = buf_append_str(out, "usage: trawl COMMAND [options]\n\n"
                                "Gets evidence out of production without disturbing it.\n\n");
    for (const struct command *c = commands; r == 0 && c->name; c++)
        r = buf_printf(out, "  %-11s  %s\n", c->name, c->help);
    if (r == 0)
        r = buf_append_str(
            out,
            "\n'trawl COMMAND --help' shows options and examples. Hosts are selected everywhere\n"
            "by -l key=value,... or by names and globs. Durations 10s 5m 1h, sizes 64M 2G,\n"
            "times 14:02 (UTC), -10m, 2026-11-23T14:02:05Z. Exit status: 0 all done, 1 failed,\n"
            "2 usage, 3 partial; a collector that is not reached has its own (21 and up).\n");
    return r;
}

/* ---- running ---- */

static void print_failure(struct cli *cli, const struct failure *f)
{
    cli_progress_clear(cli);
    if (f->text[0])
        cli_note(cli, "%s", f->text);
    if (f->code == ERR_INVALID)
        cli_note(cli, "'trawl %s%s--help' says more", cli->command ? cli->command->name : "",
                 cli->command ? " " : "");
}

static int run_command(struct cli *cli, const struct command_line *line, struct failure *f)
{
    if (!line->help)
        return cli->command->run(cli, f);
    struct buf text;
    buf_init(&text, HELP_LIMIT);
    int r = cli->command == command_find(cli->commands, "help")
                ? command_overview(cli->commands, &text)
                : command_help(cli->command, &text);
    if (r == 0)
        r = cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}

int command_run(struct cli *cli, int argc, char **argv)
{
    struct command_line line;
    struct failure f = {.code = 0};
    int r = command_parse(cli->commands, argc, argv, &line, &f);
    cli->command = line.command;
    if (r == 0) {
        cli->options = line.options;
        cli->common = line.options;
        cli->output = line.output;
        cli->words = line.words;
        cli->word_count = line.word_count;
        cli->color = cli->color && cli->common->color;
        r = run_command(cli, &line, &f);
        if (r >= 0) {
            int flushed = cli_flush(cli, &f);
            r = flushed < 0 ? flushed : r;
        }
    }
    if (r < 0) {
        if (f.code != r)
            fail(&f, r, "%s", err_text(r));
        print_failure(cli, &f);
    }
    client_close(cli->client);
    context_done(&cli->context);
    cli->client = NULL;
    command_line_done(&line);
    return r < 0 ? err_exit_code(r) : r;
}

static unsigned terminal_columns(void)
{
    uv_loop_t loop;
    uv_tty_t tty;
    int width = 80, height = 25;
    if (uv_loop_init(&loop) < 0)
        return (unsigned)width;
    if (uv_tty_init(&loop, &tty, 2, 0) == 0) {
        if (uv_tty_get_winsize(&tty, &width, &height) < 0 || width < 20)
            width = 80;
        uv_close((uv_handle_t *)&tty, NULL);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
    return (unsigned)width;
}

/* NULL when it is not set, or longer than a path can be. */
static const char *environment(const char *name, char out[ENV_SIZE])
{
    size_t size = ENV_SIZE;
    return uv_os_getenv(name, out, &size) == 0 ? out : NULL;
}

int command_main(const struct command *commands, int argc, char **argv)
{
    char context[ENV_SIZE], config[ENV_SIZE], home[ENV_SIZE], no_color[ENV_SIZE];
    size_t home_size = sizeof home;
    struct cli cli = {
        .commands = commands,
        .out = stdout,
        .err = stderr,
        .out_is_terminal = uv_guess_handle(1) == UV_TTY,
        .err_is_terminal = uv_guess_handle(2) == UV_TTY,
        .columns = 80,
        .now_us = port_wall_us(),
        .env = {.trawl_context = environment("TRAWL_CONTEXT", context),
                .xdg_config_home = environment("XDG_CONFIG_HOME", config),
                .home = uv_os_homedir(home, &home_size) == 0 ? home : NULL},
    };
    if (cli.err_is_terminal)
        cli.columns = terminal_columns();
    cli.color = cli.out_is_terminal && !environment("NO_COLOR", no_color);
    return command_run(&cli, argc, argv);
}
