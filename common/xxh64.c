/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four lanes over stripes of 32 bytes, then what is left. Numbers are read in the order of the
 * machine: a data directory, like LMDB's own files, stays with its architecture. See xxh64.h.
 */
#include "common/xxh64.h"

#include <string.h>

#define STRIPE 32

static const uint64_t P1 = UINT64_C(0x9E3779B185EBCA87);
static const uint64_t P2 = UINT64_C(0xC2B2AE3D27D4EB4F);
static const uint64_t P3 = UINT64_C(0x165667B19E3779F9);
static const uint64_t P4 = UINT64_C(0x85EBCA77C2B2AE63);
static const uint64_t P5 = UINT64_C(0x27D4EB2F165667C5);

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

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

void xxh64_init(struct xxh64 *x, uint64_t seed)
{
    *x = (struct xxh64){.seed = seed, .lanes = {seed + P1 + P2, seed + P2, seed, seed - P1}};
}

/* Whole stripes; returns what is left behind them. */
static struct span stripes(uint64_t lanes[4], struct span bytes)
{
    uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
    const uint8_t *at = bytes.data;
    size_t left = bytes.size_bytes;
    for (; left >= STRIPE; left -= STRIPE, at += STRIPE) {
        a = step(a, load64(at));
        b = step(b, load64(at + 8));
        c = step(c, load64(at + 16));
        d = step(d, load64(at + 24));
    }
    lanes[0] = a;
    lanes[1] = b;
    lanes[2] = c;
    lanes[3] = d;
    return span_of(at, left);
}

void xxh64_add(struct xxh64 *x, struct span bytes)
{
    size_t have = (size_t)(x->size_bytes % STRIPE);
    x->size_bytes += bytes.size_bytes;
    if (have > 0) {
        size_t some = STRIPE - have < bytes.size_bytes ? STRIPE - have : bytes.size_bytes;
        if (some == 0)
            return;
        memcpy(x->rest + have, bytes.data, some);
        bytes = span_of(bytes.data + some, bytes.size_bytes - some);
        if (have + some < STRIPE)
            return;
        (void)stripes(x->lanes, span_of(x->rest, STRIPE));
    }
    if (bytes.size_bytes == 0)
        return;
    struct span left = stripes(x->lanes, bytes);
    if (left.size_bytes > 0)
        memcpy(x->rest, left.data, left.size_bytes);
}

static uint64_t avalanche(uint64_t hash)
{
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}

/* The fewer than 32 bytes behind the stripes. */
static uint64_t tail(uint64_t hash, const uint8_t *at, size_t left)
{
    for (; left >= 8; left -= 8, at += 8)
        hash = rotate(hash ^ step(0, load64(at)), 27) * P1 + P4;
    if (left >= 4) {
        hash = rotate(hash ^ load32(at) * P1, 23) * P2 + P3;
        left -= 4;
        at += 4;
    }
    for (; left > 0; left--, at++)
        hash = rotate(hash ^ *at * P5, 11) * P1;
    return avalanche(hash);
}

uint64_t xxh64_end(const struct xxh64 *x)
{
    uint64_t hash = x->seed + P5;
    if (x->size_bytes >= STRIPE) {
        const uint64_t *lanes = x->lanes;
        hash =
            rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
        for (int i = 0; i < 4; i++)
            hash = merge(hash, lanes[i]);
    }
    return tail(hash + x->size_bytes, x->rest, (size_t)(x->size_bytes % STRIPE));
}

uint64_t xxh64(struct span bytes, uint64_t seed)
{
    struct xxh64 x;
    xxh64_init(&x, seed);
    xxh64_add(&x, bytes);
    return xxh64_end(&x);
}
