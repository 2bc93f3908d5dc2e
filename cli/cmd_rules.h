/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `trawl rules` share: cmd_rules.c and cmd_rules_test.c. */
#ifndef TRAWL_CLI_CMD_RULES_H
#define TRAWL_CLI_CMD_RULES_H

#include "cli/cmd.h"
#include "rule/language.h"

#define RULES_TEXT_MAX (60u << 10) /* as RuleFile.text */

/* Appends the file ("-": standard input). ERR_LIMIT: longer than RULES_TEXT_MAX. */
int rules_read_file(const char *path, struct buf *out, struct failure *f);
/* trawl rules test FILE */
int rules_test(struct cli *cli, struct failure *f);

#endif
