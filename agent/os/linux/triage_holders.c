/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks through the open files of all processes for pipes and sockets that were asked for.
 * Invariant: a bounded number of links is read, in bounded time; a process that ends meanwhile is
 * nothing special. Called by triage.c and net.c.
 */
#include "agent/os/linux/triage_holders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/triage_read.h"
#include "common/port.h"
#include "common/text.h"

#define LINKS_MAX 500000
#define SEARCH_US 3000000
#define PROCESSES_MAX 100000
#define NAMES_CACHED 64

struct held held_parse(struct span target)
{
    struct held held = {HELD_OTHER, 0};
    if (proc_parse_inode(target, "pipe", &held.inode) == 0)
        held.kind = HELD_PIPE;
    else if (proc_parse_inode(target, "socket", &held.inode) == 0)
        held.kind = HELD_SOCKET;
    return held;
}

void holders_init(struct holders *h)
{
    memset(h, 0, sizeof *h);
}

void holders_done(struct holders *h)
{
    free(h->wanted);
    free(h->found);
    memset(h, 0, sizeof *h);
}

int holders_want(struct holders *h, enum held_kind kind, uint64_t inode)
{
    if (kind == HELD_OTHER || inode == 0)
        return 0;
    if (h->wanted_count == HOLDERS_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(h->wanted, h->wanted_count, &h->wanted_capacity, 64))
        return ERR_NOMEM;
    h->wanted[h->wanted_count++] = (struct held){kind, inode};
    return 0;
}

static int compare_held(const void *a, const void *b)
{
    const struct held *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

static int compare_holders(const void *a, const void *b)
{
    const struct holder *x = a, *y = b;
    int order = compare_held(&x->held, &y->held);
    if (order != 0)
        return order;
    return x->pid != y->pid ? (x->pid < y->pid ? -1 : 1) : (x->fd > y->fd) - (x->fd < y->fd);
}

/* ---- the search ---- */

struct search {
    struct holders *h;
    const char *root;
    uint64_t end_us;
    size_t links, denied, left_out;
    bool cut;
};

/* The link's own permissions tell for what it was opened. */
static void read_mode(int dir, const char *name, struct holder *holder)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    holder->reads = st.st_mode & S_IRUSR;
    holder->writes = st.st_mode & S_IWUSR;
}

static struct holder *make_room(struct search *search)
{
    struct holders *h = search->h;
    if (h->found_count == HOLDERS_MAX ||
        BUF_GROW(h->found, h->found_count, &h->found_capacity, 64)) {
        search->left_out++;
        return NULL;
    }
    return &h->found[h->found_count++];
}

static void look_at_link(struct search *search, uint32_t pid, int dir, const char *name)
{
    char target[64];
    uint64_t fd;
    struct holders *h = search->h;
    if (text_u64_in(name, 0, UINT32_MAX, &fd) < 0)
        return;
    search->links++;
    ssize_t length = readlinkat(dir, name, target, sizeof target);
    if (length <= 0 || (size_t)length == sizeof target)
        return;
    struct held held = held_parse(span_of(target, (size_t)length));
    if (held.kind == HELD_OTHER ||
        !bsearch(&held, h->wanted, h->wanted_count, sizeof held, compare_held))
        return;
    struct holder *holder = make_room(search);
    if (!holder)
        return;
    *holder = (struct holder){.held = held, .pid = pid, .fd = (uint32_t)fd};
    read_mode(dir, name, holder);
}

static bool is_over(struct search *search)
{
    if (search->links >= LINKS_MAX || port_mono_us() > search->end_us)
        search->cut = true;
    return search->cut;
}

static void look_at_process(struct search *search, uint32_t pid)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, search->root, pid, "fd");
    DIR *dir = opendir(path);
    if (!dir) {
        search->denied += errno == EACCES || errno == EPERM;
        return;
    }
    size_t seen = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (++seen % 256 == 0 && is_over(search))
            break;
        look_at_link(search, pid, dirfd(dir), entry->d_name);
    }
    closedir(dir);
}

/* A process may hold thousands of what is wanted: its name is read once. */
struct names {
    struct {
        uint32_t pid; /* 0: empty */
        char name[OS_PROCESS_NAME_SIZE];
    } entries[NAMES_CACHED];
};

static void give_name(struct names *names, const char *root, struct holder *holder)
{
    size_t at = holder->pid % NAMES_CACHED;
    if (names->entries[at].pid != holder->pid) {
        proc_name_of(root, holder->pid, names->entries[at].name);
        names->entries[at].pid = holder->pid;
    }
    (void)text_copy(holder->name, sizeof holder->name, names->entries[at].name);
}

/* One entry for a process that holds the same thing several times. */
static void merge(struct holders *h, const char *root)
{
    struct names names = {0};
    size_t kept = 0;
    if (h->found_count > 1)
        qsort(h->found, h->found_count, sizeof *h->found, compare_holders);
    for (size_t i = 0; i < h->found_count; i++) {
        struct holder *last = kept > 0 ? &h->found[kept - 1] : NULL, *one = &h->found[i];
        if (last && last->pid == one->pid && compare_held(&last->held, &one->held) == 0) {
            last->reads |= one->reads;
            last->writes |= one->writes;
            continue;
        }
        give_name(&names, root, one);
        h->found[kept++] = *one;
    }
    h->found_count = kept;
}

static void sort_wanted(struct holders *h)
{
    size_t kept = 0;
    if (h->wanted_count > 1)
        qsort(h->wanted, h->wanted_count, sizeof *h->wanted, compare_held);
    for (size_t i = 0; i < h->wanted_count; i++)
        if (kept == 0 || compare_held(&h->wanted[kept - 1], &h->wanted[i]) != 0)
            h->wanted[kept++] = h->wanted[i];
    h->wanted_count = kept;
}

void holders_find(struct holders *h, const char *root, struct os_result *result)
{
    struct search search = {.h = h, .root = root, .end_us = port_mono_us() + SEARCH_US};
    uint32_t *pids = NULL;
    size_t count = 0;
    char path[PROC_PATH_SIZE];
    struct failure f = {0};
    if (h->wanted_count == 0)
        return;
    sort_wanted(h);
    (void)text_format(path, sizeof path, "%s/proc", root);
    int e = proc_numbers(path, &pids, &count, PROCESSES_MAX, &f);
    if (e < 0)
        os_result_miss(result, "other ends: %s", f.text);
    for (size_t i = 0; i < count && !is_over(&search); i++)
        look_at_process(&search, pids[i]);
    free(pids);
    merge(h, root);
    if (search.cut)
        os_result_miss(result, "other ends: only the first %zu open files of this host were seen",
                       search.links);
    if (search.denied > 0)
        os_result_miss(result, "other ends: the files of %zu processes may not be seen",
                       search.denied);
    if (search.left_out > 0)
        os_result_miss(result, "other ends: %zu more (limit %d)", search.left_out, HOLDERS_MAX);
}

/* ---- answers ---- */

const struct holder *holders_of(const struct holders *h, enum held_kind kind, uint64_t inode,
                                size_t *count)
{
    struct held key = {kind, inode};
    size_t low = 0, high = h->found_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_held(&h->found[middle].held, &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *count = 0;
    while (low + *count < h->found_count && compare_held(&h->found[low + *count].held, &key) == 0)
        ++*count;
    return *count > 0 ? &h->found[low] : NULL;
}

static bool is_at(const struct holder *holder, bool write_end)
{
    if (holder->held.kind != HELD_PIPE)
        return true;
    return write_end ? holder->writes : holder->reads;
}

size_t holders_describe(const struct holders *h, enum held_kind kind, uint64_t inode,
                        bool write_end, uint32_t self, char *out, size_t size_bytes)
{
    size_t count, others = 0;
    const struct holder *all = holders_of(h, kind, inode, &count), *first = NULL, *own = NULL;
    out[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        if (!is_at(&all[i], write_end))
            continue;
        if (all[i].pid == self) {
            own = &all[i];
            continue;
        }
        others++;
        if (!first)
            first = &all[i];
    }
    if (!first && own)
        (void)text_format(out, size_bytes, "this process itself");
    if (!first)
        return 0;
    (void)text_format(out, size_bytes, "'%s' (pid %u, fd %u)", first->name, first->pid, first->fd);
    if (others > 1) {
        size_t used = strlen(out);
        (void)text_format(out + used, size_bytes - used, " and %zu more", others - 1);
    }
    return others;
}
