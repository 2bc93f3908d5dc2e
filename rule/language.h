/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of rules: text in, `struct rule_set` out, canonical text back. Pure: no I/O, no
 * clock, no globals. Invariant: what rule_parse() took, rule_print() writes so that rule_parse()
 * reads the same rules again. Called by the collector (checks a file before it is kept), the
 * command line and the agent, which gives the set to the engine (rule/engine.h). The reference for
 * people is docs/rules.md:
 *
 *     rule NAME
 *         on SELECTOR
 *         when CONDITION
 *         [for DURATION]
 *         then capture KIND,... [of PROCESS]
 *         limit N/h
 *         [peers LABEL,...]
 *
 * A rule names kinds of evidence, processes and files that are followed anyway. Nothing in the
 * language names a program to run or a file to open, and memory (mini, core) is never implied.
 */
#ifndef TRAWL_RULE_LANGUAGE_H
#define TRAWL_RULE_LANGUAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define RULE_TEXT_MAX (64u << 10) /* bytes of a file */
#define RULES_MAX 256             /* of a file */
#define RULE_TERMS_MAX 16         /* comparisons and the like in one condition */
#define RULE_NODES_MAX 48
#define RULE_DEPTH_MAX 8 /* of parentheses and `not` */
#define RULE_KINDS_MAX 12
#define RULE_PEERS_MAX 4
#define RULE_LIMIT_MAX 20 /* captures by one rule in an hour or a day */
#define RULE_TIMES_MAX 100
#define RULE_WORD_SIZE 128 /* of any name or pattern, with its terminating zero */
#define RULE_SELECTOR_SIZE 512
#define RULE_PROBES_MAX 16
#define RULE_PROCESSES_MAX 64

/* ---- numbers ---- */

enum rule_unit {
    RULE_PLAIN,
    RULE_PERCENT,
    RULE_KIB, /* K: powers of 1024, as everywhere */
    RULE_MIB,
    RULE_GIB,
    RULE_TIB,
    RULE_US,
    RULE_MS,
    RULE_S,
    RULE_M,
    RULE_H,
    RULE_X /* times what it was */
};
/* Of a change: the time over which it is looked at. RULE_LEVEL: the value itself. */
enum rule_per { RULE_LEVEL, RULE_PER_S, RULE_PER_M, RULE_PER_H };

/* "1.5G/m" is {1500, RULE_GIB, RULE_PER_M}: as it was written, so that it is written so again. */
struct rule_number {
    int64_t milli;
    enum rule_unit unit;
    enum rule_per per;
};
/* Its value in bytes, microseconds, or 1; a share of 1 for '%'. */
double rule_number_value(const struct rule_number *n);
/* Reads "-1.5G/m". At most 3 digits behind the point. ERR_INVALID. */
int rule_number_parse(const char *text, struct rule_number *out);
void rule_number_put(const struct rule_number *n, char *out, size_t size_bytes); /* 40 bytes do */

/* ---- conditions ---- */

enum rule_compare { RULE_ABOVE = 1, RULE_AT_LEAST, RULE_BELOW, RULE_AT_MOST };

enum rule_term_kind {
    RULE_COUNTER = 1, /* NAME [of INSTANCE] > LIMIT */
    RULE_RATIO,       /* NAME [of I] / OTHER [of I] > LIMIT */
    RULE_AGO,         /* NAME [of I] > 2x 10m ago */
    RULE_NOT_RUNNING, /* process NAME not running */
    RULE_RESTARTED,   /* process NAME restarted [N times in D] */
    RULE_THREADS,     /* process NAME threads in STATE > N */
    RULE_EXCEPTION,   /* exception [SOURCE] [type T] [of PROCESS] [N times in D] */
    RULE_LOG,         /* log PATH|of PROCESS has "PATTERN" [N times in D] */
    RULE_PROBE,       /* hang tcp:HOST:PORT|http://...|unit-watchdog:UNIT [every=5s ...] */
    RULE_LOOP,        /* hang loop of PROCESS */
    RULE_TERM_KINDS
};

/* State of threads by the letter of proc(5), field 3 of stat: R, S, D, T (and t), Z. */
enum rule_thread_state {
    RULE_RUNNING,
    RULE_SLEEPING,
    RULE_UNINTERRUPTIBLE,
    RULE_STOPPED,
    RULE_ZOMBIE,
    RULE_THREAD_STATES
};

/*
 * One comparison, or something that happens. Strings belong to the set; "" is "not said". Globs are
 * those of text_glob(). Which members count is said by `kind`.
 */
struct rule_term {
    enum rule_term_kind kind;
    uint32_t line;
    const char *name;     /* of a counter */
    const char *of;       /* glob: instance of a counter, process of the others */
    const char *other;    /* the counter below the line of a ratio */
    const char *other_of; /* its instance; "": the same one, or else the host's */
    enum rule_compare compare;
    struct rule_number limit;
    bool has_until;
    enum rule_compare until_compare;
    struct rule_number until;
    int64_t window_us; /* `10m` of "10m ago" and of "3 times in 10m" */
    uint32_t times;
    enum rule_thread_state state;
    uint32_t source;     /* trawl.v1.ExceptionSource; 0: any */
    const char *type;    /* glob of an exception's type */
    const char *path;    /* glob of the path of a followed log */
    const char *pattern; /* glob that stands anywhere in a line */
    uint32_t probe;      /* in rule_set.probes */
};

enum rule_op { RULE_TERM = 1, RULE_NOT, RULE_AND, RULE_OR };
struct rule_node {
    enum rule_op op;
    uint16_t left, right; /* nodes; of a term: `left` is its number in the rule's terms */
};

struct rule {
    const char *name; /* unique in its set; text_is_name() */
    uint32_t line;
    size_t begin_bytes, end_bytes; /* where it stands in the text */
    const char *selector;          /* the collector decides whom it means */
    struct rule_node nodes[RULE_NODES_MAX];
    uint32_t node_count;
    uint16_t root;
    const struct rule_term *terms;
    uint32_t term_count;
    int64_t for_us;
    const char *what[RULE_KINDS_MAX]; /* of KINDS in proto/kinds.h */
    uint32_t what_count;
    const char *of;   /* process to capture; "": the one the condition was true of, if it was one */
    uint32_t limit;   /* captures ... */
    int64_t limit_us; /* ... in any time of this length: an hour or a day */
    const char *peers[RULE_PEERS_MAX];
    uint32_t peer_count;
};

/* ---- what rules want to be told ---- */

enum rule_probe_kind { RULE_TCP = 1, RULE_HTTP, RULE_WATCHDOG };

/* One question to be asked, however many rules want it. The forms are those of the setting
 * `probe`. */
struct rule_probe {
    enum rule_probe_kind kind;
    const char *target; /* "tcp:127.0.0.1:6379" */
    const char *send;   /* tcp; "": nothing is sent */
    int64_t every_us, timeout_us;
    uint32_t failures; /* in a row, until it hangs */
};

/* Why a process is named: what has to be known of it. */
enum rule_interest {
    RULE_WANTS_COUNTERS = 1,
    RULE_WANTS_RUNNING = 2,
    RULE_WANTS_THREADS = 4,
    RULE_WANTS_LOOP = 8,
    RULE_WANTS_LOG = 16
};
struct rule_process {
    const char *name; /* glob */
    unsigned wants;   /* enum rule_interest, or-ed */
};

struct rule_set {
    struct rule *rules;
    size_t count;
    struct rule_term *terms; /* of all rules */
    size_t term_count;
    struct rule_probe probes[RULE_PROBES_MAX];
    size_t probe_count;
    struct rule_process processes[RULE_PROCESSES_MAX];
    size_t process_count;
    char *words; /* all strings */
};

/* ---- reading and writing ---- */

/* The counters that exist, for those who know them: with it, a name that does not exist is refused,
 * and so is a comparison that cannot be meant of such a counter. */
struct rule_counter {
    const char *name; /* "cpu.user" */
    const char *unit; /* "us", "bytes", "1" */
    bool is_count;    /* else a gauge */
};
struct rule_catalogue {
    const struct rule_counter *list;
    size_t count;
};

/*
 * Reads a file of rules. `known` may be NULL. ERR_INVALID: "line 4: unknown counter 'cpu.usr': did
 * you mean 'cpu.user'?"; ERR_LIMIT: longer or more than the limits above; ERR_NOMEM. *out is the
 * caller's then; an empty text is an empty set.
 */
int rule_parse(struct span text, const struct rule_catalogue *known, struct rule_set **out,
               struct failure *f);
void rule_set_close(struct rule_set *set);                                  /* NULL is fine */
const struct rule *rule_find(const struct rule_set *set, const char *name); /* NULL: none */

/* Canonical text of all, or of one; appended. ERR_LIMIT, ERR_NOMEM. */
int rule_set_print(const struct rule_set *set, struct buf *out);
int rule_print(const struct rule_set *set, const struct rule *rule, struct buf *out);
/* One term of a condition, as rule_print() writes it. */
int rule_term_print(const struct rule_set *set, const struct rule_term *term, struct buf *out);

/* A number for the canonical text of a rule: the same for the same rule. */
uint64_t rule_fingerprint(const struct rule_set *set, const struct rule *rule);

/*
 * The text without the rule `name`, comments and all else untouched; appended. ERR_NOTFOUND, with
 * the nearest name; errors of rule_parse().
 */
int rule_text_without(struct span text, const char *name, struct buf *out, struct failure *f);

/* Why a counter of this unit and kind cannot be compared so; NULL: it can. */
const char *rule_term_misfit(const struct rule_term *term, const char *unit, bool is_count);
/* Words of an exception's source ("crash", "oom-kill"); NULL: no such source. */
const char *rule_source_word(uint32_t source);
const char *rule_state_word(enum rule_thread_state state);
const char *rule_compare_word(enum rule_compare compare);

#endif
