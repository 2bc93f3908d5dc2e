/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding processes in /proc by name, pid, unit, port, container and command line. Invariant: a
 * process that ends while it is looked at is left out, never an error; the caller's own (the agent,
 * its broker and workers) are never found. Called by the broker and the worker.
 */
#include "agent/os/process.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define PROCESSES_MAX 131072
#define FILES_MAX 65536
#define OWN_MAX 8
#define NAMESPACES_MAX 64
#define LISTENERS_MAX 16

/* ---- one process ---- */

static int read_stat(const char *root, uint32_t pid, struct proc_stat *out, struct failure *f)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    int result = proc_read_pid(root, pid, "stat", data, sizeof data, &text, f);
    if (result < 0)
        return result;
    if (proc_parse_stat(text, out) < 0 || out->pid != pid)
        return fail(f, ERR_CORRUPT, "not as expected '%s/proc/%u/stat'", root, pid);
    return 0;
}

/* The real user, from status; the owner of the directory is root for a process that is not
 * dumpable. */
static uint32_t read_uid(const char *root, uint32_t pid)
{
    char data[PROC_TEXT_SIZE], path[PROC_PATH_SIZE];
    struct span text, value;
    uint64_t uid;
    struct stat st;
    if (proc_read_pid(root, pid, "status", data, sizeof data, &text, NULL) == 0 &&
        proc_find_key(text, "Uid:", &value) == 0 && proc_take_number(&value, &uid) == 0)
        return (uint32_t)uid;
    proc_path(path, root, pid, "");
    return stat(path, &st) == 0 ? st.st_uid : UINT32_MAX;
}

/* Left 0 where we may not look. */
static void read_executable(const char *root, uint32_t pid, struct os_process *out)
{
    char path[PROC_PATH_SIZE];
    struct stat st;
    proc_path(path, root, pid, "exe");
    if (root[0] != '\0' || stat(path, &st) != 0)
        return; /* a recorded tree: its links point into ours */
    out->exe_device = st.st_dev;
    out->exe_inode = st.st_ino;
}

static void fill(const char *root, const struct proc_stat *stat, struct os_process *out)
{
    *out = (struct os_process){.pid = stat->pid,
                               .start_ticks = stat->start_ticks,
                               .threads = stat->threads,
                               .uid = read_uid(root, stat->pid)};
    read_executable(root, stat->pid, out);
    proc_full_name(root, stat->pid, stat->name, out->name);
}

int os_process_get(const char *root, uint32_t pid, struct os_process *out, struct failure *f)
{
    struct proc_stat stat;
    int result = read_stat(root, pid, &stat, f);
    if (result == ERR_GONE)
        return fail(f, ERR_GONE, "no process %u", pid);
    if (result < 0)
        return result;
    if (proc_has_ended(&stat))
        return fail(f, ERR_GONE, "process %u has ended, its parent %u has not reaped it", pid,
                    stat.parent);
    fill(root, &stat, out);
    return 0;
}

/* ---- who listens on a port: sockets are found in each network namespace once ---- */

struct network {
    uint64_t inode; /* of the namespace */
    uint64_t listeners[LISTENERS_MAX];
    size_t count;
};

struct search {
    const char *root;
    const struct os_process_filter *filter;
    uint32_t own[OWN_MAX];
    size_t own_count;
    dev_t exe_device;
    ino_t exe_inode;
    struct network *networks; /* NAMESPACES_MAX, when a port is asked for */
    size_t network_count;
    uint32_t denied; /* processes whose files could not be looked at */
    struct network *reading;
};

/* The kernel lists listening sockets first (and, before 4.4, half-open ones with them). */
static int each_socket(void *context, struct span line)
{
    struct search *s = context;
    struct proc_socket socket;
    if (proc_parse_socket(line, &socket) < 0)
        return 0; /* the heading */
    if (socket.state != TCP_LISTEN)
        return socket.state == TCP_SYN_RECV ? 0 : 1;
    if (socket.local_port == s->filter->port && s->reading->count < LISTENERS_MAX)
        s->reading->listeners[s->reading->count++] = socket.inode;
    return 0;
}

static int read_network(struct search *s, uint32_t pid, struct network *network)
{
    char path[PROC_PATH_SIZE];
    s->reading = network;
    proc_path(path, s->root, pid, "net/tcp");
    int first = proc_each_line(path, each_socket, s, NULL);
    proc_path(path, s->root, pid, "net/tcp6");
    int second = proc_each_line(path, each_socket, s, NULL);
    return first < 0 && second < 0 ? first : 0;
}

/* NULL: its network namespace cannot be seen. */
static const struct network *network_of(struct search *s, uint32_t pid)
{
    char target[64];
    uint64_t inode;
    if (proc_link_pid(s->root, pid, "ns/net", target, sizeof target, NULL) < 0 ||
        proc_parse_inode(span_str(target), "net", &inode) < 0)
        return NULL;
    for (size_t i = 0; i < s->network_count; i++)
        if (s->networks[i].inode == inode)
            return &s->networks[i];
    /* With more namespaces than are kept, the last place is read anew each time. */
    size_t at = s->network_count < NAMESPACES_MAX ? s->network_count++ : NAMESPACES_MAX - 1;
    s->networks[at] = (struct network){.inode = inode};
    if (read_network(s, pid, &s->networks[at]) < 0) {
        s->networks[at].inode = 0;
        return NULL;
    }
    return &s->networks[at];
}

static bool is_listener(const struct network *network, const char *target)
{
    uint64_t inode;
    if (proc_parse_inode(span_str(target), "socket", &inode) < 0)
        return false;
    for (size_t i = 0; i < network->count; i++)
        if (network->listeners[i] == inode)
            return true;
    return false;
}

static bool owns_one(struct search *s, uint32_t pid, const struct network *network)
{
    char path[PROC_PATH_SIZE], leaf[32], target[64];
    uint32_t *files = NULL;
    size_t count = 0;
    bool found = false;
    proc_path(path, s->root, pid, "fd");
    int result = proc_numbers(path, &files, &count, FILES_MAX, NULL);
    if (result == ERR_DENIED)
        s->denied++;
    for (size_t i = 0; i < count && !found; i++) {
        (void)text_format(leaf, sizeof leaf, "fd/%u", files[i]);
        found = proc_link_pid(s->root, pid, leaf, target, sizeof target, NULL) == 0 &&
                is_listener(network, target);
    }
    free(files);
    return found;
}

static bool listens(struct search *s, uint32_t pid)
{
    const struct network *network = network_of(s, pid);
    if (!network) {
        s->denied++;
        return false;
    }
    return network->count > 0 && owns_one(s, pid, network);
}

/* ---- our own processes ---- */

static bool is_our_program(const struct search *s, uint32_t pid)
{
    char path[PROC_PATH_SIZE];
    struct stat st;
    proc_path(path, "", pid, "exe");
    return stat(path, &st) == 0 && st.st_dev == s->exe_device && st.st_ino == s->exe_inode;
}

/* We, and upwards those that run the same program: worker, broker, agent. */
static void find_own(struct search *s)
{
    struct stat st;
    struct proc_stat stat_record;
    uint32_t pid = (uint32_t)getpid();
    if (s->root[0] != '\0')
        return; /* a recorded tree: nobody in it is ours */
    if (stat("/proc/self/exe", &st) == 0) {
        s->exe_device = st.st_dev;
        s->exe_inode = st.st_ino;
    }
    do {
        s->own[s->own_count++] = pid;
        if (read_stat("", pid, &stat_record, NULL) < 0)
            return;
        pid = stat_record.parent;
    } while (s->own_count < OWN_MAX && pid > 1 && is_our_program(s, pid));
}

static bool is_own(const struct search *s, const struct proc_stat *stat)
{
    for (size_t i = 0; i < s->own_count; i++) {
        if (s->own[i] == stat->pid)
            return true;
        if (s->own[i] == stat->parent && is_our_program(s, stat->pid))
            return true;
    }
    return false;
}

/* ---- matching ---- */

static bool is_in_unit(const struct search *s, uint32_t pid)
{
    char data[PROC_TEXT_SIZE];
    struct span text;
    return proc_read_pid(s->root, pid, "cgroup", data, sizeof data, &text, NULL) == 0 &&
           proc_cgroup_has_unit(text, s->filter->unit);
}

static bool is_in_container(const struct search *s, uint32_t pid)
{
    char data[PROC_TEXT_SIZE];
    struct span text;
    return proc_read_pid(s->root, pid, "cgroup", data, sizeof data, &text, NULL) == 0 &&
           proc_cgroup_has_container(text, s->filter->container);
}

static bool is_set(const char *text)
{
    return text && text[0] != '\0';
}

/* The cheap questions first. */
static bool matches(struct search *s, const struct proc_stat *stat)
{
    const struct os_process_filter *filter = s->filter;
    if (proc_is_kernel_thread(stat) || proc_has_ended(stat) || is_own(s, stat))
        return false;
    if (is_set(filter->name) && !proc_is_named(s->root, stat->pid, stat->name, filter->name))
        return false;
    if (is_set(filter->unit) && !is_in_unit(s, stat->pid))
        return false;
    if (is_set(filter->container) && !is_in_container(s, stat->pid))
        return false;
    if (is_set(filter->command) && !proc_has_command(s->root, stat->pid, filter->command))
        return false;
    return filter->port == 0 || listens(s, stat->pid);
}

static int give_each(struct search *s, const uint32_t *pids, size_t count, os_process_each_fn each,
                     void *context, size_t *found)
{
    struct proc_stat stat;
    struct os_process process;
    for (size_t i = 0; i < count; i++) {
        if (read_stat(s->root, pids[i], &stat, NULL) < 0 || !matches(s, &stat))
            continue;
        fill(s->root, &stat, &process);
        ++*found;
        int stop = each(context, &process);
        if (stop != 0)
            return stop;
    }
    return 0;
}

static int search_all(struct search *s, os_process_each_fn each, void *context, struct failure *f)
{
    char path[PROC_PATH_SIZE];
    uint32_t *pids = NULL;
    size_t count = 0, found = 0;
    int result = 0;
    (void)text_format(path, sizeof path, "%s/proc", s->root);
    if (s->filter->pid == 0)
        result = proc_numbers(path, &pids, &count, PROCESSES_MAX, f);
    if (result == 0)
        result = s->filter->pid == 0 ? give_each(s, pids, count, each, context, &found)
                                     : give_each(s, &s->filter->pid, 1, each, context, &found);
    free(pids);
    if (result == 0 && found == 0 && s->denied > 0)
        return fail(f, ERR_DENIED,
                    "cannot see who listens on port %u: %u processes belong to others",
                    s->filter->port, s->denied);
    return result;
}

int os_process_each(const char *root, const struct os_process_filter *filter,
                    os_process_each_fn each, void *context, struct failure *f)
{
    struct search s = {.root = root, .filter = filter};
    if (!is_set(filter->name) && !is_set(filter->unit) && filter->pid == 0 && filter->port == 0 &&
        !is_set(filter->container) && !is_set(filter->command))
        return fail(f, ERR_INVALID,
                    "no name, pid, unit, port, container or command line to search processes by");
    if (filter->port > 0) {
        s.networks = calloc(NAMESPACES_MAX, sizeof *s.networks);
        if (!s.networks)
            return fail(f, ERR_NOMEM, "out of memory searching processes");
    }
    find_own(&s);
    int result = search_all(&s, each, context, f);
    free(s.networks);
    return result;
}
