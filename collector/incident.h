/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incidents, captures and targets: the persistent state machine of a capture. An incident is a
 * place where evidence is gathered; each capture into it is one order with its own targets.
 *
 *   queued -> sent -> running -> done | partial | refused | failed | gone | expired | cancelled
 *
 * Invariants: a final state never changes; every change is committed (partition inc/<id>) before
 * anyone is told; what is open is in memory, what has ended is read from the store when asked for.
 * Survives a restart: incidents_open() loads what is open and dispatch goes on. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_INCIDENT_H
#define TRAWL_COLLECTOR_INCIDENT_H

#include "collector/collector.h"
#include "collector/roster.h"
#include "common/list.h"

struct target {
    struct list link; /* capture->targets, by host name */
    struct capture *capture;
    struct host *host;
    trawl_v1_Target record;
    bool storing;        /* a commit of `record` is on its way */
    bool dirty;          /* `record` changed since, or could not be stored: to be committed again */
    bool told;           /* the order was sent in this session */
    bool cancelling;     /* somebody cancelled it and the host has not said that it ended */
    struct list waiting; /* struct stored: who wants to hear of the next commit */
    struct list of_host; /* host->targets */
    struct list due;     /* in `due_in`: capture->unsent or ->queued; NULL: in none */
    struct list *due_in;
    unsigned counted; /* what it adds to its capture's tallies; see incident_tally.c */
    struct {
        trawl_v1_State state; /* UNKNOWN: nothing yet */
        uint32_t processes;
    } summed; /* what it adds to the incident's record */
};

struct capture {
    struct list link; /* incident->captures */
    struct incident *incident;
    uint32_t no; /* in its incident, from 1 */
    trawl_v1_CaptureRequest request;
    int64_t expires_us;
    struct list targets;
    uint32_t open; /* targets not in a final state */
    bool stored;   /* committed: orders may be sent */
    /* Kept by target_recount(), so that nobody walks all targets at every change of one. */
    uint32_t running;       /* sent or running on hosts that are here */
    uint32_t canaries_open; /* not ended */
    uint32_t unsettled;     /* storing or dirty */
    struct list unsent;     /* sent by the record, but not told to their hosts, which are here */
    struct list queued[2];  /* queued on hosts that are here: canaries, the rest */
    struct target *bad_canary;
    bool is_stopped; /* for the bad canary: the rest was cancelled */
};

struct incident {
    struct list link; /* newest first */
    struct list hash_link;
    struct incidents *incidents;
    trawl_v1_Incident record; /* its sums are those of the committed rows */
    struct list captures;     /* open ones */
    uint32_t capture_count;   /* ever */
    struct list watchers;
};

#define INCIDENT_BUCKETS 1024

struct incidents {
    struct collector *collector;
    struct list all;                       /* newest first */
    struct list buckets[INCIDENT_BUCKETS]; /* by ID */
    size_t count;
};
int incidents_open(struct incidents **out, struct collector *c, struct failure *f);
void incidents_close(struct incidents *incidents);

bool state_is_final(trawl_v1_State state);
const char *state_name(trawl_v1_State state); /* "queued", ... */

/*
 * The incident that `text` names: its ID or any unique part of it, case-insensitive. NULL with
 * ERR_NOTFOUND or ERR_CONFLICT (names the candidates) in f.
 */
struct incident *incident_find(struct incidents *incidents, const char *text, struct failure *f);
/* By the whole ID; NULL. */
struct incident *incident_by_id(struct incidents *incidents, const char *id);
/* Newest first; non-zero return stops. */
typedef int (*incident_each_fn)(void *context, struct incident *incident);
int incident_each(struct incidents *incidents, incident_each_fn each, void *context);

/*
 * Begins a capture on `hosts` as `who` ("sre/alice"). The request is complete (defaults filled in)
 * and valid. After `done` with code 0 it survives anything; dispatch was started.
 */
int incident_capture(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                     struct host *const *hosts, size_t host_count, const char *who,
                     struct incident **out, store_done_fn done, void *context, struct failure *f);
/* Why an incident opens by itself. */
struct incident_cause {
    const char *text;
    const char *group; /* ID */
    int64_t from_us;   /* its window begins here, collector time */
    const char *rule;  /* that fired; NULL: none */
};
/*
 * As incident_capture(), for an exception: request->exception names it, request->into an incident
 * to join ("": a new one). A host can be a target of several of these at once: they are sent one
 * after the other, and none before its instant.
 */
int incident_capture_for(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                         struct host *host, const struct incident_cause *cause,
                         struct incident **out, store_done_fn done, void *context,
                         struct failure *f);
/* Whether a capture with this request_id goes on in the incident. */
bool incident_capturing(const struct incident *incident, const uint8_t request_id[16]);
/* The incident a request_id led to, or NULL. */
struct incident *incident_by_request(struct incidents *incidents, const uint8_t request_id[16]);

/* After a change of state, `told`, `storing`, `dirty` or of the host's session: puts the tallies of
 * the target's capture right. */
void target_recount(struct target *target);
/* Moves a target on: commits, then tells watchers and dispatch. Ignored when it is final already.
 */
void target_move(struct target *target, trawl_v1_State state, const char *reason);
/* What the agent says of an order; `done` when committed (or when there is nothing to commit). */
int incident_verdict(struct incidents *incidents, struct host *host,
                     const trawl_v1_Verdict *verdict, store_done_fn done, void *context,
                     struct failure *f);
/* Ends everything that has not ended, for `reason`. */
void incident_cancel(struct incidents *incidents, struct incident *incident, const char *reason);
/* Once a second: what has expired. */
void incidents_tick(struct incidents *incidents);

/* An artifact was sealed: its record is stored, then `done`. */
int incident_artifact(struct incidents *incidents, const trawl_v1_Artifact *artifact,
                      store_done_fn done, void *context, struct failure *f);
/* May this host add artifacts to this incident? (It is a target that was sent there, and its order
 * is not over.) */
bool incident_accepts(struct incidents *incidents, const char *incident, const struct host *host);

/* Everything stored of an incident. Non-zero return stops. */
struct incident_rows {
    int (*target)(void *context, const trawl_v1_Target *target);
    int (*artifact)(void *context, const trawl_v1_Artifact *artifact);
    void *context;
};
int incident_read(struct incidents *incidents, const struct incident *incident,
                  const struct incident_rows *rows);

/* Being told of changes; embed, the callbacks may be NULL. */
struct watcher {
    struct list link;
    void (*incident)(struct watcher *watcher, const trawl_v1_Incident *incident);
    void (*target)(struct watcher *watcher, const trawl_v1_Target *target);
    void (*artifact)(struct watcher *watcher, const trawl_v1_Artifact *artifact);
};
void incident_watch(struct incident *incident, struct watcher *watcher);
void incident_unwatch(struct watcher *watcher);

#endif
