/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the core pattern and /proc/net/unix every few seconds, which needs no privilege; connecting
 * would wake the listener. Twice in a row makes sure: a listener that starts anew is away for a
 * moment. See crash_guard.h.
 */
#include "agent/crash_guard.h"

#include <stdlib.h>
#include <string.h>

#include "agent/crash_status.h"
#include "common/log.h"
#include "common/text.h"

#define TIMES 2

struct crash_guard {
    struct watcher *watcher;
    const struct settings *settings;
    struct os_exception *exception;
    uint32_t seconds, times; /* in a row that nobody listened */
};

int crash_guard_open(void **out, const struct source_context *context, struct failure *f)
{
    struct crash_guard *g = calloc(1, sizeof *g);
    if (g)
        g->exception = calloc(1, sizeof *g->exception);
    if (!g || !g->exception) {
        free(g);
        return fail(f, ERR_NOMEM, "out of memory");
    }
    g->watcher = context->watcher;
    g->settings = context->settings;
    *out = g;
    return 0;
}

static void tell(struct crash_guard *g)
{
    struct os_exception *e = g->exception;
    memset(e, 0, sizeof *e);
    e->source = OS_HANG;
    e->uid = UINT32_MAX;
    text_copy(e->type, sizeof e->type, "crash-listener");
    text_copy(e->process, sizeof e->process, "trawl-agent");
    (void)text_format(e->message, sizeof e->message,
                      "the crash listener does not answer at %s: crashes leave no evidence",
                      g->settings->crash_socket);
    text_copy(e->missing, sizeof e->missing, "evidence of crashes from now on");
    log_warn("%s", e->message);
    watcher_report(g->watcher, e);
}

/* Whether crashes go to the listener's socket, and into nothing. */
static bool goes_nowhere(const struct crash_guard *g)
{
    char pattern[OS_CORE_PATTERN_SIZE];
    const char *path;
    return os_core_pattern_read(g->settings->root, pattern, NULL) == 0 &&
           (path = crash_socket_of(pattern)) != NULL &&
           strcmp(path, g->settings->crash_socket) == 0 &&
           !os_crash_socket_is_served(g->settings->root, path);
}

void crash_guard_second(void *source)
{
    struct crash_guard *g = source;
    if (g->seconds++ % CRASH_GUARD_EVERY_S != 0)
        return;
    if (goes_nowhere(g)) {
        if (g->times < TIMES && ++g->times == TIMES)
            tell(g);
        return;
    }
    if (g->times == TIMES)
        log_info("the crash listener answers again, or crashes go elsewhere");
    g->times = 0;
}

void crash_guard_close(void *source)
{
    struct crash_guard *g = source;
    free(g->exception);
    free(g);
}
