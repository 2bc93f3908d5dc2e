/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a selector matched nothing: which of its terms, what is nearest, what exists. Pure: told of
 * every host, then asked. Invariant: it judges no host; the collector did that. Used by cli.c.
 */
#ifndef TRAWL_CLI_NOMATCH_H
#define TRAWL_CLI_NOMATCH_H

#include "cli/names.h"
#include "proto/codec.h"

#define NOMATCH_TERMS 32

struct nomatch_term {
    const char *key;   /* in `text`; NULL for a host name or glob */
    const char *value; /* in `text` */
    bool is_different; /* != */
    bool key_exists, value_exists;
    struct names values; /* that the key has somewhere */
};

struct nomatch {
    char text[1024];
    struct nomatch_term terms[NOMATCH_TERMS];
    size_t term_count;
    struct names keys, hosts;
    int error;
};

void nomatch_init(struct nomatch *n, const char *selector);
void nomatch_host(struct nomatch *n, const trawl_v1_Host *host);
/* ERR_INVALID for a label or fact that nobody has, else ERR_NOTFOUND; with the sentence. */
int nomatch_fail(struct nomatch *n, const char *selector, struct failure *f);
void nomatch_done(struct nomatch *n);

#endif
