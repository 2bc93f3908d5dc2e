/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a probe asks, and when its failures are a hang. Pure. Called by watch_probe.c; the setting
 * `probe` is written so (common/conf.h joins several by ','):
 *
 *     tcp:HOST:PORT[ send=TEXT]      a connection is accepted; with send=, any answer to TEXT and
 * CR LF http://HOST[:PORT][/PATH]      a GET is answered by a status line unit-watchdog:UNIT
 * systemd's watchdog of the unit was fed in time
 *
 * each with [ every=5s][ timeout=2s][ failures=3]. HOST is an address, no name: probing never waits
 * for a name server. Alive over HTTP is any status below 500; 5xx is a failure of type "http 503".
 */
#ifndef TRAWL_AGENT_PROBE_RULES_H
#define TRAWL_AGENT_PROBE_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define PROBES_MAX 16

enum probe_kind { PROBE_TCP = 1, PROBE_HTTP, PROBE_WATCHDOG };

struct probe_rule {
    enum probe_kind kind;
    char name[128]; /* as it was written, without options */
    char host[64];
    uint16_t port;
    char path[128]; /* HTTP */
    char unit[128];
    char send[64]; /* TCP; empty: nothing is sent */
    int64_t every_us, timeout_us;
    uint64_t failures;
};

/* One of the list. ERR_INVALID with what was wrong. */
int probe_rule_parse(const char *text, struct probe_rule *out, struct failure *f);

/* Hysteresis: `failures` in a row begin a hang, one success ends it. */
struct probe_state {
    uint64_t failures;
    uint64_t first_mono_us; /* of the failures in a row */
    bool is_hung;
};
enum probe_change { PROBE_SAME, PROBE_HUNG, PROBE_RECOVERED };
enum probe_change probe_feed(struct probe_state *state, const struct probe_rule *rule, bool alive,
                             uint64_t began_mono_us);

/* Status of an HTTP answer's first bytes (RFC 9112, section 4): 100 to 599; 0: not enough bytes
 * yet; ERR_CORRUPT: this is no HTTP. */
int probe_http_status(const char *data, size_t size_bytes);

/*
 * How old the watchdog's last feeding may be, from the text of
 * `systemctl show --property=ActiveState,MainPID,WatchdogUSec,WatchdogTimestampMonotonic`
 * (org.freedesktop.systemd1(5)). ERR_NOTFOUND: the unit has no watchdog, or does not run.
 */
struct probe_watchdog {
    uint32_t pid;
    uint64_t limit_us;
    uint64_t fed_mono_us; /* CLOCK_MONOTONIC */
};
int probe_watchdog_parse(const char *text, struct probe_watchdog *out);

#endif
