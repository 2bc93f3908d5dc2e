/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that a kind gives, kept in memory. Included by tests of kinds of the os layer.
 */
#ifndef TESTS_UNIT_OS_TAKEN_H
#define TESTS_UNIT_OS_TAKEN_H

#include <string.h>

#include "agent/os/take.h"

struct taken {
    struct buf text, json;
    struct buf *now;
    struct os_output output;
};

static inline int taken_begin(void *context, const char *ending, struct failure *f)
{
    struct taken *t = context;
    t->now = strcmp(ending, "txt") == 0 ? &t->text : strcmp(ending, "json") == 0 ? &t->json : NULL;
    return t->now ? 0 : fail(f, ERR_INVALID, "unexpected file '%s'", ending);
}

static inline int taken_write(void *context, struct span bytes, struct failure *f)
{
    struct taken *t = context;
    (void)f;
    return buf_append_span(t->now, bytes);
}

static inline void taken_init(struct taken *t)
{
    memset(t, 0, sizeof *t);
    buf_init(&t->text, (size_t)64 * 1024 * 1024);
    buf_init(&t->json, (size_t)64 * 1024 * 1024);
    t->output = (struct os_output){taken_begin, taken_write, t};
}

static inline void taken_done(struct taken *t)
{
    buf_done(&t->text);
    buf_done(&t->json);
}

#endif
