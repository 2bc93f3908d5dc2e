/* SPDX-License-Identifier: Apache-2.0 */
/* The table itself. Every row is in `trawl-collector run --help` and in the sample file. */
#include "collector/settings.h"

#include <stddef.h>

#define AT(member) offsetof(struct settings, member), sizeof(((struct settings *)0)->member)
#define GIB (1024ull * 1024 * 1024)
#define SECOND_US 1000000ull
#define DAY_US (86400 * SECOND_US)

const struct conf_row settings_rows[] = {
    {"data", CONF_STRING, AT(data), 0, 0, "./trawl-data", "DIR", "data directory, see 'init'",
     true},
    {"config", CONF_STRING, AT(config), 0, 0, NULL, "FILE",
     "settings file (default: DIR/collector.conf when it exists)", true},
    {"listen", CONF_STRING, AT(listen), 0, 0, "0.0.0.0", "ADDRESS", "address to serve on", false},
    {"port", CONF_U64, AT(port), 1, 65535, "7443", "PORT", "port for agents and people", false},
    {"join-port", CONF_U64, AT(join_port), 0, 65535, "7444", "PORT",
     "port where new hosts join; 0 closes it", false},
    {"max-connections", CONF_U64, AT(max_connections), 1, 100000, "12000", "N",
     "connections at once", false},
    {"records-max", CONF_SIZE_BYTES, AT(records_max_bytes), 64 << 20, 1024 * GIB, "8G", "SIZE",
     "counters, events and incidents stop being taken above this", false},
    {"artifacts-max", CONF_SIZE_BYTES, AT(artifacts_max_bytes), 64 << 20, 16384 * GIB, "32G",
     "SIZE", "artifacts stop being taken above this", false},
    {"group-time", CONF_DURATION_US, AT(group_us), 0, SECOND_US, "10ms", "TIME",
     "a commit waits this long for more records", false},
    {"group-records", CONF_U64, AT(group_ops), 1, 100000, "1000", "N", "or for this many records",
     false},
    {"stale-after", CONF_DURATION_US, AT(stale_us), SECOND_US, DAY_US, "30s", "TIME",
     "a connected host that sent nothing for this long is shown as stale", false},
    {"certificate-lifetime", CONF_DURATION_US, AT(certificate_us), 60 * SECOND_US, 3650 * DAY_US,
     "30d", "TIME", "of agents' certificates; agents renew by themselves", false},
    {"evidence", CONF_U64, AT(evidence), 0, 100, "3", "N",
     "occurrences of a new group of exceptions, and of one that came back, that gather evidence",
     false},
    {"evidence-host-hour", CONF_U64, AT(evidence_host_hour), 0, 10000, "20", "N",
     "exceptions of one host in an hour that gather evidence, of all groups", false},
    {"evidence-fleet-hour", CONF_U64, AT(evidence_fleet_hour), 0, 100000, "200", "N",
     "and of the whole fleet", false},
    {"incidents-hour", CONF_U64, AT(incidents_hour), 0, 10000, "30", "N",
     "incidents that exceptions open by themselves in an hour", false},
    {"groups-host-hour", CONF_U64, AT(groups_host_hour), 1, 100000, "200", "N",
     "new groups of one host in an hour; what comes above is counted together", false},
    {"incident-window", CONF_DURATION_US, AT(window_us), SECOND_US, DAY_US, "10m", "TIME",
     "exceptions of a group join its incident for this long", false},
    {"spread-hosts", CONF_U64, AT(spread_hosts), 2, 16, "3", "N",
     "a group spreads when so many hosts have it for the first time", false},
    {"spread-time", CONF_DURATION_US, AT(spread_us), SECOND_US, DAY_US, "10m", "TIME",
     "within this time", false},
    {"important-units", CONF_LIST, AT(important_units), 0, 0, NULL, "GLOB",
     "a crash of such a unit or process always opens an incident (or label its host "
     "important=yes); may be repeated",
     false},
    {"loop-report", CONF_DURATION_US, AT(loop_report_us), 0, DAY_US, "0s", "TIME",
     "how promptly connections are served is told in the log so often; 0 switches it off", false},
    {"log-level", CONF_STRING, AT(log_level), 0, 0, "info", "LEVEL", "error, warn, info or debug",
     false},
    {"help", CONF_BOOL, AT(help), 0, 0, NULL, NULL, "this text", true},
};
const size_t settings_count = sizeof(settings_rows) / sizeof(settings_rows[0]);
