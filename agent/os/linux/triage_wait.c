/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each thread waits for, and who could end that: locks of memory with their holders, cycles
 * among them, files with whom holds their other end. Invariant: a deadlock is told only after its
 * threads were looked at again and still wait for the same. Called by triage.c.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/linux/triage_read.h"
#include "common/text.h"

#define FUTEX_PLACE_MASK (~UINT64_C(3))

/* ---- futexes ---- */

static size_t read_words(struct triage *t, uint64_t address, uint32_t *words)
{
    if (!t->eyes.read_memory || (address & ~FUTEX_PLACE_MASK) != 0)
        return 0;
    for (size_t count = TRIAGE_FUTEX_WORDS; count > 0; count = count > 1 ? 1 : 0)
        if (t->eyes.read_memory(t, address, words, count * sizeof *words) == 0)
            return count;
    return 0;
}

static bool thread_exists(void *context, uint32_t tid, bool shared)
{
    const struct triage *t = context;
    char name[OS_PROCESS_NAME_SIZE];
    if (triage_find_thread(t, tid))
        return true;
    if (!shared)
        return false;
    proc_name_of(t->root, tid, name);
    return name[0] != '\0';
}

static struct triage_wait judge_futex(struct triage *t, const struct triage_call *call)
{
    static const enum triage_wait_kind kinds[] = {
        [FUTEX_UNKNOWN] = WAIT_CONDITION, [FUTEX_LOCK] = WAIT_LOCK,
        [FUTEX_HELD] = WAIT_HOLDER,       [FUTEX_MUTEX] = WAIT_HOLDER,
        [FUTEX_RWLOCK] = WAIT_HOLDER,     [FUTEX_THREAD_END] = WAIT_THREAD_END};
    uint32_t words[TRIAGE_FUTEX_WORDS] = {0};
    struct triage_wait wait = {.address = call->arguments[0]};
    size_t count = read_words(t, wait.address, words);
    wait.futex = triage_judge_futex(call->arguments[1], (uint32_t)call->arguments[2], words, count,
                                    thread_exists, t, &wait.thread);
    wait.kind = kinds[wait.futex];
    return wait;
}

static bool is_waiting_lock(const struct triage_call *call)
{
#ifdef SYS_flock
    if (call->number == SYS_flock)
        return true;
#endif
    return call->arguments[1] == F_SETLKW || call->arguments[1] == F_OFD_SETLKW;
}

static struct triage_wait judge(struct triage *t, const struct triage_thread *thread)
{
    struct triage_wait wait = {.kind = WAIT_NOTHING};
    const struct triage_call *call = &thread->call;
    if (call->how != CALL_MADE || thread->state == 'R')
        return wait;
    int64_t fd = triage_call_file(call, &t->eyes, &wait.writes);
    switch (triage_call_kind(call)) {
    case CALL_IS_FUTEX:
        return judge_futex(t, call);
    case CALL_IS_WAIT:
        wait.kind = WAIT_CHILD;
        return wait;
    case CALL_IS_VFORK: /* kernel/fork.c: wait_for_vfork_done() */
        if (thread->state == 'D' || strstr(thread->wchan, "vfork"))
            wait.kind = WAIT_VFORK;
        return wait;
    case CALL_IS_LOCK:
        if (!is_waiting_lock(call) || fd < 0)
            return wait;
        wait.kind = WAIT_FILE_LOCK;
        wait.fd = (uint32_t)fd;
        return wait;
    case CALL_IS_OTHER:
        break;
    }
    if (fd >= 0) {
        wait.kind = WAIT_FILE;
        wait.fd = (uint32_t)fd;
    }
    return wait;
}

/* ---- who holds what ---- */

static void link_holders(struct triage *t)
{
    for (size_t i = 0; i < t->thread_count; i++) {
        struct triage_thread *thread = &t->threads[i];
        thread->holder = -1;
        if (thread->wait.kind != WAIT_HOLDER && thread->wait.kind != WAIT_THREAD_END)
            continue;
        const struct triage_thread *holder = triage_find_thread(t, thread->wait.thread);
        if (holder)
            thread->holder = (int32_t)(holder - t->threads);
    }
}

static void count_waiter(struct triage *t, const struct triage_thread *thread)
{
    for (size_t i = 0; i < t->lock_count; i++) {
        struct triage_held_lock *lock = &t->locks[i];
        if (lock->address != thread->wait.address)
            continue;
        lock->waiters++;
        if (lock->holder < 0 && thread->holder >= 0) {
            lock->holder = thread->holder;
            lock->wait = thread->wait;
        }
        return;
    }
    if (t->lock_count < TRIAGE_LOCKS_MAX)
        t->locks[t->lock_count++] =
            (struct triage_held_lock){thread->wait.address, thread->holder, thread->wait, 1};
}

static int compare_locks(const void *a, const void *b)
{
    const struct triage_held_lock *x = a, *y = b;
    if (x->waiters != y->waiters)
        return x->waiters > y->waiters ? -1 : 1;
    return (x->address > y->address) - (x->address < y->address);
}

void triage_find_waits(struct triage *t)
{
    for (size_t i = 0; i < t->thread_count; i++) {
        struct triage_thread *thread = &t->threads[i];
        (void)triage_describe_call(&thread->call, &t->eyes, thread->call_text,
                                   sizeof thread->call_text);
        thread->wait = judge(t, thread);
    }
    link_holders(t);
    for (size_t i = 0; i < t->thread_count; i++)
        if (t->threads[i].wait.kind == WAIT_HOLDER || t->threads[i].wait.kind == WAIT_LOCK)
            count_waiter(t, &t->threads[i]);
    if (t->lock_count > 1)
        qsort(t->locks, t->lock_count, sizeof t->locks[0], compare_locks);
}

/* ---- cycles ---- */

static bool still_waits(struct triage *t, const struct triage_thread *thread)
{
    char leaf[64], data[256];
    struct span text;
    struct triage_call now;
    (void)text_format(leaf, sizeof leaf, "task/%u/syscall", thread->tid);
    if (proc_read_pid(t->root, t->process->pid, leaf, data, sizeof data, &text, NULL) < 0 ||
        triage_parse_call(text, &now) < 0 || now.how != CALL_MADE ||
        now.number != thread->call.number ||
        memcmp(now.arguments, thread->call.arguments, sizeof now.arguments) != 0)
        return false;
    return judge_futex(t, &now).thread == thread->wait.thread;
}

enum { MARK_NONE, MARK_SEEN, MARK_NOW };

size_t triage_find_cycle(struct triage *t, size_t *from, size_t *members, size_t members_max)
{
    for (; *from < t->thread_count; ++*from) {
        int32_t at = (int32_t)*from;
        while (at >= 0 && t->threads[at].mark == MARK_NONE) {
            t->threads[at].mark = MARK_NOW;
            at = t->threads[at].holder;
        }
        size_t count = 0;
        bool whole = true;
        if (at >= 0 && t->threads[at].mark == MARK_NOW) {
            int32_t start = at;
            do {
                whole = whole && still_waits(t, &t->threads[at]);
                if (count < members_max)
                    members[count] = (size_t)at;
                count++;
                at = t->threads[at].holder;
            } while (at != start);
        }
        for (at = (int32_t)*from; at >= 0 && t->threads[at].mark == MARK_NOW;
             at = t->threads[at].holder)
            t->threads[at].mark = MARK_SEEN;
        if (count > 0 && whole) {
            ++*from;
            return count;
        }
    }
    return 0;
}

/* ---- in words ---- */

const char *triage_hedge(enum triage_futex futex)
{
    switch (futex) {
    case FUTEX_MUTEX:
        return " (if this is a pthread mutex)";
    case FUTEX_RWLOCK:
        return " (if this is a pthread rwlock)";
    default:
        return "";
    }
}

static void holder_text(const struct triage *t, const struct triage_wait *wait, char *out,
                        size_t size_bytes)
{
    char name[OS_PROCESS_NAME_SIZE];
    const struct triage_thread *holder = triage_find_thread(t, wait->thread);
    if (holder) {
        (void)text_format(out, size_bytes, "thread %u '%s'", holder->tid, holder->name);
        return;
    }
    proc_name_of(t->root, wait->thread, name);
    (void)text_format(out, size_bytes, "thread %u of another process, '%s'", wait->thread, name);
}

static void pipe_text(const struct triage_file *file, bool writes, char *out, size_t size_bytes)
{
    const char *other = writes ? file->other_end : file->other_writer;
    (void)text_format(out, size_bytes, "%s a pipe whose other end %s%s",
                      writes ? "writes to" : "reads from",
                      other[0] ? "is held by " : "nobody was seen to hold", other);
}

static void file_text(const struct triage *t, const struct triage_wait *wait, char *out,
                      size_t size_bytes)
{
    const struct triage_file *file = triage_find_file(t, wait->fd);
    if (!file)
        (void)text_format(out, size_bytes, "waits for file %u", wait->fd);
    else if (file->held.kind == HELD_PIPE)
        pipe_text(file, wait->writes, out, size_bytes);
    else if (file->held.kind == HELD_SOCKET)
        (void)text_format(out, size_bytes, "%s %s%s%s", wait->writes ? "sends to" : "waits for",
                          file->text[0] ? file->text : file->target,
                          file->other_end[0] ? "; other end: " : "", file->other_end);
    else if (strstr(file->target, "eventpoll"))
        (void)text_format(out, size_bytes, "waits for events (%s)", file->details);
    else
        (void)text_format(out, size_bytes, "waits for %s", file->target);
}

/* The other side of a lock of a file that we wait for. */
static void file_lock_text(const struct triage *t, const struct triage_wait *wait, char *out,
                           size_t size_bytes)
{
    char name[OS_PROCESS_NAME_SIZE];
    const struct triage_file *file = triage_find_file(t, wait->fd);
    (void)text_format(out, size_bytes, "waits for a lock on %s", file ? file->target : "a file");
    for (size_t i = 0; i < t->file_lock_count; i++) {
        const struct triage_lock_pair *pair = &t->file_locks[i];
        if (!pair->has_waiter || pair->waiter.pid != (int64_t)t->process->pid ||
            (file && file->has_inode && file->file_inode != pair->held.inode))
            continue;
        proc_name_of(t->root, pair->held.pid > 0 ? (uint32_t)pair->held.pid : 0, name);
        if (pair->held.pid > 0)
            triage_add(out, size_bytes, " held by '%s' (pid %lld)", name,
                       (long long)pair->held.pid);
        else
            triage_add(out, size_bytes, " whose holder the kernel does not record");
        return;
    }
}

/* proc_pid_task_children: "123 456 ". */
static void child_text(const struct triage *t, const struct triage_thread *thread, char *out,
                       size_t size_bytes)
{
    char leaf[64], data[512], name[OS_PROCESS_NAME_SIZE];
    struct span text;
    uint64_t pid;
    size_t shown = 0;
    (void)text_copy(out, size_bytes,
                    thread->wait.kind == WAIT_VFORK ? "waits for the child that it made by vfork"
                                                    : "waits for a child");
    (void)text_format(leaf, sizeof leaf, "task/%u/children", thread->tid);
    if (proc_read_pid(t->root, t->process->pid, leaf, data, sizeof data, &text, NULL) < 0)
        return;
    while (shown < 4 && proc_take_number(&text, &pid) == 0 && pid <= UINT32_MAX) {
        proc_name_of(t->root, (uint32_t)pid, name);
        triage_add(out, size_bytes, "%s'%s' (pid %llu)", shown ? ", " : ": ", name,
                   (unsigned long long)pid);
        shown++;
    }
}

void triage_wait_text(const struct triage *t, const struct triage_thread *thread, char *out,
                      size_t size_bytes)
{
    char holder[OS_PROCESS_NAME_SIZE + 64];
    const struct triage_wait *wait = &thread->wait;
    out[0] = '\0';
    switch (wait->kind) {
    case WAIT_NOTHING:
        break;
    case WAIT_CONDITION:
        (void)text_copy(out, size_bytes, "waits for a condition, a semaphore or the like");
        break;
    case WAIT_LOCK:
        (void)text_copy(out, size_bytes, "waits for a lock; who holds it is not recorded");
        break;
    case WAIT_HOLDER:
        holder_text(t, wait, holder, sizeof holder);
        (void)text_format(out, size_bytes, "waits for a lock held by %s%s", holder,
                          triage_hedge(wait->futex));
        break;
    case WAIT_THREAD_END:
        holder_text(t, wait, holder, sizeof holder);
        (void)text_format(out, size_bytes, "waits for the end of %s", holder);
        break;
    case WAIT_FILE:
        file_text(t, wait, out, size_bytes);
        break;
    case WAIT_FILE_LOCK:
        file_lock_text(t, wait, out, size_bytes);
        break;
    case WAIT_CHILD:
    case WAIT_VFORK:
        child_text(t, thread, out, size_bytes);
        break;
    }
}
