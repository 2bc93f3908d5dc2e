/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting together what is the same, and holding back for a moment what a better source may tell
 * of the same death. What is held back is kept encoded: an exception is 11 KB, its encoding about
 * one. Called on the loop thread.
 */
#include "agent/watcher.h"

#include <stdlib.h>
#include <string.h>

#include "agent/watcher_private.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define MINUTE_US UINT64_C(60000000)
#define HOLD_US UINT64_C(1200000) /* so long a weaker source waits for a better one */
#define DEATHS 256                /* remembered, to leave out what weaker sources say afterwards */
#define DEATH_US UINT64_C(5000000)
#define HELD_MAX 64
#define EXPECTED_MAX 256
#define BACKLOG_MAX 1000 /* records not acknowledged; above it crashes are told together, too */

/* One content. */
struct content {
    uint64_t key; /* 0: free */
    uint64_t since_mono_us, used_mono_us;
    uint32_t whole;     /* told by themselves since then */
    struct buf waiting; /* the first of those not told yet; empty: none */
    uint64_t count;
    int64_t last_us;
};

struct held {
    uint64_t until_mono_us; /* 0: free */
    struct buf encoded;
    enum os_exception_source source;
    uint32_t pid;
    uint64_t unit; /* hash of its name; 0: none */
};

struct death {
    uint32_t pid;
    uint64_t unit;
    enum os_exception_source source;
    uint64_t at_mono_us; /* 0: none */
};

struct expected {
    uint32_t pid; /* 0: free */
    uint64_t until_mono_us;
};

struct watcher {
    struct spool *spool;
    struct clock *clock;
    void (*added)(void *context);
    void *context;
    void (*holds)(void *context);
    void *holds_context;
    void (*heard)(void *context, const trawl_v1_Exception *exception);
    void *heard_context;
    trawl_v1_Exception *scratch;
    struct content contents[WATCHER_KINDS];
    struct held held[HELD_MAX];
    struct death deaths[DEATHS];
    uint32_t next_death;
    struct expected expected[EXPECTED_MAX];
    uint32_t next_expected;
};

int watcher_open(struct watcher **out, struct spool *spool, struct clock *clock,
                 void (*added)(void *context), void *context)
{
    struct watcher *w = calloc(1, sizeof *w);
    trawl_v1_Exception *scratch = calloc(1, sizeof *scratch);
    if (!w || !scratch) {
        free(w);
        free(scratch);
        return ERR_NOMEM;
    }
    w->spool = spool;
    w->clock = clock;
    w->added = added;
    w->context = context;
    w->scratch = scratch;
    for (size_t i = 0; i < WATCHER_KINDS; i++)
        buf_init(&w->contents[i].waiting, trawl_v1_Exception_size);
    for (size_t i = 0; i < HELD_MAX; i++)
        buf_init(&w->held[i].encoded, trawl_v1_Exception_size);
    *out = w;
    return 0;
}

static void push(struct watcher *w, trawl_v1_Exception *e)
{
    if (spool_push_exception(w->spool, e) == 0 && w->added)
        w->added(w->context);
}

/* ---- counting ---- */

/* The others of this content since the last that was told. */
static void tell_waiting(struct watcher *w, struct content *c)
{
    if (!c->waiting.size_bytes)
        return;
    if (codec_get_exception(w->scratch, buf_span(&c->waiting), NULL) == 0) {
        w->scratch->count = c->count;
        w->scratch->last_us = c->last_us;
        push(w, w->scratch);
    }
    buf_done(&c->waiting);
    c->count = 0;
}

/* Its place, a free one, or that of the content that was quiet for longest. */
static struct content *content_of(struct watcher *w, uint64_t key)
{
    struct content *best = &w->contents[0];
    for (size_t i = 0; i < WATCHER_KINDS; i++) {
        struct content *c = &w->contents[i];
        if (c->key == key)
            return c;
        if (c->used_mono_us < best->used_mono_us)
            best = c;
    }
    tell_waiting(w, best);
    *best = (struct content){.key = key, .waiting = best->waiting};
    return best;
}

static void keep_waiting(struct watcher *w, struct content *c, trawl_v1_Exception *e)
{
    if (!c->waiting.size_bytes && codec_put_exception(&c->waiting, e)) {
        buf_done(&c->waiting);
        push(w, e); /* no room to keep it: then it is told as it is */
        return;
    }
    c->count += e->count;
    if (e->last_us > c->last_us)
        c->last_us = e->last_us;
}

/*
 * What has its own evidence is told by itself, so that nobody asks for what is not there. A crash
 * is told at once, because its record on disk is given up for it: waiting here, it would be lost
 * with us.
 */
static bool is_told_at_once(const struct watcher *w, const trawl_v1_Exception *e)
{
    return e->saved_count || (e->source == trawl_v1_ExceptionSource_CRASH &&
                              spool_unacknowledged(w->spool, SPOOL_EVENTS) < BACKLOG_MAX);
}

static void count(struct watcher *w, trawl_v1_Exception *e)
{
    uint64_t now = w->clock->mono_us(w->clock);
    struct content *c = content_of(w, watcher_content(e));
    if (now - c->since_mono_us > MINUTE_US) {
        c->since_mono_us = now;
        c->whole = 0;
    }
    c->used_mono_us = now;
    if (w->heard)
        w->heard(w->heard_context, e);
    if (c->whole < WATCHER_WHOLE || is_told_at_once(w, e)) {
        c->whole++;
        tell_waiting(w, c);
        push(w, e);
    } else {
        keep_waiting(w, c, e);
    }
}

/* ---- one death, several who tell of it ---- */

static void note_death(struct watcher *w, const trawl_v1_Exception *e)
{
    struct death *d = &w->deaths[w->next_death++ % DEATHS];
    *d = (struct death){e->pid, watcher_unit(e), watcher_source(e), w->clock->mono_us(w->clock)};
}

/* The same process; or, as the init system may not say which process it was, the same unit. */
static bool is_one_death(uint32_t pid, uint64_t unit, enum os_exception_source weaker,
                         uint32_t other_pid, uint64_t other_unit)
{
    if (pid && other_pid)
        return pid == other_pid;
    return weaker == OS_UNIT_RESULT && unit && unit == other_unit;
}

static bool was_told_better(const struct watcher *w, const trawl_v1_Exception *e)
{
    uint64_t now = w->clock->mono_us(w->clock);
    /* An error that was logged is one of its own, whatever became of the process after it. */
    if (watcher_source(e) == OS_LOG_TRACE && !watcher_waits(e))
        return false;
    for (size_t i = 0; i < DEATHS; i++) {
        const struct death *d = &w->deaths[i];
        bool is_recent = d->at_mono_us && now - d->at_mono_us < DEATH_US;
        if (is_recent && watcher_rank(d->source) > watcher_rank(watcher_source(e)) &&
            is_one_death(e->pid, watcher_unit(e), watcher_source(e), d->pid, d->unit))
            return true;
    }
    return false;
}

/* ---- what is under way ---- */

static struct expected *expected_of(struct watcher *w, uint32_t pid)
{
    uint64_t now = w->clock->mono_us(w->clock);
    for (size_t i = 0; pid && i < EXPECTED_MAX; i++)
        if (w->expected[i].pid == pid && w->expected[i].until_mono_us > now)
            return &w->expected[i];
    return NULL;
}

void watcher_expect(struct watcher *w, uint32_t pid)
{
    struct expected *e = expected_of(w, pid);
    if (!e) {
        e = &w->expected[w->next_expected];
        w->next_expected = (w->next_expected + 1) % EXPECTED_MAX;
    }
    *e = (struct expected){pid, w->clock->mono_us(w->clock) + WATCHER_EXPECT_US};
}

static void hold(struct watcher *w, trawl_v1_Exception *e)
{
    for (size_t i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->until_mono_us)
            continue;
        if (codec_put_exception(&h->encoded, e))
            break;
        h->until_mono_us = w->clock->mono_us(w->clock) + HOLD_US;
        h->source = watcher_source(e);
        h->pid = e->pid;
        h->unit = watcher_unit(e);
        if (w->holds)
            w->holds(w->holds_context);
        return;
    }
    /* No room to wait: the better word on this death counts it. */
    if (!expected_of(w, e->pid))
        count(w, e);
}

static void free_held(struct held *h)
{
    buf_done(&h->encoded);
    h->until_mono_us = 0;
}

/* A weaker word on this death that waits: what only it knows goes over to the better one. */
static void take_over(struct watcher *w, trawl_v1_Exception *e)
{
    for (size_t i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (!h->until_mono_us || watcher_rank(h->source) >= watcher_rank(watcher_source(e)))
            continue;
        if (!is_one_death(h->pid, h->unit, h->source, e->pid, watcher_unit(e)) &&
            (h->pid || !watcher_may_be_of(h->source, e)))
            continue;
        if (codec_get_exception(w->scratch, buf_span(&h->encoded), NULL) == 0)
            watcher_adopt(e, w->scratch);
        free_held(h);
    }
}

static void flush_held(struct watcher *w, bool all)
{
    uint64_t now = w->clock->mono_us(w->clock);
    for (size_t i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (!h->until_mono_us || (!all && h->until_mono_us > now))
            continue;
        if (expected_of(w, h->pid)) {
            if (all) /* what is under way is told by the next one of us */
                free_held(h);
            continue;
        }
        trawl_v1_Exception *e = calloc(1, sizeof *e);
        if (e && codec_get_exception(e, buf_span(&h->encoded), NULL) == 0)
            count(w, e);
        free(e);
        free_held(h);
    }
}

/* ---- what the sources call ---- */

void watcher_report(struct watcher *w, const struct os_exception *exception)
{
    trawl_v1_Exception *e = calloc(1, sizeof *e);
    if (!e)
        return;
    watcher_fill(e, exception, w->clock->wall_us(w->clock), w->clock->mono_us(w->clock));
    if (was_told_better(w, e)) {
        free(e);
        return;
    }
    take_over(w, e);
    struct expected *expected = expected_of(w, e->pid);
    if (expected && watcher_source(e) == OS_CRASH)
        *expected = (struct expected){.pid = 0};
    if (watcher_rank(watcher_source(e)) > 0)
        note_death(w, e);
    if (watcher_waits(e))
        hold(w, e);
    else
        count(w, e);
    free(e);
}

void watcher_on_hold(struct watcher *w, void (*holds)(void *context), void *context)
{
    w->holds = holds;
    w->holds_context = context;
}

void watcher_listen(struct watcher *w,
                    void (*heard)(void *context, const trawl_v1_Exception *exception),
                    void *context)
{
    w->heard = heard;
    w->heard_context = context;
}

bool watcher_look(struct watcher *w)
{
    flush_held(w, false);
    for (size_t i = 0; i < HELD_MAX; i++)
        if (w->held[i].until_mono_us)
            return true;
    return false;
}

void watcher_tick(struct watcher *w)
{
    flush_held(w, false);
    for (size_t i = 0; i < WATCHER_KINDS; i++)
        tell_waiting(w, &w->contents[i]);
}

void watcher_close(struct watcher *w)
{
    if (!w)
        return;
    flush_held(w, true);
    watcher_tick(w);
    free(w->scratch);
    free(w);
}
