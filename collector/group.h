/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes exceptions one problem, and what is done about one more of it. Pure: no I/O, no clock
 * (times are arguments), no globals; so every decision can be tested and repeated. Called by
 * groups*.c, which keep the records.
 *
 *   group_signature.c   an exception -> 16 bytes and the frames they are made of
 *   group_skip.c        frames that say nothing of the problem, as a table
 *   group.c             counting; new, known, regressed, spreading; which evidence to gather
 */
#ifndef TRAWL_COLLECTOR_GROUP_H
#define TRAWL_COLLECTOR_GROUP_H

#include "common/buf.h"
#include "proto/codec.h"

/* ---- signature ---- */

#define GROUP_SIGNATURE_SIZE 16
#define GROUP_FRAMES 5 /* that make a signature, at most */
#define GROUP_FUNCTION_SIZE 128

/* Names a frame of machine code. 0, or negative when nothing is known of its place. */
struct group_names {
    int (*find)(void *context, const trawl_v1_Frame *frame, char out[GROUP_FUNCTION_SIZE]);
    void *context;
};

enum group_made_of {
    GROUP_OF_FRAMES, /* of the application */
    GROUP_OF_SYSTEM, /* nothing else was on the stack */
    GROUP_OF_MESSAGE /* no frame that says where */
};

struct group_signature {
    uint8_t bytes[GROUP_SIGNATURE_SIZE];
    enum group_made_of made_of;
    trawl_v1_Frame frames[GROUP_FRAMES]; /* with names that were found */
    size_t frame_count;
};
/*
 * Source, type and program; then the innermost frames of the application, each once (recursion is
 * folded): of machine code module and function when the function is known (so that two builds are
 * one problem), else module, build-id and offset (so that two builds are two, until symbols come);
 * of a language with its own stack file and function, never the line. Stacks of system frames only:
 * those frames. No frames: message template and process, unit or device. `names` may be NULL.
 */
void group_signature(const trawl_v1_Exception *e, const struct group_names *names,
                     struct group_signature *out);
/* Of all that could not get a group of its own: one for each host and source. */
void group_signature_rest(const trawl_v1_Exception *e, const char *host,
                          struct group_signature *out);

/* Whether the table names the frame (function "": not known). `language` as in Exception. */
bool group_skips(const char *language, const trawl_v1_Frame *frame, const char *function);
/* Machine code: modules and offsets are what counts. */
bool group_is_machine(const char *language, const trawl_v1_Frame *frame);

/* ---- settings and limits ---- */

#define GROUP_SAMPLES_FIRST 3
#define GROUP_SAMPLES_MAX 12 /* kept whole, of one group */
#define GROUP_MINUTES 60
#define GROUP_ARRIVALS 16
#define GROUP_GATHERED 16
#define GROUP_WANT_TRIES 3
#define GROUP_COUNT_MAX 1000000000 /* of one record: more were not counted by anybody */
#define GROUP_NEW_US (24 * 3600 * INT64_C(1000000)) /* so long a group is called new */

struct group_limits {
    uint32_t evidence;           /* occurrences of a group (and of a regression) with evidence */
    uint32_t evidence_host_hour; /* of all groups */
    uint32_t evidence_fleet_hour;
    uint32_t incidents_hour; /* opened by themselves, in the fleet */
    uint32_t groups_host_hour;
    int64_t window_us; /* of one incident, and of the same content on a host */
    uint32_t spread_hosts;
    int64_t spread_us;
};

/* What was used of an hourly limit. Hours of collector time, so that restarts change nothing. */
struct group_quota {
    uint64_t hour;
    uint32_t evidence, incidents, groups;
};
/* Begins anew when another hour has come. */
void group_quota_at(struct group_quota *quota, int64_t now_us);
int group_quota_put(const struct group_quota *quota, struct buf *out);
int group_quota_get(struct group_quota *quota, struct span in);

/* ---- a group's own state: beside what people see of it ---- */

struct group_gathered {
    uint64_t content; /* with the host: group_content() */
    int64_t at_us;
    uint32_t kinds;
};

struct group_state {
    uint32_t samples_left;  /* that may still be kept whole */
    uint32_t samples_put;   /* ever: the next one's number */
    uint32_t evidence_left; /* occurrences that still gather */
    uint32_t want_tries;    /* that the host could not give */
    int64_t incident_us;    /* last exception that opened or joined incidents[0]; 0: none */
    int64_t spread_told_us; /* when it began to spread; 0: it does not */
    uint64_t minute;        /* newest of the minutes below */
    uint32_t minutes[GROUP_MINUTES];  /* occurrences, by minute modulo GROUP_MINUTES */
    int64_t arrivals[GROUP_ARRIVALS]; /* when the newest hosts were seen first */
    uint32_t arrival_next;
    struct group_gathered gathered[GROUP_GATHERED];
    uint32_t gathered_next;
};
int group_state_put(const struct group_state *state, struct buf *out);
int group_state_get(struct group_state *state, struct span in); /* ERR_CORRUPT */

/* ---- one more ---- */

struct group_occurrence {
    const trawl_v1_Exception *exception; /* host set, times in collector time */
    uint64_t count;                      /* that were not counted before */
    int64_t now_us;                      /* collector time */
    bool first_on_host;
    bool important; /* host or unit is marked */
};

struct group_change {
    bool is_new, regressed;
    bool spreads; /* it begins to, with this one */
};

/* A record for the first exception of a signature; counts nothing yet. */
void group_begin(trawl_v1_Group *group, struct group_state *state, const char *id,
                 const struct group_signature *signature, const trawl_v1_Exception *e,
                 const struct group_limits *limits);
/* Counts: occurrences, versions, minutes, hosts; says what changed by it. */
struct group_change group_count(trawl_v1_Group *group, struct group_state *state,
                                const struct group_limits *limits,
                                const struct group_occurrence *o);
/* Occurrences in the hour before its last one. */
uint64_t group_per_hour(const struct group_state *state);
/* What people are shown at `now_us`: state new ends, spreading ends, per_hour. */
void group_view(trawl_v1_Group *group, const struct group_state *state,
                const struct group_limits *limits, int64_t now_us);

/* ---- evidence ---- */

#define GROUP_KINDS 12 /* as many as a request holds */

struct group_kinds {
    const char *list[GROUP_KINDS];
    size_t count;
};
/* What can be had of this exception: of what died what the host saved, of what lives the rest. */
void group_kinds_first(const trawl_v1_Exception *e, struct group_kinds *out);
/* For the minute before and the minute after. */
void group_kinds_around(const trawl_v1_Exception *e, struct group_kinds *out);
/* Of what somebody wants, what this exception can give. */
void group_kinds_wanted(const trawl_v1_Group *group, const trawl_v1_Exception *e,
                        struct group_kinds *out);
/* A bit for each kind; the same for ever. */
uint32_t group_kinds_mask(const struct group_kinds *kinds);
void group_kinds_of(uint32_t mask, struct group_kinds *out);
/* Whether its process should still run. */
bool group_process_lives(const trawl_v1_Exception *e);

struct group_decision {
    bool sample;   /* to be kept whole */
    bool evidence; /* kinds are to be gathered */
    bool opens;    /* in an incident of its own; else in the group's newest one */
    bool wanted;   /* somebody asked for it: kinds are those */
    struct group_kinds kinds;
    struct group_kinds more; /* of them those that somebody wants */
    const char *because; /* "new", "regressed", "spreading", "important", "wanted", "seen again" */
};
/*
 * Decides and takes from the limits what it grants. A limit that is in the way is said in
 * group->note.
 */
void group_decide(trawl_v1_Group *group, struct group_state *state,
                  const struct group_limits *limits, const struct group_occurrence *o,
                  const struct group_change *change, struct group_quota *host,
                  struct group_quota *fleet, struct group_decision *out);

#endif
