/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits as people write them: digits, at most three behind the point, a unit, and the time over
 * which a change is looked at. Invariant: a number is kept as it was written, never as a rounded
 * value. Called by the parser, the printer and the engine.
 */
#include "rule/language.h"

#include <string.h>

#include "common/text.h"

#define DIGITS_MAX 15 /* before the point: thousandths stay below 2^63 */

static const struct unit {
    const char *word;
    double factor;
} units[] = {
    [RULE_PLAIN] = {"", 1},
    [RULE_PERCENT] = {"%", 0.01},
    [RULE_KIB] = {"K", 1024},
    [RULE_MIB] = {"M", 1024.0 * 1024},
    [RULE_GIB] = {"G", 1024.0 * 1024 * 1024},
    [RULE_TIB] = {"T", 1024.0 * 1024 * 1024 * 1024},
    [RULE_US] = {"us", 1},
    [RULE_MS] = {"ms", 1e3},
    [RULE_S] = {"s", 1e6},
    [RULE_M] = {"m", 60e6},
    [RULE_H] = {"h", 3600e6},
    [RULE_X] = {"x", 1},
};
#define UNITS (sizeof units / sizeof units[0])

static const char *const pers[] = {"", "/s", "/m", "/h"};
#define PERS (sizeof pers / sizeof pers[0])

double rule_number_value(const struct rule_number *n)
{
    return (double)n->milli / 1000 * units[n->unit].factor;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int take_digits(const char **at, size_t most, int64_t *value, size_t *count)
{
    for (*count = 0; is_digit(**at); (*at)++, (*count)++) {
        if (*count == most)
            return ERR_INVALID;
        *value = *value * 10 + (**at - '0');
    }
    return *count > 0 ? 0 : ERR_INVALID;
}

static int take_suffix(const char *at, struct rule_number *out)
{
    for (size_t u = 0; u < UNITS; u++) {
        size_t length = strlen(units[u].word);
        if (strncmp(at, units[u].word, length) != 0)
            continue;
        for (size_t p = 0; p < PERS; p++) {
            if (strcmp(at + length, pers[p]) != 0)
                continue;
            out->unit = (enum rule_unit)u;
            out->per = (enum rule_per)p;
            return 0;
        }
    }
    return ERR_INVALID;
}

int rule_number_parse(const char *text, struct rule_number *out)
{
    struct rule_number n = {.milli = 0};
    bool negative = *text == '-';
    const char *at = text + negative;
    size_t digits = 0, behind = 0;
    if (take_digits(&at, DIGITS_MAX, &n.milli, &digits))
        return ERR_INVALID;
    if (*at == '.') {
        at++;
        if (take_digits(&at, 3, &n.milli, &behind))
            return ERR_INVALID;
    }
    for (; behind < 3; behind++)
        n.milli *= 10;
    if (negative)
        n.milli = -n.milli;
    if (take_suffix(at, &n))
        return ERR_INVALID;
    *out = n;
    return 0;
}

void rule_number_put(const struct rule_number *n, char *out, size_t size_bytes)
{
    uint64_t size = n->milli < 0 ? 0 - (uint64_t)n->milli : (uint64_t)n->milli;
    unsigned rest = (unsigned)(size % 1000);
    int digits = rest % 10 ? 3 : rest % 100 ? 2 : 1;
    char behind[8] = "";
    if (rest)
        (void)text_format(behind, sizeof behind, ".%0*u", digits,
                          digits == 3   ? rest
                          : digits == 2 ? rest / 10
                                        : rest / 100);
    (void)text_format(out, size_bytes, "%s%llu%s%s%s", n->milli < 0 ? "-" : "",
                      (unsigned long long)(size / 1000), behind, units[n->unit].word, pers[n->per]);
}
