/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page lists (delta.h) of cores that the collector has, one file each in a folder of the agent's
 * state: the bases of later cores. Invariants: a list has its name only when the collector has
 * sealed its core; there are at most PAGES_KEPT of them. Called by capture_worker.c and
 * capture_stream.c.
 */
#ifndef TRAWL_AGENT_PAGES_H
#define TRAWL_AGENT_PAGES_H

#include "agent/os/process.h"
#include "agent/state.h"
#include "trawl.pb.h"

#define PAGES_FOLDER "pages"
#define PAGES_KEPT 4
#define PAGES_BYTES_MAX (UINT64_C(64) * 1024 * 1024) /* of one list */
#define PAGES_PATH_SIZE (STATE_PATH_SIZE + 96)
#define PAGES_INCIDENT_SIZE sizeof(((trawl_v1_Order *)0)->incident)

/* Which artifact of this host the pages are in. */
struct pages_base {
    char incident[PAGES_INCIDENT_SIZE];
    uint32_t no;
    uint64_t size_bytes; /* as it is stored */
};

/* Opens the newest list of this very process for reading: the file, which is the caller's to close
 * (port_close()), or -1 when there is none. */
int pages_find(const char *directory, const struct os_process *process, struct pages_base *base);
/* It was of no use: the next core is whole again. */
void pages_forget(const char *directory, const struct os_process *process);

/* A list that comes in. */
struct pages {
    char directory[STATE_PATH_SIZE];
    int file; /* -1: none */
    uint64_t size_bytes;
    struct os_process process;
};
/* Makes the folder if needed; a list that was left unfinished is overwritten. ERR_FULL, ERR_DENIED,
 * ERR_IO. */
int pages_begin(struct pages *pages, const char *directory, const struct os_process *process,
                struct failure *f);
int pages_write(struct pages *pages, struct span bytes, struct failure *f);
/* The collector has sealed its core as this artifact: older lists of the process go. */
int pages_keep(struct pages *pages, const struct pages_base *base, struct failure *f);
/* Fine on one whose file is -1. */
void pages_drop(struct pages *pages);

#endif
