/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was told already, so that following goes on after a lost connection without telling one
 * twice. Pure. Invariant: of the newest SEEN_KEPT exceptions none is told twice; what is older than
 * `from_us` need not be asked again, because what was forgotten is older. Used by cmd_exceptions.c.
 */
#ifndef TRAWL_CLI_SEEN_H
#define TRAWL_CLI_SEEN_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/codec.h"

#define SEEN_KEPT 32768 /* at least; twice as many at most */

struct seen_half;

struct seen {
    struct seen_half *now, *before; /* when `now` is full it becomes `before` */
    int64_t from_us;                /* everything that begins here or later is remembered */
};

/* `from_us`: where what is followed begins. ERR_NOMEM. */
int seen_init(struct seen *s, int64_t from_us);
void seen_done(struct seen *s);
/* Whether it is new; it is not any more. */
bool seen_add(struct seen *s, const trawl_v1_Exception *e);

#endif
