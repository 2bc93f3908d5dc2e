/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open files of a process: how many of each type, then each with its target; sockets with their
 * addresses, state and queues from the tables of the process's own network namespace. Called by
 * triage.c.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define FILES_MAX 20000 /* whose targets are looked at */
#define FILES_SHOWN 200
#define TYPES_MAX 24
#define TYPE_SIZE 40
#define TARGET_SIZE 192
#define DESCRIPTION_SIZE 256
#define TCP_STATES 12

struct file {
    uint32_t fd;
    uint64_t inode; /* of a socket; else 0 */
    char target[TARGET_SIZE];
    char description[DESCRIPTION_SIZE]; /* of a socket, when found */
};

struct file_type {
    char name[TYPE_SIZE];
    uint32_t count;
};

struct files {
    struct triage *t;
    struct file *shown; /* by rising fd, at most FILES_SHOWN */
    size_t shown_count;
    uint64_t *sockets; /* inodes of all, rising */
    size_t socket_count;
    struct file_type types[TYPES_MAX];
    size_t type_count;
    uint32_t tcp_states[TCP_STATES];
    uint32_t udp, unix_sockets, found;
    bool is_udp; /* of the table being read */
};

/* ---- types ---- */

/* "socket:[77]" -> "socket", "anon_inode:[eventpoll]" -> "eventpoll", "/var/log/x" -> "file". */
static void type_of(const char *target, char *out)
{
    struct span text = span_str(target), head;
    if (proc_starts_with(text, "anon_inode:")) {
        text = span_of(text.data + 11, text.size_bytes - 11);
        if (proc_starts_with(text, "[") && proc_ends_with(text, "]") && text.size_bytes > 2)
            text = span_of(text.data + 1, text.size_bytes - 2);
        (void)text_copy_span(out, TYPE_SIZE, text);
    } else if (proc_starts_with(text, "/dev/")) {
        (void)text_copy(out, TYPE_SIZE, "device");
    } else if (proc_starts_with(text, "/memfd:")) {
        (void)text_copy(out, TYPE_SIZE, "memfd");
    } else if (proc_starts_with(text, "/")) {
        bool deleted = proc_ends_with(text, " (deleted)");
        (void)text_copy(out, TYPE_SIZE, deleted ? "deleted file" : "file");
    } else if (text_take_until(&text, ':', &head) == 0) {
        (void)text_copy_span(out, TYPE_SIZE, head);
    } else {
        (void)text_copy(out, TYPE_SIZE, "other");
    }
}

static void count_type(struct files *files, const char *target)
{
    char name[TYPE_SIZE];
    type_of(target, name);
    for (size_t i = 0; i < files->type_count; i++) {
        if (strcmp(files->types[i].name, name) == 0) {
            files->types[i].count++;
            return;
        }
    }
    if (files->type_count == TYPES_MAX)
        return;
    struct file_type *type = &files->types[files->type_count++];
    (void)text_copy(type->name, sizeof type->name, name);
    type->count = 1;
}

/* ---- sockets ---- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static bool is_ours(const struct files *files, uint64_t inode)
{
    return inode != 0 && files->socket_count > 0 &&
           bsearch(&inode, files->sockets, files->socket_count, sizeof inode, compare_u64);
}

static void note_description(struct files *files, uint64_t inode, const char *description)
{
    for (size_t i = 0; i < files->shown_count; i++)
        if (files->shown[i].inode == inode)
            (void)text_copy(files->shown[i].description, DESCRIPTION_SIZE, description);
}

static int each_socket(void *context, struct span line)
{
    struct files *files = context;
    struct proc_socket socket;
    char description[DESCRIPTION_SIZE];
    if (proc_parse_socket(line, &socket) < 0 || !is_ours(files, socket.inode))
        return 0;
    triage_describe_socket(&socket, files->is_udp, description, sizeof description);
    note_description(files, socket.inode, description);
    if (files->is_udp)
        files->udp++;
    else
        files->tcp_states[socket.state < TCP_STATES ? socket.state : 0]++;
    /* Found all: the rest of the table, perhaps of 100,000 connections, is not needed. */
    return ++files->found == files->socket_count;
}

static int each_unix_socket(void *context, struct span line)
{
    struct files *files = context;
    struct proc_unix_socket socket;
    char description[DESCRIPTION_SIZE];
    if (proc_parse_unix_socket(line, &socket) < 0 || !is_ours(files, socket.inode))
        return 0;
    const char *type = socket.type == SOCK_DGRAM       ? "datagram"
                       : socket.type == SOCK_SEQPACKET ? "seqpacket"
                                                       : "stream";
    (void)text_format(description, sizeof description, "unix %s%s%s%.*s", type,
                      socket.listens ? " listening" : "", socket.path.size_bytes ? " " : "",
                      (int)(socket.path.size_bytes < 128 ? socket.path.size_bytes : 128),
                      (const char *)socket.path.data);
    note_description(files, socket.inode, description);
    files->unix_sockets++;
    return ++files->found == files->socket_count;
}

static void read_sockets(struct files *files)
{
    static const struct {
        const char *leaf;
        proc_line_fn each;
        bool is_udp;
    } tables[] = {
        {"net/tcp", each_socket, false},       {"net/tcp6", each_socket, false},
        {"net/udp", each_socket, true},        {"net/udp6", each_socket, true},
        {"net/unix", each_unix_socket, false},
    };
    char path[PROC_PATH_SIZE];
    struct failure f;
    if (files->socket_count == 0)
        return;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (files->found == files->socket_count)
            return;
        files->is_udp = tables[i].is_udp;
        proc_path(path, files->t->root, files->t->process->pid, tables[i].leaf);
        int result = proc_each_line(path, tables[i].each, files, &f);
        if (result < 0 && result != ERR_GONE) /* no IPv6: the table is not there */
            triage_miss(files->t, "sockets", f.text);
    }
}

/* ---- reading ---- */

static void read_files(struct files *files, const uint32_t *fds, size_t count)
{
    struct triage *t = files->t;
    char leaf[32], target[TARGET_SIZE];
    uint64_t inode;
    for (size_t i = 0; i < count; i++) {
        (void)text_format(leaf, sizeof leaf, "fd/%u", fds[i]);
        if (proc_link_pid(t->root, t->process->pid, leaf, target, sizeof target, NULL) < 0)
            continue; /* closed meanwhile */
        count_type(files, target);
        if (proc_parse_inode(span_str(target), "socket", &inode) < 0)
            inode = 0;
        else
            files->sockets[files->socket_count++] = inode;
        if (files->shown_count == FILES_SHOWN)
            continue;
        struct file *file = &files->shown[files->shown_count++];
        *file = (struct file){.fd = fds[i], .inode = inode};
        (void)text_copy(file->target, sizeof file->target, target);
    }
    if (files->socket_count > 1)
        qsort(files->sockets, files->socket_count, sizeof *files->sockets, compare_u64);
}

/* ---- writing ---- */

static void put_types(const struct files *files)
{
    struct triage *t = files->t;
    for (size_t i = 0; i < files->type_count; i++) {
        triage_put(t, "%s%u ", i ? ", " : "  ", files->types[i].count);
        triage_put_safe(t, span_str(files->types[i].name));
    }
    triage_put(t, "\n");
}

static void put_socket_states(const struct files *files)
{
    struct triage *t = files->t;
    if (files->socket_count == 0)
        return;
    triage_put(t, "  sockets: %u unix, %u udp", files->unix_sockets, files->udp);
    for (uint8_t i = 0; i < TCP_STATES; i++)
        if (files->tcp_states[i] > 0)
            triage_put(t, ", %u tcp %s", files->tcp_states[i], triage_tcp_state(i));
    if (files->found < files->socket_count)
        triage_put(t, ", %zu of another kind", files->socket_count - files->found);
    triage_put(t, "\n");
}

/* proc(5), /proc/PID/fdinfo: "pos:\t12\nflags:\t0100002\n". */
static void put_position(struct triage *t, uint32_t fd)
{
    char leaf[32], data[512];
    struct span text, position, flags;
    (void)text_format(leaf, sizeof leaf, "fdinfo/%u", fd);
    if (proc_read_pid(t->root, t->process->pid, leaf, data, sizeof data, &text, NULL) < 0 ||
        proc_find_key(text, "pos:", &position) < 0 || proc_find_key(text, "flags:", &flags) < 0 ||
        flags.size_bytes == 0)
        return;
    static const char *const modes[] = {"reading", "writing", "reading and writing", "nothing"};
    triage_put(t, ", for %s, at ", modes[flags.data[flags.size_bytes - 1] & 3]);
    triage_put_safe(t, position);
}

static void put_file(struct triage *t, const struct file *file)
{
    triage_put(t, "  %u ", file->fd);
    triage_put_safe(t, span_str(file->description[0] ? file->description : file->target));
    if (file->target[0] == '/' && !proc_starts_with(span_str(file->target), "/dev/"))
        put_position(t, file->fd);
    triage_put(t, "\n");
}

static void put_files(const struct files *files, size_t count)
{
    struct triage *t = files->t;
    triage_put(t, "\nopen files (%zu)\n", count);
    put_types(files);
    put_socket_states(files);
    for (size_t i = 0; i < files->shown_count; i++)
        put_file(t, &files->shown[i]);
    if (count > files->shown_count)
        triage_put(t, "  ... %zu more\n", count - files->shown_count);
}

static int list_files(struct triage *t, uint32_t **fds, size_t *count, struct failure *f)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, t->root, t->process->pid, "fd");
    return proc_numbers(path, fds, count, FILES_MAX, f);
}

bool triage_count_files(struct triage *t, uint64_t *out)
{
    uint32_t *fds = NULL;
    size_t count = 0;
    int result = list_files(t, &fds, &count, NULL);
    free(fds);
    *out = count;
    return result == 0;
}

void triage_put_files(struct triage *t)
{
    struct files files = {.t = t};
    uint32_t *fds = NULL;
    size_t count = 0;
    struct failure f;
    if (list_files(t, &fds, &count, &f) < 0)
        triage_miss(t, "open files", f.text);
    files.shown = calloc(FILES_SHOWN, sizeof *files.shown);
    files.sockets = calloc(count + 1, sizeof *files.sockets);
    if (!files.shown || !files.sockets) {
        triage_miss(t, "open files", "out of memory");
    } else if (count > 0) {
        read_files(&files, fds, count);
        read_sockets(&files);
        put_files(&files, count);
    }
    free(files.shown);
    free(files.sockets);
    free(fds);
}
