/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open files of a process: how many of each type, then the first of them with target, position,
 * flags and, for sockets, addresses and queues. Invariant: at most TRIAGE_FDS_MAX links are read
 * and TRIAGE_FILES_SHOWN files described. Called by triage.c.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/linux/triage_read.h"
#include "common/text.h"

#define FDINFO_SIZE 8192

/* ---- types ---- */

/* "socket:[77]" -> "socket", "anon_inode:[eventpoll]" -> "eventpoll", "/var/log/x" -> "file". */
static void type_of(const char *target, char *out, size_t size_bytes)
{
    struct span text = span_str(target), head;
    if (proc_starts_with(text, "anon_inode:")) {
        text = span_of(text.data + 11, text.size_bytes - 11);
        if (proc_starts_with(text, "[") && proc_ends_with(text, "]") && text.size_bytes > 2)
            text = span_of(text.data + 1, text.size_bytes - 2);
        (void)text_copy_span(out, size_bytes, text);
    } else if (proc_starts_with(text, "/dev/")) {
        (void)text_copy(out, size_bytes, "device");
    } else if (proc_starts_with(text, "/memfd:")) {
        (void)text_copy(out, size_bytes, "memfd");
    } else if (proc_starts_with(text, "/")) {
        bool deleted = proc_ends_with(text, " (deleted)");
        (void)text_copy(out, size_bytes, deleted ? "deleted file" : "file");
    } else if (text_take_until(&text, ':', &head) == 0) {
        (void)text_copy_span(out, size_bytes, head);
    } else {
        (void)text_copy(out, size_bytes, "other");
    }
}

static void count_type(struct triage *t, const char *target)
{
    char name[sizeof t->types[0].name];
    type_of(target, name, sizeof name);
    for (size_t i = 0; i < t->type_count; i++) {
        if (strcmp(t->types[i].name, name) == 0) {
            t->types[i].count++;
            return;
        }
    }
    if (t->type_count == TRIAGE_TYPES_MAX)
        return;
    struct triage_type *type = &t->types[t->type_count++];
    (void)text_copy(type->name, sizeof type->name, name);
    type->count = 1;
}

/* ---- links ---- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* The first ones, and those that threads wait for. */
static bool is_shown(const struct triage *t, uint32_t fd)
{
    if (t->file_count < TRIAGE_FILES_SHOWN)
        return true;
    return t->waited_count > 0 && t->file_count < TRIAGE_FILES_SHOWN + TRIAGE_WAITED_MAX &&
           bsearch(&fd, t->waited, t->waited_count, sizeof fd, compare_u32);
}

static void read_link(struct triage *t, int dir, uint32_t fd)
{
    char target[TRIAGE_TARGET_SIZE];
    if (!proc_read_link(dir, fd, target, sizeof target))
        return; /* closed meanwhile */
    struct held held = held_parse(span_str(target));
    count_type(t, target);
    t->fds[t->fd_count++] = (struct triage_fd){fd, held};
    if (!is_shown(t, fd))
        return;
    struct triage_file *file = &t->files[t->file_count++];
    *file = (struct triage_file){.fd = fd, .held = held};
    (void)text_copy(file->target, sizeof file->target, target);
}

static void read_links(struct triage *t)
{
    char path[PROC_PATH_SIZE];
    uint32_t *fds = NULL;
    size_t count = 0;
    int dir = -1;
    struct failure f;
    proc_path(path, t->root, t->process->pid, "fd");
    if (proc_numbers(path, &fds, &count, TRIAGE_FDS_MAX, &f) < 0)
        triage_miss(t, "open files", &f);
    t->fds = calloc(count + 1, sizeof *t->fds);
    t->files = calloc(TRIAGE_FILES_SHOWN + TRIAGE_WAITED_MAX, sizeof *t->files);
    if (t->fds && t->files && proc_open_links(t->root, t->process->pid, &dir, NULL) == 0)
        for (size_t i = 0; i < count; i++)
            read_link(t, dir, fds[i]);
    else if (count > 0)
        os_result_miss(t->result, "open files: ended meanwhile, or out of memory");
    if (dir >= 0)
        close(dir);
    t->fd_total = count;
    t->fds_known = dir >= 0;
    if (t->fd_count > t->file_count)
        os_result_miss(t->result, "open files: %zu of %zu are only counted",
                       t->fd_count - t->file_count, t->fd_count);
    free(fds);
}

/* ---- sockets ---- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void count_socket(struct triage *t, const struct sock *s)
{
    if (s->family == AF_UNIX)
        t->unix_sockets++;
    else if (s->protocol != IPPROTO_TCP)
        t->udp_sockets++;
    else
        t->tcp_states[s->state < TRIAGE_TCP_STATES ? s->state : 0]++;
}

static void note_worst(struct triage *t)
{
    char text[120], address[SOCK_PATH_SIZE];
    unsigned worst = 0;
    for (size_t i = 0; i < t->sockets.count; i++) {
        const struct sock *s = &t->sockets.socks[i];
        unsigned trouble = net_trouble(s, text, sizeof text);
        if (trouble <= worst)
            continue;
        worst = trouble;
        net_put_local(s, address, sizeof address);
        (void)text_format(t->worst_socket, sizeof t->worst_socket, "%s %s: %s", sock_kind(s),
                          address, text);
    }
}

/* The same socket may be open under several numbers. */
static size_t list_inodes(const struct triage *t, uint64_t *inodes)
{
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < t->fd_count; i++)
        if (t->fds[i].held.kind == HELD_SOCKET)
            inodes[count++] = t->fds[i].held.inode;
    if (count > 1)
        qsort(inodes, count, sizeof *inodes, compare_u64);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || inodes[kept - 1] != inodes[i])
            inodes[kept++] = inodes[i];
    return kept;
}

static void read_sockets(struct triage *t)
{
    struct failure f;
    uint64_t *inodes = calloc(t->fd_count + 1, sizeof *inodes);
    if (!inodes) {
        os_result_miss(t->result, "sockets: out of memory");
        return;
    }
    size_t count = list_inodes(t, inodes);
    if (net_sockets_open(&t->sockets, t->root, t->process->pid, inodes, count, t->result, &f) < 0)
        triage_miss(t, "sockets", &f);
    t->sockets.inodes = NULL;
    free(inodes);
    for (size_t i = 0; i < t->sockets.count; i++)
        count_socket(t, &t->sockets.socks[i]);
    t->other_sockets = (uint32_t)(count - t->sockets.count);
    note_worst(t);
}

/* ---- details ---- */

static void read_details(struct triage *t, struct triage_file *file)
{
    char leaf[32], data[FDINFO_SIZE];
    struct span text, inode;
    (void)text_format(leaf, sizeof leaf, "fdinfo/%u", file->fd);
    if (proc_read_pid(t->root, t->process->pid, leaf, data, sizeof data, &text, NULL) < 0)
        return;
    triage_describe_fdinfo(text, file->target, file->details, sizeof file->details);
    file->has_inode = proc_find_key(text, "ino:", &inode) == 0 &&
                      proc_take_number(&inode, &file->file_inode) == 0;
    if (text.size_bytes == sizeof data)
        triage_add(file->details, sizeof file->details, " (of its first %d KiB)",
                   FDINFO_SIZE / 1024);
}

void triage_read_files(struct triage *t)
{
    read_links(t);
    if (!t->fds || !t->files)
        return;
    read_sockets(t);
    for (size_t i = 0; i < t->file_count; i++) {
        struct triage_file *file = &t->files[i];
        const struct sock *s =
            file->held.kind == HELD_SOCKET ? net_sockets_find(&t->sockets, file->held.inode) : NULL;
        if (s)
            net_describe(s, file->text, sizeof file->text);
        read_details(t, file);
    }
}

const struct triage_file *triage_find_file(const struct triage *t, uint32_t fd)
{
    size_t low = 0, high = t->file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->files[middle].fd < fd)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->file_count && t->files[low].fd == fd ? &t->files[low] : NULL;
}

/* ---- who is at the other end ---- */

static void want(struct triage *t, const struct triage_file *file)
{
    const struct sock *s;
    if (file->held.kind == HELD_PIPE)
        (void)holders_want(&t->holders, HELD_PIPE, file->held.inode);
    else if ((s = net_sockets_find(&t->sockets, file->held.inode)) != NULL)
        (void)holders_want(&t->holders, HELD_SOCKET, s->peer_inode);
}

static void name_holders(struct triage *t, struct triage_file *file)
{
    uint32_t self = t->process->pid;
    const struct sock *s;
    if (file->held.kind == HELD_PIPE) {
        (void)holders_describe(&t->holders, HELD_PIPE, file->held.inode, false, self,
                               file->other_end, sizeof file->other_end);
        (void)holders_describe(&t->holders, HELD_PIPE, file->held.inode, true, self,
                               file->other_writer, sizeof file->other_writer);
    } else if ((s = net_sockets_find(&t->sockets, file->held.inode)) != NULL) {
        (void)holders_describe(&t->holders, HELD_SOCKET, s->peer_inode, false, self,
                               file->other_end, sizeof file->other_end);
    }
}

void triage_find_others(struct triage *t)
{
    for (size_t i = 0; i < t->file_count; i++)
        want(t, &t->files[i]);
    holders_find(&t->holders, t->root, t->result);
    for (size_t i = 0; i < t->file_count; i++)
        name_holders(t, &t->files[i]);
}
