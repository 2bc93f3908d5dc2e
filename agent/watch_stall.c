/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts on processes that stand still. See watch_stall.h. */
#include "agent/watch_stall.h"

#include <string.h>

#define BUSY_PERCENT 90
#define KERNEL_PERCENT 2
#define ASK_AGAIN_US UINT64_C(15000000)
#define ASK_LATER_US UINT64_C(600000000)
#define ASK_OFTEN 6

static enum stall_verdict stuck(struct stall *s, uint64_t since_us)
{
    s->is_told = true;
    s->stuck_since_us = since_us;
    return STALL_STUCK;
}

/* Whether it is a loop is asked now and then, until it was seen waiting like one. */
static enum stall_verdict ask_kind(struct stall *s, uint64_t mono_us)
{
    uint64_t every_us = s->asked < ASK_OFTEN ? ASK_AGAIN_US : ASK_LATER_US;
    if (s->is_loop || (s->asked && mono_us - s->asked_us < every_us))
        return STALL_NONE;
    s->asked++;
    s->asked_us = mono_us;
    return STALL_ASK;
}

static bool is_busy(const struct stall *s, const struct os_watch_runs *runs, uint64_t elapsed_us)
{
    uint64_t busy_us = (runs->busy_ns - s->last.busy_ns) / 1000;
    return runs->busy_ns > s->last.busy_ns && busy_us * 100 >= elapsed_us * BUSY_PERCENT;
}

/* Nothing of it moved. */
static enum stall_verdict feed_still(struct stall *s, uint64_t mono_us)
{
    s->busy_since_us = 0;
    if (!s->still_since_us)
        s->still_since_us = mono_us;
    if (mono_us - s->still_since_us < STALL_US || s->was_asked || s->is_told)
        return STALL_NONE;
    s->was_asked = true;
    return STALL_ASK;
}

static enum stall_verdict feed_busy(struct stall *s, uint64_t mono_us)
{
    if (!s->busy_since_us) {
        s->busy_since_us = mono_us;
        s->has_base = false;
        return s->is_loop ? STALL_LOOK : STALL_NONE;
    }
    bool is_due = mono_us - s->busy_since_us >= STALL_US;
    return s->is_loop && !s->is_told && (is_due || !s->has_base) ? STALL_LOOK : STALL_NONE;
}

enum stall_verdict stall_feed(struct stall *s, const struct os_watch_runs *runs, uint64_t mono_us)
{
    bool had_last = s->has_last;
    bool is_still = memcmp(&s->last, runs, sizeof *runs) == 0;
    bool is_all_busy = had_last && is_busy(s, runs, 1000000);
    s->last = *runs;
    s->has_last = true;
    if (!had_last)
        return ask_kind(s, mono_us);
    if (is_still)
        return feed_still(s, mono_us);
    bool was_still = s->is_told && s->still_since_us;
    s->still_since_us = 0;
    s->was_asked = false;
    if (is_all_busy && !was_still)
        return feed_busy(s, mono_us);
    s->busy_since_us = 0;
    if (s->is_told) {
        s->is_told = false;
        return STALL_GOES;
    }
    return ask_kind(s, mono_us);
}

enum stall_verdict stall_answer(struct stall *s, const struct os_peek *peek, uint64_t mono_us)
{
    if (peek->error)
        return STALL_NONE;
    if (peek->is_waiting) {
        s->is_loop = true;
        return STALL_NONE;
    }
    bool is_long = s->still_since_us && mono_us - s->still_since_us >= STALL_US;
    return s->is_loop && is_long && peek->has_syscall && !s->is_told ? stuck(s, s->still_since_us)
                                                                     : STALL_NONE;
}

enum stall_verdict stall_looked(struct stall *s, const struct os_watch_thread *thread,
                                uint64_t mono_us)
{
    if (!s->has_base) {
        s->base = *thread;
        s->has_base = true;
        return STALL_NONE;
    }
    if (mono_us - s->busy_since_us < STALL_US)
        return STALL_NONE;
    uint64_t system_us = thread->system_us - s->base.system_us;
    uint64_t all_us = system_us + thread->user_us - s->base.user_us;
    if (thread->voluntary != s->base.voluntary || system_us * 100 > all_us * KERNEL_PERCENT) {
        s->busy_since_us = mono_us; /* busy, but it comes round: from here anew */
        s->base = *thread;
        return STALL_NONE;
    }
    return stuck(s, s->busy_since_us);
}

bool stall_blocked_feed(struct stall_blocked *b, const struct os_watch_thread *thread,
                        uint64_t mono_us, uint64_t *over_us)
{
    *over_us = 0;
    if (thread->state == 'D' && thread->switches == b->switches) {
        if (b->is_told || mono_us - b->since_us < STALL_US)
            return false;
        b->is_told = true;
        return true;
    }
    if (b->is_told)
        *over_us = mono_us - b->since_us;
    b->tid = 0;
    return false;
}
