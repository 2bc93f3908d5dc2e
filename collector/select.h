/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which hosts a selector names. Pure. A selector is a list of terms joined by ',': `key=value`,
 * `key!=value` (labels first, then facts; values may be globs), or a host name or glob (`web-*`).
 * Terms with '=' must all hold; of the host terms at least one must match when there is any. "*" is
 * every host; an empty selector is an error, so that nobody hits the whole farm by forgetting.
 */
#ifndef TRAWL_COLLECTOR_SELECT_H
#define TRAWL_COLLECTOR_SELECT_H

#include <stdbool.h>

#include "common/err.h"
#include "proto/codec.h"

#define SELECT_MAX_TERMS 32
#define SELECT_TEXT_SIZE 1024

enum select_op { SELECT_HOST, SELECT_EQUAL, SELECT_DIFFERENT };

struct select_term {
    enum select_op op;
    const char *key;   /* in `text` */
    const char *value; /* in `text`; a glob */
};

struct select {
    char text[SELECT_TEXT_SIZE];
    struct select_term terms[SELECT_MAX_TERMS];
    size_t count;
};

/* ERR_INVALID names the term and what would be right; *out must then not be matched against. */
int select_parse(const char *text, struct select *out, struct failure *f);
bool select_match(const struct select *s, const trawl_v1_Host *host);

#endif
