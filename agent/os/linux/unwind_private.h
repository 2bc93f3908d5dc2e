/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of unwind share, and nobody else sees. libdw's own types are only named here: its
 * headers stay inside unwind*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_UNWIND_PRIVATE_H
#define TRAWL_AGENT_OS_LINUX_UNWIND_PRIVATE_H

#include "agent/os/linux/perf_map.h"
#include "agent/os/linux/unwind.h"

/* Addresses from `start` on, before `end`. */
struct unwind_range {
    uint64_t start, end;
};

/* The modules, and what else may hold code: sorted, not overlapping. */
struct unwind_files {
    struct unwind_module *list;
    size_t count, left;
    struct unwind_range *code;
    size_t code_count;
};
int unwind_files_open(struct unwind_files *files, pid_t pid, const struct maps *maps,
                      struct failure *f);
void unwind_files_close(struct unwind_files *files);
/* Whether `address` was in executable memory when the map was read. */
bool unwind_is_code(const struct unwind_files *files, uint64_t address);

struct unwind {
    struct unwind_files files;
    struct Dwfl *dwfl;
    struct perf_map jit;
    pid_t pid;
    bool lines; /* whether debug information is looked at */
    uint64_t lines_us;
};

/*
 * Where rbp points in the function that has `address` and keeps a frame pointer, when the stack
 * pointer is `stack` and rbp is not known; in unwind_guess.c. false: not found.
 */
bool unwind_guess_frame(struct unwind *unwind, const struct unwind_thread *thread, uint64_t stack,
                        uint64_t address, uint64_t *frame);

#endif
