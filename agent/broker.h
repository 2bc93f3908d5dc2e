/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only process that keeps privileges. Fixed-size requests from the agent; each is checked
 * against the owner's policy here, whatever the agent has checked already. One worker at a time. It
 * ends when the agent does, and takes the worker with it. Run by os_broker_fork().
 */
#ifndef TRAWL_AGENT_BROKER_H
#define TRAWL_AGENT_BROKER_H

#include <stdbool.h>
#include <stdint.h>

struct broker_settings {
    const char *policy_path;
    const char *crash_file;       /* what the crash handler reads */
    uint32_t capture_cpu_percent; /* of one core, for long streams; 0: no limit */
    const char *follow_logs;      /* patterns of log files that may be opened; NULL: none */
    const char *follow;           /* names of processes whose own logs may be */
    bool follow_own_logs, journal;
};

/* For os_broker_fork(): `context` is a struct broker_settings. */
int broker_run(int fd, void *context);

#endif
