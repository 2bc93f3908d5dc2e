/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A probe on a function of one process (perf_event_open(2), PMU "uprobe"), and a small program of
 * ours that the kernel runs at it (bpf(2)), which counts and copies the top of the stack into a
 * ring. One event is enough for all threads, those to come included, and other processes that map
 * the same file never meet it. Invariant: the probe exists only as long as our descriptors do: our
 * death at any instant takes it away. Worker only; called by throws_look.c.
 *
 * One event for each thread and processor, as profiles have them, is no way here: each would be a
 * probe of its own, and the kernel takes 0.1 s to put one away.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_PROBE_H
#define TRAWL_AGENT_OS_LINUX_THROWS_PROBE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

#define THROWS_PLACES_MAX 4
#define THROWS_NAME_BYTES 256
#define THROWS_PAGE_BYTES 4096
/* From the stack pointer to the end of its page, and two pages more. */
#define THROWS_STACK_BYTES (3 * THROWS_PAGE_BYTES)
#define THROWS_REGISTERS 21 /* r15 to ss, as struct user_regs_struct begins */

/* One throw, as the program in the kernel writes it down. */
struct throws_hit {
    uint64_t mono_ns;   /* CLOCK_MONOTONIC */
    uint64_t ids;       /* process << 32 | thread, of the host's own pid namespace */
    int64_t name_bytes; /* of `name`, its end included; <= 0: could not be read */
    uint64_t stack_bytes;
    uint64_t registers[THROWS_REGISTERS];
    char name[THROWS_NAME_BYTES];
    uint8_t stack[THROWS_STACK_BYTES]; /* from the stack pointer on */
};

/* Where a probe goes: `offset` in the file that `file_fd` has open. */
struct throws_place {
    int file_fd;
    uint64_t offset;
};

struct throws_probe {
    pid_t pid;
    struct throws_place places[THROWS_PLACES_MAX];
    size_t place_count;
    int events[THROWS_PLACES_MAX]; /* -1: not armed */
    bool armed;
    uint32_t pmu;
    int program_fd, counts_fd, ring_fd;
    uint64_t *counts;  /* mapped: all throws, those for which the ring had no room */
    uint8_t *consumer; /* mapped: a page with our position */
    uint8_t *producer; /* mapped: a page with the kernel's position, then the data twice */
    size_t page_bytes;
};

/*
 * Makes program and ring; arms nothing yet. Borrows the files. ERR_DENIED (not permitted: says what
 * is needed), ERR_UNSUPPORTED (this kernel cannot), ERR_NOMEM. On failure nothing is open.
 */
int throws_probe_open(struct throws_probe *probe, pid_t pid, const struct throws_place *places,
                      size_t count, struct failure *f);
/* A zeroed struct that was never open is not fine: descriptors. */
void throws_probe_close(struct throws_probe *probe);

/* Sets the probes. ERR_GONE, ERR_DENIED, ERR_UNSUPPORTED. */
int throws_probe_arm(struct throws_probe *probe, struct failure *f);
/* Takes them away; takes about 0.1 s, at the beginning of which the process runs free again. */
void throws_probe_disarm(struct throws_probe *probe);

/* How many throws met the probe so far, and of how many of them the ring has nothing. */
uint64_t throws_probe_all(const struct throws_probe *probe);
uint64_t throws_probe_lost(const struct throws_probe *probe);

/* Hands out what the ring holds, oldest first, valid during the call. Non-zero stops and is
 * returned. ERR_CORRUPT: the ring makes no sense. */
typedef int (*throws_hit_fn)(void *context, const struct throws_hit *hit);
int throws_probe_drain(struct throws_probe *probe, throws_hit_fn each, void *context);

/* Whether this kernel has what is needed and lets us use it: as throws_probe_open(), of ourselves.
 */
int throws_probe_try(struct failure *f);

#endif
