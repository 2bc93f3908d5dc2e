/* SPDX-License-Identifier: Apache-2.0 */
/* The table of sources. See sources.h. */
#include "agent/sources.h"

#include <stdlib.h>

#include "agent/crash_guard.h"
#include "agent/crashes.h"
#include "agent/follow.h"
#include "agent/intake.h"
#include "agent/source_throws.h"
#include "agent/watch_kernel.h"
#include "agent/watch_probe.h"
#include "agent/watch_process.h"
#include "common/log.h"

static const struct source table[] = {
    {"crashes", crashes_open, crashes_second, crashes_close},
    {"the crash listener", crash_guard_open, crash_guard_second, crash_guard_close},
    {"kernel messages", watch_kernel_open, watch_kernel_second, watch_kernel_close},
    {"logs", follow_open, follow_second, follow_close},
    {"processes", watch_process_open, watch_process_second, watch_process_close},
    {"throws", source_throws_open, source_throws_second, source_throws_close},
    {"reports", intake_open, intake_second, intake_close},
    {"probes", watch_probe_open, NULL, watch_probe_close},
    {NULL, NULL, NULL, NULL},
};
#define SOURCES (sizeof table / sizeof table[0])

struct sources {
    void *open[SOURCES];
};

int sources_open(struct sources **out, const struct source_context *context)
{
    struct sources *sources = calloc(1, sizeof *sources);
    if (!sources)
        return ERR_NOMEM;
    for (size_t i = 0; table[i].name; i++) {
        struct failure f = {0};
        if (table[i].open(&sources->open[i], context, &f))
            log_warn("exceptions are not noticed by way of %s: %s", table[i].name, f.text);
    }
    *out = sources;
    return 0;
}

void sources_second(struct sources *sources)
{
    for (size_t i = 0; table[i].name; i++)
        if (sources->open[i] && table[i].second)
            table[i].second(sources->open[i]);
}

void sources_close(struct sources *sources)
{
    if (!sources)
        return;
    for (size_t i = 0; table[i].name; i++)
        if (sources->open[i])
            table[i].close(sources->open[i]);
    free(sources);
}
