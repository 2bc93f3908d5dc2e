/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH64 as specified in https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md: about 10
 * GB/s, every single flipped bit found; against damage, not against people. Pure. The numbers are
 * part of the store's data format. Called by the store (rows, pieces) and by the CLI (unpacked
 * files).
 */
#ifndef TRAWL_COMMON_XXH64_H
#define TRAWL_COMMON_XXH64_H

#include "common/buf.h"

/* Of many pieces, one after the other. No memory of its own; what is in it is the library's. */
struct xxh64 {
    uint64_t state[11];
};
void xxh64_init(struct xxh64 *x, uint64_t seed);
void xxh64_add(struct xxh64 *x, struct span bytes);
uint64_t xxh64_end(const struct xxh64 *x); /* of all so far; adding may go on */

/* In one go. */
uint64_t xxh64(struct span bytes, uint64_t seed);

#endif
