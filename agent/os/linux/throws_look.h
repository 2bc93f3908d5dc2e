/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at the throws of one process as they come: probe, cut-off, counts, and the stacks of some
 * of them, unwound from their copies. Invariant: slow work (unwinding, names) is done only while
 * few throws come, so that a storm meets the cut-off first. Worker only; called by throws.c and
 * throws_watch.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_LOOK_H
#define TRAWL_AGENT_OS_LINUX_THROWS_LOOK_H

#include "agent/os/linux/maps.h"
#include "agent/os/linux/throws_probe.h"
#include "agent/os/linux/throws_rate.h"
#include "agent/os/linux/throws_set.h"
#include "agent/os/linux/unwind.h"
#include "agent/os/process.h"

#define THROWS_PENDING_MAX 24

/* A throw whose stack waits to be looked at; `group` by number. */
struct throws_pending {
    size_t group;
    struct throws_hit hit;
};

struct throws_look {
    struct os_process process;
    int pid_fd;
    struct maps maps;
    struct unwind *unwind;
    uint64_t mapped_us; /* when the map was read */
    bool stale;         /* an address was in no mapping since */
    struct throws_probe probe;
    bool has_probe;
    bool ended; /* the process */
    struct throws_rate rate;
    struct throws_set set;
    struct throws_pending *pending;
    size_t pending_count;
    uint64_t unlooked; /* stacks for which `pending` had no room */
    /* Told of each sample as it is made (may be NULL); non-zero ends the look. */
    int (*sampled)(void *context, struct throws_group *group, const struct throws_sample *sample,
                   uint64_t mono_ns);
    void *context;
};

/*
 * Pins the process and sets the probe. ERR_NOTFOUND: nothing that can throw is loaded (then
 * throws_look_load() may find it later; the look is open); any other error: nothing is open.
 */
int throws_look_open(struct throws_look *look, const struct os_process *process, struct failure *f);
void throws_look_close(struct throws_look *look);
/* Reads the map anew and sets the probe when there is something to probe now. As above. */
int throws_look_load(struct throws_look *look, struct failure *f);

/*
 * Waits for throws, `reader_fd` (-1: none) or the end, at most until `until_us`, and takes in what
 * there is. 0; ERR_CLOSED: nobody at the other end of reader_fd; else errors, or what `sampled`
 * returned. look->ended is set at the process's end.
 */
int throws_look_step(struct throws_look *look, uint64_t until_us, int reader_fd, struct failure *f);
/* Takes in what is left: after the last step, before the counts are read. */
int throws_look_finish(struct throws_look *look);

#endif
