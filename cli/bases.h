/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cores that other cores are told from ("zstd-delta"): what must be fetched before, from this
 * incident or another one, and is removed again after. Invariant: every wanted artifact that has a
 * base finds it by bases_of(), or the base says why it cannot be had. Used by cmd_fetch.c.
 */
#ifndef TRAWL_CLI_BASES_H
#define TRAWL_CLI_BASES_H

#include "cli/bundle.h"
#include "cli/cli.h"

struct bases {
    struct bundle_artifact *list; /* of other incidents, or not asked for: hidden files */
    size_t count, capacity;
};

/* Asks the collector for what the bundle's wanted artifacts need. ERR_NOMEM and those of a call. */
int bases_find(struct bases *bases, struct cli *cli, struct bundle *bundle, struct failure *f);
void bases_done(struct bases *bases);

bool bases_is_needed(const trawl_v1_Artifact *artifact);
/* The base of an artifact for which bases_is_needed(). */
struct bundle_artifact *bases_of(const struct bases *bases, const struct bundle *bundle,
                                 const trawl_v1_Artifact *artifact);
/* Whether it is one of the hidden ones. */
bool bases_has(const struct bases *bases, const struct bundle_artifact *artifact);

#endif
