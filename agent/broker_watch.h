/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's watches: at most BROKER_WATCHES_MAX long-lived children. Invariant: each was allowed
 * by the owner's policy at its start and is ended when the policy, read anew every few seconds,
 * allows it no longer; all end with the broker. Called by broker.c.
 */
#ifndef TRAWL_AGENT_BROKER_WATCH_H
#define TRAWL_AGENT_BROKER_WATCH_H

#include "agent/broker_wire.h"
#include "agent/os/privilege.h"
#include "agent/policy.h"
#include "agent/watch.h"

#define BROKER_WATCHES_MAX 4
#define BROKER_WATCH_LOOK_MS 5000

struct broker_watches {
    uint64_t policy_us; /* when the policy was last asked */
    struct {
        struct os_worker worker; /* pid 0: free */
        struct os_process process;
    } list[BROKER_WATCHES_MAX];
};

/*
 * Starts one of the process that `run` names (kind, pid, start_ticks, executable), which writes to
 * output_fd; close_fd is closed in it. ERR_REFUSED (policy), ERR_LIMIT, ERR_GONE, ERR_BUSY (it is
 * watched already).
 */
int broker_watch_start(struct broker_watches *watches, const char *policy_path,
                       struct broker_run *run, int output_fd, int close_fd, struct failure *f);
/* Reaps what has ended, ends what is no longer allowed. */
void broker_watch_look(struct broker_watches *watches, const char *policy_path);
/* Ends a worker that has a probe set, so that it can take it away: asked first, killed after a
 * second. Also for a capture of throws. */
void broker_watch_end(struct os_worker *worker);
bool broker_watch_any(const struct broker_watches *watches);
void broker_watch_stop(struct broker_watches *watches);

#endif
