/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A later core of the same process, told as its differences from an earlier one that the collector
 * has: pages are compared at the same address of memory by a 64-bit hash with a secret seed of its
 * own (a page that differs passes for equal once in 2^64). What an earlier core was is remembered
 * as its page list: which address stands where in the file, and the hash of each page. Pure but for
 * reading the list. Called by the worker.
 */
#ifndef TRAWL_AGENT_DELTA_H
#define TRAWL_AGENT_DELTA_H

#include "agent/os/process.h"
#include "common/buf.h"

#define DELTA_PAGE 4096
#define DELTA_PAGES_MAX (8u << 20) /* of one core (32 GiB); a larger one leaves no list */

struct delta;

/* Where bytes go. ERR_* of the receiver ends it. */
typedef int (*delta_write_fn)(void *context, struct span bytes, struct failure *f);

/*
 * base: the page list of an earlier core, or an empty span (then what is fed is passed on as it
 * is). It is borrowed until delta_close(). A list of another process, or one that is damaged, is
 * ERR_CONFLICT: begin again without.
 */
int delta_open(struct delta **out, const struct os_process *process, struct span base,
               delta_write_fn write, void *context, struct failure *f);
void delta_close(struct delta *delta);
/* The bytes of the new core file, in order. ERR_NOMEM, and what `write` returns. */
int delta_feed(struct delta *delta, struct span bytes, struct failure *f);
int delta_end(struct delta *delta, struct failure *f);

/* Whether differences are written, and how many of the bytes were in the base. */
bool delta_is_patch(const struct delta *delta);
uint64_t delta_shared_bytes(const struct delta *delta);
/*
 * After delta_end() of a core without a base: hands its page list, which is to be the base of later
 * ones, to the same `write`, in pieces. ERR_UNSUPPORTED: too large, or not of a form that is
 * understood.
 */
bool delta_has_list(const struct delta *delta);
int delta_write_list(const struct delta *delta, delta_write_fn write, void *context,
                     struct failure *f);

#endif
