/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flame graph (after Brendan Gregg's) as one SVG file without references to anything: hovering
 * shows name, weight and share; a click enlarges, "search" marks. Also fit for viewers that run no
 * script. Pure. Called by profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_FLAME_SVG_H
#define TRAWL_AGENT_OS_LINUX_FLAME_SVG_H

#include "agent/os/linux/profile_lines.h"

struct flame_head {
    const char *title, *subtitle; /* any text */
    const char *unit;             /* "samples"; NULL: weights are microseconds */
    bool cold;                    /* blue: waiting */
};

/*
 * Appends the file. Frames narrower than a tenth of a pixel are left out, and more when they do not
 * fit into out's limit. ERR_LIMIT: not even the widest do; ERR_NOMEM.
 */
int flame_svg_put(const struct profile_lines *lines, const struct flame_head *head,
                  struct buf *out);

#endif
