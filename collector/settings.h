/* SPDX-License-Identifier: Apache-2.0 */
/* The collector's settings: one table for file, flags, help and sample. Read once at start. */
#ifndef TRAWL_COLLECTOR_SETTINGS_H
#define TRAWL_COLLECTOR_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"

struct settings {
    char data[512];
    char config[512];
    char listen[64];
    uint64_t port;
    uint64_t join_port;
    uint64_t max_connections;
    uint64_t records_max_bytes;
    uint64_t artifacts_max_bytes;
    int64_t group_us;
    uint64_t group_ops;
    int64_t stale_us;
    int64_t certificate_us;
    uint64_t evidence; /* of exceptions: see group.h, struct group_limits */
    uint64_t evidence_host_hour;
    uint64_t evidence_fleet_hour;
    uint64_t incidents_hour;
    uint64_t groups_host_hour;
    int64_t window_us;
    uint64_t spread_hosts;
    int64_t spread_us;
    char important_units[512];
    int64_t loop_report_us; /* see pulse.h */
    char log_level[16];
    bool help;
};

extern const struct conf_row settings_rows[];
extern const size_t settings_count;

#endif
