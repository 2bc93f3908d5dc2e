/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cheap first test: most of a log is never looked at more closely than here. Four rare bytes of
 * each key word are searched for all at once, as in S. Wu, U. Manber, "A fast algorithm for
 * multi-pattern searching" (1994): a table says from two bytes how far one may step. Called by
 * trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

#define PRINT 4
#define SLOTS 4096

const struct trace_word trace_words[] = {
    {"Traceback (most recent call last):", 5, trace_start_python},
    {"\tat ", 0, trace_start_at},
    {"  at ", 0, trace_start_at},
    {"--trace-uncaught", 7, trace_start_node_text},
    {"goroutine ", 0, trace_start_go},
    {":in `", 0, trace_start_ruby},
    {":in '", 0, trace_start_ruby},
    {"Stack trace:", 3, trace_start_php},
    {"PHP Fatal error:  ", 2, trace_start_php_fatal},
    {"PHP Parse error:  ", 2, trace_start_php_fatal},
    {" panicked at ", 1, trace_start_rust},
    {"terminate called ", 8, trace_start_terminate},
    {"libc++abi: terminating ", 3, trace_start_terminating},
    {"Sanitizer: ", 3, trace_start_sanitizer},
    {" runtime error: ", 3, trace_start_ubsan},
    {" **: ", 1, trace_start_glib},
    {"Bail out! ", 5, trace_start_bail_out},
};
#define WORDS (sizeof trace_words / sizeof trace_words[0])

static struct {
    bool is_made;
    uint8_t step[SLOTS];
    uint32_t prints[WORDS];
} table;

static uint32_t slot(const uint8_t *p)
{
    return ((uint32_t)p[0] * 31 + (uint32_t)p[1] * 97) % SLOTS;
}

static uint32_t print_of(const void *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* Computed, not written down, so that it cannot disagree with the words. */
static void make(void)
{
    memset(table.step, PRINT - 1, sizeof table.step);
    for (size_t i = 0; i < WORDS; i++) {
        const uint8_t *print = (const uint8_t *)trace_words[i].text + trace_words[i].print_at;
        table.prints[i] = print_of(print);
        for (uint32_t at = 0; at + 2 <= PRINT; at++) {
            uint8_t *step = &table.step[slot(print + at)];
            uint8_t distance = (uint8_t)(PRINT - 2 - at);
            if (distance < *step)
                *step = distance;
        }
    }
    table.is_made = true;
}

/* The word whose print ends before `end`. */
static const struct trace_word *word_at(struct span text, size_t print_at, size_t *begin)
{
    uint32_t print = print_of(text.data + print_at);
    for (size_t i = 0; i < WORDS; i++) {
        const struct trace_word *word = &trace_words[i];
        if (table.prints[i] != print || print_at < word->print_at)
            continue;
        size_t at = print_at - word->print_at, length = strlen(word->text);
        if (text.size_bytes - at >= length && memcmp(text.data + at, word->text, length) == 0) {
            *begin = at;
            return word;
        }
    }
    return NULL;
}

const struct trace_word *trace_scan(struct span text, size_t *at)
{
    if (!table.is_made)
        make();
    /* i: the last two bytes of where a print could end */
    for (size_t i = *at + PRINT - 2; i + 2 <= text.size_bytes;) {
        uint8_t step = table.step[slot(text.data + i)];
        if (step > 0) {
            i += step;
            continue;
        }
        size_t begin;
        const struct trace_word *word = word_at(text, i + 2 - PRINT, &begin);
        if (word && begin >= *at) {
            *at = begin;
            return word;
        }
        i++;
    }
    *at = text.size_bytes;
    return NULL;
}
