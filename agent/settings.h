/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's settings: one table for file, flags, help and sample. None is needed to run by hand
 * besides
 * --collector and --join the first time. Called by main.
 */
#ifndef TRAWL_AGENT_SETTINGS_H
#define TRAWL_AGENT_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/state.h"
#include "common/buf.h"

#define SETTINGS_FILE "/etc/trawl/agent.conf"
#define SETTINGS_DEFAULT_PORT 7443
#define SETTINGS_STATE "/var/lib/trawl-agent" /* when started as root */
#define SETTINGS_INTAKE_DIR "/run/trawl"
#define SETTINGS_INTAKE SETTINGS_INTAKE_DIR "/exceptions.sock"

struct settings {
    char collector[STATE_HOST_SIZE]; /* host[:port] */
    char join[512];                  /* token; wiped after use */
    char name[64];
    char state_dir[STATE_PATH_SIZE];
    char user[64];
    char follow[1024];
    char follow_logs[1024];
    bool follow_own_logs;
    bool journal;
    char probe[2048];
    uint64_t busiest;
    char throws[512];
    char intake[256];
    uint64_t ring_bytes;
    uint64_t evidence_bytes;
    uint64_t upload_bytes_per_s;
    uint64_t capture_cpu_percent;
    char log_level[16];
    char policy[256];
    char config[256];
    char format[16]; /* of self-test and crash-handler status */
    bool crash_handler;
    uint64_t crash_bytes;
    uint64_t crash_core_bytes;
    char crash_file[256];
    char crash_socket[256];
    bool socket;    /* crash-handler install */
    bool force;     /* crash-handler remove */
    char root[256]; /* "", or the directory with the proc tree of a test */
};

/*
 * Defaults, then the file (the default one may be missing, a named one may not), then flags.
 * *argc/argv: the remaining words. Also sets the log level and the state directory's default.
 */
int settings_read(struct settings *settings, int *argc, char **argv, struct failure *f);
/* Where applications report, by what was set; "" when nowhere. `size_bytes` >= STATE_PATH_SIZE. */
void settings_intake(const struct settings *settings, char *out, size_t size_bytes);
int settings_help(struct buf *out);
int settings_sample(struct buf *out);

/* "host", "host:port", "[v6]:port", "v6" -> host and port (7443 when there is none). */
int settings_address(const char *text, char *host, size_t size_bytes, uint16_t *port,
                     struct failure *f);

#endif
