/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent emit`: reports one exception to the agent of this host, as an application would
 * (intake.h). Has options of its own, not the agent's settings. Called by main.
 */
#ifndef TRAWL_AGENT_EMIT_H
#define TRAWL_AGENT_EMIT_H

#include "agent/settings.h"
#include "common/buf.h"

struct emit {
    const char *type, *message, *level, *language, *stack, *socket;
    const char *tags[8]; /* "key=value" */
    size_t tag_count;
    bool help;
};

/* Words behind "emit". ERR_INVALID names the option. */
int emit_read(struct emit *emit, int argc, char **argv, struct failure *f);
/* The report, as JSON; `stack` is a text or NULL. Pure. ERR_LIMIT: longer than a report may be. */
int emit_put(const struct emit *emit, const char *stack, struct buf *out, struct failure *f);
/* All of it: reads the stack, sends. `argv` behind "emit". */
int emit_run(int argc, char **argv, struct failure *f);

#endif
