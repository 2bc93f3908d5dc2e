/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence from the rings: the counters of a window as CSV, its events as JSON lines. Written piece
 * by piece, so that a long window costs no memory. Invariant: an empty cell is a gap, never a zero,
 * and why it is one stands in `missing`. Called by capture.
 */
#ifndef TRAWL_AGENT_LOOKBACK_H
#define TRAWL_AGENT_LOOKBACK_H

#include "agent/spool.h"

/* Takes the next bytes of the text; a negative result ends the writing and is returned. */
typedef int (*lookback_write_fn)(void *context, struct span bytes);

/*
 * First line: "time" and one column a series, "name{instance} [unit]", of a process with "(pid)"
 * behind. Then a line a second, RFC 3339 UTC with milliseconds. ERR_NOTFOUND: no counters in the
 * window.
 */
int lookback_counters(const struct spool *spool, int64_t from_us, int64_t to_us,
                      lookback_write_fn write, void *context, char *missing, size_t size_bytes,
                      struct failure *f);
/* One object a line: time, type, process, pid, text. A window without events is an empty text. */
int lookback_events(const struct spool *spool, int64_t from_us, int64_t to_us,
                    lookback_write_fn write, void *context, char *missing, size_t size_bytes,
                    struct failure *f);

#endif
