/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at threads from outside (profile_wait.h). Invariant: the sum of what is given to a
 * thread's stacks is what the kernel counted between the first and the last look; only where it
 * slept is a sample. Called by profile.c.
 */
#include "agent/os/linux/profile_wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define PASS_NS 10101010     /* of 99 Hz: a thread is looked at this often at most */
#define LIST_NS 250000000    /* how often new threads are looked for */
#define BURST_NS 5000000     /* may be spent ahead of time */
#define TICK_NS_MAX 50000000 /* spent at a time: rings are to be read as well */
/* What a thread that always runs seems to sleep: interrupts and time stolen by the host. */
#define NOISE_PERCENT 5
#define LEAF_SIZE 64
#define LINE_SIZE 256
#define RED_ZONE 128 /* psABI 3.2.2 */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int read_leaf(const struct profile_wait *wait, pid_t tid, const char *name, char *data,
                     size_t size_bytes, struct span *out)
{
    char leaf[LEAF_SIZE];
    snprintf(leaf, sizeof leaf, "task/%d/%s", tid, name);
    return proc_read_pid("", (uint32_t)wait->pid, leaf, data, size_bytes, out, NULL);
}

void profile_comm(pid_t pid, pid_t tid, char *out)
{
    struct profile_wait of = {.pid = pid};
    char data[LINE_SIZE];
    struct span text, line;
    text_copy(out, PROFILE_COMM_SIZE, "?");
    if (read_leaf(&of, tid, "comm", data, sizeof data, &text) == 0 &&
        proc_take_line(&text, &line) == 0)
        text_copy_span(out, PROFILE_COMM_SIZE, line);
}

/* ---- giving time to stacks ---- */

static void note(struct profile_wait *wait, int e)
{
    if (e && !wait->error)
        wait->error = e;
}

/* The stack that consists of words only. */
static int words_stack(struct profile_wait *wait, uint32_t thread, const char *words, uint32_t *out)
{
    uint32_t location;
    int e = profile_words(wait->set, words, &location);
    return e ? e : profile_stack(wait->set, thread, &location, 1, out);
}

static void give_words(struct profile_wait *wait, uint32_t thread, const char *words,
                       uint64_t cpu_ns, uint64_t off_ns)
{
    uint32_t stack;
    if (cpu_ns == 0 && off_ns == 0)
        return;
    int e = words_stack(wait, thread, words, &stack);
    if (e) {
        note(wait, e);
        return;
    }
    wait->set->stacks[stack].cpu_ns += cpu_ns;
    wait->set->stacks[stack].off_ns += off_ns;
}

/* What is pending belongs to the stack it sleeps with now. */
static void settle(struct profile_wait *wait, struct profile_sleeper *s)
{
    if (s->pending_ns <= 0 || !s->has_stack)
        return;
    wait->set->stacks[s->stack].off_ns += (uint64_t)s->pending_ns;
    s->pending_ns = 0;
}

/* ---- one look ---- */

struct place {
    uint64_t pointer, pc;
    char text[LINE_SIZE]; /* the whole line: equal before and after, it slept all the while */
};

/* "NUMBER ARGUMENT... SP PC" of a thread that sleeps. ERR_AGAIN: it runs. */
static int read_place(struct profile_wait *wait, pid_t tid, struct place *out)
{
    struct span text, field, last = {NULL, 0}, before = {NULL, 0};
    int e = read_leaf(wait, tid, "syscall", out->text, sizeof out->text - 1, &text);
    if (e)
        return e;
    out->text[text.size_bytes] = '\0';
    while (proc_take_field(&text, &field) == 0) {
        before = last;
        last = field;
    }
    if (before.size_bytes < 3 || last.size_bytes < 3)
        return ERR_AGAIN;
    before = span_of(before.data + 2, before.size_bytes - 2);
    last = span_of(last.data + 2, last.size_bytes - 2);
    if (text_take_hex(&before, &out->pointer) || text_take_hex(&last, &out->pc))
        return ERR_AGAIN;
    return 0;
}

static size_t copy_stack(struct profile_wait *wait, const struct place *place, uint64_t *start)
{
    if (place->pointer < 2 * RED_ZONE || place->pointer > UINT64_MAX - PROFILE_WAIT_STACK_BYTES)
        return 0;
    const struct map *map = maps_find(&wait->code->maps, place->pointer);
    size_t size = PROFILE_WAIT_STACK_BYTES;
    *start = place->pointer & ~(uint64_t)15;
    if (map && map->end - *start < size)
        size = (size_t)(map->end - *start);
    struct iovec local = {wait->stack_copy, size};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)*start, size};
    ssize_t got = process_vm_readv(wait->pid, &local, 1, &remote, 1, 0);
    return got > 0 ? (size_t)got : 0;
}

/* What of the kernel it sleeps in, innermost. */
static int add_wait_channel(struct profile_wait *wait, pid_t tid, uint32_t *locations,
                            size_t *count)
{
    char data[LINE_SIZE], name[LINE_SIZE + 8];
    struct span text, field;
    if (read_leaf(wait, tid, "wchan", data, sizeof data, &text) || proc_take_field(&text, &field) ||
        span_equal(field, span_str("0")))
        return 0;
    snprintf(name, sizeof name, "%.*s_[k]", (int)field.size_bytes, (const char *)field.data);
    int e = profile_words(wait->set, name, &locations[*count]);
    if (!e)
        (*count)++;
    return e;
}

static int walk(struct profile_wait *wait, pid_t tid, const struct place *place, uint32_t thread,
                uint64_t start, size_t size_bytes, uint32_t *out)
{
    uint32_t locations[PROFILE_DEPTH_MAX];
    size_t count = 0;
    struct user_regs_struct regs = {.rsp = place->pointer, .rip = place->pc};
    struct unwind_thread in = {.tid = tid,
                               .regs = &regs,
                               .few_registers = true,
                               .stack = wait->stack_copy,
                               .stack_start = start,
                               .stack_bytes = size_bytes};
    int e = add_wait_channel(wait, tid, locations, &count);
    if (!e)
        e = profile_code_walk(wait->code, &in, locations, PROFILE_DEPTH_MAX, &count);
    return e ? e : profile_stack(wait->set, thread, locations, count, out);
}

/* Finds out where it sleeps. Returns whether it does. */
static bool find_place(struct profile_wait *wait, struct profile_sleeper *s)
{
    struct place before, after;
    uint64_t start = 0;
    int e = read_place(wait, s->tid, &before);
    wait->denied |= e == ERR_DENIED;
    if (e)
        return false;
    size_t size_bytes = copy_stack(wait, &before, &start);
    if (read_place(wait, s->tid, &after) || strcmp(before.text, after.text) != 0) {
        wait->raced++;
        return false;
    }
    e = walk(wait, s->tid, &before, s->thread, start, size_bytes, &s->stack);
    note(wait, e);
    s->has_stack |= e == 0;
    return e == 0;
}

static int read_schedstat(struct profile_wait *wait, pid_t tid, struct proc_schedstat *out)
{
    char data[LINE_SIZE];
    struct span text;
    int e = read_leaf(wait, tid, "schedstat", data, sizeof data, &text);
    return e ? e : proc_parse_schedstat(text, out);
}

/* Shares out the time since the last look. Returns whether it slept on, untouched. */
static bool account(struct profile_wait *wait, struct profile_sleeper *s,
                    const struct proc_schedstat *now, uint64_t now_ns)
{
    if (!s->seen) {
        s->first_ns = now_ns;
        return false;
    }
    uint64_t ran = now->run_ns > s->run_ns ? now->run_ns - s->run_ns : 0;
    uint64_t queued = now->wait_ns > s->queue_ns ? now->wait_ns - s->queue_ns : 0;
    s->pending_ns += (int64_t)(now_ns - s->at_ns) - (int64_t)ran - (int64_t)queued;
    give_words(wait, s->thread, "[waiting for a processor]", 0, queued);
    if (wait->running_too)
        give_words(wait, s->thread, "[running]", ran, 0);
    return s->asleep && ran == 0 && now->switches == s->switches;
}

static void look(struct profile_wait *wait, struct profile_sleeper *s, bool last)
{
    struct proc_schedstat now;
    if (s->ended)
        return;
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    if (read_schedstat(wait, s->tid, &now)) {
        s->ended = true;
        return;
    }
    wait->looks++;
    bool same = account(wait, s, &now, now_ns);
    s->at_ns = now_ns;
    s->run_ns = now.run_ns;
    s->queue_ns = now.wait_ns;
    s->switches = now.switches;
    s->seen = true;
    if (!same && !(last && s->has_stack))
        s->asleep = find_place(wait, s);
    if (s->asleep || last)
        settle(wait, s);
}

/* ---- all threads ---- */

static int add_sleeper(struct profile_wait *wait, pid_t tid)
{
    char comm[PROFILE_COMM_SIZE];
    if (wait->count == PROFILE_WAIT_THREADS_MAX) {
        wait->overflow++;
        return 0;
    }
    if (BUF_GROW(wait->list, wait->count, &wait->capacity, 64))
        return ERR_NOMEM;
    struct profile_sleeper s = {.tid = tid};
    profile_comm(wait->pid, tid, comm);
    int e = profile_thread(wait->set, tid, comm, &s.thread);
    if (!e)
        wait->list[wait->count++] = s;
    return e;
}

static int compare_tids(const void *a, const void *b)
{
    const struct profile_sleeper *left = a, *right = b;
    return left->tid < right->tid ? -1 : left->tid > right->tid;
}

/* Adds who is new; who has ended makes room. */
static int list_threads(struct profile_wait *wait)
{
    char path[PROC_PATH_SIZE];
    uint32_t *now;
    size_t now_count, kept = 0;
    proc_path(path, "", (uint32_t)wait->pid, "task");
    int e = proc_numbers(path, &now, &now_count, PROFILE_WAIT_THREADS_MAX, NULL);
    if (e && e != ERR_LIMIT)
        return 0; /* it is ending */
    for (size_t i = 0; i < wait->count; i++)
        if (!wait->list[i].ended)
            wait->list[kept++] = wait->list[i];
    wait->count = kept;
    e = 0;
    for (size_t i = 0; i < now_count && !e; i++) {
        struct profile_sleeper key = {.tid = (pid_t)now[i]};
        if (!kept || !bsearch(&key, wait->list, kept, sizeof key, compare_tids))
            e = add_sleeper(wait, key.tid);
    }
    free(now);
    if (wait->count > 0)
        qsort(wait->list, wait->count, sizeof *wait->list, compare_tids);
    wait->next = 0;
    return e;
}

int profile_wait_open(struct profile_wait *wait, struct profile_set *set, struct profile_code *code,
                      pid_t pid, bool running_too, struct failure *f)
{
    *wait = (struct profile_wait){.pid = pid, .set = set, .code = code, .running_too = running_too};
    wait->stack_copy = malloc(PROFILE_WAIT_STACK_BYTES);
    wait->began_ns = clock_ns(CLOCK_MONOTONIC);
    if (!wait->stack_copy)
        return fail(f, ERR_NOMEM, "no memory for a stack");
    return 0;
}

void profile_wait_close(struct profile_wait *wait)
{
    free(wait->list);
    free(wait->stack_copy);
    memset(wait, 0, sizeof *wait);
}

/* Whether more may be spent; the first look at everyone is owed in any case. */
static bool may_spend(const struct profile_wait *wait, uint64_t spent_ns)
{
    if (spent_ns > TICK_NS_MAX)
        return false;
    uint64_t elapsed_ns = clock_ns(CLOCK_MONOTONIC) - wait->began_ns;
    return wait->passes == 0 ||
           wait->spent_ns + spent_ns < BURST_NS + elapsed_ns / 1000 * PROFILE_WAIT_PERMILLE;
}

int profile_wait_tick(struct profile_wait *wait)
{
    uint64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID), now_ns = clock_ns(CLOCK_MONOTONIC);
    if (!may_spend(wait, 0) || wait->error)
        return wait->error;
    if (now_ns - wait->listed_ns >= LIST_NS && wait->next == 0) {
        note(wait, list_threads(wait));
        wait->listed_ns = now_ns;
    }
    if (wait->next == 0 && now_ns - wait->pass_ns < PASS_NS)
        return wait->error;
    if (wait->next == 0)
        wait->pass_ns = now_ns;
    while (wait->next < wait->count && !wait->error &&
           may_spend(wait, clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns))
        look(wait, &wait->list[wait->next++], false);
    if (wait->next >= wait->count) {
        wait->next = 0;
        wait->passes++;
    }
    wait->spent_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
    return wait->error;
}

/* It may have been given a name after it was found. */
static void rename_thread(struct profile_wait *wait, const struct profile_sleeper *s)
{
    char comm[PROFILE_COMM_SIZE];
    profile_comm(wait->pid, s->tid, comm);
    if (!s->ended && strcmp(comm, "?") != 0)
        profile_thread_name(wait->set, s->thread, comm);
}

int profile_wait_finish(struct profile_wait *wait)
{
    for (size_t i = 0; i < wait->count && !wait->error; i++) {
        struct profile_sleeper *s = &wait->list[i];
        look(wait, s, true);
        rename_thread(wait, s);
        if (s->pending_ns > 0 && !s->has_stack &&
            (uint64_t)s->pending_ns > (s->at_ns - s->first_ns) / 100 * NOISE_PERCENT)
            give_words(wait, s->thread, "[slept too shortly to be seen]", 0,
                       (uint64_t)s->pending_ns);
    }
    return wait->error;
}
