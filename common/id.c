/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identifiers in the layout of a ULID and their Crockford base 32 text. Invariant: the order of the
 * texts is the order of the bytes is the order of the milliseconds. Called wherever an incident,
 * capture or artifact is named. Pure.
 */
#include "common/id.h"

#include <string.h>

#define TIME_MAX_MS (((int64_t)1 << 48) - 1)

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* A clock before 1970 or after the year 10889 gives the nearest time that 48 bits can say. */
struct id id_make(int64_t wall_ms, const uint8_t random_bytes[10])
{
    struct id id;
    int64_t ms = wall_ms < 0 ? 0 : wall_ms > TIME_MAX_MS ? TIME_MAX_MS : wall_ms;
    for (int i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)((uint64_t)ms >> (8 * (5 - i)));
    memcpy(id.bytes + 6, random_bytes, 10);
    return id;
}

bool id_is_zero(const struct id *id)
{
    static const struct id zero;
    return memcmp(id->bytes, zero.bytes, ID_SIZE) == 0;
}

int id_compare(const struct id *a, const struct id *b)
{
    return memcmp(a->bytes, b->bytes, ID_SIZE);
}

int64_t id_time_ms(const struct id *id)
{
    int64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id->bytes[i];
    return ms;
}

/* 26 digits hold 130 bits: the first digit carries only the top three bits of the identifier. */
void id_text(const struct id *id, char out[ID_TEXT_SIZE])
{
    for (int digit = 0; digit < ID_TEXT_SIZE - 1; digit++) {
        unsigned value = 0;
        for (int bit = digit * 5 - 2; bit < digit * 5 + 3; bit++) {
            unsigned byte = bit < 0 ? 0U : id->bytes[bit / 8];
            value = value << 1 | ((byte >> (7 - (bit & 7))) & 1U);
        }
        out[digit] = alphabet[value];
    }
    out[ID_TEXT_SIZE - 1] = '\0';
}

static int digit_value(char c)
{
    char upper = c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
    const char *at = upper ? strchr(alphabet, upper) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

static void put_digit(struct id *id, int digit, int value)
{
    for (int i = 0; i < 5; i++) {
        int bit = digit * 5 - 2 + i;
        if (bit >= 0 && (value >> (4 - i)) & 1)
            id->bytes[bit / 8] = (uint8_t)(id->bytes[bit / 8] | 0x80U >> (bit % 8));
    }
}

int id_parse(const char *text, struct id *out)
{
    struct id id = {{0}};
    int digit = 0;
    for (; digit < ID_TEXT_SIZE - 1 && text[digit]; digit++) {
        int value = digit_value(text[digit]);
        if (value < 0 || (digit == 0 && value > 7))
            return ERR_INVALID;
        put_digit(&id, digit, value);
    }
    if (digit != ID_TEXT_SIZE - 1 || text[digit])
        return ERR_INVALID;
    *out = id;
    return 0;
}

void id_base32(const uint8_t *random_bytes, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++) {
        unsigned value = 0;
        for (size_t bit = i * 5; bit < i * 5 + 5; bit++) {
            unsigned byte = random_bytes[bit / 8];
            value = value << 1 | ((byte >> (7 - (bit & 7))) & 1U);
        }
        out[i] = alphabet[value];
    }
    out[count] = '\0';
}
