/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A triage as a text that a person reads from the top. Invariant: what comes from the process is
 * made safe for a terminal. Called by triage.c.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define LINE_SIZE 1024

void triage_put(struct triage *t, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;
    if (t->rc < 0)
        return;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length > 0)
        t->rc = buf_append_str(t->out, line);
}

void triage_put_safe(struct triage *t, struct span text)
{
    if (t->rc == 0)
        t->rc = text_append_safe(t->out, text, false);
}

void triage_put_str(struct triage *t, const char *text)
{
    triage_put_safe(t, span_str(text));
}

/* ---- the first lines ---- */

static void put_first(struct triage *t)
{
    triage_put(t, "process %u ", t->process->pid);
    triage_put_str(t, t->process->name);
    triage_put(t, ", uid %u, %u threads, %s\n", t->process->uid, t->stat.threads,
               triage_state(t->stat.state));
    for (size_t i = 0; i < t->summary_count; i++) {
        triage_put(t, "  * ");
        triage_put_str(t, t->summary[i]);
        triage_put(t, "\n");
    }
    triage_put(t, "\n");
}

static void put_head(struct triage *t)
{
    for (size_t i = 0; i < t->head_count; i++) {
        triage_put(t, "%-13s", t->head[i].label);
        triage_put(t, " ");
        triage_put_str(t, t->head[i].text);
        triage_put(t, "\n");
    }
}

/* ---- threads ---- */

static void put_who(struct triage *t, const struct triage_group *group)
{
    if (group->count > 1)
        triage_put(t, "  %u x ", group->count);
    else
        triage_put(t, "  ");
    triage_put_str(t, t->threads[group->first].name);
    if (group->names > 0)
        triage_put(t, " and other names");
    for (uint32_t i = 0; i < group->count && i < TRIAGE_TIDS_SHOWN; i++)
        triage_put(t, "%s%u", i ? "," : " ", group->tids[i]);
    triage_put(t, "%s", group->count > TRIAGE_TIDS_SHOWN ? ",..." : "");
}

static void put_group(struct triage *t, const struct triage_group *group)
{
    char wait[TRIAGE_TEXT_SIZE];
    const struct triage_thread *first = &t->threads[group->first];
    uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);
    put_who(t, group);
    triage_put(t, ": %s", triage_state(first->state));
    if (first->call_text[0]) {
        triage_put(t, ", ");
        triage_put_str(t, first->call_text);
    }
    if (first->wchan[0]) {
        triage_put(t, ", waits in ");
        triage_put_str(t, first->wchan);
    }
    triage_put(t, ", %llu.%02llu s of CPU\n", (unsigned long long)(group->ticks / hz),
               (unsigned long long)(group->ticks % hz * 100 / hz));
    triage_wait_text(t, first, wait, sizeof wait);
    if (wait[0]) {
        triage_put(t, "      ");
        triage_put_str(t, wait);
        triage_put(t, "\n");
    }
    if (group->stack[0]) {
        triage_put(t, "      kernel: ");
        triage_put_str(t, group->stack);
        triage_put(t, "\n");
    }
}

static void put_threads(struct triage *t)
{
    triage_put(t, "\nthreads (%zu)\n", t->thread_count);
    for (size_t i = 0; i < t->group_count; i++)
        put_group(t, &t->groups[i]);
    if (t->group_over > 0)
        triage_put(t, "  %u more, each doing something else\n", t->group_over);
    if (t->threads_ended > 0)
        triage_put(t, "  %u ended while they were looked at\n", t->threads_ended);
}

/* ---- what waits on what ---- */

static void put_lock(struct triage *t, const struct triage_held_lock *lock)
{
    triage_put(t, "  lock 0x%llx: %u wait%s; ", (unsigned long long)lock->address, lock->waiters,
               lock->waiters == 1 ? "s" : "");
    if (lock->holder < 0) {
        triage_put(t, "who holds it is not recorded\n");
        return;
    }
    const struct triage_thread *holder = &t->threads[lock->holder];
    triage_put(t, "held by %u ", holder->tid);
    triage_put_str(t, holder->name);
    triage_put(t, "%s, %s", triage_hedge(lock->wait.futex), triage_state(holder->state));
    if (holder->call_text[0]) {
        triage_put(t, " in ");
        triage_put_str(t, holder->call_text);
    }
    triage_put(t, "\n");
}

static void put_lock_side(struct triage *t, const struct triage_file_lock *lock)
{
    if (lock->pid < 0)
        triage_put(t, "a process that is not recorded");
    else if (lock->pid == (int64_t)t->process->pid)
        triage_put(t, "this process");
    else
        triage_put(t, "pid %lld", (long long)lock->pid);
}

static void put_file_lock(struct triage *t, const struct triage_lock_pair *pair)
{
    triage_put(t, "  file lock on inode %llu (", (unsigned long long)pair->held.inode);
    triage_put_str(t, pair->held.class);
    triage_put(t, ", ");
    triage_put_str(t, pair->held.mode);
    triage_put(t, "): held by ");
    put_lock_side(t, &pair->held);
    if (pair->has_waiter) {
        triage_put(t, "; waited for by ");
        put_lock_side(t, &pair->waiter);
    }
    triage_put(t, "\n");
}

static void put_waits(struct triage *t)
{
    if (t->lock_count + t->file_lock_count == 0)
        return;
    triage_put(t, "\nlocks\n");
    for (size_t i = 0; i < t->lock_count; i++)
        put_lock(t, &t->locks[i]);
    for (size_t i = 0; i < t->file_lock_count; i++)
        put_file_lock(t, &t->file_locks[i]);
}

/* ---- files ---- */

static void put_types(struct triage *t)
{
    for (size_t i = 0; i < t->type_count; i++) {
        triage_put(t, "%s%u ", i ? ", " : "  ", t->types[i].count);
        triage_put_str(t, t->types[i].name);
    }
    triage_put(t, "\n");
}

static void put_socket_states(struct triage *t)
{
    struct sock named = {.protocol = 6};
    if (t->sockets.count + t->other_sockets == 0)
        return;
    triage_put(t, "  sockets: %u unix, %u udp or raw", t->unix_sockets, t->udp_sockets);
    for (uint8_t i = 0; i < TRIAGE_TCP_STATES; i++) {
        named.state = i;
        if (t->tcp_states[i] > 0)
            triage_put(t, ", %u tcp %s", t->tcp_states[i], sock_state(&named));
    }
    if (t->other_sockets > 0)
        triage_put(t, ", %u of another kind", t->other_sockets);
    triage_put(t, "\n");
}

static void put_piece(struct triage *t, const char *before, const char *text)
{
    if (!text[0])
        return;
    triage_put(t, "%s", before);
    triage_put_str(t, text);
}

static void put_file(struct triage *t, const struct triage_file *file)
{
    triage_put(t, "  %u ", file->fd);
    triage_put_str(t, file->text[0] ? file->text : file->target);
    put_piece(t, ", ", file->details);
    if (file->held.kind == HELD_PIPE && strcmp(file->other_writer, file->other_end) == 0) {
        put_piece(t, "; both ends held by ", file->other_end);
    } else if (file->held.kind == HELD_PIPE) {
        put_piece(t, "; written by ", file->other_writer);
        put_piece(t, "; read by ", file->other_end);
    } else {
        put_piece(t, "; other end: ", file->other_end);
    }
    triage_put(t, "\n");
}

static void put_files(struct triage *t)
{
    if (!t->fds_known) {
        triage_put(t, "\nopen files: not to be seen\n");
        return;
    }
    triage_put(t, "\nopen files (%zu)\n", t->fd_total);
    put_types(t);
    put_socket_states(t);
    for (size_t i = 0; i < t->file_count; i++)
        put_file(t, &t->files[i]);
    if (t->fd_total > t->file_count)
        triage_put(t, "  ... %zu more\n", t->fd_total - t->file_count);
}

/* ---- limits, control group ---- */

static void put_limit_value(struct triage *t, uint64_t value)
{
    if (value == TRIAGE_NO_LIMIT)
        triage_put(t, "unlimited");
    else
        triage_put(t, "%llu", (unsigned long long)value);
}

static void put_limits(struct triage *t)
{
    triage_put(t, "\nlimits\n");
    for (size_t i = 0; i < t->limit_count; i++) {
        const struct triage_limit *limit = &t->limits[i];
        triage_put(t, "  %-16s ", limit->name);
        if (limit->has_used)
            triage_put(t, "%llu of ", (unsigned long long)limit->used);
        put_limit_value(t, limit->soft);
        put_piece(t, " ", limit->unit);
        if (limit->has_used && limit->soft != TRIAGE_NO_LIMIT && limit->soft > 0)
            triage_put(t, " (%.0f %%)", 100.0 * (double)limit->used / (double)limit->soft);
        if (limit->hard != limit->soft) {
            triage_put(t, ", may be raised to ");
            put_limit_value(t, limit->hard);
        }
        triage_put(t, "\n");
    }
}

static void put_cgroup(struct triage *t)
{
    if (t->row_count == 0)
        return;
    triage_put(t, "\ncontrol group\n");
    for (size_t i = 0; i < t->row_count; i++) {
        triage_put(t, "  %-22s ", t->rows[i].name);
        triage_put_str(t, t->rows[i].text);
        triage_put(t, "\n");
    }
}

void triage_write_text(struct triage *t, struct buf *out)
{
    t->out = out;
    put_first(t);
    put_head(t);
    put_waits(t);
    put_threads(t);
    put_files(t);
    put_limits(t);
    put_cgroup(t);
    if (t->result->missing[0]) {
        triage_put(t, "\nmissing: ");
        triage_put_str(t, t->result->missing);
        triage_put(t, "\n");
    }
}
