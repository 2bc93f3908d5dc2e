/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of rules: counters, processes, exceptions, log lines and probes in, decisions out.
 * Pure: no I/O, no clock, no globals; every time is given by the caller. Called by the agent, once
 * a second, and by the collector, which replays what is stored (`trawl rules test`).
 *
 * Time is monotonic (CLOCK_MONOTONIC, or in a replay the time of the samples): it never goes back;
 * a call that would go back is refused. Wall clocks may jump as they like, they are not looked at.
 *
 * Invariants: a value that is missing is unknown, never 0 and never "not true"; between two moments
 * that are counted as one stretch of `for` there is no unknown time; no rule is FIRED more often
 * than its limit allows in any time of that length, also over a restart, provided that the record
 * is kept (rule_engine_record()) before what was fired is acted upon.
 */
#ifndef TRAWL_RULE_ENGINE_H
#define TRAWL_RULE_ENGINE_H

#include "rule/language.h"

#define RULE_GAP INT64_MIN
#define RULE_SLOTS_MAX 65536 /* numbers of series are below */
#define RULE_CELLS_MAX 8192  /* series that conditions look at, all together */
#define RULE_WINDOWS_MAX 256 /* of them, those compared over a minute and more */
#define RULE_SENTENCE_SIZE 320
#define RULE_RECORD_MAX (128u << 10)

/* Unknown for so long, a stretch of `for` only stands still; for longer, it begins anew. */
#define RULE_HOLD_US UINT64_C(10000000)
/* Steps are a second apart. Over this, what lay between is unknown. */
#define RULE_STEP_MAX_US UINT64_C(2500000)
/* A rule that could not be evaluated for so long says so. */
#define RULE_BLIND_US UINT64_C(60000000)
/* A rule is over when its condition was false for as long as `for`, but at least and at most: */
#define RULE_QUIET_MIN_US UINT64_C(10000000)
#define RULE_QUIET_MAX_US UINT64_C(300000000)

enum rule_verdict {
    RULE_FIRED = 1,  /* capture now */
    RULE_SUPPRESSED, /* it would have fired, but for its limit */
    RULE_QUIET,      /* what it fired for (or was suppressed) is over */
    RULE_BLIND,      /* cannot be evaluated, with the reason; said once */
    RULE_SEES        /* can be evaluated again */
};

struct rule_decision {
    enum rule_verdict verdict;
    const struct rule *rule; /* of the engine's set: kinds, limit, peers */
    uint64_t mono_us;
    uint64_t
        since_us; /* since when it was true (FIRED, SUPPRESSED), fired (QUIET), unknown (BLIND) */
    char process[RULE_WORD_SIZE]; /* to be captured: of the rule, or of which it was true; or "" */
    uint32_t pid;                 /* 0: any of that name */
    /* "redis-server process.rss 3.1 GiB > 2 GiB for 30 s"; or the reason. */
    char sentence[RULE_SENTENCE_SIZE];
};
typedef void (*rule_decided_fn)(void *context, const struct rule_decision *decision);

struct rule_engine;

/* Takes `set` (also when it fails). `decided` is called from within the functions below. No rule is
 * firing, nothing counts against limits. ERR_NOMEM. */
int rule_engine_open(struct rule_engine **out, struct rule_set *set, rule_decided_fn decided,
                     void *context);
void rule_engine_close(struct rule_engine *engine); /* NULL is fine */
const struct rule_set *rule_engine_set(const struct rule_engine *engine);
/*
 * Other rules from now on; takes `set`. A rule that did not change keeps its state; one that
 * changed begins quiet, but what it fired still counts against its limit, and so does that of a
 * rule of the same name that comes back. All series and processes are forgotten: define them again.
 * On failure the old rules stay.
 */
int rule_engine_replace(struct rule_engine *engine, struct rule_set *set);

/* ---- counters ---- */

struct rule_series {
    const char *name;     /* "disk.busy_time" */
    const char *instance; /* "sda"; of process.* the process; "" for the host */
    const char *unit;     /* "us", "bytes", ... */
    bool is_count;        /* rises; a fall is a restart, never a negative rate */
    uint32_t scale;       /* value = integer / scale; >= 1 */
    uint32_t pid;         /* 0: of the host */
};
/*
 * A series that appeared, under the caller's number for it; strings are copied. Names are looked at
 * only here. Returns 1: some rule looks at it, 0: none, so that its values need not be given;
 * ERR_LIMIT (slot too high, or too many), ERR_NOMEM. A slot that was in use is retired first.
 */
int rule_engine_define(struct rule_engine *engine, uint32_t slot, const struct rule_series *series);
void rule_engine_retire(struct rule_engine *engine, uint32_t slot);

struct rule_moment {
    uint64_t mono_us;
    const int64_t *values; /* by slot; RULE_GAP: missing */
    size_t count;          /* slots from there on are gaps */
    /* Why a slot has no value; may be NULL, and may return NULL. Asked for sentences only. */
    const char *(*reason)(void *context, uint32_t slot);
    void *context;
};
/*
 * Evaluates all rules at this moment; once a second. ERR_INVALID: not later than the last one;
 * nothing was looked at.
 */
int rule_engine_step(struct rule_engine *engine, const struct rule_moment *moment);

/* ---- processes ---- */

/* Told for each process, also of those there at the beginning; only rules that name it look. */
void rule_engine_process(struct rule_engine *engine, const char *name, uint32_t pid, bool started,
                         uint64_t mono_us);
/* All processes that run have been told; before that, `not running` is unknown. */
void rule_engine_processes_known(struct rule_engine *engine);
/* Threads of one process by state, as often as it is looked at; older than RULE_HOLD_US is
 * unknown. */
void rule_engine_threads(struct rule_engine *engine, const char *name, uint32_t pid,
                         const uint32_t counts[RULE_THREAD_STATES], uint64_t mono_us);

/* ---- what happens ---- */

struct rule_event {
    uint32_t source; /* trawl.v1.ExceptionSource */
    const char *type;
    const char *process; /* "": none */
    uint32_t pid;
    uint64_t count; /* equal ones told together; 0 means 1 */
};
void rule_engine_exception(struct rule_engine *engine, const struct rule_event *event,
                           uint64_t mono_us);
/* A whole line of a followed log; of long ones the first RULE_LINE_MAX bytes are looked at.
 * `process` "" and pid 0 when it is not known whose. */
#define RULE_LINE_MAX 4096
void rule_engine_log(struct rule_engine *engine, const char *path, const char *process,
                     uint32_t pid, struct span line, uint64_t mono_us);
/* Whether any rule looks at lines of this log: the others need not be given. */
bool rule_engine_wants_log(const struct rule_engine *engine, const char *path, const char *process);

enum rule_health { RULE_ANSWERS = 1, RULE_HANGS, RULE_UNKNOWN };
/* How a probe of the set (its number in rule_set.probes) stands, at each change. `process`, `pid`:
 * who owns what is asked, or "" and 0. `reason`: why it is unknown; may be NULL. */
void rule_engine_probe(struct rule_engine *engine, uint32_t probe, enum rule_health health,
                       const char *process, uint32_t pid, const char *reason, uint64_t mono_us);
/* Whether the event loop of a process stands still, at each change. */
void rule_engine_loop(struct rule_engine *engine, const char *process, uint32_t pid,
                      enum rule_health health, uint64_t mono_us);
/* Conditions of this kind cannot be told here, and why ("no permission to read the journal");
 * NULL: they can. For exceptions, logs, probes, loops, processes and threads. */
void rule_engine_unavailable(struct rule_engine *engine, enum rule_term_kind kind,
                             const char *reason);

/* ---- limits over a restart ---- */

/* Rises whenever the record has changed: then it is to be kept. */
uint64_t rule_engine_revision(const struct rule_engine *engine);
/* Appends the record: what counts against limits, and which rules are firing. At most
 * RULE_RECORD_MAX bytes. ERR_LIMIT, ERR_NOMEM. */
int rule_engine_record(const struct rule_engine *engine, uint64_t mono_us, struct buf *out);
/*
 * Takes a record back, before the first step. `elapsed_us`: how long ago it was made, as far as
 * that is certain (same boot: by the boot's clock; else by the wall clock; 0 when it jumped): too
 * little only delays. Rules that were firing and did not change go on firing. ERR_CORRUPT,
 * ERR_VERSION: the record is refused, and every rule counts as having used up its limit at
 * `mono_us`, so that damage never makes a burst.
 */
int rule_engine_restore(struct rule_engine *engine, struct span record, uint64_t mono_us,
                        uint64_t elapsed_us, struct failure *f);

/* ---- to be shown ---- */

struct rule_status {
    bool is_firing, is_blind;
    uint32_t fired;                    /* within the time of its limit */
    uint64_t suppressed, total;        /* since the engine was opened */
    char sentence[RULE_SENTENCE_SIZE]; /* how it stands: the condition with its present values */
};
/* `rule` is a number in the set. */
void rule_engine_status(const struct rule_engine *engine, size_t rule, struct rule_status *out);

#endif
