/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH64 as specified in https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md: about 10
 * GB/s, every single flipped bit found. Pure. The numbers are part of the data format. Called by
 * the rows of store_lmdb_env.c and the pieces of store_lmdb_piece.c.
 */
#include <string.h>

#include "collector/store_lmdb.h"

static const uint64_t P1 = UINT64_C(0x9E3779B185EBCA87);
static const uint64_t P2 = UINT64_C(0xC2B2AE3D27D4EB4F);
static const uint64_t P3 = UINT64_C(0x165667B19E3779F9);
static const uint64_t P4 = UINT64_C(0x85EBCA77C2B2AE63);
static const uint64_t P5 = UINT64_C(0x27D4EB2F165667C5);

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

/* In the order of the machine: a data directory, like LMDB's own files, stays with its
 * architecture. */
static uint64_t load64(const uint8_t *at)
{
    uint64_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

static uint32_t load32(const uint8_t *at)
{
    uint32_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

static uint64_t step(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * P2, 31) * P1;
}

static uint64_t merge(uint64_t hash, uint64_t lane)
{
    return (hash ^ step(0, lane)) * P1 + P4;
}

/* Whole stripes of 32 bytes in four lanes; moves `*at`. */
static uint64_t stripes(const uint8_t **at, const uint8_t *end, uint64_t seed)
{
    uint64_t lanes[4] = {seed + P1 + P2, seed + P2, seed, seed - P1};
    for (; end - *at >= 32; *at += 32) {
        for (int i = 0; i < 4; i++)
            lanes[i] = step(lanes[i], load64(*at + 8 * i));
    }
    uint64_t hash =
        rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
    for (int i = 0; i < 4; i++)
        hash = merge(hash, lanes[i]);
    return hash;
}

static uint64_t avalanche(uint64_t hash)
{
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}

uint64_t store_hash(struct span bytes, uint64_t seed)
{
    if (bytes.size_bytes == 0)
        return avalanche(seed + P5);
    const uint8_t *at = bytes.data, *end = bytes.data + bytes.size_bytes;
    uint64_t hash = bytes.size_bytes >= 32 ? stripes(&at, end, seed) : seed + P5;
    hash += bytes.size_bytes;
    for (; end - at >= 8; at += 8)
        hash = rotate(hash ^ step(0, load64(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        hash = rotate(hash ^ load32(at) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++)
        hash = rotate(hash ^ *at * P5, 11) * P1;
    return avalanche(hash);
}
