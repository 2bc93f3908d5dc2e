/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing JSON (RFC 8259) into a buffer, a value at a time. Invariant: what stands in the buffer is
 * the beginning of one valid document in valid UTF-8, whatever bytes the values have; after the
 * first error nothing is appended any more. Pure. Called by the kinds that give "json".
 */
#ifndef TRAWL_AGENT_OS_LINUX_JSON_TEXT_H
#define TRAWL_AGENT_OS_LINUX_JSON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define JSON_TEXT_DEPTH_MAX \
    16 /* objects and arrays inside each other; more is a programming error */

struct json_text {
    struct buf *out; /* borrowed */
    int rc;          /* first error of an append: ERR_LIMIT, ERR_NOMEM; 0: none */
    unsigned depth;
    bool filled[JSON_TEXT_DEPTH_MAX + 1]; /* whether a level has a member already */
    char ends[JSON_TEXT_DEPTH_MAX];       /* what ends a level: '}' or ']' */
};

void json_text_init(struct json_text *j, struct buf *out);

/*
 * Each appends one value. `key` is its name inside an object and NULL inside an array and at the
 * top. Texts may be any bytes: what is not UTF-8 becomes U+FFFD, what a terminal could obey is
 * escaped. A NULL text is null.
 */
void json_text_object(struct json_text *j, const char *key);
void json_text_array(struct json_text *j, const char *key);
void json_text_end(struct json_text *j); /* of the innermost object or array */
void json_text_str(struct json_text *j, const char *key, const char *text);
void json_text_span(struct json_text *j, const char *key, struct span text);
void json_text_u64(struct json_text *j, const char *key, uint64_t value);
void json_text_i64(struct json_text *j, const char *key, int64_t value);
void json_text_bool(struct json_text *j, const char *key, bool value);
void json_text_null(struct json_text *j, const char *key);
/* Bytes as "0a1b..."; any count. */
void json_text_hex(struct json_text *j, const char *key, const uint8_t *bytes, size_t count);
/* An address as "0x7f00...": a number over 2^53 would lose its end in most readers. */
void json_text_address(struct json_text *j, const char *key, uint64_t value);

/*
 * To take back a member that did not fit: json_text_mark() before it, json_text_undo() after the
 * error. The struct is the mark; the buffer's bytes are cut back to where they were.
 */
struct json_text_mark {
    struct json_text state;
    size_t size_bytes;
};
struct json_text_mark json_text_mark(const struct json_text *j);
void json_text_undo(struct json_text *j, const struct json_text_mark *mark);

#endif
