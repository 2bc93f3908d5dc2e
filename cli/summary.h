/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last lines of `capture` and `watch`. Invariant: they are made from what the collector said
 * last, nothing is counted twice. Used by those two commands.
 */
#ifndef TRAWL_CLI_SUMMARY_H
#define TRAWL_CLI_SUMMARY_H

#include "cli/cli.h"
#include "cli/follow.h"

/* The targets that are not done, a line each with the reason. */
int summary_targets(struct cli *cli, const struct follow *follow, struct failure *f);
/* "38 done, 1 refused, 1 queued       trawl show K7F2Q" */
int summary_line(struct cli *cli, const struct follow *follow, struct failure *f);
/* For programs: one object with the counts, after one per target. */
int summary_json(struct cli *cli, const struct follow *follow, uint32_t online, int64_t elapsed_us,
                 struct failure *f);

#endif
