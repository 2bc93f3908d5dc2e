/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to counters_process.c (values of the processes that are followed) and counters_scan.c
 * (which processes there are, and which of them are followed).
 */
#ifndef TRAWL_AGENT_OS_LINUX_COUNTERS_PROCESS_H
#define TRAWL_AGENT_OS_LINUX_COUNTERS_PROCESS_H

#include <dirent.h>

#include "agent/os/linux/counters_linux.h"

#define FOLLOWED_REASON_SIZE 96

/* One thread's scheduler statistics. Its file stays bound to that thread when the tid is reused. */
struct followed_thread {
    uint32_t tid;
    int fd;
    uint64_t run_ns, wait_ns, switches; /* as read last */
};

/*
 * A process that has counters. Its open files are bound to the process, not to its number: once it
 * has ended they give ESRCH, also when the pid is in use again.
 */
struct followed {
    uint32_t pid;
    uint64_t start_ticks;
    bool named;          /* asked for by name: never given up */
    uint64_t busy_us;    /* when it was last among the busiest */
    uint64_t renamed_us; /* 0: never */
    char comm[OS_PROCESS_NAME_SIZE];
    struct instance *instance;
    uint64_t ticks;   /* of processor time */
    bool ended;       /* not yet reaped */
    uint64_t read_us; /* when all its files were read last; 0: never */
    bool idle;        /* it did not run since */
    int stat_fd;
    int io_fd;
    int files_fd;
    int io_error; /* errno of opening io; asked of the broker when it is a lack of privilege */
    struct os_process_io io; /* from the broker */
    uint64_t io_us;          /* when it came; 0: never */
    char io_reason[FOLLOWED_REASON_SIZE];

    struct followed_thread *threads;
    size_t thread_count, thread_capacity;
    uint32_t threads_listed;                   /* how many it had when they were listed */
    uint64_t listed_us;                        /* 0: never */
    uint64_t wait_ns, switches;                /* of all its threads, also those that ended */
    char threads_reason[FOLLOWED_REASON_SIZE]; /* why they are not known; "" when they are */
};

/* Any process that the scan has seen. */
struct known {
    uint32_t pid;
    bool scanned;
    bool ignored; /* a kernel thread, or a record that cannot be read */
    bool ended;   /* not yet reaped */
    bool told;    /* its start needs no telling: it was there before, or was told */
    bool named;   /* asked for by name */
    bool doubted; /* to be scanned at once: its pid may be in use again */
    uint64_t start_ticks;
    uint64_t ticks;   /* of processor time, when it was scanned last */
    uint64_t seen_us; /* when it was first listed; 0: it was there before us */
    uint64_t scanned_us;
    uint64_t rate; /* microseconds of processor time per second, smoothed */
    char comm[PROC_COMM_CUT + 1];
    char name[OS_PROCESS_NAME_SIZE];
};

struct processes {
    const char *root;
    const char *const *names;
    uint32_t busiest;
    uint32_t max_scanned;

    struct followed *followed;
    size_t followed_count, named_count;
    size_t busy_limit, named_limit;
    size_t thread_total;
    size_t io_next;     /* whose io is asked for next */
    bool files_counted; /* the kernel tells how many files a process has open */
    uint64_t page_bytes;

    DIR *dir;            /* /proc */
    struct known *known; /* by rising pid */
    size_t known_count, known_capacity;
    uint32_t *pids; /* of the listing, rising */
    size_t pid_count, pid_capacity;
    bool cut;           /* there are more than the listing holds */
    struct known **top; /* room for the busiest */
    uint64_t listed_us; /* 0: never */
    uint64_t listed_forks, listed_threads;
    bool list_again;
    bool fresh;                       /* some of those known were not scanned yet */
    uint32_t turn_pid;                /* the turn goes on behind it */
    uint32_t turn;                    /* its number */
    size_t user_count;                /* known and not ignored */
    size_t left_out;                  /* named or busy, but there was no room */
    char reason[COUNTER_REASON_SIZE]; /* why processes cannot be listed; "" when they can */
    struct series_group host;

    void (*changed)(void *context, const struct os_process_change *change);
    void *changed_context;
};

/* ---- counters_process.c ---- */

struct followed *followed_find(struct processes *p, uint32_t pid);
/* Begins to follow; `named` for good. False: no room, no memory, or it ended meanwhile. */
bool followed_add(struct os_counters *c, struct processes *p, const struct known *known);
void followed_remove(struct os_counters *c, struct processes *p, struct followed *process);

/* ---- counters_thread.c ---- */

/* Reads the threads listed. False: none of them ran since the last reading, and all are known. */
bool threads_read(struct processes *p, struct followed *process);
/* Lists them anew if there may be others. Returns the reason why the sums are not known, or NULL.
 */
const char *threads_update(struct os_counters *c, struct processes *p, struct followed *process,
                           uint32_t threads);
void threads_done(struct processes *p, struct followed *process);

/* ---- counters_scan.c ---- */

/* Keeps the list of processes up to date, tells of starts and exits, chooses whom to follow. */
void scan_sample(struct os_counters *c, struct processes *p);
/* The process with this pid was found to have ended. */
void scan_doubt(struct processes *p, uint32_t pid);
void scan_done(struct processes *p);
/* As os_counters_each_process(). */
bool scan_each(const struct processes *p,
               void (*each)(void *context, const struct os_process_change *process), void *context);

#endif
