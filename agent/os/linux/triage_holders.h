/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes of this host hold a pipe or a socket: who is at the other end. Invariant: what is
 * looked at and what is kept is bounded; only what was asked for is kept. Called by triage*.c and
 * net.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_TRIAGE_HOLDERS_H
#define TRAWL_AGENT_OS_LINUX_TRIAGE_HOLDERS_H

#include "agent/os/process.h"
#include "agent/os/take.h"

#define HOLDERS_MAX 16384
#define HOLDERS_TEXT_SIZE 200

enum held_kind { HELD_OTHER, HELD_PIPE, HELD_SOCKET };

struct held {
    enum held_kind kind;
    uint64_t inode;
};

struct holder {
    struct held held;
    uint32_t pid;
    uint32_t fd; /* the lowest */
    bool reads, writes;
    char name[OS_PROCESS_NAME_SIZE];
};

struct holders {
    struct held *wanted; /* by kind and inode, each once */
    size_t wanted_count, wanted_capacity;
    struct holder *found; /* by kind, inode, pid */
    size_t found_count, found_capacity;
};

/* "pipe:[12]", "socket:[34]"; else HELD_OTHER and 0. Pure. */
struct held held_parse(struct span target);

void holders_init(struct holders *h);
void holders_done(struct holders *h);
/* Asks for one. ERR_NOMEM, ERR_LIMIT (over HOLDERS_MAX). */
int holders_want(struct holders *h, enum held_kind kind, uint64_t inode);
/* Looks through all processes; what it could not see is said in `result`. */
void holders_find(struct holders *h, const char *root, struct os_result *result);
/* All holders of one: the first, and how many follow each other. */
const struct holder *holders_of(const struct holders *h, enum held_kind kind, uint64_t inode,
                                size_t *count);

/*
 * "'backup' (pid 900, fd 4)", "'a' (pid 1, fd 3) and 2 more"; of a pipe only who holds its
 * `write_end` (else its read end). Processes other than `self` are named first; only itself: "this
 * process itself (fd 5)"; none: "". Returns how many other processes.
 */
size_t holders_describe(const struct holders *h, enum held_kind kind, uint64_t inode,
                        bool write_end, uint32_t self, char *out, size_t size_bytes);

#endif
