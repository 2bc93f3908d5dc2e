/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the engine: what is remembered of each series, term and rule. Invariant: cells of a
 * term lie in one piece of memory and are looked at in order, once a step; names are never compared
 * in a step. Shared by engine.c, engine_series.c, engine_value.c, engine_happen.c, engine_judge.c,
 * engine_sentence.c, engine_record.c.
 */
#ifndef TRAWL_RULE_ENGINE_PRIVATE_H
#define TRAWL_RULE_ENGINE_PRIVATE_H

#include "rule/engine.h"

#define SLOT_NONE UINT32_MAX
#define WINDOW_POINTS 96 /* spaced by 3/4 to 1 bucket, they reach over a window of 60 buckets */
#define WINDOW_BUCKETS 60
#define TERM_PROCESSES 16 /* of one term, whose threads or loops are followed */
#define ACCOUNTS_MAX 512

enum truth { UNKNOWN, FALSE, TRUE };

/* What a comparison looks at, decided once for each term and series. */
enum value_form {
    FORM_LEVEL,
    FORM_RATE,   /* change in a second; of a time with '%': its share */
    FORM_CHANGE, /* over a minute or an hour */
    FORM_RATIO,
    FORM_AGO,
    FORM_WRONG /* cannot be compared so */
};

/* What a series says now. */
struct reading {
    uint32_t slot, pid;
    char *instance; /* owned */
    double scale;
    bool is_count;
    bool has_last, has_value, has_rate, has_fallen;
    int64_t last;
    uint64_t last_us;
    double value; /* a gauge's level, a count's rate in a second */
    double rate;  /* change in a second */
};

struct point {
    int64_t raw;
    uint64_t mono_us;
};
struct window {
    uint64_t bucket_us;
    uint32_t next, count; /* points are numbered; `next` is written next, modulo WINDOW_POINTS */
    uint32_t old;         /* newest point old enough, when has_old */
    bool has_old;
    struct point at[WINDOW_POINTS];
};

/* How values of a series are written. */
enum shown { SHOWN_PLAIN, SHOWN_BYTES, SHOWN_TIME };

/* Why there is no value; told when somebody asks. */
enum lack {
    LACK_NONE,
    LACK_GAP,     /* the caller knows why */
    LACK_FIRST,   /* a rate needs two values */
    LACK_FELL,    /* a count that fell: it began anew */
    LACK_YOUNG,   /* not seen for long enough yet */
    LACK_OTHER,   /* the counter below the line */
    LACK_ZERO,    /* to be divided by */
    LACK_CPUS,    /* cpu.count */
    LACK_WINDOWS, /* too many are compared over time */
    LACK_WRONG    /* not a comparison for such a counter */
};

/* One series of a term. */
struct cell {
    struct reading r;
    enum value_form form;
    bool by_cpus;
    enum shown shown;
    int base; /* of the term's bases; -1: none */
    struct window *window;
    const char *misfit;
    enum lack lack;
    double value, line; /* as compared; line: the limit, or what it was times the factor */
    enum truth truth;   /* the last that was known, while it is held */
    enum truth now;     /* at this step */
    enum truth hold;    /* whether it is not over */
    uint64_t since_us, seen_us;
};

struct watched {
    uint32_t pid; /* 0: free */
    char name[64];
    uint32_t value; /* threads, or enum rule_health */
    enum truth truth;
    uint64_t since_us, seen_us;
};

/* Truth, and since when it is so. */
struct outcome {
    enum truth truth, hold;
    uint64_t since_us;
};

struct term_state {
    const struct rule_term *term;
    double limit, until; /* values of the numbers */
    uint32_t name_hash, other_hash;
    struct cell *cells;
    uint32_t cell_count, cell_capacity;
    struct reading *bases; /* the counters below the line of a ratio */
    uint32_t base_count, base_capacity;
    /* what happens */
    uint64_t *times; /* ring of the last term->times */
    uint32_t next, filled;
    bool hit; /* since the last step */
    uint32_t running, ended;
    uint32_t health; /* of a probe */
    struct watched *watched;
    struct outcome out;
    /* of what it was true last */
    char process[64];
    uint32_t pid;
    char detail[96];
};

/* What counts against a limit, by the rule's name; outlives the rule. */
struct account {
    char name[64];
    uint64_t fingerprint;
    bool is_firing, is_used; /* used: some rule of the set has it */
    uint32_t count;          /* times, newest last */
    int64_t fired_us[RULE_LIMIT_MAX];
};

struct rule_state {
    struct account *account;
    uint32_t first_term;
    uint64_t fired_us;
    bool is_false, is_unknown, is_blind;
    uint64_t false_us;   /* since when it does not hold, when is_false */
    uint64_t unknown_us; /* since when it is unknown, when is_unknown */
    uint64_t suppressed, total;
};

struct rule_engine {
    struct rule_set *set;
    rule_decided_fn decided;
    void *context;
    struct term_state *terms;
    struct rule_state *rules;
    struct account **accounts;
    size_t account_count;
    uint32_t cpus_slot;
    double cpus_scale;
    size_t cell_count, window_count;
    bool processes_known;
    const char *unavailable[RULE_TERM_KINDS];
    char unavailable_text[RULE_TERM_KINDS][96];
    bool has_stepped;
    uint64_t last_us;                 /* of the last step */
    uint64_t dead_us;                 /* unknown time before the step under way */
    uint8_t used[RULE_SLOTS_MAX / 8]; /* slots that some cell reads */
    uint64_t revision;
    const struct rule_moment *moment; /* of the step under way; NULL: none */
};

uint32_t engine_hash(const char *text);
/* Cells and bases of all terms go. */
void terms_done(struct term_state *terms, size_t count);
/* A step of one cell. `dead_us`: time since the last step in which nothing was known. */
void cell_step(struct rule_engine *e, struct term_state *t, struct cell *c, uint64_t step_us,
               uint64_t dead_us);
/* LACK_NONE: the series has a value (of a gauge) or a rate (of a count). */
enum lack reading_step(struct reading *r, const struct rule_moment *m);
/* All readings below the lines, then all cells, then what happens; sets t->out. */
void term_step(struct rule_engine *e, struct term_state *t, uint64_t step_us, uint64_t dead_us);
void term_happen(struct rule_engine *e, struct term_state *t, uint64_t dead_us);
bool compare(double value, enum rule_compare how, double limit);
/* The one of which it is true for longest; NULL: none. */
const struct cell *term_culprit(const struct term_state *t);
const struct watched *term_watched(const struct term_state *t);
struct outcome node_outcome(const struct rule_engine *e, size_t rule, uint16_t node);

struct account *engine_account(struct rule_engine *e, const char *name); /* NULL: no memory */
uint32_t account_used(const struct account *a, int64_t now_us, int64_t window_us);
void account_add(struct account *a, int64_t fired_us);

/* Sentences; each writes at most `size_bytes`. */
void sentence_fired(const struct rule_engine *e, size_t rule, uint64_t since_us, uint64_t now_us,
                    char *out, size_t size_bytes);
void sentence_blind(const struct rule_engine *e, size_t rule, char *out, size_t size_bytes);
void sentence_state(const struct rule_engine *e, size_t rule, char *out, size_t size_bytes);

#endif
