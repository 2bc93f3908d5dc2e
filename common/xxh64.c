/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH64 by its author's library, behind a type that needs no header of it. The only includer of
 * xxhash.h. Pure. See xxh64.h.
 */
#define XXH_STATIC_LINKING_ONLY /* the state's size */
#include "common/xxh64.h"

#include <assert.h>
#include <xxhash.h>

static_assert(sizeof(XXH64_state_t) <= sizeof(struct xxh64), "room for the library's state");
static_assert(_Alignof(XXH64_state_t) <= _Alignof(struct xxh64), "its alignment");

static XXH64_state_t *state_of(struct xxh64 *x)
{
    return (XXH64_state_t *)x->state;
}

void xxh64_init(struct xxh64 *x, uint64_t seed)
{
    (void)XXH64_reset(state_of(x), seed);
}

void xxh64_add(struct xxh64 *x, struct span bytes)
{
    if (bytes.size_bytes > 0)
        (void)XXH64_update(state_of(x), bytes.data, bytes.size_bytes);
}

uint64_t xxh64_end(const struct xxh64 *x)
{
    return XXH64_digest((const XXH64_state_t *)x->state);
}

uint64_t xxh64(struct span bytes, uint64_t seed)
{
    return XXH64(bytes.data, bytes.size_bytes, seed);
}
