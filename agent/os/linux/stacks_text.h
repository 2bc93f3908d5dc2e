/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads with equal stacks brought together, and written for people, for flame graph tools and as
 * JSON. Pure: no process, no file; names are given, so that tests need no ELF. Called by
 * stacks_finish.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_STACKS_TEXT_H
#define TRAWL_AGENT_OS_LINUX_STACKS_TEXT_H

#include "agent/os/linux/json_text.h"
#include "agent/os/linux/unwind.h"
#include "agent/os/stacks.h"

#define STACKS_COMM_SIZE 32

/* One thread: its places are [first, first + count) of the list. */
struct stacks_thread {
    pid_t tid;
    char comm[STACKS_COMM_SIZE];
    char state; /* as proc(5) has it; 0: not known */
    size_t first, count;
    const char *why; /* why there are no more frames; NULL: they are all there */
};

/* Threads order[first .. first + count) have the stack of threads[order[first]]. */
struct stacks_group {
    size_t first, count;
    uint8_t signature[16];
};

/* A place and its frames, names[first] (innermost) to names[first + count - 1]; none: not named
 * yet. */
struct stacks_known {
    struct unwind_place place;
    size_t first, count;
};

struct stacks_set {
    struct stacks_thread *threads;
    size_t thread_count;
    struct unwind_place *places;
    /* Made by stacks_group(). */
    size_t *order;
    struct stacks_group *groups; /* busiest first, then by lowest tid */
    size_t group_count;
    /* Every place of every group once, sorted, with its name. */
    struct stacks_known *known;
    size_t known_count;
    struct unwind_frame *names;
    size_t name_count, name_capacity;
    char **kept; /* texts that names borrow */
    size_t kept_count, kept_capacity;
};

/* A copy of a text that lives as long as the set; NULL: no memory. */
const char *stacks_keep(struct stacks_set *set, const char *text);

/* Fills order, groups and known. Stacks that end for another reason are not equal. ERR_NOMEM. */
int stacks_group(struct stacks_set *set, struct failure *f);
void stacks_set_done(struct stacks_set *set);

/*
 * FNV-1a, 128 bits, over each frame, innermost first: the module's build-id (without one: its
 * name), a zero byte, and the address in its file as 8 bytes, low first. Of the vdso, which belongs
 * to the kernel, only the name; of a place in no file, only the zero byte. Of a Python function the
 * base name of its file, a zero byte, its name, a zero byte: neither line nor folder, so that it is
 * the same on hosts where the application lies elsewhere.
 */
void stacks_signature(const struct stacks_set *set, const struct stacks_thread *thread,
                      uint8_t out[16]);
/* Gives known[index] its frames (copied). ERR_NOMEM. */
int stacks_set_names(struct stacks_set *set, size_t index, const struct unwind_frame *frames,
                     size_t count);
/* The frames of a place: at least one, with nothing in it when nothing is known. */
size_t stacks_names(const struct stacks_set *set, struct unwind_place place,
                    const struct unwind_frame **out);

/* How much of a symbol is its name: without "@@VERSION". */
int stacks_name_length(const char *function);

/* Base name of a path. */
const char *stacks_base_name(const char *path);

/* What stands at the head of a file. */
struct stacks_head {
    const char *kind; /* "stacks", "stacks0" */
    const char *process;
    uint32_t pid;
    int64_t wall_us;
    bool paused;
    uint64_t pause_us, expected_us;
    size_t threads;
    const char *missing;
    /* What stands there instead of all this: text, and members of the object. NULL: nothing. */
    const char *text;
    void (*put_members)(const void *context, struct json_text *out);
    const void *context;
};

/*
 * Each appends one form. Groups that do not fit into out's limit are left out and counted in
 * *left_out. ERR_LIMIT: not even the head fits; ERR_NOMEM.
 */
typedef int (*stacks_write_fn)(const struct stacks_set *set, const struct stacks_head *head,
                               const struct unwind_module *modules, size_t module_count,
                               struct buf *out, size_t *left_out);
/* For people: head, groups, modules. */
int stacks_write(const struct stacks_set *set, const struct stacks_head *head,
                 const struct unwind_module *modules, size_t module_count, struct buf *out,
                 size_t *left_out);
/* "process;outermost;...;innermost count" lines. */
int stacks_write_folded(const struct stacks_set *set, const struct stacks_head *head,
                        const struct unwind_module *modules, size_t module_count, struct buf *out,
                        size_t *left_out);
/* The frames of one thread, as stacks_write() has them; nothing else. ERR_LIMIT, ERR_NOMEM. */
int stacks_write_thread(const struct stacks_set *set, const struct stacks_thread *thread,
                        struct buf *out);
/* One object; in stacks_json.c. */
int stacks_write_json(const struct stacks_set *set, const struct stacks_head *head,
                      const struct unwind_module *modules, size_t module_count, struct buf *out,
                      size_t *left_out);
/* The first groups, for the verdict. */
void stacks_tops(const struct stacks_set *set, struct os_result *result);

#endif
