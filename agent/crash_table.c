/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites of crashes and the crashes that are only counted, in one file of fixed size whose blocks
 * are there before they are needed. Invariant: changed only under its lock, which nobody holds for
 * longer than a few microseconds. Called by crash_handler (many at once) and crashes.
 */
#include "agent/crash_spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/crash_table.h"

#define MAGIC UINT64_C(0x3163726173687472)
#define HOUR_US INT64_C(3600000000)
#define SECOND_US INT64_C(1000000)
#define LOCK_TRIES 2000
#define RECENT 256

struct site {
    uint64_t weak, strong; /* strong 0: free */
    int64_t since_us, used_us;
    uint32_t whole;   /* described since then */
    uint32_t retry_s; /* not before: there was no room for its evidence */
};

struct table {
    uint64_t magic;
    int64_t second_us; /* new sites in this second */
    uint32_t in_second;
    uint32_t records; /* the first so many are taken */
    uint32_t recent_at, reserved;
    uint8_t recent[RECENT][16];
    struct site sites[CRASH_SITES];
    struct crash_record list[CRASH_RECORDS];
    struct crash_given given[CRASH_GIVEN]; /* a ring; left 0: free */
    uint32_t given_at, reserved_end;
};

int crash_table_make(int directory, struct failure *f)
{
    int fd = openat(directory, "table", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make 'table'");
    struct stat st;
    int e = fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(struct table)
                ? 0
                : posix_fallocate(fd, 0, (off_t)sizeof(struct table));
    close(fd);
    return e ? fail_errno(f, err_from_errno(e), e, "cannot make 'table'") : 0;
}

/* ---- locked access ---- */

/* Whoever holds it lets go at once, or is dead; to wait for ever would still be wrong. */
static int lock(int fd)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return ERR_IO;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return ERR_BUSY;
}

/* A descriptor of its own each time: a lock belongs to the open file, which children share. */
static struct table *enter(struct crash_spool *spool)
{
    struct stat st;
    int fd = openat(spool->fd, "table", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof(struct table) || lock(fd)) {
        close(fd);
        return NULL;
    }
    void *at = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        close(fd);
        return NULL;
    }
    spool->table = fd;
    struct table *t = at;
    if (t->magic != MAGIC || t->records > CRASH_RECORDS || t->recent_at >= RECENT ||
        t->given_at >= CRASH_GIVEN) {
        memset(t, 0, sizeof *t);
        t->magic = MAGIC;
    }
    return t;
}

static void leave(struct crash_spool *spool, struct table *t)
{
    munmap(t, sizeof *t);
    close(spool->table);
    spool->table = -1;
}

/* ---- sites ---- */

static struct site *find_site(struct table *t, uint64_t strong)
{
    for (size_t i = 0; i < CRASH_SITES; i++)
        if (t->sites[i].strong == strong)
            return &t->sites[i];
    return NULL;
}

/* The one that was used last of those at this place. */
static const struct site *find_weak(const struct table *t, uint64_t weak, int64_t now_us)
{
    const struct site *best = NULL;
    for (size_t i = 0; i < CRASH_SITES; i++) {
        const struct site *s = &t->sites[i];
        if (s->strong && s->weak == weak && now_us - s->since_us < HOUR_US &&
            (!best || s->used_us > best->used_us))
            best = s;
    }
    return best;
}

static struct site *oldest(struct table *t)
{
    struct site *best = &t->sites[0];
    for (size_t i = 0; i < CRASH_SITES; i++)
        if (t->sites[i].used_us < best->used_us)
            best = &t->sites[i];
    return best;
}

static bool may_add(struct table *t, int64_t now_us)
{
    if (now_us - t->second_us >= SECOND_US || now_us < t->second_us) {
        t->second_us = now_us;
        t->in_second = 0;
    }
    return t->in_second++ < CRASH_NEW_PER_S;
}

static bool claim(struct table *t, uint64_t weak, uint64_t strong, int64_t now_us, uint64_t *as)
{
    struct site *s = find_site(t, strong);
    *as = strong;
    if (!s) {
        const struct site *like = find_weak(t, weak, now_us);
        if (like && !may_add(t, now_us)) {
            *as = like->strong;
            return false;
        }
        s = oldest(t);
        *s = (struct site){.weak = weak, .strong = strong, .since_us = now_us};
    }
    if (now_us - s->since_us >= HOUR_US || now_us < s->since_us) {
        s->since_us = now_us;
        s->whole = 0;
    }
    s->used_us = now_us;
    int64_t wait_s = (int64_t)s->retry_s - now_us / SECOND_US;
    if (s->whole >= CRASH_SITE_WHOLE || (wait_s > 0 && wait_s <= CRASH_RETRY_S))
        return false;
    s->whole++;
    return true;
}

int crash_table_claim(struct crash_spool *spool, uint64_t weak, uint64_t strong, int64_t now_us,
                      bool *whole, uint64_t *site)
{
    struct table *t = enter(spool);
    *whole = true;
    *site = strong ? strong : 1;
    if (!t)
        return ERR_IO;
    *whole = claim(t, weak, *site, now_us, site);
    leave(spool, t);
    return 0;
}

void crash_table_unclaim(struct crash_spool *spool, uint64_t site, int64_t now_us)
{
    struct table *t = enter(spool);
    struct site *s = t ? find_site(t, site) : NULL;
    if (s) {
        s->whole -= s->whole > 0;
        s->retry_s = (uint32_t)(now_us / SECOND_US + CRASH_RETRY_S);
    }
    if (t)
        leave(spool, t);
}

/* ---- records ---- */

static void note_recent(struct table *t, const uint8_t id[16])
{
    memcpy(t->recent[t->recent_at], id, 16);
    t->recent_at = (t->recent_at + 1) % RECENT;
}

/* No room: the last record of the same kind counts for it, too. */
static bool join(struct table *t, const struct crash_record *r)
{
    for (uint32_t i = t->records; i-- > 0;) {
        struct crash_record *to = &t->list[i];
        if (to->site != r->site || to->why != r->why || strcmp(to->process, r->process) != 0 ||
            to->signal != r->signal)
            continue;
        to->count += r->count;
        to->last_us = r->last_us;
        return true;
    }
    return false;
}

int crash_table_count(struct crash_spool *spool, const struct crash_record *record)
{
    struct table *t = enter(spool);
    if (!t)
        return ERR_IO;
    int rc = 0;
    if (t->records < CRASH_RECORDS)
        t->list[t->records++] = *record;
    else if (!join(t, record))
        rc = ERR_FULL;
    if (rc == 0)
        note_recent(t, record->id);
    leave(spool, t);
    return rc;
}

bool crash_table_knows(struct crash_spool *spool, const uint8_t id[16])
{
    struct table *t = enter(spool);
    bool found = false;
    for (size_t i = 0; t && i < RECENT && !found; i++)
        found = memcmp(t->recent[i], id, 16) == 0;
    if (t)
        leave(spool, t);
    return found;
}

uint32_t crash_table_waiting(struct crash_spool *spool)
{
    struct table *t = enter(spool);
    uint32_t count = t ? t->records : 0;
    if (t)
        leave(spool, t);
    return count;
}

/* ---- what is wanted ---- */

static bool may_give(const struct table *t, const struct crash_given *given)
{
    uint32_t all = 0, here = 0, most = given->left;
    for (size_t i = 0; i < CRASH_GIVEN; i++) {
        const struct crash_given *g = &t->given[i];
        if (g->left == 0 || g->asked_us != given->asked_us ||
            strncmp(g->group, given->group, sizeof g->group) != 0)
            continue;
        all++;
        here += g->site == given->site;
        if (g->left > most)
            most = g->left;
    }
    return here < most && all < most + CRASH_GIVEN_SPARE;
}

bool crash_table_give(struct crash_spool *spool, const struct crash_given *given)
{
    struct table *t = given->left > 0 ? enter(spool) : NULL;
    bool may = t && may_give(t, given);
    if (may) {
        t->given[t->given_at] = *given;
        t->given_at = (t->given_at + 1) % CRASH_GIVEN;
    }
    if (t)
        leave(spool, t);
    return may;
}

void crash_table_give_back(struct crash_spool *spool, const uint8_t id[16])
{
    struct table *t = enter(spool);
    for (size_t i = 0; t && i < CRASH_GIVEN; i++)
        if (memcmp(t->given[i].id, id, sizeof t->given[i].id) == 0)
            memset(&t->given[i], 0, sizeof t->given[i]);
    if (t)
        leave(spool, t);
}

/* ---- telling ---- */

/* What was told goes; its count may have grown meanwhile, and then the rest stays. */
static void remove_told(struct table *t, const struct crash_record *told, const bool *is_told,
                        uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->records; i++) {
        struct crash_record r = t->list[i];
        if (i < count && is_told[i] && memcmp(r.id, told[i].id, sizeof r.id) == 0) {
            if (r.count <= told[i].count)
                continue;
            r.count -= told[i].count;
            r.wall_us = r.last_us;
            r.id[0] ^= (uint8_t)(told[i].count | 1); /* these are others */
        }
        t->list[kept++] = r;
    }
    t->records = kept;
}

int crash_table_drain(struct crash_spool *spool,
                      int (*each)(void *context, const struct crash_record *record), void *context)
{
    struct table *t = enter(spool);
    if (!t)
        return ERR_IO;
    uint32_t count = t->records;
    struct crash_record *copy = count ? malloc(count * sizeof *copy) : NULL;
    bool *is_told = count ? calloc(count, sizeof *is_told) : NULL;
    if (copy)
        memcpy(copy, t->list, count * sizeof *copy);
    leave(spool, t);
    if (!copy || !is_told) {
        free(copy);
        free(is_told);
        return count ? ERR_NOMEM : 0;
    }
    bool any = false;
    for (uint32_t i = 0; i < count; i++)
        any |= is_told[i] = each(context, &copy[i]) == 0;
    t = any ? enter(spool) : NULL;
    if (t) {
        remove_told(t, copy, is_told, count);
        leave(spool, t);
    }
    free(copy);
    free(is_told);
    return 0;
}
