/* SPDX-License-Identifier: Apache-2.0 */
/* What may be opened, and opening it. See broker_logs.h. */
#include "agent/broker_logs.h"

#include <string.h>

#include "common/text.h"

static int open_listed(struct broker_logs *logs, const struct broker_settings *settings,
                       const struct broker_open_log *request, struct broker_log *out, int *fd,
                       struct failure *f)
{
    if (!settings->follow_logs || !settings->follow_logs[0])
        return fail(f, ERR_NOTFOUND, "the setting follow-logs names none");
    if (request->index == 0)
        os_log_expand(settings->follow_logs, &logs->list);
    if (request->index >= logs->list.count)
        return fail(f, ERR_NOTFOUND, "no more");
    text_copy(out->log.path, sizeof out->log.path, logs->list.paths[request->index]);
    out->cut = logs->list.cut;
    return os_log_open(logs->list.paths[request->index], &request->known, fd, &out->log, f);
}

static int keep_process(void *context, const struct os_process *process)
{
    *(struct os_process *)context = *process;
    return 1;
}

/* Whether it is that process and one of those that the settings follow. */
static int find_followed(const struct broker_settings *settings,
                         const struct broker_open_log *request, struct os_process *process,
                         struct failure *f)
{
    struct span list = span_str(settings->follow ? settings->follow : ""), name;
    char text[OS_PROCESS_NAME_SIZE];
    while (text_take_until(&list, ',', &name) == 0) {
        struct os_process_filter filter = {.name = text, .pid = request->pid};
        if (name.size_bytes == 0 || text_copy_span(text, sizeof text, name) ||
            os_process_each("", &filter, keep_process, process, NULL) != 1)
            continue;
        return process->start_ticks == request->start_ticks
                   ? 0
                   : fail(f, ERR_GONE, "process %u is another one by now", request->pid);
    }
    return fail(f, ERR_REFUSED,
                "the logs of process %u are not opened: the setting follow does not name it",
                request->pid);
}

static int open_of_process(const struct broker_settings *settings, const struct policy *policy,
                           const struct broker_open_log *request, struct broker_log *out, int *fd,
                           struct failure *f)
{
    struct os_process process;
    if (request->pid == 0 || !settings->follow_own_logs)
        return fail(f, ERR_REFUSED, "the logs of processes are not followed: see follow-own-logs");
    int e = find_followed(settings, request, &process, f);
    if (!e)
        e = policy_allows_process(policy, process.name, f);
    if (!e)
        e = os_log_open_of("", &process, request->index, &request->known, fd, &out->log, f);
    if (!e)
        text_copy(out->process, sizeof out->process, process.name);
    return e;
}

static int open_journal(struct broker_logs *logs, const struct broker_settings *settings,
                        struct broker_open_log *request, int *fd, struct failure *f)
{
    request->cursor[sizeof request->cursor - 1] = '\0';
    if (!settings->journal)
        return fail(f, ERR_REFUSED, "the journal is not followed: the setting journal says no");
    if (!os_journal_exists(""))
        return fail(f, ERR_NOTFOUND, "this host has no journal");
    os_journal_stop(logs->journal_pid);
    logs->journal_pid = 0;
    return os_journal_start("", request->cursor, fd, &logs->journal_pid, f);
}

int broker_logs_open(struct broker_logs *logs, const struct broker_settings *settings,
                     const struct policy *policy, struct broker_open_log *request,
                     struct broker_log *out, int *fd, struct failure *f)
{
    *fd = -1;
    switch (request->what) {
    case BROKER_LOG_LISTED:
        return open_listed(logs, settings, request, out, fd, f);
    case BROKER_LOG_OF_PROCESS:
        return open_of_process(settings, policy, request, out, fd, f);
    case BROKER_LOG_JOURNAL:
        return open_journal(logs, settings, request, fd, f);
    default:
        return fail(f, ERR_PROTOCOL, "no such kind of log");
    }
}

void broker_logs_done(struct broker_logs *logs)
{
    os_journal_stop(logs->journal_pid);
    logs->journal_pid = 0;
}
