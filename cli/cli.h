/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command of `trawl` gets and gives. A row of the command table says everything about a
 * command: parser, help and completion are made from it. Invariant: a command prints what was asked
 * for on `out` and all else on `err`; it returns an exit code (0 all done, 1 failed, 3 partial) or
 * a negative enum err with its sentence in *f, which command_run() prints. Included by every
 * cmd_*.c.
 */
#ifndef TRAWL_CLI_CLI_H
#define TRAWL_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/client.h"
#include "cli/context.h"
#include "cli/render.h"
#include "common/conf.h"

#define CLI_SELECT_SIZE 1024
#define CLI_OUTPUT_LIMIT (256u << 20)

enum cli_exit { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_PARTIAL = 3 };

enum cli_output { CLI_TABLE, CLI_WIDE, CLI_JSON, CLI_CSV };

/* Options that (nearly) every command has; the first member of each command's options. */
struct cli_common {
    char select[CLI_SELECT_SIZE];
    char output[16];
    char context[CONTEXT_PATH_SIZE];
    char collector[CONTEXT_ADDRESS_SIZE];
    bool color, help;
};

struct cli {
    const struct command *commands, *command;
    void *options; /* of the command */
    const struct cli_common *common;
    enum cli_output output;
    int word_count; /* positional arguments */
    char **words;
    FILE *out, *err;
    bool out_is_terminal, err_is_terminal, color, has_progress;
    unsigned columns; /* of the terminal */
    int64_t now_us;
    struct context_env env;
    struct context context; /* loaded by cli_connect() */
    struct client *client;  /* NULL until cli_connect() */
};

/* Which of the common options a command has. */
enum command_takes { TAKES_SELECT = 1, TAKES_OUTPUT = 2, TAKES_CSV = 4, TAKES_COLLECTOR = 8 };

#define COMMAND_LIST (TAKES_SELECT | TAKES_OUTPUT | TAKES_COLLECTOR)

struct command {
    const char *name;
    int (*run)(struct cli *cli, struct failure *f);
    const char *arguments; /* "[HOST...]" */
    int words_min, words_max;
    const char *help; /* one line */
    const char *example;
    unsigned takes;
    const struct conf_row *rows;
    size_t row_count;
    const struct conf_short *shorts;
    size_t short_count;
    size_t options_size;      /* 0: struct cli_common */
    const char *const *words; /* what the first argument may be (for completion), or NULL */
};

#define CLI_WORDS_ANY 1000

/* The table; its last row has no name. */
extern const struct command COMMANDS[];
extern const char *const CLI_OUTPUTS[]; /* of -o */

/* Loads the context and opens the client. */
int cli_connect(struct cli *cli, struct failure *f);
/* One call with the usual time limit, connecting first. */
int cli_call(struct cli *cli, enum method_id method, const struct buf *request,
             client_reply_fn reply, void *owner, struct failure *f);

/*
 * The selector: -l and the host arguments words[from..] joined by ','. None at all gives "", which
 * lists every host, or with `needed` ERR_INVALID with the remedy. ERR_LIMIT when too long.
 */
int cli_selector(const struct cli *cli, int from, bool needed, char *out, size_t size_bytes,
                 struct failure *f);
/* Nothing matched the selector: a failure that says which term, the nearest, and what exists. */
int cli_explain_no_match(struct cli *cli, const char *selector, struct failure *f);

/* ERR_INVALID "unknown WHAT 'text'; did you mean 'x'? (known: a, b)" unless `names` has `text`. */
int cli_choose(const char *what, const char *text, const char *const *names, struct failure *f);
/* A moment given with an option. ERR_INVALID says what is understood. */
int cli_moment(const struct cli *cli, const char *option, const char *text, int64_t *out,
               struct failure *f);
/* --last, --from, --to as a window: `last_us` counts unless `from` is given. */
int cli_window(const struct cli *cli, int64_t last_us, const char *from, const char *to,
               int64_t *from_us, int64_t *to_us, struct failure *f);

/* Writes and empties. ERR_IO when nobody takes it: for a closed pipe with an empty text. */
int cli_write(struct cli *cli, struct buf *text, struct failure *f);
int cli_flush(struct cli *cli, struct failure *f);
/* A table, if it has rows (else nothing). */
int cli_write_table(struct cli *cli, const struct render_table *table, struct failure *f);
/* One line on `err`, made safe: "trawl: ..." */
void cli_note(struct cli *cli, const char *format, ...) TRAWL_PRINTF(2, 3);

/* Progress on the terminal: one line on `err`, drawn over again. */
void cli_progress(struct cli *cli, const char *line);
void cli_progress_clear(struct cli *cli); /* takes it away, if there is one */
void cli_progress_end(struct cli *cli);   /* leaves it there */

#define CLI_OPTIONS(type, member) offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define CLI_COUNT(array) (sizeof(array) / sizeof(array)[0])

#endif
