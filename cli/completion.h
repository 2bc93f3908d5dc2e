/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion scripts for three shells, made from the command table. Pure. Invariant: a script
 * starts no program. Used by cmd_completion.c and tests.
 */
#ifndef TRAWL_CLI_COMPLETION_H
#define TRAWL_CLI_COMPLETION_H

#include "cli/cli.h"

int completion_bash(const struct command *commands, struct buf *out);
int completion_zsh(const struct command *commands, struct buf *out);
int completion_fish(const struct command *commands, struct buf *out);

#endif
