/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the source "probes" share. Private to watch_probe.c (when to ask, what to
 * tell), probe_connection.c (TCP and HTTP) and probe_watchdog.c (systemd). Invariant: an attempt
 * ends in exactly one call of probe_ended(), unless the probe was closed before.
 */
#ifndef TRAWL_AGENT_PROBE_PRIVATE_H
#define TRAWL_AGENT_PROBE_PRIVATE_H

#include "agent/os/process.h"
#include "agent/probe_rules.h"
#include "agent/watch_probe.h"

struct attempt; /* of one connection or child */
struct watch_probe;

struct probe {
    struct watch_probe *owner;
    struct probe_rule rule;
    struct probe_state state;
    uv_timer_t timer;
    struct attempt *attempt; /* NULL: none is under way */
    uint64_t began_us;       /* of the attempt */
    bool was_told_late;      /* the attempt has failed, and is waited for still */
    bool is_local;           /* the other end was seen on this host */
    bool wants_owner, tells_after_owner;
    struct os_process process; /* who owns the port; pid 0: not known */
    char type[32], why[160];   /* of the last failure */
};

struct watch_probe {
    struct source_context context;
    struct probe list[PROBES_MAX];
    size_t count;
    int handles;
    bool is_closed;
};

uint64_t probe_now(const struct probe *p);
/* type and why: of a failure; NULL: alive. */
void probe_ended(struct probe *p, const char *type, const char *why);

/* probe_connection.c; the attempt takes care of its own end. */
void connection_begin(struct probe *p);
/* Looks again: it may have been accepted meanwhile. */
void connection_look(struct probe *p);
/* Forgets it; it goes away by itself. */
void connection_drop(struct probe *p);
const char *connection_waits_for(const struct probe *p);

/* probe_watchdog.c */
void watchdog_begin(struct probe *p);
void watchdog_drop(struct probe *p);

#endif
