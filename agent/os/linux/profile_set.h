/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a profile has gathered: places, stacks of places with their weights, threads and texts, each
 * once. A sample costs a few bytes when its stack is known already, so memory follows the number
 * of different stacks, not of samples; every table has a limit, and what does not fit is counted.
 * Pure. Called by profile*.c; read by pprof.c and profile_lines.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_SET_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_SET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

#define PROFILE_TEXT_MAX 1000 /* bytes of one name; longer ones are cut */
#define PROFILE_TEXTS_MAX (1u << 18)
#define PROFILE_TEXTS_BYTES_MAX (16u << 20)
#define PROFILE_LOCATIONS_MAX (1u << 18)
#define PROFILE_STACKS_MAX (1u << 16)
#define PROFILE_PLACES_MAX (1u << 21)
#define PROFILE_THREADS_MAX 65536
#define PROFILE_FRAMES_MAX (1u << 19)
#define PROFILE_DEPTH_MAX 400 /* places of one stack, kernel and process */
#define PROFILE_COMM_SIZE 32

/* Finds entries by hash; the entries themselves are elsewhere. Slots hold number + 1. */
struct profile_index {
    uint32_t *slots;
    size_t capacity, used;
};

/* Texts, each once, by number; number 0 is "". */
struct profile_texts {
    struct buf bytes;
    uint32_t *starts;
    size_t count, capacity;
    struct profile_index index;
};

enum profile_place {
    PROFILE_EXACT = 1, /* pc is the instruction itself */
    PROFILE_RETURN,    /* pc is a return address, one behind the call */
    PROFILE_KERNEL,    /* of the kernel */
    PROFILE_WORDS,     /* no address: pc is a text that says what is known */
};

struct profile_location {
    uint64_t pc;
    enum profile_place place;
    uint32_t era;          /* of the memory map: one address may be another function later */
    uint32_t module;       /* number + 1; 0: in none */
    uint32_t first, count; /* its frames, innermost first; none: not named yet */
};

/* One function at a location; texts by number. */
struct profile_frame {
    uint32_t function, file;
    uint32_t line; /* 0: unknown */
};

struct profile_stack {
    uint32_t thread;
    uint32_t first, count; /* of places, innermost first */
    uint64_t samples, cpu_ns, off_ns;
};

struct profile_thread {
    pid_t tid;
    char comm[PROFILE_COMM_SIZE];
};

struct profile_module {
    uint64_t start, end;
    uint32_t path, build_id; /* texts; build_id 0: has none */
};

struct profile_set {
    struct profile_texts texts;
    struct profile_location *locations;
    size_t location_count, location_capacity;
    struct profile_frame *frames;
    size_t frame_count, frame_capacity;
    struct profile_stack *stacks;
    size_t stack_count, stack_capacity;
    uint32_t *places; /* locations by number */
    size_t place_count, place_capacity;
    struct profile_thread *threads;
    size_t thread_count, thread_capacity;
    struct profile_module *modules;
    size_t module_count, module_capacity;
    struct profile_index by_place, by_stack, by_tid;
    uint32_t era;
    uint64_t left_out; /* samples and waits whose stack did not fit */
};

void profile_set_init(struct profile_set *set);
void profile_set_done(struct profile_set *set);

/* Each gives a number in *out and adds what is not there yet. ERR_LIMIT, ERR_NOMEM. */
int profile_text(struct profile_set *set, const char *text, uint32_t *out);
int profile_location(struct profile_set *set, enum profile_place place, uint64_t pc, uint32_t *out);
int profile_words(struct profile_set *set, const char *words, uint32_t *out); /* a location */
/* `comm` may be NULL: then "?" until profile_thread_name(). */
int profile_thread(struct profile_set *set, pid_t tid, const char *comm, uint32_t *out);
/* Whether this thread was added before. */
bool profile_thread_known(const struct profile_set *set, pid_t tid, uint32_t *out);
void profile_thread_name(struct profile_set *set, uint32_t thread, const char *comm);
/* The stack of `locations`, innermost first; cut at PROFILE_DEPTH_MAX. */
int profile_stack(struct profile_set *set, uint32_t thread, const uint32_t *locations, size_t count,
                  uint32_t *out);
int profile_module(struct profile_set *set, const struct profile_module *module, uint32_t *out);
/* Gives a location its frames, all at once. */
int profile_name(struct profile_set *set, uint32_t location, const struct profile_frame *frames,
                 size_t count);

/* The memory map has changed: known addresses mean something else from now on. */
void profile_next_era(struct profile_set *set);

const char *profile_text_of(const struct profile_set *set, uint32_t text);
/* The frames of a location: at least one. */
size_t profile_frames_of(const struct profile_set *set, uint32_t location,
                         const struct profile_frame **out);
/* What the stacks weigh together. */
void profile_total(const struct profile_set *set, uint64_t *samples, uint64_t *cpu_ns,
                   uint64_t *off_ns);

#endif
