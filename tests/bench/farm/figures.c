/* SPDX-License-Identifier: Apache-2.0 */
/* A growing list of times, sorted when asked. Running out of memory ends the program. */
#include "figures.h"

#include <stdio.h>
#include <stdlib.h>

void figures_add(struct figures *figures, uint64_t us)
{
    if (figures->count == figures->capacity) {
        size_t capacity = figures->capacity ? figures->capacity * 2 : 1024;
        uint64_t *grown = realloc(figures->us, capacity * sizeof *grown);
        if (!grown) {
            perror("bench_farm");
            exit(1);
        }
        figures->us = grown;
        figures->capacity = capacity;
    }
    figures->us[figures->count++] = us;
}

void figures_clear(struct figures *figures)
{
    figures->count = 0;
}

void figures_done(struct figures *figures)
{
    free(figures->us);
    *figures = (struct figures){0};
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

double figures_ms(struct figures *figures, double fraction)
{
    if (!figures->count)
        return 0;
    qsort(figures->us, figures->count, sizeof figures->us[0], compare);
    size_t at = (size_t)(fraction * (double)figures->count);
    if (at >= figures->count)
        at = figures->count - 1;
    return (double)figures->us[at] / 1000;
}
