/* SPDX-License-Identifier: Apache-2.0 */
/*
 * common/buf.c compiled once more with an allocator that fails on demand. Include it in one source
 * of a test program: the linker then leaves the archive's buf.o aside, so every module under test
 * gets this one. Invariant: with failing_buf_after(-1), as at the start, nothing fails.
 */
#ifndef TESTS_UNIT_COMMON_FAILING_BUF_H
#define TESTS_UNIT_COMMON_FAILING_BUF_H

#include <stdlib.h>

static long failing_buf_left = -1;

/* The next `successes` allocations succeed, the one after them and all later ones fail. */
static inline void failing_buf_after(long successes)
{
    failing_buf_left = successes;
}

static inline void *failing_buf_realloc(void *old, size_t size_bytes)
{
    if (failing_buf_left == 0)
        return NULL;
    if (failing_buf_left > 0)
        failing_buf_left--;
    return realloc(old, size_bytes);
}

#define realloc(old, size_bytes) failing_buf_realloc(old, size_bytes)
#include "common/buf.c"
#undef realloc

#endif
