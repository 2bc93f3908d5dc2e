/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl: the command line. What it can do is the table in commands.c; how a line is read is
 * command.c; each cmd_*.c is one command or a few that belong together.
 */
#include "cli/command.h"

int main(int argc, char **argv)
{
    return command_main(COMMANDS, argc, argv);
}
