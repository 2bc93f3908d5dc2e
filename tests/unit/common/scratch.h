/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of its own for a test, gone when the test's process ends. Include it before any other
 * header, for the feature macro. Used by the tests of common/ that write files.
 */
#ifndef TESTS_UNIT_COMMON_SCRATCH_H
#define TESTS_UNIT_COMMON_SCRATCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/check.h"

#define SCRATCH_PATH_SIZE 512

static char scratch_dir[SCRATCH_PATH_SIZE / 2];

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void scratch_done(void)
{
    nftw(scratch_dir, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of `name` in this process's directory, which the first call makes. */
static inline const char *scratch(const char *name, char out[SCRATCH_PATH_SIZE])
{
    if (!scratch_dir[0]) {
        const char *top = getenv("TMPDIR");
        snprintf(scratch_dir, sizeof scratch_dir, "%.100s/trawl-test.XXXXXX", top ? top : "/tmp");
        REQUIRE(mkdtemp(scratch_dir) != NULL);
        atexit(scratch_done);
    }
    snprintf(out, SCRATCH_PATH_SIZE, "%s/%s", scratch_dir, name);
    return out;
}

#endif
