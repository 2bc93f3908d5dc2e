/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said of a process without touching it. Invariant: the process is not stopped or
 * traced; everything is read from /proc, over netlink and by process_vm_readv(2), which the process
 * cannot notice. Called by the worker through os/triage.h.
 */
#include "agent/os/triage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/linux/triage_read.h"
#include "common/text.h"

#define TEXT_LIMIT ((size_t)4 * 1024 * 1024)
#define JSON_LIMIT ((size_t)8 * 1024 * 1024)

/* ---- small things of all sections ---- */

void triage_add(char *out, size_t size_bytes, const char *format, ...)
{
    size_t used = strlen(out);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(out + used, size_bytes - used, format, args);
    va_end(args);
}

/* "cannot read '/proc/77/limits': permission denied": what was read is said already. */
void triage_miss(struct triage *t, const char *what, const struct failure *f)
{
    const char *reason = strstr(f->text, "': ");
    os_result_miss(t->result, "%s: %s", what, reason ? reason + 3 : f->text);
}

int triage_read(struct triage *t, const char *leaf, void *data, size_t size_bytes, struct span *out)
{
    struct failure f;
    int result = proc_read_pid(t->root, t->process->pid, leaf, data, size_bytes, out, &f);
    if (result < 0)
        triage_miss(t, leaf, &f);
    return result;
}

const char *triage_state(char state)
{
    switch (state) {
    case 'R':
        return "running or ready to";
    case 'S':
        return "sleeping";
    case 'D':
        return "waiting, not to be interrupted (disk or kernel)";
    case 'T':
        return "stopped by a signal";
    case 't':
        return "stopped by a debugger";
    case 'Z':
        return "ended, not reaped";
    case 'X':
        return "ended";
    case 'I':
        return "idle";
    default:
        return "in an unknown state";
    }
}

/* ---- eyes ---- */

static bool target_of(void *context, uint64_t fd, char *out, size_t size_bytes)
{
    const struct triage *t = context;
    const struct triage_file *file = fd <= UINT32_MAX ? triage_find_file(t, (uint32_t)fd) : NULL;
    char leaf[48];
    if (file) {
        (void)text_copy(out, size_bytes, file->text[0] ? file->text : file->target);
        return true;
    }
    (void)text_format(leaf, sizeof leaf, "fd/%llu", (unsigned long long)fd);
    return proc_link_pid(t->root, t->process->pid, leaf, out, size_bytes, NULL) == 0;
}

static int read_memory(void *context, uint64_t address, void *out, size_t size_bytes)
{
    struct triage *t = context;
    struct iovec local = {out, size_bytes};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)address, size_bytes};
    ssize_t got = process_vm_readv((pid_t)t->process->pid, &local, 1, &remote, 1, 0);
    if (got == (ssize_t)size_bytes)
        return 0;
    if (got < 0 && (errno == EPERM || errno == EACCES) && !t->memory_denied) {
        t->memory_denied = true;
        os_result_miss(t->result, "who holds its locks: its memory may not be read");
    }
    return ERR_DENIED;
}

/* ---- the whole ---- */

static void read_all(struct triage *t)
{
    if (triage_read(t, "status", t->status_data, sizeof t->status_data, &t->status) < 0)
        t->status = span_of(t->status_data, 0);
    triage_read_threads(t);
    triage_read_files(t);
    triage_read_file_locks(t);
    triage_find_others(t);
    triage_find_waits(t);
    triage_find_groups(t);
    triage_read_head(t);
    triage_read_limits(t);
    triage_read_cgroup(t);
    triage_summarise(t);
}

static int write_all(struct triage *t, const struct os_output *out, struct failure *f)
{
    struct buf text, json;
    int e = 0;
    buf_init(&text, TEXT_LIMIT);
    buf_init(&json, JSON_LIMIT);
    triage_write_text(t, &text);
    triage_write_json(t, &json);
    if (t->rc < 0)
        e = fail(f, t->rc, "triage of process %u: %s", t->process->pid, err_text(t->rc));
    if (e == 0)
        e = os_output_file(out, "txt", buf_span(&text), f);
    if (e == 0)
        e = os_output_file(out, "json", buf_span(&json), f);
    buf_done(&text);
    buf_done(&json);
    return e;
}

static void done(struct triage *t)
{
    net_sockets_close(&t->sockets);
    holders_done(&t->holders);
    free(t->threads);
    free(t->fds);
    free(t->files);
    free(t);
}

int triage_capture(const char *root, const struct os_process *process, const struct os_output *out,
                   struct os_result *result, struct failure *f)
{
    struct triage *t = calloc(1, sizeof *t);
    if (!t)
        return fail(f, ERR_NOMEM, "out of memory");
    t->root = root;
    t->process = process;
    t->result = result;
    t->sockets.fd = -1;
    t->eyes = (struct triage_eyes){target_of, root[0] == '\0' ? read_memory : NULL, t};
    int e = proc_stat_of(root, process, &t->stat, f);
    if (e == 0) {
        struct proc_stat again;
        read_all(t);
        /* the pid may have come into use again meanwhile */
        e = proc_stat_of(root, process, &again, f);
    }
    if (e == 0)
        e = write_all(t, out, f);
    done(t);
    return e;
}

int os_triage_capture(const struct os_take *take, const struct os_output *out,
                      struct os_result *result, struct failure *f)
{
    return triage_capture("", &take->process, out, result, f);
}
