/* SPDX-License-Identifier: Apache-2.0 */
/* trawl help and trawl version. Invariant: what they say is made from the table. Called through it.
 */
#include "cli/cmd.h"
#include "cli/command.h"

#include <string.h>

#include "cli/names.h"

#define HELP_LIMIT (64 * 1024)

#ifndef TRAWL_VERSION
#define TRAWL_VERSION "0"
#endif

static int unknown(const struct cli *cli, const char *name, struct failure *f)
{
    struct names known = {.list = NULL};
    for (const struct command *c = cli->commands; c->name; c++)
        (void)names_add(&known, c->name);
    int r = names_fail(f, ERR_INVALID, "command", name, names_list(&known));
    names_done(&known);
    return r;
}

int cmd_help(struct cli *cli, struct failure *f)
{
    const char *name = cli->word_count ? cli->words[0] : NULL;
    const struct command *command = name ? command_find(cli->commands, name) : NULL;
    struct buf text;
    if (name && !command)
        return unknown(cli, name, f);
    buf_init(&text, HELP_LIMIT);
    int r = command ? command_help(command, &text) : command_overview(cli->commands, &text);
    if (r == 0)
        r = cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}

int cmd_version(struct cli *cli, struct failure *f)
{
    struct buf text;
    buf_init(&text, HELP_LIMIT);
    int r = buf_append_str(&text, "trawl " TRAWL_VERSION "\n");
    if (r == 0)
        r = cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}
