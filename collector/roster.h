/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who belongs to the fleet and who is here: one `struct host` per enrolled host, kept for the life
 * of the process, its lasting part stored in partition "hosts". Invariant: at most one session per
 * host; a newer connection of the same host replaces the older one. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_ROSTER_H
#define TRAWL_COLLECTOR_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "collector/store.h"
#include "common/list.h"
#include "proto/codec.h"

struct collector;
struct pki_identity;
struct session; /* fleet.h */
struct window;  /* top.c */

struct host {
    struct list link; /* roster->hosts, by name */
    struct list hash_link;
    trawl_v1_Host record; /* labels, facts, skew; `state` is computed by roster_view() */
    trawl_v1_Cap caps[24];
    size_t cap_count;
    struct session *session; /* NULL: not connected */
    struct list targets;     /* struct target of_host: of captures that are open */
    struct window *window;   /* top's, NULL: no counters came */
    uint64_t last_seen_mono_us;
    /* Delivery cursors, stored under "seq". */
    uint8_t state_id[16];
    uint64_t last_block, last_event, last_order; /* records up to here are committed */
    uint64_t safe_block, safe_event; /* and the cursor that says so: only this is acknowledged */
    uint64_t seen_block, seen_event; /* accepted in this session, maybe not yet committed */
    uint32_t intake; /* counts intakes; one ends with the first record that could not be stored */
    bool intake_closed;     /* until the agent announces itself again */
    uint64_t brake_no;      /* of the brake that it has said it goes by, in this session; 0: none */
    uint64_t rules_version; /* of the rules it was sent in this session; 0: none */
    uint32_t rules_ordered; /* captures that rules had ordered since rules_hour_us */
    int64_t rules_hour_us;
    bool revoked;
    char serial_hex[48]; /* of its certificate, for revocation */
};

struct roster;
int roster_open(struct roster **out, struct collector *c, struct failure *f); /* loads all hosts */
void roster_close(struct roster *roster);

struct host *roster_find(struct roster *roster, const char *name); /* NULL: not enrolled */
/*
 * Whether this certificate speaks for the host (NULL: not enrolled). ERR_IDENTITY: revoked, or the
 * certificate was made before the host's present enrolment (one that was renewed and never shown
 * before the revocation is in no table).
 */
int roster_admit(const struct host *host, const struct pki_identity *who, struct failure *f);
/* A new enrolled host with labels; commits, then `done`. ERR_EXISTS. */
int roster_add(struct roster *roster, const trawl_v1_Host *record, const char *serial_hex,
               store_done_fn done, void *context, struct failure *f);
int roster_save(struct roster *roster, struct host *host, store_done_fn done, void *context);
/* Stores the cursors (state_id, last_*) of a host. */
int roster_save_cursors(struct roster *roster, struct host *host, store_done_fn done,
                        void *context);
/* Hosts in name order; non-zero return stops. */
typedef int (*roster_each_fn)(void *context, struct host *host);
int roster_each(struct roster *roster, roster_each_fn each, void *context);
/* As people see it: state, last seen in wall time. */
void roster_view(struct roster *roster, const struct host *host, trawl_v1_Host *out);
size_t roster_count(const struct roster *roster);
/* For tls.h: non-zero when the serial was revoked. Thread-safe (takes a lock). */
int roster_is_revoked(void *roster, const char *serial_hex);
/* Marks revoked, stores it, ends its session. */
int roster_revoke(struct roster *roster, struct host *host, store_done_fn done, void *context);

#endif
