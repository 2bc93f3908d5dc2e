/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes there are, and which of them are followed. /proc is listed only in seconds in
 * which something started or ended (the kernel's counts of forks and of threads tell); of those
 * known some are read again each second, in turns, to find the busiest. Invariant: `known` is
 * sorted by pid, and whoever was told of a start is told of the exit. Called by counters_process.c.
 */
#include "agent/os/linux/counters_process.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define KNOWN_MAX 16384
#define LIST_ALWAYS_US UINT64_C(10000000)
#define TURN_SECONDS 10
#define TURN_LEAST 4    /* processes a second */
#define KERNEL_TURNS 16 /* kernel threads are read again each so many turns: their pids return */
#define BUSY_US UINT64_C(60000000)   /* stays followed that long after it was busy */
#define MATURE_US UINT64_C(10000000) /* younger ones are not followed, unless by name */
#define LISTED_EACH_SECOND 64        /* more processes: each two seconds */
#define LISTED_A_SECOND 512          /* still more: so many for each second between listings */
#define PIDS_FIRST 256

void scan_done(struct processes *p)
{
    if (p->dir)
        closedir(p->dir);
    free(p->known);
    free(p->pids);
    free(p->top);
}

static void tell(const struct processes *p, const struct known *known, bool started)
{
    if (!p->changed || !known->scanned || known->ignored)
        return;
    struct os_process_change change = {.started = started,
                                       .named = known->named,
                                       .pid = known->pid,
                                       .start_ticks = known->start_ticks,
                                       .name = known->name};
    p->changed(p->changed_context, &change);
}

bool scan_each(const struct processes *p,
               void (*each)(void *context, const struct os_process_change *process), void *context)
{
    for (size_t i = 0; i < p->known_count; i++)
        if (!p->known[i].scanned)
            return false;
    for (size_t i = 0; each && i < p->known_count; i++) {
        const struct known *known = &p->known[i];
        struct os_process_change process = {.started = true,
                                            .named = known->named,
                                            .pid = known->pid,
                                            .start_ticks = known->start_ticks,
                                            .name = known->name};
        if (!known->ignored)
            each(context, &process);
    }
    return p->listed_us != 0 && !p->cut;
}

/* ---- listing ---- */

/* A listing costs by the process (0.5 us and more for each). */
static uint64_t least_age_us(const struct processes *p)
{
    uint64_t seconds = p->known_count <= LISTED_EACH_SECOND ? 1 : 2;
    if (seconds < p->known_count / LISTED_A_SECOND)
        seconds = p->known_count / LISTED_A_SECOND;
    return seconds * 1000000 - 100000; /* samples are not exactly a second apart */
}

static bool is_list_due(const struct os_counters *c, const struct processes *p)
{
    uint64_t age_us = c->mono_us - p->listed_us;
    if (p->listed_us != 0 && age_us < least_age_us(p))
        return false;
    return p->listed_us == 0 || p->list_again || c->forks != p->listed_forks ||
           c->threads != p->listed_threads || age_us >= LIST_ALWAYS_US;
}

static int add_pid(struct processes *p, uint32_t pid)
{
    if (BUF_GROW(p->pids, p->pid_count, &p->pid_capacity, PIDS_FIRST))
        return ERR_NOMEM;
    /* The kernel lists by rising pid; a recorded tree does not. */
    size_t at = p->pid_count++;
    for (; at > 0 && p->pids[at - 1] > pid; at--)
        p->pids[at] = p->pids[at - 1];
    p->pids[at] = pid;
    return 0;
}

static int open_proc(struct processes *p)
{
    char path[PROC_PATH_SIZE];
    struct failure f;
    if (p->dir)
        return 0;
    (void)text_format(path, sizeof path, "%s/proc", p->root);
    p->dir = opendir(path);
    if (p->dir)
        return 0;
    int result = fail_errno(&f, ERR_IO, errno, "cannot read '%s'", path);
    (void)text_copy(p->reason, sizeof p->reason, f.text);
    return result;
}

/* Reads the names of /proc, of which those of processes are numbers. */
static int list_pids(struct processes *p)
{
    uint64_t pid;
    if (open_proc(p) < 0)
        return ERR_IO;
    p->reason[0] = '\0';
    p->pid_count = 0;
    p->cut = false;
    rewinddir(p->dir);
    for (struct dirent *entry; (entry = readdir(p->dir)) != NULL;) {
        if (text_u64_in(entry->d_name, 1, INT32_MAX, &pid) < 0)
            continue;
        if (p->pid_count >= KNOWN_MAX || add_pid(p, (uint32_t)pid) < 0) {
            p->cut = true;
            break;
        }
    }
    return 0;
}

/* ---- merging the listing into what is known ---- */

static void forget(struct os_counters *c, struct processes *p, const struct known *known)
{
    struct followed *followed = followed_find(p, known->pid);
    if (followed && followed->start_ticks == known->start_ticks)
        followed_remove(c, p, followed);
    tell(p, known, false);
}

/* Keeps those that are listed; where the listing was cut, nothing is known of the rest. */
static void remove_ended(struct os_counters *c, struct processes *p)
{
    size_t kept = 0, at = 0;
    for (size_t i = 0; i < p->known_count; i++) {
        while (at < p->pid_count && p->pids[at] < p->known[i].pid)
            at++;
        bool listed = at < p->pid_count ? p->pids[at] == p->known[i].pid : p->cut;
        if (!listed)
            forget(c, p, &p->known[i]);
        else if (kept++ != i)
            p->known[kept - 1] = p->known[i];
    }
    p->known_count = kept;
}

static size_t count_new(const struct processes *p)
{
    size_t count = 0, k = 0;
    for (size_t i = 0; i < p->pid_count; i++) {
        while (k < p->known_count && p->known[k].pid < p->pids[i])
            k++;
        count += k == p->known_count || p->known[k].pid != p->pids[i];
    }
    return count;
}

static int make_room(struct processes *p, size_t count)
{
    if (count <= p->known_capacity)
        return 0;
    size_t capacity = count + count / 4 + PIDS_FIRST / 4;
    struct known *known = realloc(p->known, capacity * sizeof *known);
    if (!known)
        return ERR_NOMEM;
    p->known = known;
    p->known_capacity = capacity;
    return 0;
}

/* Both lists rise; filled from the end, so that nothing is overwritten. */
static void add_new(struct processes *p, size_t count, uint64_t mono_us)
{
    uint64_t seen_us = p->listed_us == 0 ? 0 : mono_us;
    size_t k = p->known_count, n = p->pid_count, to = k + count;
    p->known_count = to;
    while (n > 0) {
        if (k > 0 && p->known[k - 1].pid >= p->pids[n - 1]) {
            n -= p->known[k - 1].pid == p->pids[n - 1];
            p->known[--to] = p->known[--k];
        } else {
            p->known[--to] =
                (struct known){.pid = p->pids[--n], .told = p->listed_us == 0, .seen_us = seen_us};
        }
    }
}

static void list(struct os_counters *c, struct processes *p)
{
    if (list_pids(p) < 0)
        return;
    remove_ended(c, p);
    size_t count = count_new(p);
    if (p->known_count + count > 2 * KNOWN_MAX || make_room(p, p->known_count + count) < 0)
        return; /* again next second */
    if (count > 0) {
        add_new(p, count, c->mono_us);
        p->fresh = true;
    }
    p->list_again = p->cut;
    p->listed_us = c->mono_us;
    p->listed_forks = c->forks;
    p->listed_threads = c->threads;
}

/* ---- scanning one ---- */

/* Of a process seen for the first time: its average since it started. */
static uint64_t rate_of_life(const struct os_counters *c, const struct known *known)
{
    uint64_t started_us = known->start_ticks * COUNTER_TICK_US;
    uint64_t age_s = c->mono_us > started_us ? (c->mono_us - started_us) / 1000000 : 0;
    return known->ticks * COUNTER_TICK_US / (age_s + 1);
}

static uint64_t rate_since(const struct os_counters *c, const struct known *known, uint64_t ticks)
{
    uint64_t elapsed_ms = (c->mono_us - known->scanned_us) / 1000;
    uint64_t more = ticks > known->ticks ? ticks - known->ticks : 0;
    uint64_t rate = more * COUNTER_TICK_US * 1000 / (elapsed_ms + 1);
    return (known->rate + rate) / 2;
}

static bool is_asked_for(const struct processes *p, const struct known *known)
{
    for (size_t i = 0; p->names && p->names[i]; i++)
        if (text_glob(p->names[i], known->name) ||
            proc_is_named(p->root, known->pid, known->comm, p->names[i]))
            return true;
    return false;
}

static void note_name(struct processes *p, struct known *known, const char *comm)
{
    (void)text_copy(known->comm, sizeof known->comm, comm);
    (void)text_copy(known->name, sizeof known->name, known->comm);
    if (known->ignored)
        return;
    proc_full_name(p->root, known->pid, known->comm, known->name);
    known->named = is_asked_for(p, known);
}

static void note_first(struct os_counters *c, struct processes *p, struct known *known,
                       const struct proc_stat *stat)
{
    known->scanned = true;
    known->ignored = proc_is_kernel_thread(stat);
    known->start_ticks = stat->start_ticks;
    known->ticks = stat->user_ticks + stat->system_ticks;
    known->rate = rate_of_life(c, known);
    note_name(p, known, stat->name);
    if (!known->told)
        tell(p, known, true);
    known->told = true;
    if (known->named)
        (void)followed_add(c, p, known);
}

static void note_again(struct os_counters *c, struct processes *p, struct known *known,
                       uint64_t ticks, const char *comm)
{
    known->rate = rate_since(c, known, ticks);
    known->ticks = ticks;
    known->scanned_us = c->mono_us;
    if (strncmp(known->comm, comm, sizeof known->comm - 1) != 0)
        note_name(p, known, comm);
}

/* Of those followed all is known already. */
static bool scan_followed(struct os_counters *c, struct processes *p, struct known *known)
{
    const struct followed *followed = followed_find(p, known->pid);
    if (!followed || followed->start_ticks != known->start_ticks || followed->read_us == 0)
        return false;
    note_again(c, p, known, followed->ticks, followed->comm);
    known->ended = followed->ended;
    return true;
}

static void scan_one(struct os_counters *c, struct processes *p, struct known *known)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    struct failure f;
    known->doubted = false;
    int result = proc_read_pid(p->root, known->pid, "stat", data, sizeof data, &text, &f);
    if (result == ERR_GONE) {
        p->list_again = true;
        return;
    }
    if (result < 0 || proc_parse_stat(text, &stat) < 0) {
        known->scanned = known->ignored = true;
        return;
    }
    if (known->scanned && known->start_ticks != stat.start_ticks) { /* the pid is in use again */
        forget(c, p, known);
        *known = (struct known){.pid = known->pid, .seen_us = c->mono_us};
    }
    if (known->scanned)
        note_again(c, p, known, stat.user_ticks + stat.system_ticks, stat.name);
    else
        note_first(c, p, known, &stat);
    known->ended = proc_has_ended(&stat);
    known->scanned_us = c->mono_us;
}

/* ---- choosing whom to follow ---- */

/* Puts the busiest into p->top, busiest first; returns how many. */
static size_t find_top(struct os_counters *c, struct processes *p)
{
    size_t count = 0;
    for (size_t i = 0; i < p->known_count; i++) {
        struct known *known = &p->known[i];
        bool young = known->seen_us != 0 && c->mono_us - known->seen_us < MATURE_US;
        if (!known->scanned || known->ignored || known->ended || known->named || young)
            continue;
        if (count == p->busiest && (count == 0 || p->top[count - 1]->rate >= known->rate))
            continue;
        size_t at = count < p->busiest ? count++ : count - 1;
        for (; at > 0 && p->top[at - 1]->rate < known->rate; at--)
            p->top[at] = p->top[at - 1];
        p->top[at] = known;
    }
    return count;
}

/* Gives up the one that has not been busy for longest, if that is long enough. */
static bool give_one_up(struct os_counters *c, struct processes *p)
{
    struct followed *oldest = NULL;
    for (size_t i = 0; i < p->followed_count; i++) {
        struct followed *f = &p->followed[i];
        if (!f->named && (!oldest || f->busy_us < oldest->busy_us))
            oldest = f;
    }
    if (!oldest || c->mono_us - oldest->busy_us < BUSY_US)
        return false;
    followed_remove(c, p, oldest);
    return true;
}

static void follow_busy(struct os_counters *c, struct processes *p, const struct known *known)
{
    struct followed *followed = followed_find(p, known->pid);
    if (followed && known->rate > 0)
        followed->busy_us = c->mono_us;
    if (followed || followed_add(c, p, known))
        return;
    if (known->rate > 0 && !(give_one_up(c, p) && followed_add(c, p, known)))
        p->left_out++;
}

static void choose(struct os_counters *c, struct processes *p)
{
    p->left_out = 0;
    p->user_count = 0;
    for (size_t i = 0; i < p->known_count; i++) {
        const struct known *known = &p->known[i];
        p->user_count += known->scanned && !known->ignored;
        if (known->named && !known->ended && !followed_find(p, known->pid) &&
            !followed_add(c, p, known))
            p->left_out++;
    }
    size_t count = find_top(c, p);
    for (size_t i = 0; i < count; i++)
        follow_busy(c, p, p->top[i]);
}

/* ---- turns ---- */

/* One that was listed just now may still be on its way to exec, or live for a moment only. */
static bool is_fresh(const struct os_counters *c, const struct known *known)
{
    return known->doubted || (!known->scanned && known->seen_us != c->mono_us);
}

/* Those not seen yet, and those in doubt, come first. */
static uint32_t scan_fresh(struct os_counters *c, struct processes *p)
{
    uint32_t scanned = 0;
    p->fresh = false;
    for (size_t i = 0; i < p->known_count; i++) {
        bool fresh = is_fresh(c, &p->known[i]);
        if (!fresh && p->known[i].scanned)
            continue;
        if (!fresh || scanned == p->max_scanned) {
            p->fresh = true; /* next second */
            continue;
        }
        scan_one(c, p, &p->known[i]);
        scanned++;
    }
    return scanned;
}

static size_t first_behind(const struct processes *p, uint32_t pid)
{
    size_t low = 0, high = p->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->known[middle].pid <= pid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Goes on with the turn by at most `quota` processes. True at its end. */
static bool scan_turn(struct os_counters *c, struct processes *p, size_t quota)
{
    size_t i = first_behind(p, p->turn_pid);
    for (; i < p->known_count && quota > 0; i++) {
        struct known *known = &p->known[i];
        p->turn_pid = known->pid;
        if (!known->scanned || known->scanned_us == c->mono_us ||
            (known->ignored && p->turn % KERNEL_TURNS != 0))
            continue;
        if (scan_followed(c, p, known))
            continue;
        scan_one(c, p, known);
        quota--;
    }
    if (i < p->known_count)
        return false;
    p->turn_pid = 0;
    p->turn++;
    return true;
}

void scan_doubt(struct processes *p, uint32_t pid)
{
    size_t i = first_behind(p, pid - 1);
    p->list_again = true;
    if (i == p->known_count || p->known[i].pid != pid)
        return;
    p->known[i].doubted = true;
    p->fresh = true;
}

void scan_sample(struct os_counters *c, struct processes *p)
{
    bool is_first = p->listed_us == 0;
    if (is_list_due(c, p))
        list(c, p);
    uint32_t scanned = p->fresh ? scan_fresh(c, p) : 0;
    size_t quota = p->user_count / TURN_SECONDS;
    if (quota < TURN_LEAST)
        quota = TURN_LEAST;
    if (quota > p->max_scanned - scanned)
        quota = p->max_scanned - scanned;
    if (scan_turn(c, p, quota) || is_first)
        choose(c, p);
}
