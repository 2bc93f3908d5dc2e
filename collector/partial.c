/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of hashes, and an idle handle that runs while one of them lacks stored pieces. See
 * partial.h.
 */
#include "collector/partial.h"

#include <stdlib.h>
#include <string.h>

#include "collector/keys.h"
#include "collector/store.h"
#include "common/list.h"
#include "common/log.h"
#include "common/pki.h"
#include "common/text.h"

#define KEPT_MAX 1024 /* a few hundred bytes each */
#define KEPT_OF_HOST 16
#define KEPT_US (600 * UINT64_C(1000000))
#define PIECES_PER_TURN 16 /* 1 MiB: some 3 ms of the loop */

struct partial {
    struct list link; /* partials->all, the one used last at the end */
    struct partials *partials;
    char blob[KEYS_PARTITION_SIZE];
    char host[64];
    struct pki_sha256 *hash;
    uint32_t stored, hashed; /* pieces; hashed <= stored */
    bool owned, wanted;
    bool dead; /* of no use any more: unreadable, or being deleted */
    struct partial_owner owner;
    uint64_t used_us;
};

struct partials {
    struct collector *collector;
    struct list all;
    size_t count;
    uv_idle_t idle;
    bool running;
};

static uint64_t now_us(const struct partials *partials)
{
    struct clock *clock = partials->collector->clock;
    return clock->mono_us(clock);
}

static void drop(struct partial *p)
{
    list_remove(&p->link);
    p->partials->count--;
    pki_sha256_close(p->hash, NULL);
    free(p);
}

/* ---- reading back ---- */

static bool lacks(const struct partial *p)
{
    return p->hashed < p->stored && !p->dead;
}

struct reread {
    struct partial *partial;
    int err;
};

static void on_reread(void *context, int err, struct span value)
{
    struct reread *r = context;
    r->err = err;
    if (err)
        return;
    pki_sha256_add(r->partial->hash, value);
    r->partial->hashed++;
}

/* Without the piece the artifact is worth nothing, and the agent begins anew; a store that cannot
 * be read now is another matter. */
static void give_up(struct partial *p, int err)
{
    struct partial_owner owner = p->owner;
    bool wanted = p->wanted, gone = err == ERR_CORRUPT || err == ERR_NOTFOUND;
    struct failure f;
    fail(&f, err, "a stored piece of '%s' cannot be read: %s", p->blob, err_text(err));
    log_warn("piece %u of '%s' cannot be read: %s%s", p->hashed, p->blob, err_text(err),
             gone ? "; it is deleted" : "");
    if (gone)
        blob_delete(p->partials->collector->store, p->blob, NULL, NULL);
    if (!p->owned) {
        drop(p);
        return;
    }
    p->wanted = false;
    p->dead = true;
    if (wanted)
        owner.ready(owner.context, err);
    else
        owner.interrupt(owner.context, &f);
}

static void settle(struct partial *p)
{
    if (!p->wanted || lacks(p))
        return;
    p->wanted = false;
    p->owner.ready(p->owner.context, 0);
}

static void read_some(struct partial *p)
{
    struct reread r = {p, 0};
    struct store *store = p->partials->collector->store;
    for (int i = 0; i < PIECES_PER_TURN && !r.err && lacks(p); i++)
        blob_read(store, p->blob, p->hashed, on_reread, &r);
    if (r.err)
        give_up(p, r.err);
    else
        settle(p);
}

static void on_idle(uv_idle_t *idle)
{
    struct partials *partials = idle->data;
    LIST_EACH (at, &partials->all) {
        struct partial *p = LIST_ENTRY(at, struct partial, link);
        if (!lacks(p))
            continue;
        list_remove(&p->link); /* the others first, next time */
        list_push(&partials->all, &p->link);
        read_some(p);
        return;
    }
    uv_idle_stop(idle);
    partials->running = false;
}

static void run(struct partials *partials)
{
    if (partials->running)
        return;
    partials->running = true;
    uv_idle_start(&partials->idle, on_idle);
}

/* ---- one artifact ---- */

static struct partial *find(struct partials *partials, const char *blob)
{
    LIST_EACH (at, &partials->all) {
        struct partial *p = LIST_ENTRY(at, struct partial, link);
        if (!strcmp(p->blob, blob))
            return p;
    }
    return NULL;
}

/* Forgets those that were not used for longest: first of the host that has too many. */
static void make_room(struct partials *partials, const char *host)
{
    struct partial *oldest = NULL, *oldest_own = NULL;
    size_t own = 0;
    LIST_EACH (at, &partials->all) {
        struct partial *p = LIST_ENTRY(at, struct partial, link);
        bool mine = !strcmp(p->host, host);
        own += mine;
        if (p->owned)
            continue;
        if (!oldest || p->used_us < oldest->used_us)
            oldest = p;
        if (mine && (!oldest_own || p->used_us < oldest_own->used_us))
            oldest_own = p;
    }
    if (own >= KEPT_OF_HOST && oldest_own)
        drop(oldest_own);
    else if (partials->count >= KEPT_MAX && oldest)
        drop(oldest);
}

static struct partial *make(struct partials *partials, const char *blob, const char *host)
{
    make_room(partials, host);
    struct partial *p = calloc(1, sizeof(*p));
    struct pki_sha256 *hash = p ? pki_sha256_open() : NULL;
    if (!hash) {
        free(p);
        return NULL;
    }
    p->partials = partials;
    p->hash = hash;
    text_copy(p->blob, sizeof(p->blob), blob);
    text_copy(p->host, sizeof(p->host), host);
    list_push(&partials->all, &p->link);
    partials->count++;
    return p;
}

int partial_take(struct partial **out, struct partials *partials, const char *blob,
                 const char *host, uint32_t stored, const struct partial_owner *owner,
                 struct failure *f)
{
    struct partial *p = find(partials, blob);
    if (p && p->owned) {
        fail(f, ERR_BUSY, "an earlier call still stores pieces of '%s': try again", blob);
        p->owner.interrupt(p->owner.context, f);
        return f->code;
    }
    if (p && p->hashed > stored) { /* not of these pieces: it was deleted meanwhile */
        drop(p);
        p = NULL;
    }
    if (!p)
        p = make(partials, blob, host);
    if (!p)
        return fail(f, ERR_NOMEM, "out of memory");
    p->owned = true;
    p->owner = *owner;
    p->stored = stored;
    p->used_us = now_us(partials);
    if (lacks(p))
        run(partials);
    *out = p;
    return 0;
}

void partial_stored(struct partial *p)
{
    p->stored++;
    run(p->partials);
}

void partial_want(struct partial *p)
{
    p->wanted = true;
    settle(p);
}

void partial_finish(struct partial *p, uint8_t sha256[32])
{
    pki_sha256_close(p->hash, sha256);
    p->hash = NULL;
}

void partial_give(struct partial *p, bool keep)
{
    p->owned = p->wanted = false;
    p->used_us = now_us(p->partials);
    if (!keep || !p->hash || p->dead)
        drop(p);
}

bool partials_forget(struct partials *partials, const char *blob, const struct failure *why)
{
    struct partial *p = find(partials, blob);
    if (!p)
        return true;
    if (!p->owned) {
        drop(p);
        return true;
    }
    struct partial_owner owner = p->owner;
    bool wanted = p->wanted; /* then it stays until it was told */
    p->dead = true;
    p->wanted = false;
    if (!owner.interrupt(owner.context, why)) {
        p->dead = false;
        return false;
    }
    if (wanted)
        owner.ready(owner.context, why->code);
    return true;
}

/* ---- life ---- */

int partials_open(struct partials **out, struct collector *c, struct failure *f)
{
    struct partials *partials = calloc(1, sizeof(*partials));
    if (!partials)
        return fail(f, ERR_NOMEM, "out of memory");
    partials->collector = c;
    list_init(&partials->all);
    uv_idle_init(c->loop, &partials->idle);
    partials->idle.data = partials;
    *out = partials;
    return 0;
}

void partials_stop(struct partials *partials)
{
    if (partials && !uv_is_closing((uv_handle_t *)&partials->idle))
        uv_close((uv_handle_t *)&partials->idle, NULL);
}

void partials_close(struct partials *partials)
{
    if (!partials)
        return;
    LIST_EACH (at, &partials->all)
        drop(LIST_ENTRY(at, struct partial, link));
    free(partials);
}

void partials_tick(struct partials *partials)
{
    uint64_t now = now_us(partials);
    LIST_EACH (at, &partials->all) {
        struct partial *p = LIST_ENTRY(at, struct partial, link);
        if (!p->owned && now - p->used_us > KEPT_US)
            drop(p);
    }
}
