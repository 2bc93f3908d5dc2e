/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an application says of its exception: one JSON object (RFC 8259). Invariant: whatever the
 * bytes are, *out is well-formed or untouched and the reason is said. The agent's only home of
 * jansson. Pure. Called by intake.c.
 */
#ifndef TRAWL_AGENT_INTAKE_JSON_H
#define TRAWL_AGENT_INTAKE_JSON_H

#include "agent/os/exception.h"
#include "common/buf.h"

#define INTAKE_BYTES_MAX 32768 /* of one report */

/*
 * {"type": TEXT (needed), "message": TEXT, "language": TEXT, "level": TEXT, "tags": {KEY: TEXT,
 * NUMBER or BOOLEAN}, "stack": TEXT (a frame a line), [TEXT, ...] or [{"function", "file", "line",
 * "module"}, ...]}, stacks innermost first. Other members are passed over. What is too long is cut,
 * what is too many is left out and said in `missing`. ERR_INVALID with a reason that names the
 * member. Sets source, type, message, language, frames, tags, missing.
 */
int intake_parse(struct span json, struct os_exception *out, struct failure *f);

#endif
