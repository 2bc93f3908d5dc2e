/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON for programs: one object per line (RFC 8259, one line each). Invariant: what was begun is
 * closed by jsonl_line(), and after a failure nothing more is appended, so that the caller asks
 * once, at the end. Keys are ours, in snake_case; texts may come from anywhere. Pure. Used by the
 * render modules and the bundle's manifest.
 */
#ifndef TRAWL_CLI_JSONL_H
#define TRAWL_CLI_JSONL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define JSONL_MAX_DEPTH 8

/* Put one on the stack: `struct jsonl j = {.out = &buf};`. */
struct jsonl {
    struct buf *out; /* borrowed */
    int error;       /* the first one */
    bool comma;
    unsigned depth;
    char closers[JSONL_MAX_DEPTH];
};

/* `key` is NULL inside a list and for the line's own object. */
void jsonl_object(struct jsonl *j, const char *key);
void jsonl_list(struct jsonl *j, const char *key);
void jsonl_end(struct jsonl *j); /* of the innermost object or list */
void jsonl_str(struct jsonl *j, const char *key, const char *text);
/* A member whose key comes from outside. */
void jsonl_member(struct jsonl *j, const char *foreign_key, const char *text);
/* With underscores for blanks: our own words, as programs take them. */
void jsonl_word(struct jsonl *j, const char *key, const char *text);
/* A list of `count` texts, each in an array of `size_bytes`. */
void jsonl_strs(struct jsonl *j, const char *key, const char *texts, size_t size_bytes,
                size_t count);
void jsonl_int(struct jsonl *j, const char *key, int64_t value);
void jsonl_u64(struct jsonl *j, const char *key, uint64_t value);
void jsonl_bool(struct jsonl *j, const char *key, bool value);
void jsonl_null(struct jsonl *j, const char *key);
/* null for "" and 0, which mean that it is not known. */
void jsonl_str_or_null(struct jsonl *j, const char *key, const char *text);
void jsonl_u64_or_null(struct jsonl *j, const char *key, uint64_t value);
void jsonl_hex_or_null(struct jsonl *j, const char *key, const uint8_t *bytes, size_t count);
/* A number with six decimals at most. */
void jsonl_real(struct jsonl *j, const char *key, double value);
/* RFC 3339 with microseconds; null for 0, which means that it is not known. */
void jsonl_time(struct jsonl *j, const char *key, int64_t us);
void jsonl_hex(struct jsonl *j, const char *key, const uint8_t *bytes, size_t count);
/* Closes everything and ends the line. The first error, or 0. */
int jsonl_line(struct jsonl *j);

#endif
