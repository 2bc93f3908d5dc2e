/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens beside counters: processes that come and go, their threads, exceptions, log lines,
 * probes, event loops. Invariant: what was told between two steps is seen by the next one, also
 * when its window is shorter than the time between them. Called through engine.h, and by
 * engine_judge.c at each step.
 */
#include "rule/engine_private.h"

#include <string.h>

#include "common/text.h"

#define SECOND_US UINT64_C(1000000)

static bool is_meant(const char *glob, const char *text)
{
    return !*glob || text_glob(glob, text);
}

static uint64_t since(uint64_t now_us, uint64_t then_us)
{
    return now_us > then_us ? now_us - then_us : 0;
}

/* ---- N times in D ---- */

/* The oldest of the last N; true when there were so many. */
static bool oldest(const struct term_state *t, uint64_t *out)
{
    if (t->filled < t->term->times)
        return false;
    *out = t->times[t->next];
    return true;
}

static bool is_within(const struct term_state *t, uint64_t now_us)
{
    uint64_t first_us;
    return oldest(t, &first_us) && since(now_us, first_us) < (uint64_t)t->term->window_us;
}

static void note(struct term_state *t, uint64_t count, const char *process, uint32_t pid,
                 const char *detail, uint64_t mono_us)
{
    for (uint64_t i = 0; i < count && i < t->term->times; i++) {
        t->times[t->next] = mono_us;
        t->next = (t->next + 1) % t->term->times;
        if (t->filled < t->term->times)
            t->filled++;
    }
    t->hit |= is_within(t, mono_us);
    (void)text_copy(t->process, sizeof t->process, process);
    (void)text_copy(t->detail, sizeof t->detail, detail);
    t->pid = pid;
}

void rule_engine_exception(struct rule_engine *e, const struct rule_event *event, uint64_t mono_us)
{
    for (size_t i = 0; i < e->set->term_count; i++) {
        struct term_state *t = &e->terms[i];
        if (t->term->kind != RULE_EXCEPTION ||
            (t->term->source && t->term->source != event->source) ||
            !is_meant(t->term->type, event->type) || !is_meant(t->term->of, event->process))
            continue;
        note(t, event->count ? event->count : 1, event->process, event->pid, event->type, mono_us);
    }
}

/* ---- logs ---- */

static bool is_of_log(const struct rule_term *t, const char *path, const char *process)
{
    return t->kind == RULE_LOG && is_meant(t->path, path) && is_meant(t->of, process);
}

bool rule_engine_wants_log(const struct rule_engine *e, const char *path, const char *process)
{
    for (size_t i = 0; i < e->set->term_count; i++)
        if (is_of_log(e->terms[i].term, path, process))
            return true;
    return false;
}

static bool has_word(const char *line, size_t size, const char *word)
{
    size_t length = strlen(word);
    const char *at = line, *found;
    while ((found = memchr(at, word[0], size - (size_t)(at - line))) != NULL) {
        if (size - (size_t)(found - line) < length)
            return false;
        if (memcmp(found, word, length) == 0)
            return true;
        at = found + 1;
    }
    return false;
}

static bool has_pattern(const char *line, size_t size, const char *pattern)
{
    char anywhere[RULE_WORD_SIZE + 2];
    if (!strpbrk(pattern, "*?"))
        return has_word(line, size, pattern);
    (void)text_format(anywhere, sizeof anywhere, "*%s*", pattern);
    return text_glob(anywhere, line);
}

void rule_engine_log(struct rule_engine *e, const char *path, const char *process, uint32_t pid,
                     struct span bytes, uint64_t mono_us)
{
    char line[RULE_LINE_MAX + 1];
    bool is_copied = false;
    size_t size = bytes.size_bytes < RULE_LINE_MAX ? bytes.size_bytes : RULE_LINE_MAX;
    for (size_t i = 0; i < e->set->term_count; i++) {
        struct term_state *t = &e->terms[i];
        if (!is_of_log(t->term, path, process))
            continue;
        for (size_t k = 0; !is_copied && k < size; k++)
            line[k] = bytes.data[k] ? (char)bytes.data[k] : '?';
        line[size] = '\0';
        is_copied = true;
        if (has_pattern(line, size, t->term->pattern))
            note(t, 1, process, pid, path, mono_us);
    }
}

/* ---- processes ---- */

static void drop_watched(struct term_state *t, uint32_t pid)
{
    for (size_t i = 0; t->watched && i < TERM_PROCESSES; i++)
        if (t->watched[i].pid == pid)
            t->watched[i] = (struct watched){.pid = 0};
}

static void note_process(struct term_state *t, const char *name, uint32_t pid, bool started,
                         uint64_t mono_us)
{
    if (!started) {
        t->running -= t->running > 0;
        t->ended += t->ended < UINT32_MAX;
        return;
    }
    t->running++;
    if (t->ended == 0)
        return;
    t->ended--; /* it takes the place of one that ended */
    if (t->term->kind == RULE_RESTARTED)
        note(t, 1, name, pid, name, mono_us);
}

void rule_engine_process(struct rule_engine *e, const char *name, uint32_t pid, bool started,
                         uint64_t mono_us)
{
    for (size_t i = 0; i < e->set->term_count; i++) {
        struct term_state *t = &e->terms[i];
        if (!started)
            drop_watched(t, pid);
        if ((t->term->kind == RULE_NOT_RUNNING || t->term->kind == RULE_RESTARTED) &&
            text_glob(t->term->of, name))
            note_process(t, name, pid, started, mono_us);
    }
}

void rule_engine_processes_known(struct rule_engine *e)
{
    e->processes_known = true;
}

/* Its place, or a free one, or that of the one not seen for longest. */
static struct watched *watched_of(struct term_state *t, const char *name, uint32_t pid)
{
    struct watched *w = &t->watched[0];
    for (size_t i = 0; i < TERM_PROCESSES; i++) {
        struct watched *x = &t->watched[i];
        if (x->pid == pid)
            return x;
        if (w->pid && (!x->pid || x->seen_us < w->seen_us))
            w = x;
    }
    *w = (struct watched){.pid = pid, .truth = UNKNOWN};
    (void)text_copy(w->name, sizeof w->name, name);
    return w;
}

static void note_watched(struct watched *w, uint32_t value, enum truth truth, uint64_t mono_us)
{
    if (w->truth != truth)
        w->since_us = mono_us;
    w->truth = truth;
    w->value = value;
    w->seen_us = mono_us;
}

void rule_engine_threads(struct rule_engine *e, const char *name, uint32_t pid,
                         const uint32_t counts[RULE_THREAD_STATES], uint64_t mono_us)
{
    for (size_t i = 0; pid && i < e->set->term_count; i++) {
        struct term_state *t = &e->terms[i];
        if (t->term->kind != RULE_THREADS || !text_glob(t->term->of, name))
            continue;
        uint32_t value = counts[t->term->state];
        bool is_true = compare(value, t->term->compare, t->limit);
        note_watched(watched_of(t, name, pid), value, is_true ? TRUE : FALSE, mono_us);
    }
}

void rule_engine_loop(struct rule_engine *e, const char *process, uint32_t pid,
                      enum rule_health health, uint64_t mono_us)
{
    enum truth truth = health == RULE_HANGS ? TRUE : health == RULE_ANSWERS ? FALSE : UNKNOWN;
    for (size_t i = 0; pid && i < e->set->term_count; i++) {
        struct term_state *t = &e->terms[i];
        if (t->term->kind == RULE_LOOP && text_glob(t->term->of, process))
            note_watched(watched_of(t, process, pid), health, truth, mono_us);
    }
}

void rule_engine_probe(struct rule_engine *e, uint32_t probe, enum rule_health health,
                       const char *process, uint32_t pid, const char *reason, uint64_t mono_us)
{
    (void)mono_us; /* the next step sees it */
    for (size_t i = 0; i < e->set->term_count; i++) {
        struct term_state *t = &e->terms[i];
        if (t->term->kind != RULE_PROBE || t->term->probe != probe)
            continue;
        t->health = health;
        t->pid = pid;
        (void)text_copy(t->process, sizeof t->process, process);
        (void)text_copy(t->detail, sizeof t->detail, reason ? reason : "");
    }
}

void rule_engine_unavailable(struct rule_engine *e, enum rule_term_kind kind, const char *reason)
{
    e->unavailable[kind] = NULL;
    if (!reason)
        return;
    (void)text_copy(e->unavailable_text[kind], sizeof e->unavailable_text[kind], reason);
    e->unavailable[kind] = e->unavailable_text[kind];
}

/* ---- at each step ---- */

const struct watched *term_watched(const struct term_state *t)
{
    const struct watched *best = NULL;
    for (size_t i = 0; i < TERM_PROCESSES; i++) {
        const struct watched *w = &t->watched[i];
        if (w->pid && w->truth == TRUE && (!best || w->since_us < best->since_us))
            best = w;
    }
    return best;
}

/* Threads are looked at again and again; a loop is told of when it changes. */
static enum truth watched_truth(struct term_state *t, uint64_t now_us, uint64_t dead_us,
                                uint64_t *since_us)
{
    bool is_threads = t->term->kind == RULE_THREADS;
    enum truth truth = is_threads ? UNKNOWN : FALSE;
    *since_us = 0;
    for (size_t i = 0; i < TERM_PROCESSES; i++) {
        struct watched *w = &t->watched[i];
        if (!w->pid)
            continue;
        if (is_threads && since(now_us, w->seen_us) > RULE_HOLD_US)
            *w = (struct watched){.pid = 0};
        w->since_us += w->pid ? dead_us : 0;
        if (w->pid && w->truth != UNKNOWN && truth == UNKNOWN)
            truth = FALSE;
    }
    const struct watched *w = term_watched(t);
    if (!w)
        return truth;
    *since_us = w->since_us;
    return TRUE;
}

static enum truth happen_truth(struct rule_engine *e, struct term_state *t, uint64_t dead_us,
                               uint64_t *since_us)
{
    uint64_t now_us = e->moment->mono_us;
    bool hit = t->hit;
    t->hit = false;
    *since_us = 0;
    if (e->unavailable[t->term->kind])
        return UNKNOWN;
    switch (t->term->kind) {
    case RULE_NOT_RUNNING:
        return !e->processes_known ? UNKNOWN : t->running ? FALSE : TRUE;
    case RULE_THREADS:
    case RULE_LOOP:
        return watched_truth(t, now_us, dead_us, since_us);
    case RULE_PROBE:
        return t->health == RULE_HANGS ? TRUE : t->health == RULE_ANSWERS ? FALSE : UNKNOWN;
    default:
        return hit || is_within(t, now_us) ? TRUE : FALSE;
    }
}

void term_happen(struct rule_engine *e, struct term_state *t, uint64_t dead_us)
{
    uint64_t now_us = e->moment->mono_us, since_us;
    enum truth truth = happen_truth(e, t, dead_us, &since_us);
    if (t->out.truth != truth || dead_us > RULE_HOLD_US)
        t->out.since_us = now_us;
    else
        t->out.since_us += dead_us;
    if (since_us) /* of one process, known more exactly */
        t->out.since_us = since_us;
    t->out.truth = t->out.hold = truth;
}
