/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small things that all kinds share. Called by every kind.
 */
#include "agent/os/take.h"

#include <stdio.h>
#include <string.h>

int os_output_file(const struct os_output *out, const char *ending, struct span bytes,
                   struct failure *f)
{
    int e = out->begin(out->context, ending, f);
    return e ? e : out->write(out->context, bytes, f);
}

void os_result_miss(struct os_result *result, const char *format, ...)
{
    size_t used = strlen(result->missing);
    va_list args;
    if (used > 0 && used < sizeof result->missing - 3) {
        memcpy(result->missing + used, "; ", 3);
        used += 2;
    }
    va_start(args, format);
    vsnprintf(result->missing + used, sizeof result->missing - used, format, args);
    va_end(args);
}
