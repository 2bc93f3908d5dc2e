/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing lists of names and the sentence that shows them. Invariant: no name is in a list twice.
 * Called by what has to say that something does not exist.
 */
#include "cli/names.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define FIRST_NAMES 16
#define KNOWN_SIZE 200

const char *const *names_list(const struct names *names)
{
    static const char *const none[] = {NULL};
    return names->count ? (const char *const *)names->list : none;
}

bool names_has(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i], name) == 0)
            return true;
    return false;
}

int names_add(struct names *names, const char *name)
{
    if (names_has(names, name))
        return 0;
    size_t size_bytes = strlen(name) + 1;
    char *copy = malloc(size_bytes);
    if (!copy || BUF_GROW(names->list, names->count + 1, &names->capacity, FIRST_NAMES)) {
        free(copy);
        return ERR_NOMEM;
    }
    memcpy(copy, name, size_bytes);
    names->list[names->count++] = copy;
    names->list[names->count] = NULL;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void names_sort(struct names *names)
{
    if (names->count > 1)
        qsort(names->list, names->count, sizeof *names->list, by_text);
}

void names_done(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
    *names = (struct names){.list = NULL};
}

static void put_known(const char *const *known, char out[KNOWN_SIZE])
{
    size_t length = 0;
    text_copy(out, KNOWN_SIZE, "none");
    for (size_t i = 0; known[i]; i++) {
        size_t left = KNOWN_SIZE - length;
        if (strlen(known[i]) + 2 + sizeof ", ..." > left) {
            text_copy(out + length, left, ", ...");
            return;
        }
        text_format(out + length, left, "%s%s", i ? ", " : "", known[i]);
        length += strlen(out + length);
    }
}

int names_fail(struct failure *f, int code, const char *what, const char *text,
               const char *const *known)
{
    char list[KNOWN_SIZE], hint[96] = "";
    const char *nearest = text_nearest(text, known);
    put_known(known, list);
    if (nearest)
        text_format(hint, sizeof hint, "; did you mean '%.63s'?", nearest);
    return fail(f, code, "unknown %s '%.60s'%s (known: %s)", what, text, hint, list);
}
