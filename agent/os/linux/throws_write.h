/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a look at throws: for people, as JSON, and folded. Pure: names are there already.
 * Called by throws.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_WRITE_H
#define TRAWL_AGENT_OS_LINUX_THROWS_WRITE_H

#include "agent/os/linux/throws_set.h"
#include "agent/os/take.h"

struct throws_about {
    const char *process;
    uint32_t pid;
    int64_t wall_us;
    uint64_t took_us, off_us; /* off: without the probe, because throws came too often */
    uint32_t cuts;
    uint64_t all; /* that met the probe; those not in a group are `unnamed` */
    uint64_t unnamed;
    const char *missing;
};

/* Each appends one form; sorted before. ERR_LIMIT, ERR_NOMEM. */
int throws_write_text(const struct throws_set *set, const struct throws_about *about,
                      struct buf *out);
int throws_write_json(const struct throws_set *set, const struct throws_about *about,
                      struct buf *out);
/* "process;outermost;...;innermost;throw TYPE count": a group's count is shared among its stacks as
 * they were seen, and adds up to it. */
int throws_write_folded(const struct throws_set *set, const struct throws_about *about,
                        struct buf *out);

#endif
