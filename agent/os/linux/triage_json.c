/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A triage for programs. Invariant: what is not known is absent. Called by triage.c.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

static void put_kib(const struct triage *t, struct json_text *j, const char *field, const char *key)
{
    struct span value;
    uint64_t kib;
    if (proc_find_key(t->status, field, &value) == 0 && proc_take_number(&value, &kib) == 0)
        json_text_u64(j, key, kib);
}

static void put_process(const struct triage *t, struct json_text *j)
{
    char state[2] = {t->stat.state, '\0'};
    json_text_object(j, "process");
    json_text_u64(j, "pid", t->process->pid);
    json_text_str(j, "name", t->process->name);
    json_text_u64(j, "uid", t->process->uid);
    json_text_u64(j, "start_ticks", t->process->start_ticks);
    json_text_str(j, "state", state);
    json_text_u64(j, "threads", t->stat.threads);
    json_text_u64(j, "user_ticks", t->stat.user_ticks);
    json_text_u64(j, "system_ticks", t->stat.system_ticks);
    put_kib(t, j, "VmRSS:", "resident_kib");
    put_kib(t, j, "VmHWM:", "most_resident_kib");
    put_kib(t, j, "VmSwap:", "swapped_kib");
    put_kib(t, j, "VmSize:", "virtual_kib");
    for (size_t i = 0; i < t->head_count; i++)
        json_text_str(j, t->head[i].key, t->head[i].text);
    json_text_end(j);
}

static void put_wait(const struct triage *t, const struct triage_thread *thread,
                     struct json_text *j)
{
    static const char *const kinds[] = {
        [WAIT_CONDITION] = "condition",   [WAIT_LOCK] = "lock",  [WAIT_HOLDER] = "lock",
        [WAIT_THREAD_END] = "thread_end", [WAIT_FILE] = "file",  [WAIT_FILE_LOCK] = "file_lock",
        [WAIT_CHILD] = "child",           [WAIT_VFORK] = "vfork"};
    const struct triage_wait *wait = &thread->wait;
    char text[TRIAGE_TEXT_SIZE];
    if (wait->kind == WAIT_NOTHING)
        return;
    json_text_object(j, "waits_for");
    json_text_str(j, "kind", kinds[wait->kind]);
    triage_wait_text(t, thread, text, sizeof text);
    json_text_str(j, "text", text);
    if (wait->kind == WAIT_FILE || wait->kind == WAIT_FILE_LOCK)
        json_text_u64(j, "fd", wait->fd);
    if (wait->kind == WAIT_LOCK || wait->kind == WAIT_HOLDER || wait->kind == WAIT_CONDITION)
        json_text_address(j, "address", wait->address);
    if (wait->thread != 0) {
        json_text_u64(j, "thread", wait->thread);
        json_text_bool(j, "certain", wait->futex != FUTEX_MUTEX && wait->futex != FUTEX_RWLOCK);
    }
    json_text_end(j);
}

static void put_group(const struct triage *t, const struct triage_group *group, struct json_text *j)
{
    const struct triage_thread *first = &t->threads[group->first];
    char state[2] = {first->state, '\0'};
    json_text_object(j, NULL);
    json_text_u64(j, "count", group->count);
    json_text_str(j, "name", first->name);
    json_text_str(j, "state", state);
    if (first->call_text[0])
        json_text_str(j, "call", first->call_text);
    if (first->wchan[0])
        json_text_str(j, "wait_channel", first->wchan);
    if (group->stack[0])
        json_text_str(j, "kernel_stack", group->stack);
    json_text_u64(j, "cpu_ticks", group->ticks);
    put_wait(t, first, j);
    json_text_array(j, "threads");
    for (uint32_t i = 0; i < group->count && i < TRIAGE_TIDS_SHOWN; i++)
        json_text_u64(j, NULL, group->tids[i]);
    json_text_end(j);
    json_text_end(j);
}

static void put_locks(const struct triage *t, struct json_text *j)
{
    json_text_array(j, "locks");
    for (size_t i = 0; i < t->lock_count; i++) {
        const struct triage_held_lock *lock = &t->locks[i];
        json_text_object(j, NULL);
        json_text_address(j, "address", lock->address);
        json_text_u64(j, "waiters", lock->waiters);
        if (lock->holder >= 0) {
            json_text_u64(j, "holder", t->threads[lock->holder].tid);
            json_text_bool(j, "certain", lock->wait.futex == FUTEX_HELD);
        }
        json_text_end(j);
    }
    json_text_end(j);
    json_text_array(j, "file_locks");
    for (size_t i = 0; i < t->file_lock_count; i++) {
        const struct triage_lock_pair *pair = &t->file_locks[i];
        json_text_object(j, NULL);
        json_text_u64(j, "inode", pair->held.inode);
        json_text_str(j, "class", pair->held.class);
        json_text_str(j, "mode", pair->held.mode);
        json_text_str(j, "range", pair->held.range);
        if (pair->held.pid >= 0)
            json_text_i64(j, "held_by", pair->held.pid);
        if (pair->has_waiter && pair->waiter.pid >= 0)
            json_text_i64(j, "waiter", pair->waiter.pid);
        json_text_end(j);
    }
    json_text_end(j);
}

static void put_file(const struct triage_file *file, struct json_text *j)
{
    json_text_object(j, NULL);
    json_text_u64(j, "fd", file->fd);
    json_text_str(j, "target", file->target);
    if (file->text[0])
        json_text_str(j, "socket", file->text);
    if (file->details[0])
        json_text_str(j, "details", file->details);
    if (file->held.kind == HELD_PIPE) {
        json_text_str(j, "readers", file->other_end[0] ? file->other_end : NULL);
        json_text_str(j, "writers", file->other_writer[0] ? file->other_writer : NULL);
    } else if (file->other_end[0]) {
        json_text_str(j, "other_end", file->other_end);
    }
    json_text_end(j);
}

static void put_files(const struct triage *t, struct json_text *j)
{
    if (!t->fds_known)
        return;
    json_text_u64(j, "open_files", t->fd_total);
    json_text_object(j, "file_types");
    for (size_t i = 0; i < t->type_count; i++)
        json_text_u64(j, t->types[i].name, t->types[i].count);
    json_text_end(j);
    json_text_object(j, "sockets");
    json_text_u64(j, "unix", t->unix_sockets);
    json_text_u64(j, "udp_or_raw", t->udp_sockets);
    json_text_u64(j, "tcp_listening", t->tcp_states[TCP_LISTEN]);
    json_text_u64(j, "tcp_established", t->tcp_states[TCP_ESTABLISHED]);
    json_text_u64(j, "tcp_close_wait", t->tcp_states[TCP_CLOSE_WAIT]);
    json_text_u64(j, "other", t->other_sockets);
    json_text_end(j);
    json_text_array(j, "files");
    for (size_t i = 0; i < t->file_count; i++)
        put_file(&t->files[i], j);
    json_text_end(j);
}

static void put_limits(const struct triage *t, struct json_text *j)
{
    json_text_array(j, "limits");
    for (size_t i = 0; i < t->limit_count; i++) {
        const struct triage_limit *limit = &t->limits[i];
        json_text_object(j, NULL);
        json_text_str(j, "name", limit->name);
        if (limit->has_used)
            json_text_u64(j, "used", limit->used);
        if (limit->soft != TRIAGE_NO_LIMIT)
            json_text_u64(j, "soft", limit->soft);
        if (limit->hard != TRIAGE_NO_LIMIT)
            json_text_u64(j, "hard", limit->hard);
        json_text_end(j);
    }
    json_text_end(j);
    json_text_array(j, "control_group");
    for (size_t i = 0; i < t->row_count; i++) {
        json_text_object(j, NULL);
        json_text_str(j, "file", t->rows[i].name);
        json_text_str(j, "value", t->rows[i].text);
        json_text_end(j);
    }
    json_text_end(j);
}

void triage_write_json(struct triage *t, struct buf *out)
{
    struct json_text j;
    json_text_init(&j, out);
    json_text_object(&j, NULL);
    json_text_array(&j, "summary");
    for (size_t i = 0; i < t->summary_count; i++)
        json_text_str(&j, NULL, t->summary[i]);
    json_text_end(&j);
    put_process(t, &j);
    put_locks(t, &j);
    json_text_array(&j, "threads");
    for (size_t i = 0; i < t->group_count; i++)
        put_group(t, &t->groups[i], &j);
    json_text_end(&j);
    put_files(t, &j);
    put_limits(t, &j);
    json_text_str(&j, "missing", t->result->missing[0] ? t->result->missing : NULL);
    json_text_end(&j);
    (void)buf_append_str(out, "\n");
    if (j.rc < 0 && t->rc == 0)
        t->rc = j.rc;
}
