/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each thread of a process is doing: its state, where the kernel has it wait, its system call;
 * and those that do the same as one group. Invariant: threads are kept by rising tid, at most
 * TRIAGE_THREADS_MAX. Called by triage.c.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define STACK_TEXT_SIZE 4096

static int read_leaf(const struct triage *t, uint32_t tid, const char *leaf, char *data,
                     size_t size_bytes, struct span *out, struct failure *f)
{
    char path[64];
    (void)text_format(path, sizeof path, "task/%u/%s", tid, leaf);
    return proc_read_pid(t->root, t->process->pid, path, data, size_bytes, out, f);
}

struct unreadable {
    struct failure wchan, call;
};

static void read_wchan(const struct triage *t, struct triage_thread *thread, struct failure *f)
{
    char data[TRIAGE_WCHAN_SIZE];
    struct span text;
    if (read_leaf(t, thread->tid, "wchan", data, sizeof data, &text, f) < 0)
        return;
    if (!span_equal(text, span_str("0")))
        (void)text_copy_span(thread->wchan, sizeof thread->wchan, text);
}

/* elf(5): the fifth byte tells the class. */
static bool is_narrow(const struct triage *t)
{
    uint8_t head[EI_NIDENT];
    struct span text;
    return proc_read_pid(t->root, t->process->pid, "exe", head, sizeof head, &text, NULL) == 0 &&
           text.size_bytes == sizeof head && memcmp(head, ELFMAG, SELFMAG) == 0 &&
           head[EI_CLASS] == ELFCLASS32;
}

static int read_thread(struct triage *t, uint32_t tid, struct triage_thread *thread,
                       struct unreadable *unreadable)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    *thread = (struct triage_thread){.tid = tid, .holder = -1};
    if (read_leaf(t, tid, "stat", data, sizeof data, &text, NULL) < 0 ||
        proc_parse_stat(text, &stat) < 0)
        return ERR_GONE;
    thread->state = stat.state;
    thread->ticks = stat.user_ticks + stat.system_ticks;
    (void)text_copy(thread->name, sizeof thread->name, stat.name);
    read_wchan(t, thread, &unreadable->wchan);
    if (read_leaf(t, tid, "syscall", data, sizeof data, &text, &unreadable->call) == 0)
        (void)triage_parse_call(text, &thread->call);
    return 0;
}

/* ---- files that they wait for ---- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void note_waited(struct triage *t, const struct triage_thread *thread)
{
    bool writes;
    int64_t fd = triage_call_file(&thread->call, &t->eyes, &writes);
    if (fd < 0 || t->waited_count == TRIAGE_WAITED_MAX)
        return;
    for (size_t i = 0; i < t->waited_count; i++)
        if (t->waited[i] == (uint32_t)fd)
            return;
    t->waited[t->waited_count++] = (uint32_t)fd;
}

static void miss(struct triage *t, const char *what, const struct failure *f)
{
    if (f->code != 0 && f->code != ERR_GONE)
        triage_miss(t, what, f);
}

static void read_all(struct triage *t, const uint32_t *tids, size_t count)
{
    struct unreadable unreadable = {{0}, {0}};
    bool narrow = is_narrow(t);
    for (size_t i = 0; i < count; i++) {
        struct triage_thread *thread = &t->threads[t->thread_count];
        if (read_thread(t, tids[i], thread, &unreadable) < 0) {
            t->threads_ended++;
            continue;
        }
        thread->call.narrow = narrow;
        t->thread_count++;
        note_waited(t, thread);
    }
    if (t->waited_count > 1)
        qsort(t->waited, t->waited_count, sizeof t->waited[0], compare_u32);
    miss(t, "wait channels", &unreadable.wchan);
    miss(t, "system calls", &unreadable.call);
}

void triage_read_threads(struct triage *t)
{
    char path[PROC_PATH_SIZE];
    uint32_t *tids = NULL;
    size_t count = 0;
    struct failure f;
    proc_path(path, t->root, t->process->pid, "task");
    if (proc_numbers(path, &tids, &count, TRIAGE_THREADS_MAX, &f) < 0)
        triage_miss(t, "threads", &f);
    t->threads = calloc(count + 1, sizeof *t->threads);
    if (t->threads)
        read_all(t, tids, count);
    else
        os_result_miss(t->result, "threads: out of memory");
    t->result->threads = (uint32_t)count;
    t->result->threads_missed = t->threads_ended;
    free(tids);
}

const struct triage_thread *triage_find_thread(const struct triage *t, uint32_t tid)
{
    size_t low = 0, high = t->thread_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->threads[middle].tid < tid)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->thread_count && t->threads[low].tid == tid ? &t->threads[low] : NULL;
}

/* ---- groups ---- */

/* "[<0>] futex_do_wait+0x38/0x60" */
void triage_kernel_stack(struct span text, char *out, size_t size_bytes)
{
    struct span line, part, name;
    out[0] = '\0';
    while (proc_take_line(&text, &line) == 0) {
        if (!proc_starts_with(line, "[<") || text_take_until(&line, ']', &part) < 0 ||
            proc_take_field(&line, &part) < 0 || text_take_until(&part, '+', &name) < 0)
            continue;
        if (proc_starts_with(name, "do_syscall_64") || proc_starts_with(name, "entry_SYSCALL"))
            continue;
        triage_add(out, size_bytes, "%s%.*s", out[0] ? " < " : "",
                   (int)(name.size_bytes < 64 ? name.size_bytes : 64), (const char *)name.data);
    }
}

static bool does_the_same(const struct triage_thread *a, const struct triage_thread *b)
{
    return a->state == b->state && strcmp(a->wchan, b->wchan) == 0 &&
           a->wait.thread == b->wait.thread && a->wait.kind == b->wait.kind &&
           strcmp(a->call_text, b->call_text) == 0;
}

static void add_to_group(struct triage *t, size_t index)
{
    const struct triage_thread *thread = &t->threads[index];
    for (size_t i = 0; i < t->group_count; i++) {
        struct triage_group *group = &t->groups[i];
        const struct triage_thread *first = &t->threads[group->first];
        if (!does_the_same(first, thread))
            continue;
        if (group->count < TRIAGE_TIDS_SHOWN)
            group->tids[group->count] = thread->tid;
        group->count++;
        group->ticks += thread->ticks;
        group->names += strcmp(first->name, thread->name) != 0;
        return;
    }
    if (t->group_count == TRIAGE_GROUPS_MAX) {
        t->group_over++;
        return;
    }
    t->groups[t->group_count++] = (struct triage_group){
        .first = index, .count = 1, .tids = {thread->tid}, .ticks = thread->ticks};
}

/* Most threads first; then those that use the processor, then the longest lived. */
static int compare_groups(const void *a, const void *b)
{
    const struct triage_group *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    if (x->ticks != y->ticks)
        return x->ticks > y->ticks ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

void triage_find_groups(struct triage *t)
{
    char data[STACK_TEXT_SIZE];
    struct span text;
    struct failure f = {0};
    for (size_t i = 0; i < t->thread_count; i++)
        add_to_group(t, i);
    if (t->group_count > 1)
        qsort(t->groups, t->group_count, sizeof t->groups[0], compare_groups);
    for (size_t i = 0; i < t->group_count; i++)
        if (read_leaf(t, t->groups[i].tids[0], "stack", data, sizeof data, &text, &f) == 0)
            triage_kernel_stack(text, t->groups[i].stack, sizeof t->groups[i].stack);
    miss(t, "kernel stacks", &f);
    if (t->group_over > 0)
        os_result_miss(t->result, "%u threads, each doing something else", t->group_over);
}
