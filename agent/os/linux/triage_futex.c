/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds the lock that a thread waits for in futex(2). Invariant: a holder is a thread that
 * lives; what rests on the layout of the C library's types is told apart from what the kernel's
 * protocol guarantees. Pure. Called by triage_wait.c.
 *
 * Layouts: glibc sysdeps/nptl/bits/struct_mutex.h (lock, count, owner, nusers, kind) and
 * struct_rwlock.h (wrphase_futex, writers_futex, pad, pad, cur_writer), 64-bit; musl's mutexes with
 * an owner hold its thread number in the word itself, as robust ones do.
 */
#include <linux/futex.h>

#include "agent/os/linux/triage_linux.h"

#define LOCKED_WITH_WAITERS 2u /* glibc's lll_lock, and of many others */
#define RWLOCK_WAITED 3u       /* held, and PTHREAD_RWLOCK_FUTEX_USED */
#define MUTEX_KINDS 0x3ffu     /* all bits that __kind may have */
#define MUTEX_SHARED 0x80u
#define LOCK_PI2 13

enum { WORD_OWNER = 2, WORD_USERS = 3, WORD_KIND = 4 };
enum { WORD_WRITER_FROM_PHASE = 4, WORD_WRITER_FROM_WRITERS = 3 };

struct judge {
    bool (*exists)(void *context, uint32_t tid, bool shared);
    void *context;
    const uint32_t *words;
    size_t count;
};

static bool is_thread(const struct judge *j, uint32_t tid, bool shared)
{
    return tid > 0 && tid <= FUTEX_TID_MASK && j->exists(j->context, tid, shared);
}

/* lll_lock's futex is the first member of a pthread_mutex_t. */
static enum triage_futex judge_mutex(const struct judge *j, uint32_t *holder)
{
    if (j->count <= WORD_KIND || j->words[WORD_USERS] == 0 ||
        (j->words[WORD_KIND] & ~MUTEX_KINDS) != 0)
        return FUTEX_LOCK;
    if (!is_thread(j, j->words[WORD_OWNER], j->words[WORD_KIND] & MUTEX_SHARED))
        return FUTEX_LOCK;
    *holder = j->words[WORD_OWNER];
    return FUTEX_MUTEX;
}

static enum triage_futex judge_rwlock(const struct judge *j, uint32_t *holder)
{
    static const size_t places[] = {WORD_WRITER_FROM_PHASE, WORD_WRITER_FROM_WRITERS};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (j->count <= places[i] || !is_thread(j, j->words[places[i]], false))
            continue;
        *holder = j->words[places[i]];
        return FUTEX_RWLOCK;
    }
    return FUTEX_LOCK;
}

static enum triage_futex judge_word(const struct judge *j, bool shared, uint32_t *holder)
{
    if (j->count == 0)
        return FUTEX_UNKNOWN;
    uint32_t tid = j->words[0] & FUTEX_TID_MASK;
    if (!is_thread(j, tid, shared))
        return FUTEX_LOCK;
    *holder = tid;
    return FUTEX_HELD;
}

enum triage_futex triage_judge_futex(uint64_t operation, uint32_t expected, const uint32_t *words,
                                     size_t count,
                                     bool (*exists)(void *context, uint32_t tid, bool shared),
                                     void *context, uint32_t *holder)
{
    struct judge j = {exists, context, words, count};
    bool shared = !(operation & FUTEX_PRIVATE_FLAG);
    switch ((int)operation & FUTEX_CMD_MASK) {
    case FUTEX_LOCK_PI:
    case LOCK_PI2:
        return judge_word(&j, shared, holder);
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
        break;
    default:
        return FUTEX_UNKNOWN;
    }
    if (count == 0)
        return FUTEX_UNKNOWN;
    if (expected & FUTEX_WAITERS)
        return judge_word(&j, shared, holder);
    if (expected == LOCKED_WITH_WAITERS)
        return judge_mutex(&j, holder);
    if (expected == RWLOCK_WAITED && words[0] == RWLOCK_WAITED)
        return judge_rwlock(&j, holder);
    /* The kernel clears a thread's number when it ends: what pthread_join(3) waits for. */
    if (shared && words[0] == expected && is_thread(&j, expected, false)) {
        *holder = expected;
        return FUTEX_THREAD_END;
    }
    return FUTEX_UNKNOWN;
}
