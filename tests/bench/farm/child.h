/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs that the farm runs: the collector, and the command line. What they cost is read from
 * /proc, what the collector's loop did from its log (setting loop-report).
 */
#ifndef TRAWL_BENCH_FARM_CHILD_H
#define TRAWL_BENCH_FARM_CHILD_H

#include <stdio.h>

#include "farm.h"

struct child {
    uv_process_t process;
    bool has_ended;
    int64_t exit_status;
    int signal;
};

/* `arguments` end with NULL; both outputs go to the file. Ends the program when it cannot start. */
void child_start(struct farm *farm, struct child *child, const char *program,
                 const char *const *arguments, const char *output);
/* Runs the loop until it has ended. */
bool child_wait(struct farm *farm, struct child *child, unsigned limit_s);

struct collector_process {
    struct child child;
    char log[FARM_PATH];
    long log_read; /* up to here */
};

struct usage {
    uint64_t cpu_us;
    uint64_t rss_bytes, peak_bytes; /* the store's mapped files included */
    uint64_t private_bytes;         /* without them */
};

void collector_start(struct farm *farm, struct collector_process *collector);
void collector_stop(struct farm *farm, struct collector_process *collector);
struct usage collector_usage(const struct collector_process *collector);
/* The longest turn of its loop told since the last call, ms, and how busy it was at most, %. */
struct turns {
    double longest_ms, busy_percent;
};
struct turns collector_turns(struct farm *farm, struct collector_process *collector);

#endif
