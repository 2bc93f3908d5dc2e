/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much evidence of crashes stays. Invariant: the only evidence that there is of a program is
 * never removed for the sake of another's, only by its age. Called by crash_handler and crashes.
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

#define HELD_MAX 1024

/* The evidence of one crash. */
struct held {
    uint8_t id[16];
    char process[64];
    uint64_t bytes;
    int64_t at_us;
    bool is_told, gone;
};

struct holdings {
    const struct crash_spool *spool;
    struct held *list;
    size_t count;
    uint64_t bytes;
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
    held->bytes += (uint64_t)st.st_blocks * 512;
    h->bytes += (uint64_t)st.st_blocks * 512;
    return 0;
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

/* What is to be told stays; without its evidence it says that there was some. */
static void drop(struct holdings *h, struct held *held, bool with_told)
{
    struct crash_spool_file files[CRASH_FILES_MAX_LISTED];
    size_t count = 0;
    (void)crashes_find(h->spool->path, held->id, files, CRASH_FILES_MAX_LISTED, &count);
    for (size_t i = 0; i < count; i++)
        (void)unlinkat(h->spool->fd, files[i].name, 0);
    if (with_told)
        crash_spool_remove(h->spool, held->id, "told");
    h->bytes -= held->bytes < h->bytes ? held->bytes : h->bytes;
    held->gone = true;
}

static bool has_several(const struct holdings *h, const struct held *held)
{
    for (size_t i = 0; i < h->count; i++) {
        const struct held *other = &h->list[i];
        if (other != held && !other->gone && strcmp(other->process, held->process) == 0)
            return true;
    }
    return false;
}

/* The second oldest of a program goes first: its first evidence says what began. */
static struct held *find_victim(struct holdings *h, const char *process)
{
    for (size_t i = h->count; i-- > 0;) {
        struct held *held = &h->list[i];
        bool is_first = true;
        for (size_t k = 0; k < i; k++)
            is_first &= h->list[k].gone || strcmp(h->list[k].process, held->process) != 0;
        if (!held->gone && held->process[0] && !is_first && has_several(h, held))
            return held;
    }
    for (size_t i = 0; i < h->count; i++)
        if (!h->list[i].gone && process[0] && strcmp(h->list[i].process, process) == 0)
            return &h->list[i];
    return NULL;
}

static bool fits(const struct crash_spool *spool, const struct holdings *h, uint64_t need)
{
    struct statvfs fs;
    if (need > spool->size_bytes || h->bytes > spool->size_bytes - need)
        return false;
    return fstatvfs(spool->fd, &fs) != 0 ||
           (uint64_t)fs.f_bavail * fs.f_frsize >= need + CRASH_FREE_BYTES;
}

int crash_spool_room(const struct crash_spool *spool, const char *process, uint64_t need_bytes)
{
    struct holdings h;
    int rc = look(&h, spool);
    if (rc)
        return rc;
    while (!fits(spool, &h, need_bytes)) {
        struct held *victim = find_victim(&h, process);
        if (!victim) {
            rc = ERR_FULL;
            break;
        }
        drop(&h, victim, false);
    }
    look_done(&h);
    return rc;
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
    for (size_t i = 0; i < h.count; i++)
        if (h.list[i].is_told && h.list[i].at_us < before_us)
            drop(&h, &h.list[i], true);
    while (!fits(spool, &h, 0)) {
        struct held *victim = find_victim(&h, "");
        if (!victim)
            break;
        drop(&h, victim, victim->is_told);
    }
    look_done(&h);
    (void)crash_spool_each(spool, ".tmp", drop_leftover, &old);
    (void)crash_spool_each(spool, ".site", drop_leftover, &old);
}
