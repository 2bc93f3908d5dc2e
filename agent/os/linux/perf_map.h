/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of code that a process made at run time, where it writes them down by itself:
 * /tmp/perf-PID.map (kernel: tools/perf/Documentation/jit-interface.txt), as node with
 * --perf-basic-prof, Java with an agent and .NET do. Invariant: only the names of the addresses
 * that were asked for are kept, however large the file is. The file is hostile: it is opened
 * without waiting and without following links, and must be a regular one of the process's user or
 * of root. Called by unwind.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PERF_MAP_H
#define TRAWL_AGENT_OS_LINUX_PERF_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

#define PERF_MAP_BYTES_MAX (64u << 20) /* of the file; what comes behind is not read */
#define PERF_MAP_WANTED_MAX 16384      /* addresses that can be asked for */
#define PERF_MAP_NAME_MAX 255          /* longer names are cut */
#define PERF_MAP_NAMES_MAX (4u << 20)  /* bytes of all names */

/* An address and what the file says of it. */
struct perf_map_name {
    uint64_t address, start; /* `start`: where the code with this name begins */
    char *name;              /* NULL: the file does not say */
};

struct perf_map {
    int fd;                      /* -1: there is no file that may be read */
    struct perf_map_name *names; /* sorted by address */
    size_t count;
    size_t name_bytes;
    bool cut; /* the file is longer than what was read, or names had no room */
};

/* Looks for the file; does not read it. Never fails: no file is no names. */
void perf_map_open(struct perf_map *map, pid_t pid);
void perf_map_close(struct perf_map *map);

/* Reads the file for these addresses: sorted, each once. ERR_LIMIT: too many; ERR_NOMEM. */
int perf_map_ask(struct perf_map *map, const uint64_t *addresses, size_t count, struct failure *f);
/* One piece of the file's text, whole lines. Of two names for an address the later one holds. */
void perf_map_feed(struct perf_map *map, struct span text);
/* What is known of an address that was asked for; NULL: nothing. */
const struct perf_map_name *perf_map_find(const struct perf_map *map, uint64_t address);

#endif
