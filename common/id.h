/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 128-bit identifiers ordered by time: 48 bits of milliseconds since 1970, then 80 random bits
 * (the layout of a ULID). Text form: 26 characters of Crockford base 32, sorting like the bytes.
 * Pure: the caller brings clock and random bytes.
 */
#ifndef TRAWL_COMMON_ID_H
#define TRAWL_COMMON_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define ID_SIZE 16
#define ID_TEXT_SIZE 27 /* with the terminating zero */

struct id {
    uint8_t bytes[ID_SIZE];
};

struct id id_make(int64_t wall_ms, const uint8_t random_bytes[10]);
bool id_is_zero(const struct id *id);
int id_compare(const struct id *a, const struct id *b); /* like memcmp */
int64_t id_time_ms(const struct id *id);
void id_text(const struct id *id, char out[ID_TEXT_SIZE]);
/* ERR_INVALID when `text` is not 26 characters of the alphabet (case-insensitive). */
int id_parse(const char *text, struct id *out);

/*
 * `count` characters (of 5 bits each) of Crockford base 32 from `random_bytes`, zero-terminated.
 * Used for short names that people read aloud: the alphabet has no I, L, O, U.
 */
void id_base32(const uint8_t *random_bytes, size_t count, char *out);

#endif
