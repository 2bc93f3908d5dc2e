/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of names that grows: what exists, to be shown when something asked for does not.
 * Invariant: `list` ends with NULL, as text_nearest() wants it. Pure. Used by cli.c, nomatch.c and
 * the commands.
 */
#ifndef TRAWL_CLI_NAMES_H
#define TRAWL_CLI_NAMES_H

#include <stdbool.h>

#include "common/buf.h"

struct names {
    char **list; /* NULL while empty */
    size_t count, capacity;
};

/* Copies the name; a name that is there already is not added again. ERR_NOMEM. */
int names_add(struct names *names, const char *name);
bool names_has(const struct names *names, const char *name);
void names_sort(struct names *names);
void names_done(struct names *names); /* a zeroed struct is fine */

/* Never NULL; for text_nearest(). */
const char *const *names_list(const struct names *names);

/*
 * "unknown counter 'cpu.usr'; did you mean 'cpu.user'? (known: cpu.idle, cpu.user, ...)", cut at
 * whole names. Returns `code`.
 */
int names_fail(struct failure *f, int code, const char *what, const char *text,
               const char *const *known);

#endif
