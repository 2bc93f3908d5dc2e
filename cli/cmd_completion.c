/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl completion: prints the script for a shell. Invariant: it asks nobody. Called through the
 * table.
 */
#include "cli/cmd.h"
#include "cli/completion.h"

#include <string.h>

#define SCRIPT_LIMIT (1u << 20)

int cmd_completion(struct cli *cli, struct failure *f)
{
    const char *shell = cli->words[0];
    struct buf text;
    int r = cli_choose("shell", shell, cli->command->words, f);
    if (r < 0)
        return r;
    buf_init(&text, SCRIPT_LIMIT);
    if (strcmp(shell, "bash") == 0)
        r = completion_bash(cli->commands, &text);
    else if (strcmp(shell, "zsh") == 0)
        r = completion_zsh(cli->commands, &text);
    else
        r = completion_fish(cli->commands, &text);
    r = r < 0 ? fail(f, r, "cannot make the script: %s", err_text(r)) : cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}
