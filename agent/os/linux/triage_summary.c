/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first lines of a triage: what tells most, worst first. Invariant: each line stands on what
 * the sections below it say; nothing is guessed beyond them. Called by triage.c.
 */
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/linux/triage_read.h"
#include "common/text.h"

#define CYCLES_TOLD 3
#define CYCLE_MEMBERS 8
#define NEARLY_FULL 90 /* percent */
#define CLOSE_WAIT_MANY 10

TRAWL_PRINTF(2, 3)
static void say(struct triage *t, const char *format, ...)
{
    va_list args;
    if (t->summary_count == TRIAGE_SUMMARY_LINES)
        return;
    va_start(args, format);
    (void)vsnprintf(t->summary[t->summary_count++], TRIAGE_SUMMARY_SIZE, format, args);
    va_end(args);
}

/* ---- deadlocks ---- */

/* "thread 1 'a' waits for a lock held by thread 2 'b', which waits for ... thread 1 again" */
static void say_cycle(struct triage *t, const size_t *members, size_t count)
{
    char text[TRIAGE_SUMMARY_SIZE];
    size_t shown = count < CYCLE_MEMBERS ? count : CYCLE_MEMBERS;
    const struct triage_thread *first = &t->threads[members[0]];
    const char *hedge = "";
    (void)text_format(text, sizeof text, "DEADLOCK: thread %u '%s'", first->tid, first->name);
    for (size_t i = 0; i < shown; i++) {
        const struct triage_thread *thread = &t->threads[members[i]];
        bool end = thread->wait.kind == WAIT_THREAD_END;
        triage_add(text, sizeof text, "%s waits for %s ", i ? ", which" : "",
                   end ? "the end of" : "a lock held by");
        if (i + 1 < shown)
            triage_add(text, sizeof text, "thread %u '%s'", t->threads[members[i + 1]].tid,
                       t->threads[members[i + 1]].name);
        if (thread->wait.futex == FUTEX_MUTEX || thread->wait.futex == FUTEX_RWLOCK)
            hedge = triage_hedge(thread->wait.futex);
    }
    if (shown < count)
        triage_add(text, sizeof text, "one of %zu more, and so on, to", count - shown);
    triage_add(text, sizeof text, "%sthread %u again", shown < count ? " " : "", first->tid);
    say(t, "%s%s", text, hedge);
}

static void say_deadlocks(struct triage *t)
{
    size_t members[CYCLE_MEMBERS], from = 0, count;
    for (int told = 0; told < CYCLES_TOLD; told++) {
        count = triage_find_cycle(t, &from, members, CYCLE_MEMBERS);
        if (count == 0)
            return;
        say_cycle(t, members, count);
    }
}

/* ---- state ---- */

static void say_state(struct triage *t)
{
    struct span value;
    uint64_t tracer;
    char name[OS_PROCESS_NAME_SIZE];
    if (proc_find_key(t->status, "TracerPid:", &value) == 0 &&
        proc_take_number(&value, &tracer) == 0 && tracer != 0 && tracer <= UINT32_MAX) {
        proc_name_of(t->root, (uint32_t)tracer, name);
        say(t, "it is traced by '%s' (pid %llu)", name, (unsigned long long)tracer);
    }
    if (t->stat.state == 'T')
        say(t, "it is stopped by a signal; it goes on when it gets SIGCONT");
    if (t->stat.state == 'Z')
        say(t, "its first thread has ended");
}

static void say_kernel_waits(struct triage *t)
{
    size_t count = 0, first = 0;
    for (size_t i = 0; i < t->thread_count; i++) {
        if (t->threads[i].state != 'D')
            continue;
        if (count++ == 0)
            first = i;
    }
    if (count > 0)
        say(t,
            "%zu of %zu threads wait in the kernel and cannot be interrupted (disk, NFS or a "
            "kernel lock): %s%s%s",
            count, t->thread_count, t->threads[first].call_text,
            t->threads[first].wchan[0] ? " in " : "", t->threads[first].wchan);
}

/* ---- locks ---- */

/* At the end of the chain of holders is a thread that waits for no lock. */
static const struct triage_thread *last_holder(const struct triage *t, int32_t at)
{
    for (size_t steps = 0; steps < t->thread_count && t->threads[at].holder >= 0; steps++)
        at = t->threads[at].holder;
    return t->threads[at].holder >= 0 ? NULL : &t->threads[at];
}

static void say_what_holder_does(const struct triage *t, const struct triage_thread *thread,
                                 char *out, size_t size_bytes)
{
    char wait[TRIAGE_TEXT_SIZE];
    triage_wait_text(t, thread, wait, sizeof wait);
    if (wait[0])
        triage_add(out, size_bytes, ", which %s", wait);
    else if (thread->state == 'R')
        triage_add(out, size_bytes, ", which runs or is ready to");
    else if (thread->call_text[0])
        triage_add(out, size_bytes, ", which is in %s", thread->call_text);
}

static void say_lock(struct triage *t, const struct triage_held_lock *lock)
{
    char text[TRIAGE_SUMMARY_SIZE];
    const struct triage_thread *last = last_holder(t, lock->holder);
    const struct triage_thread *holder = &t->threads[lock->holder];
    if (!last)
        return; /* in a cycle, which was told */
    (void)text_format(text, sizeof text,
                      "%u of %zu threads wait%s for one lock held by thread %u "
                      "'%s'%s",
                      lock->waiters, t->thread_count, lock->waiters == 1 ? "s" : "", holder->tid,
                      holder->name, triage_hedge(lock->wait.futex));
    if (last != holder)
        triage_add(text, sizeof text, ", which waits, in the end, for thread %u '%s'", last->tid,
                   last->name);
    say_what_holder_does(t, last, text, sizeof text);
    say(t, "%s", text);
}

static void say_locks(struct triage *t)
{
    size_t told = 0;
    for (size_t i = 0; i < t->lock_count && told < 3; i++) {
        if (t->locks[i].holder < 0)
            continue;
        say_lock(t, &t->locks[i]);
        told++;
    }
}

static const char *path_of(const struct triage *t, uint64_t inode)
{
    for (size_t i = 0; i < t->file_count; i++)
        if (t->files[i].has_inode && t->files[i].file_inode == inode &&
            t->files[i].target[0] == '/')
            return t->files[i].target;
    return "a file that is not open now";
}

static void say_file_locks(struct triage *t)
{
    char name[OS_PROCESS_NAME_SIZE];
    size_t told = 0;
    for (size_t i = 0; i < t->file_lock_count && told < 3; i++) {
        const struct triage_lock_pair *pair = &t->file_locks[i];
        if (!pair->has_waiter)
            continue;
        bool waits = pair->waiter.pid == (int64_t)t->process->pid;
        int64_t other = waits ? pair->held.pid : pair->waiter.pid;
        proc_name_of(t->root, other > 0 ? (uint32_t)other : 0, name);
        say(t,
            waits ? "it waits for a lock on '%s' held by '%s' (pid %lld)"
                  : "it holds a lock on '%s' for which '%s' (pid %lld) waits",
            path_of(t, pair->held.inode), name, (long long)other);
        told++;
    }
}

/* ---- what most threads do ---- */

static bool is_worth_saying(const struct triage_thread *thread)
{
    return thread->wait.kind == WAIT_FILE || thread->wait.kind == WAIT_CHILD ||
           thread->wait.kind == WAIT_VFORK || thread->wait.kind == WAIT_THREAD_END;
}

static void say_group(struct triage *t, const struct triage_group *group)
{
    char wait[TRIAGE_TEXT_SIZE];
    const struct triage_thread *first = &t->threads[group->first];
    triage_wait_text(t, first, wait, sizeof wait);
    if (t->thread_count == 1)
        say(t, "its only thread %s", wait);
    else if (group->count == 1)
        say(t, "thread %u '%s'%s %s", first->tid, first->name,
            first->tid == t->process->pid ? ", the first," : "", wait);
    else
        say(t, "%u of %zu threads: %s", group->count, t->thread_count, wait);
}

static void say_groups(struct triage *t)
{
    size_t told = 0;
    for (size_t i = 0; i < t->group_count && told < 2; i++) {
        const struct triage_thread *first = &t->threads[t->groups[i].first];
        bool first_of_all = first->tid == t->process->pid;
        if (!is_worth_saying(first) || (t->groups[i].count == 1 && !first_of_all))
            continue;
        say_group(t, &t->groups[i]);
        told++;
    }
}

static void say_running(struct triage *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->thread_count; i++)
        count += t->threads[i].state == 'R';
    if (count > 0)
        say(t, "%zu of %zu threads run or are ready to", count, t->thread_count);
}

/* ---- limits ---- */

static void say_limits(struct triage *t)
{
    for (size_t i = 0; i < t->limit_count; i++) {
        const struct triage_limit *limit = &t->limits[i];
        if (!limit->has_used || limit->soft == TRIAGE_NO_LIMIT || limit->soft == 0 ||
            limit->used < limit->soft / 100 * NEARLY_FULL + limit->soft % 100 * NEARLY_FULL / 100)
            continue;
        say(t, "limit nearly reached: %s %llu of %llu", limit->name,
            (unsigned long long)limit->used, (unsigned long long)limit->soft);
    }
}

static const char *row(const struct triage *t, const char *name)
{
    for (size_t i = 0; i < t->row_count; i++)
        if (strcmp(t->rows[i].name, name) == 0)
            return t->rows[i].text;
    return "";
}

static bool row_number(const struct triage *t, const char *name, uint64_t *out)
{
    struct span text = span_str(row(t, name));
    return text_take_u64(&text, out) == 0;
}

static void say_full(struct triage *t, const char *used_name, const char *max_name,
                     const char *words)
{
    uint64_t used, max;
    if (row_number(t, used_name, &used) && row_number(t, max_name, &max) && max > 0 &&
        used >= max / 100 * NEARLY_FULL + max % 100 * NEARLY_FULL / 100)
        say(t, "its control group is nearly full: %s %llu of %llu", words, (unsigned long long)used,
            (unsigned long long)max);
}

/* "nr_periods 5; nr_throttled 4; throttled_usec 123" */
static void say_count(struct triage *t, const char *name, const char *key, const char *words)
{
    const char *found = strstr(row(t, name), key);
    uint64_t count;
    if (!found)
        return;
    struct span text = span_str(found + strlen(key));
    if (text_take_u64(&text, &count) == 0 && count > 0)
        say(t, "%s %llu times since its control group was made", words, (unsigned long long)count);
}

static void say_cgroup(struct triage *t)
{
    say_full(t, "memory.current", "memory.max", "memory");
    say_full(t, "memory.usage_in_bytes", "memory.limit_in_bytes", "memory");
    say_full(t, "pids.current", "pids.max", "processes and threads");
    say_count(t, "memory.events", "oom_kill ", "killed for lack of memory");
    say_count(t, "memory.oom_control", "oom_kill ", "killed for lack of memory");
    say_count(t, "cpu.stat", "nr_throttled ", "held back by its CPU limit");
}

/* ---- all ---- */

void triage_summarise(struct triage *t)
{
    say_deadlocks(t);
    say_state(t);
    say_locks(t);
    say_file_locks(t);
    say_kernel_waits(t);
    if (t->worst_socket[0])
        say(t, "%s", t->worst_socket);
    if (t->tcp_states[TCP_CLOSE_WAIT] >= CLOSE_WAIT_MANY)
        say(t, "%u connections were closed by their peers and not by this process",
            t->tcp_states[TCP_CLOSE_WAIT]);
    say_limits(t);
    say_cgroup(t);
    say_groups(t);
    say_running(t);
    if (t->summary_count == 0)
        say(t, "nothing stands out%s",
            t->result->missing[0] ? " in what could be seen; see what is missing at the end" : "");
}
