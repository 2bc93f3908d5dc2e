/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the readers of kernel messages share: the state of one parser, and words for walking along a
 * line. Private to kernel_fault*.c. Invariant: every line is terminated and shorter than
 * FAULT_LINE_SIZE, and every text goes into its field cut.
 */
#ifndef TRAWL_AGENT_OS_LINUX_KERNEL_FAULT_LINUX_H
#define TRAWL_AGENT_OS_LINUX_KERNEL_FAULT_LINUX_H

#include "agent/os/kernel_fault.h"

#define FAULT_LINE_SIZE 1024
#define FAULT_REPEATS 16

/* An out-of-memory kill, line by line. */
struct fault_oom {
    uint64_t since_us; /* of its first line; 0: none is being told of */
    char asked_by[32];
    char limit[32]; /* "20480 kB" */
    char constraint[32];
    char limit_cgroup[96], cgroup[96];
    char whole_group[96]; /* all of this cgroup are killed (memory.oom.group) */
    uint32_t uid;         /* UINT32_MAX: not told */
};

/* A disk error that comes again and again. */
struct fault_repeat {
    const void *row; /* NULL: free */
    char device[32];
    uint64_t since_us, last_us;
    uint32_t told;
    uint64_t count; /* not told yet */
    char line[FAULT_LINE_SIZE / 2];
};

struct os_kernel_fault {
    os_kernel_fault_fn told;
    void *context;
    struct os_exception one; /* of a single line */
    /* A report of many lines. */
    struct os_exception report;
    bool is_open, in_trace, is_fatal;
    uint64_t last_us;
    bool is_cut_here;                /* "[ cut here ]" was the last line */
    char said[FAULT_LINE_SIZE / 4];  /* the line behind it */
    char fault[FAULT_LINE_SIZE / 2]; /* a fault line whose "in MODULE" may follow */
    uint64_t fault_us;
    struct fault_oom oom;
    struct fault_repeat repeats[FAULT_REPEATS];
};

/* Behind the first `word` in `line`, or NULL. */
const char *fault_after(const char *line, const char *word);
/* Behind `word` when the line begins with it, or NULL. */
const char *fault_skip(const char *line, const char *word);
/* A number at *at, moved behind it. */
bool fault_number(const char **at, uint64_t *out);
bool fault_hex(const char **at, uint64_t *out); /* with or without 0x */
/* Copies up to the first of `stops`, or all. */
void fault_copy_until(char *out, size_t size_bytes, const char *at, const char *stops);
void fault_tag(struct os_exception *e, const char *key, const char *value);
/* Begins `e`: source, type, time, and the line as its message. */
void fault_begin(struct os_exception *e, enum os_exception_source source, const char *type,
                 uint64_t mono_us, const char *line);
void fault_tell(struct os_kernel_fault *f, const struct os_exception *e, uint64_t last_us);

/* Each returns whether the line was its own. */
bool fault_feed_oom(struct os_kernel_fault *f, uint64_t mono_us, const char *line);
bool fault_feed_trap(struct os_kernel_fault *f, uint64_t mono_us, const char *line);
void fault_flush_trap(struct os_kernel_fault *f);
bool fault_feed_device(struct os_kernel_fault *f, int priority, uint64_t mono_us, const char *line);
void fault_flush_devices(struct os_kernel_fault *f, uint64_t mono_us);
bool fault_feed_report(struct os_kernel_fault *f, uint64_t mono_us, const char *line);
void fault_flush_report(struct os_kernel_fault *f);

#endif
