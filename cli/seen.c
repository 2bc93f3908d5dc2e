/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remembers exceptions by host and ID, in two halves: the older one is forgotten as a whole.
 * Invariant: a half holds at most SEEN_KEPT of twice as many slots, so that a search ends. Called
 * by cmd_exceptions.c.
 */
#include "cli/seen.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS (2 * (size_t)SEEN_KEPT) /* a power of two */
#define FNV_BEGIN UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

struct key {
    uint64_t host, id; /* hashes; both 0: free */
};

struct seen_half {
    size_t count;
    int64_t last_us; /* the newest time in it */
    struct key slots[SLOTS];
};

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t state, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++)
        state = (state ^ at[i]) * FNV_PRIME;
    return state;
}

/* One without ID is known by its number, which is its agent's. */
static struct key key_of(const trawl_v1_Exception *e)
{
    struct key k;
    uint64_t begin = e->id.size ? FNV_BEGIN : ~FNV_BEGIN;
    k.host = hash(FNV_BEGIN, e->host, strlen(e->host)) | 1;
    k.id = e->id.size ? hash(begin, e->id.bytes, e->id.size) : hash(begin, &e->seq, sizeof e->seq);
    return k;
}

/* Its slot, or the free one where it belongs. */
static struct key *find(struct seen_half *half, struct key k)
{
    size_t at = (size_t)(k.id ^ k.host);
    for (;; at++) {
        struct key *slot = &half->slots[at % SLOTS];
        if (slot->host == 0 || (slot->host == k.host && slot->id == k.id))
            return slot;
    }
}

static void turn(struct seen *s)
{
    struct seen_half *oldest = s->before;
    if (oldest->count && oldest->last_us >= s->from_us)
        s->from_us = oldest->last_us + 1;
    memset(oldest, 0, sizeof *oldest);
    s->before = s->now;
    s->now = oldest;
}

bool seen_add(struct seen *s, const trawl_v1_Exception *e)
{
    struct key k = key_of(e);
    struct key *slot = find(s->now, k);
    if (slot->host || find(s->before, k)->host)
        return false;
    if (s->now->count == SEEN_KEPT) {
        turn(s);
        slot = find(s->now, k);
    }
    int64_t last_us = e->last_us > e->wall_us ? e->last_us : e->wall_us;
    *slot = k;
    s->now->count++;
    if (last_us > s->now->last_us && last_us < INT64_MAX)
        s->now->last_us = last_us;
    return true;
}

int seen_init(struct seen *s, int64_t from_us)
{
    *s = (struct seen){.from_us = from_us};
    s->now = calloc(1, sizeof *s->now);
    s->before = calloc(1, sizeof *s->before);
    if (s->now && s->before)
        return 0;
    seen_done(s);
    return ERR_NOMEM;
}

void seen_done(struct seen *s)
{
    free(s->now);
    free(s->before);
    s->now = s->before = NULL;
}
