/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A profile's stacks as lines of names, outermost first, equal ones once: what folded text and
 * flame graphs are made of. Threads of one name come together. Pure. Called by profile.c; read by
 * flame_svg.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_LINES_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_LINES_H

#include "agent/os/linux/profile_set.h"

#define PROFILE_LINE_DEPTH_MAX 600 /* names of one line; the innermost are left out */
#define PROFILE_LINE_NAMES_MAX (1u << 22)

struct profile_line {
    uint32_t first, count; /* of names: texts by number, outermost first */
    uint64_t weight;
};

/* Sorted by names, so that what begins alike stands together. */
struct profile_lines {
    const struct profile_set *set;
    struct profile_line *list;
    size_t count;
    uint32_t *names;
    size_t name_count;
    uint64_t total;
};

enum profile_weight {
    PROFILE_SAMPLES, /* on the CPU, in samples */
    PROFILE_OFF_US,  /* off the CPU, in microseconds */
};

/*
 * Lines "process; thread, when it is called otherwise; outermost; ...; innermost" of all stacks
 * that weigh something. ERR_LIMIT, ERR_NOMEM.
 */
int profile_lines_make(struct profile_lines *lines, struct profile_set *set, const char *process,
                       enum profile_weight weight);
void profile_lines_done(struct profile_lines *lines);

/* Appends "a;b;c 12\n" for each, heaviest first; what does not fit into out's limit is counted in
 * *left_out. ERR_NOMEM. */
int profile_lines_folded(const struct profile_lines *lines, struct buf *out, size_t *left_out);

#endif
