/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much evidence of crashes stays, and what gives way. Invariants: the first evidence of a place
 * never gives way to later ones of any place; the first of a program to nothing but its age; a
 * whole core that somebody asked for is counted by itself, so that it drives nothing else out.
 * Called by crash_handler and crashes.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/crash_spool.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define HELD_MAX 2048 /* looked at */
#define TOLD_MAX 512  /* of which nothing is left but what was told: then they go early */
#define ID_DIGITS 32
#define WHOLE_TAIL ".full.zst"
#define PLACE_FRAMES 4
#define GATHER_US                                                                                \
    INT64_C(600000000)               /* after it was told, the collector has taken what it takes \
                                      */
#define WHOLE_US INT64_C(3600000000) /* a whole core is large, and is waited for longer */

/* The evidence of one crash. */
struct held {
    uint8_t id[16];
    char process[64];     /* empty: nothing is told of it yet */
    uint64_t place;       /* equal ones: the same frames of the same program */
    uint64_t bytes;       /* without the whole core */
    uint64_t whole_bytes; /* of that */
    int64_t at_us;
    bool is_told, is_under_way, has_evidence, gone;
};

struct holdings {
    const struct crash_spool *spool;
    struct held *list; /* oldest first */
    size_t count;
    uint64_t bytes, whole_bytes;
    trawl_v1_Exception *scratch;
};

static struct held *held_of(struct holdings *h, const uint8_t id[16])
{
    for (size_t i = 0; i < h->count; i++)
        if (memcmp(h->list[i].id, id, sizeof h->list[i].id) == 0)
            return &h->list[i];
    if (h->count == HELD_MAX)
        return NULL;
    struct held *held = &h->list[h->count++];
    memset(held, 0, sizeof *held);
    memcpy(held->id, id, sizeof held->id);
    held->at_us = INT64_MAX;
    return held;
}

static int add_file(void *context, const char *name)
{
    struct holdings *h = context;
    struct stat st;
    uint8_t id[16];
    if (!crash_spool_id(name, id) || fstatat(h->spool->fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    struct held *held = held_of(h, id);
    int64_t at_us = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
    if (!held)
        return 0;
    if (at_us < held->at_us)
        held->at_us = at_us;
    bool is_whole = strcmp(name + ID_DIGITS, WHOLE_TAIL) == 0;
    uint64_t bytes = (uint64_t)st.st_blocks * 512;
    *(is_whole ? &held->whole_bytes : &held->bytes) += bytes;
    *(is_whole ? &h->whole_bytes : &h->bytes) += bytes;
    held->has_evidence |= !is_whole && crash_spool_is_evidence(name);
    held->is_under_way |= strcmp(name + ID_DIGITS, ".begun") == 0;
    return 0;
}

/* FNV-1a; a text with its end, so that two of them are never one. */
static uint64_t mix(uint64_t hash, const void *data, size_t size_bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t place_of(const trawl_v1_Exception *e)
{
    uint64_t hash = mix(0xcbf29ce484222325u, e->process, strlen(e->process) + 1);
    hash = mix(hash, e->type, strlen(e->type) + 1);
    for (size_t i = 0; i < e->frames_count && i < PLACE_FRAMES; i++) {
        const trawl_v1_Frame *frame = &e->frames[i];
        hash = mix(hash, frame->module, strlen(frame->module) + 1);
        hash = mix(hash, frame->build_id.bytes, frame->build_id.size);
        hash = mix(hash, &frame->offset, sizeof frame->offset);
    }
    return hash;
}

/* Whose it is stands in what is told of it. */
static void read_owner(struct holdings *h, struct held *held)
{
    static const char *const endings[] = {"told", "pb"};
    char name[CRASH_NAME_SIZE];
    struct buf data;
    buf_init(&data, trawl_v1_Exception_size);
    for (int i = 0; i < 2 && !held->process[0]; i++) {
        crash_spool_name(held->id, endings[i], name);
        buf_clear(&data);
        if (crash_spool_get(h->spool, name, &data) ||
            codec_get_exception(h->scratch, buf_span(&data), NULL))
            continue;
        held->is_told = i == 0;
        held->place = place_of(h->scratch);
        text_copy(held->process, sizeof held->process, h->scratch->process);
    }
    buf_done(&data);
}

static int by_age(const void *a, const void *b)
{
    const struct held *x = a, *y = b;
    return x->at_us < y->at_us ? -1 : x->at_us > y->at_us;
}

static int look(struct holdings *h, const struct crash_spool *spool)
{
    *h = (struct holdings){.spool = spool};
    h->list = calloc(HELD_MAX, sizeof *h->list);
    h->scratch = calloc(1, sizeof *h->scratch);
    if (!h->list || !h->scratch) {
        free(h->list);
        free(h->scratch);
        return ERR_NOMEM;
    }
    (void)crash_spool_each(spool, "", add_file, h);
    for (size_t i = 0; i < h->count; i++)
        read_owner(h, &h->list[i]);
    qsort(h->list, h->count, sizeof *h->list, by_age);
    return 0;
}

static void look_done(struct holdings *h)
{
    free(h->list);
    free(h->scratch);
}

static void drop_whole(struct holdings *h, struct held *held)
{
    crash_spool_remove(h->spool, held->id, &WHOLE_TAIL[1]);
    h->whole_bytes -= held->whole_bytes;
    held->whole_bytes = 0;
}

/* What is told of it stays; without its evidence it says that there was some. */
static void drop(struct holdings *h, struct held *held)
{
    struct crash_spool_file files[CRASH_FILES_MAX_LISTED];
    size_t count = 0;
    (void)crashes_find(h->spool->path, held->id, files, CRASH_FILES_MAX_LISTED, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(files[i].ending, "full") != 0)
            (void)unlinkat(h->spool->fd, files[i].name, 0);
    h->bytes -= held->bytes;
    held->gone = true;
}

/* ---- what gives way ---- */

static bool is_there(const struct held *held)
{
    return held->has_evidence && !held->gone && held->process[0];
}

/* Whether there is older evidence of the same place, or (`place` NULL) of the same program. */
static bool has_older(const struct holdings *h, size_t at, const uint64_t *place)
{
    for (size_t i = 0; i < at; i++)
        if (is_there(&h->list[i]) && (place ? h->list[i].place == *place
                                            : strcmp(h->list[i].process, h->list[at].process) == 0))
            return true;
    return false;
}

static size_t count_of(const struct holdings *h, const char *process)
{
    size_t count = 0;
    for (size_t i = 0; i < h->count; i++)
        count += is_there(&h->list[i]) && strcmp(h->list[i].process, process) == 0;
    return count;
}

/* One more of what is known already, whoever's it is: the newest. */
static struct held *find_later(struct holdings *h)
{
    for (size_t i = h->count; i-- > 0;)
        if (is_there(&h->list[i]) && has_older(h, i, &h->list[i].place))
            return &h->list[i];
    return NULL;
}

/* For a program that has nothing: of the one with the most places its newest. */
static struct held *find_crowded(struct holdings *h)
{
    struct held *best = NULL;
    size_t most = 1;
    for (size_t i = h->count; i-- > 0;) {
        size_t count = is_there(&h->list[i]) ? count_of(h, h->list[i].process) : 0;
        if (count <= most)
            continue;
        most = count;
        best = &h->list[i];
    }
    return best;
}

/* For a program that has some: its own that was told long ago, but for its first. */
static struct held *find_own(struct holdings *h, const char *process, int64_t now_us)
{
    for (size_t i = 0; i < h->count; i++) {
        struct held *held = &h->list[i];
        if (is_there(held) && held->is_told && now_us - held->at_us > GATHER_US &&
            strcmp(held->process, process) == 0 && has_older(h, i, NULL))
            return held;
    }
    return NULL;
}

static size_t count_all(const struct holdings *h)
{
    size_t count = 0;
    for (size_t i = 0; i < h->count; i++)
        count += is_there(&h->list[i]);
    return count;
}

static struct held *find_victim(struct holdings *h, const char *process)
{
    struct held *victim = find_later(h);
    if (victim || !process[0])
        return victim;
    return count_of(h, process) == 0 ? find_crowded(h) : find_own(h, process, port_wall_us());
}

/* The oldest whole core that was told before `before_us`. */
static struct held *find_whole(struct holdings *h, int64_t before_us)
{
    for (size_t i = 0; i < h->count; i++)
        if (h->list[i].whole_bytes > 0 && h->list[i].is_told && h->list[i].at_us < before_us)
            return &h->list[i];
    return NULL;
}

static bool disk_has(const struct crash_spool *spool, uint64_t need)
{
    struct statvfs fs;
    return fstatvfs(spool->fd, &fs) != 0 ||
           (uint64_t)fs.f_bavail * fs.f_frsize >= need + CRASH_FREE_BYTES;
}

static bool make_fit(struct holdings *h, const char *process, uint64_t need)
{
    struct held *victim;
    while (!disk_has(h->spool, need) && (victim = find_whole(h, port_wall_us() - WHOLE_US)) != NULL)
        drop_whole(h, victim);
    while (count_all(h) + (need > 0) > CRASH_HELD_MAX || need > h->spool->size_bytes ||
           h->bytes > h->spool->size_bytes - need || !disk_has(h->spool, need)) {
        victim = find_victim(h, process);
        if (!victim)
            return false;
        drop(h, victim);
    }
    return true;
}

int crash_spool_room(const struct crash_spool *spool, const char *process, uint64_t need_bytes)
{
    struct holdings h;
    int rc = look(&h, spool);
    if (rc)
        return rc;
    rc = make_fit(&h, process, need_bytes) ? 0 : ERR_FULL;
    look_done(&h);
    return rc;
}

int crash_spool_room_whole(const struct crash_spool *spool, uint64_t most_bytes)
{
    struct holdings h;
    struct held *victim;
    int rc = look(&h, spool);
    if (rc)
        return rc;
    while (h.whole_bytes > most_bytes &&
           (victim = find_whole(&h, port_wall_us() - GATHER_US)) != NULL)
        drop_whole(&h, victim);
    rc = h.whole_bytes > most_bytes ? ERR_FULL : 0;
    look_done(&h);
    return rc;
}

/* ---- age ---- */

static void forget(struct holdings *h, struct held *held)
{
    drop_whole(h, held);
    drop(h, held);
    crash_spool_remove(h->spool, held->id, "told");
}

/* What is under way or waits to be told has its time. */
static void drop_old(struct holdings *h)
{
    int64_t now_us = port_wall_us();
    size_t left = h->count;
    for (size_t i = 0; i < h->count; i++) {
        struct held *held = &h->list[i];
        bool waits = held->is_under_way || (held->process[0] && !held->is_told);
        bool is_empty = held->whole_bytes == 0 && !held->has_evidence && left > TOLD_MAX;
        if (waits || now_us - held->at_us < (is_empty ? GATHER_US : (int64_t)CRASH_KEEP_US))
            continue;
        forget(h, held);
        left--;
    }
}

struct leftover {
    const struct crash_spool *spool;
    int64_t before_us;
};

static int drop_leftover(void *context, const char *name)
{
    const struct leftover *l = context;
    struct stat st;
    if (fstatat(l->spool->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        (int64_t)st.st_mtim.tv_sec * 1000000 < l->before_us)
        (void)unlinkat(l->spool->fd, name, 0);
    return 0;
}

void crash_spool_tidy(const struct crash_spool *spool)
{
    struct holdings h;
    int64_t before_us = port_wall_us() - (int64_t)CRASH_KEEP_US;
    struct leftover old = {spool, before_us};
    if (look(&h, spool))
        return;
    drop_old(&h);
    (void)make_fit(&h, "", 0);
    look_done(&h);
    (void)crash_spool_each(spool, ".tmp", drop_leftover, &old);
    (void)crash_spool_each(spool, ".site", drop_leftover, &old);
}
