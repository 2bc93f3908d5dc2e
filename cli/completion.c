/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes completion scripts. Invariant: only names and one-line helps from our own table go in,
 * with what a shell would read as special taken out. Pure; called by cmd_completion.c.
 */
#include "cli/completion.h"

#include <string.h>

#include "cli/command.h"
#include "common/text.h"
#include "proto/kinds.h"

#define SHORTS_MAX 16

/* What the value of an option may be, as words; NULL when anything. */
static const char *values_of(const struct command *command, const char *option)
{
    if (strcmp(option, "output") == 0)
        return command->takes & TAKES_CSV      ? "table wide json csv"
               : command->takes & TAKES_OUTPUT ? "table wide json"
                                               : NULL;
    if (strcmp(option, "by") == 0)
        return strcmp(command->name, "top") == 0 ? "cpu rss read write threads" : "series host";
    if (strcmp(option, "what") == 0 || strcmp(option, "kind") == 0)
        return KINDS_WORDS;
    return NULL;
}

static char letter_of(const struct command *command, const char *option)
{
    struct conf_short shorts[SHORTS_MAX];
    size_t count = command_shorts(command, shorts, SHORTS_MAX);
    for (size_t i = 0; i < count; i++)
        if (strcmp(shorts[i].name, option) == 0)
            return shorts[i].letter;
    return '\0';
}

static bool is_on_by_default(const struct conf_row *row)
{
    return row->type == CONF_BOOL && row->initial && strcmp(row->initial, "yes") == 0;
}

static int append_words(const char *const *words, struct buf *out)
{
    int r = 0;
    for (size_t i = 0; r == 0 && words && words[i]; i++)
        r = buf_printf(out, "%s%s", i ? " " : "", words[i]);
    return r;
}

/* A text between single quotes, without what ends them or means something to zsh or fish. */
static int append_plain(const char *text, struct buf *out)
{
    int r = 0;
    for (; r == 0 && *text; text++)
        if (!strchr("'[]\\:`$\"", *text))
            r = buf_append_byte(out, (uint8_t)*text);
    return r;
}

/* ---- bash ---- */

static int bash_options(const struct command *command, struct buf *out)
{
    struct conf_row rows[CONF_ROWS_MAX];
    size_t count = command_rows(command, rows);
    int r = buf_printf(out, "    %s) opts='", command->name);
    for (size_t i = 0; r == 0 && i < count; i++) {
        char letter = letter_of(command, rows[i].name);
        r = buf_printf(out, "%s--%s%s", i ? " " : "", is_on_by_default(&rows[i]) ? "no-" : "",
                       rows[i].name);
        if (r == 0 && letter)
            r = buf_printf(out, " -%c", letter);
    }
    if (r == 0)
        r = buf_append_str(out, "' words='");
    if (r == 0)
        r = append_words(command->words, out);
    return r < 0 ? r : buf_append_str(out, "' ;;\n");
}

/* "command:--option|command:-o) values" */
static int bash_values(const struct command *command, struct buf *out)
{
    struct conf_row rows[CONF_ROWS_MAX];
    size_t count = command_rows(command, rows);
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++) {
        const char *values = values_of(command, rows[i].name);
        char letter = letter_of(command, rows[i].name);
        if (rows[i].type == CONF_BOOL)
            continue;
        r = buf_printf(out, "    %s:--%s", command->name, rows[i].name);
        if (r == 0 && letter)
            r = buf_printf(out, "|%s:-%c", command->name, letter);
        if (r == 0 && values)
            r = buf_printf(out, ") COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n",
                           values);
        else if (r == 0)
            r = buf_append_str(out, ") COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
    }
    return r;
}

static int bash_names(const struct command *commands, struct buf *out)
{
    int r = 0;
    for (const struct command *c = commands; r == 0 && c->name; c++)
        r = buf_printf(out, "%s%s", c == commands ? "" : " ", c->name);
    return r;
}

int completion_bash(const struct command *commands, struct buf *out)
{
    int r = buf_append_str(out, "# bash completion for trawl; made by 'trawl completion bash'\n"
                                "_trawl() {\n"
                                "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev='' cmd='' i "
                                "opts words\n"
                                "    ((COMP_CWORD > 0)) && prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
                                "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                                "        case ${COMP_WORDS[i]} in\n"
                                "        -*) ;;\n"
                                "        *) cmd=${COMP_WORDS[i]}; break ;;\n"
                                "        esac\n"
                                "    done\n"
                                "    case $cmd:$prev in\n");
    for (const struct command *c = commands; r == 0 && c->name; c++)
        r = bash_values(c, out);
    if (r == 0)
        r = buf_append_str(out, "    esac\n    case $cmd in\n");
    for (const struct command *c = commands; r == 0 && c->name; c++)
        r = bash_options(c, out);
    if (r == 0)
        r = buf_append_str(out, "    *) opts='--help --version' words='");
    if (r == 0)
        r = bash_names(commands, out);
    if (r == 0)
        r = buf_append_str(out, "' ;;\n"
                                "    esac\n"
                                "    case $cur in\n"
                                "    -*) COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\")) ;;\n"
                                "    *) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
                                "    esac\n"
                                "}\n"
                                "complete -F _trawl trawl\n");
    return r;
}

/* ---- zsh ---- */

static int zsh_option(const struct command *command, const struct conf_row *row, struct buf *out)
{
    const char *values = values_of(command, row->name);
    char letter = letter_of(command, row->name);
    const char *no = is_on_by_default(row) ? "no-" : "";
    int r = buf_append_str(out, " \\\n            ");
    if (r == 0 && letter)
        r = buf_printf(out, "'(-%c --%s)'{-%c,--%s}'[", letter, row->name, letter, row->name);
    else if (r == 0)
        r = buf_printf(out, "'--%s%s[", no, row->name);
    if (r == 0)
        r = append_plain(row->help, out);
    if (r == 0)
        r = buf_append_str(out, "]");
    if (r == 0 && row->type != CONF_BOOL)
        r = buf_append_str(out, ":value:");
    if (r == 0 && values)
        r = buf_printf(out, "(%s)", values);
    else if (r == 0 && row->type != CONF_BOOL && row->placeholder &&
             strcmp(row->placeholder, "DIR") == 0)
        r = buf_append_str(out, "_files -/");
    return r < 0 ? r : buf_append_byte(out, '\'');
}

static int zsh_command(const struct command *command, struct buf *out)
{
    struct conf_row rows[CONF_ROWS_MAX];
    size_t count = command_rows(command, rows);
    int r = buf_printf(out, "        %s)\n            _arguments", command->name);
    for (size_t i = 0; r == 0 && i < count; i++)
        r = zsh_option(command, &rows[i], out);
    if (r == 0 && command->words) {
        r = buf_append_str(out, " \\\n            '1:word:(");
        if (r == 0)
            r = append_words(command->words, out);
        if (r == 0)
            r = buf_append_str(out, ")'");
    }
    return r < 0 ? r : buf_append_str(out, "\n            ;;\n");
}

int completion_zsh(const struct command *commands, struct buf *out)
{
    int r = buf_append_str(out, "#compdef trawl\n"
                                "# zsh completion for trawl; made by 'trawl completion zsh'\n"
                                "_trawl() {\n"
                                "    local context state line\n"
                                "    _arguments -C '1:command:->command' '*::argument:->argument'\n"
                                "    case $state in\n"
                                "    command)\n"
                                "        local -a commands=(\n");
    for (const struct command *c = commands; r == 0 && c->name; c++) {
        r = buf_printf(out, "            '%s:", c->name);
        if (r == 0)
            r = append_plain(c->help, out);
        if (r == 0)
            r = buf_append_str(out, "'\n");
    }
    if (r == 0)
        r = buf_append_str(out, "        )\n"
                                "        _describe command commands\n"
                                "        ;;\n"
                                "    argument)\n"
                                "        case $words[1] in\n");
    for (const struct command *c = commands; r == 0 && c->name; c++)
        r = zsh_command(c, out);
    if (r == 0)
        r = buf_append_str(out, "        esac\n"
                                "        ;;\n"
                                "    esac\n"
                                "}\n"
                                "_trawl \"$@\"\n");
    return r;
}

/* ---- fish ---- */

static int fish_option(const struct command *command, const struct conf_row *row, struct buf *out)
{
    const char *values = values_of(command, row->name);
    char letter = letter_of(command, row->name);
    int r = buf_printf(out, "complete -c trawl -n '__fish_seen_subcommand_from %s' -l %s%s",
                       command->name, is_on_by_default(row) ? "no-" : "", row->name);
    if (r == 0 && letter)
        r = buf_printf(out, " -s %c", letter);
    if (r == 0 && row->type != CONF_BOOL)
        r = buf_append_str(out, " -r");
    if (r == 0 && values)
        r = buf_printf(out, " -f -a '%s'", values);
    if (r == 0)
        r = buf_append_str(out, " -d '");
    if (r == 0)
        r = append_plain(row->help, out);
    return r < 0 ? r : buf_append_str(out, "'\n");
}

static int fish_command(const struct command *command, struct buf *out)
{
    struct conf_row rows[CONF_ROWS_MAX];
    size_t count = command_rows(command, rows);
    int r =
        buf_printf(out, "complete -c trawl -n __fish_use_subcommand -f -a %s -d '", command->name);
    if (r == 0)
        r = append_plain(command->help, out);
    if (r == 0)
        r = buf_append_str(out, "'\n");
    for (size_t i = 0; r == 0 && i < count; i++)
        r = fish_option(command, &rows[i], out);
    if (r == 0 && command->words) {
        r = buf_printf(out, "complete -c trawl -n '__fish_seen_subcommand_from %s' -f -a '",
                       command->name);
        if (r == 0)
            r = append_words(command->words, out);
        if (r == 0)
            r = buf_append_str(out, "'\n");
    }
    return r;
}

int completion_fish(const struct command *commands, struct buf *out)
{
    int r = buf_append_str(out, "# fish completion for trawl; made by 'trawl completion fish'\n");
    for (const struct command *c = commands; r == 0 && c->name; c++)
        r = fish_command(c, out);
    return r;
}
