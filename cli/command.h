/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the words of a command line to the command that runs: finding it in the table, reading its
 * options, its help. Invariant: a command starts only with options that were wholly understood and
 * a number of arguments that it takes. Called by main() and by tests.
 */
#ifndef TRAWL_CLI_COMMAND_H
#define TRAWL_CLI_COMMAND_H

#include "cli/cli.h"

/* What a command line names. */
struct command_line {
    const struct command *command;
    void *options; /* calloc'd; free with command_line_done() */
    int word_count;
    char **words; /* in argv, which was reordered */
    enum cli_output output;
    bool help;
};

/* The row, or NULL. */
const struct command *command_find(const struct command *commands, const char *name);
/*
 * Reads argv (argv[0] is the program). ERR_INVALID: names the command, option, argument or value,
 * suggests, and lists what exists; line->command is then set when a command was found.
 */
int command_parse(const struct command *commands, int argc, char **argv, struct command_line *line,
                  struct failure *f);
void command_line_done(struct command_line *line);

/* All rows of a command: its own, then the common ones it takes. At most CONF_ROWS_MAX. */
size_t command_rows(const struct command *command, struct conf_row *rows);
size_t command_shorts(const struct command *command, struct conf_short *shorts, size_t max);

/* "trawl hosts [HOST...] ..." with options and examples; the list of commands. */
int command_help(const struct command *command, struct buf *out);
int command_overview(const struct command *commands, struct buf *out);

/* The whole program: prints failures, returns the exit status. */
int command_main(const struct command *commands, int argc, char **argv);
/* The same with prepared surroundings (streams, environment, time). */
int command_run(struct cli *cli, int argc, char **argv);

#endif
