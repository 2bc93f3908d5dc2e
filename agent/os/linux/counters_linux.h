/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to counters*.c. A counter file is one file of /proc with the rows that are taken from it:
 * to add a counter is to add a row, to add a file is to add an entry to its topic. counters.c
 * opens, reads and reopens the files; counters_series.c defines series when they first have a value
 * and turns what was not found into gaps; a topic's parsers only call counter_value().
 *
 * Invariant: after a sample each defined series got exactly one of value, gap or retire.
 */
#ifndef TRAWL_AGENT_OS_LINUX_COUNTERS_LINUX_H
#define TRAWL_AGENT_OS_LINUX_COUNTERS_LINUX_H

#include <limits.h>

#include "agent/os/counters.h"
#include "agent/os/linux/procfs.h"
#include "common/buf.h"

#define COUNTER_GROUPS_MAX 2
#define COUNTER_LINES_MAX 512
#define COUNTER_REASON_SIZE 160
#define COUNTER_INSTANCE_SIZE OS_PROCESS_NAME_SIZE
#define COUNTER_RETRY_US UINT64_C(10000000)
#define COUNTER_TICK_US 10000 /* USER_HZ is 100 on every architecture we build for */

/* One counter as it stands in a file. */
struct counter_row {
    const char *key; /* its name in the file; NULL where its place tells */
    const char *name;
    const char *unit;
    enum os_counter_kind kind;
    uint32_t multiply; /* file's number * multiply = integer in `unit` */
};

#define SERIES_NEW INT_MIN /* not yet defined; any other negative slot: refused by the sink */

struct series {
    int slot;
    uint32_t stamp; /* sample that last gave it a value or a gap */
    bool has_value; /* of that sample; else a gap */
    uint64_t raw;   /* the file's number */
};

/* What the rows are counted for: the host (""), a core, a disk, an interface, a process. */
struct instance {
    char name[COUNTER_INSTANCE_SIZE];
    uint32_t pid;
    uint32_t stamp;
    struct series series[]; /* one for each row */
};

/* All instances that one set of rows is counted for. `limit` 0: only the host. */
struct group_type {
    const struct counter_row *rows;
    size_t row_count;
    size_t limit;
    uint32_t scale; /* 0: 1 */
};
struct series_group {
    const struct group_type *type;
    struct instance **list; /* in the order of the file */
    size_t count;
    size_t capacity;
    size_t cursor; /* where the next instance is expected */
};

struct counter_file;
struct counter_file_type {
    const char *path;
    void (*parse)(struct os_counters *c, struct counter_file *file, struct span text);
    struct group_type groups[COUNTER_GROUPS_MAX];
};
struct counter_file {
    const struct counter_file_type *type;
    int fd; /* -1: not open */
    uint64_t retry_us;
    struct series_group groups[COUNTER_GROUPS_MAX];
    bool mapped;
    size_t map_length;              /* for the parser: tells whether the map still fits */
    int16_t map[COUNTER_LINES_MAX]; /* line or column -> row, -1: not wanted */
    char path[PROC_PATH_SIZE];
    char reason[COUNTER_REASON_SIZE]; /* why it cannot be read */
    char absent[COUNTER_REASON_SIZE]; /* why a row has no value when it can */
};

struct filesystems;
struct processes;

struct os_counters {
    struct os_counter_sink sink;
    char root[PROC_PATH_SIZE / 2];
    uint32_t stamp; /* number of this sample, never 0 */
    uint64_t mono_us;
    uint64_t left_out; /* series and instances over a limit, in this sample */
    uint64_t refused;  /* series the sink did not take, ever */
    struct buf buffer; /* the file being read */
    struct counter_file *files;
    size_t file_count;
    struct series_group own; /* counters about this reader */
    struct filesystems *filesystems;
    struct processes *processes;
    /* Seen by the parsers for the scan of processes: nothing changed, nothing started or ended. */
    uint64_t forks;
    uint64_t threads;
};

/* ---- counters_series.c ---- */

int group_init(struct series_group *group, const struct group_type *type);
void group_done(struct series_group *group);
/* The host's only instance. */
struct instance *group_host(struct series_group *group);
/* The instance of that name, added when new; marks it as seen. NULL: over the limit (counted). */
struct instance *group_find(struct os_counters *c, struct series_group *group, struct span name);
/* A new instance that is not part of a group's list (a process). NULL: out of memory. */
struct instance *instance_open(const struct group_type *type, struct span name, uint32_t pid);
/* Ends its series and frees it. */
void instance_close(struct os_counters *c, const struct group_type *type,
                    struct instance *instance);

void counter_value(struct os_counters *c, const struct group_type *type, struct instance *instance,
                   size_t row, uint64_t raw);
void counter_gap(struct os_counters *c, const struct group_type *type, struct instance *instance,
                 size_t row, const char *reason);
/* Gives a gap to every series of it not set in this sample. Rows never seen stay undefined. */
void instance_end(struct os_counters *c, const struct group_type *type, struct instance *instance,
                  const char *reason);
/* instance_end() for all that were seen in this sample; the others are retired. */
void group_end(struct os_counters *c, struct series_group *group, const char *reason);
/* A gap for everything in it. */
void group_gap(struct os_counters *c, struct series_group *group, const char *reason);
/* Whether that row has a value in this sample. */
bool counter_has(const struct os_counters *c, const struct instance *instance, size_t row);

/* ---- counters.c: files ---- */

/* "key: number" or "key number" lines; rows are found by key. */
void counters_parse_keyed(struct os_counters *c, struct counter_file *file, struct span text);

/* A topic's files: counters_TOPIC.c. */
struct counter_topic {
    const struct counter_file_type *files;
    size_t count;
};
extern const struct counter_topic counters_cpu, counters_memory, counters_pressure, counters_disk,
    counters_net;

/* ---- counters_filesystem.c: sizes of mounted local file systems, every 10 s ---- */

int filesystems_open(struct filesystems **out, const char *root, struct failure *f);
void filesystems_close(struct filesystems *filesystems);
void filesystems_sample(struct os_counters *c, struct filesystems *filesystems);

/* ---- counters_process.c: processes that are followed; counters_scan.c: which those are ---- */

int processes_open(struct processes **out, struct os_counters *c,
                   const struct os_counter_settings *settings, struct failure *f);
void processes_close(struct processes *processes);
void processes_sample(struct os_counters *c, struct processes *processes);

#endif
