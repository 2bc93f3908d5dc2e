/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets of one process: found, judged, looked at twice where data waits, sorted, then written
 * by net_text.c. Invariant: the process is not stopped; nothing is changed in its network
 * namespace. Called by the worker through os/net.h.
 */
#include "agent/os/net.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/net_linux.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/triage_read.h"
#include "common/port.h"
#include "common/text.h"

#define FILES_MAX 100000
#define COUNTERS_SIZE 32768
#define TEXT_LIMIT ((size_t)16 * 1024 * 1024)
#define LOOK_US 100000 /* between two looks at what waits to be sent */
#define LOOKS_MAX 256

/* Of the namespace since it exists: beside a full backlog they tell that connections were lost. */
const struct net_counter net_counters[NET_COUNTERS] = {
    {"TcpExt:", "ListenOverflows", "net/netstat", "connections lost to a full backlog"},
    {"TcpExt:", "ListenDrops", "net/netstat", "connections dropped while listening"},
    {"TcpExt:", "TCPBacklogDrop", "net/netstat", "segments dropped, socket busy"},
    {"TcpExt:", "TCPRcvQDrop", "net/netstat", "segments dropped, receive queue full"},
    {"TcpExt:", "TCPTimeouts", "net/netstat", "retransmission timeouts"},
    {"TcpExt:", "TCPAbortOnMemory", "net/netstat", "connections ended for lack of memory"},
    {"TcpExt:", "TCPReqQFullDrop", "net/netstat", "connection requests dropped"},
    {"Tcp:", "RetransSegs", "net/snmp", "segments retransmitted"},
    {"Tcp:", "AttemptFails", "net/snmp", "connects that failed"},
    {"Tcp:", "EstabResets", "net/snmp", "connections reset"},
    {"Udp:", "RcvbufErrors", "net/snmp", "datagrams dropped, receive buffer full"},
    {"Udp:", "SndbufErrors", "net/snmp", "datagrams not sent, send buffer full"},
};

/* ---- counters of the namespace ---- */

int net_find_counter(struct span text, const char *table, const char *name, uint64_t *out)
{
    struct span names, values, field, number;
    while (proc_take_line(&text, &names) == 0) {
        if (!proc_starts_with(names, table) || proc_take_line(&text, &values) < 0)
            continue;
        while (proc_take_field(&names, &field) == 0 && proc_take_field(&values, &number) == 0) {
            uint64_t value;
            if (!span_equal(field, span_str(name)))
                continue;
            if (text_take_u64(&number, &value) < 0 || number.size_bytes > 0)
                return ERR_CORRUPT;
            *out = value;
            return 0;
        }
        return ERR_NOTFOUND;
    }
    return ERR_NOTFOUND;
}

static void read_counters(struct net *net, const char *file)
{
    char *data = malloc(COUNTERS_SIZE);
    struct span text;
    struct failure f;
    if (!data)
        return;
    if (proc_read_pid(net->root, net->process->pid, file, data, COUNTERS_SIZE, &text, &f) < 0)
        os_result_miss(net->result, "%s", f.text);
    else
        for (size_t i = 0; i < NET_COUNTERS; i++)
            if (strcmp(net_counters[i].file, file) == 0 &&
                net_find_counter(text, net_counters[i].table, net_counters[i].name,
                                 &net->counters[i]) == 0)
                net->counters_known |= 1u << i;
    free(data);
}

/* ---- open files ---- */

static int compare_files(const void *a, const void *b)
{
    const struct net_file *x = a, *y = b;
    if (x->inode != y->inode)
        return x->inode < y->inode ? -1 : 1;
    return (x->fd > y->fd) - (x->fd < y->fd);
}

static int net_read_files(const char *root, uint32_t pid, struct net_file **out, size_t *count,
                          struct os_result *result, struct failure *f)
{
    char path[PROC_PATH_SIZE], target[64];
    int dir = -1;
    uint32_t *fds = NULL;
    size_t fd_count = 0, found = 0;
    proc_path(path, root, pid, "fd");
    int e = proc_numbers(path, &fds, &fd_count, FILES_MAX, f);
    if (e == ERR_LIMIT)
        os_result_miss(result, "open files: only the first %d were looked at", FILES_MAX);
    else if (e < 0)
        return e;
    if (proc_open_links(root, pid, &dir, f) < 0) {
        free(fds);
        return f->code;
    }
    struct net_file *files = calloc(fd_count + 1, sizeof *files);
    for (size_t i = 0; files && i < fd_count; i++) {
        if (!proc_read_link(dir, fds[i], target, sizeof target))
            continue; /* closed meanwhile */
        struct held held = held_parse(span_str(target));
        if (held.kind == HELD_SOCKET)
            files[found++] = (struct net_file){held.inode, fds[i]};
    }
    free(fds);
    close(dir);
    if (!files)
        return fail(f, ERR_NOMEM, "out of memory for %zu open files", fd_count);
    if (found > 1)
        qsort(files, found, sizeof *files, compare_files);
    *out = files;
    *count = found;
    return 0;
}

/* ---- judging ---- */

static void look_again(struct net *net)
{
    struct timespec pause = {.tv_nsec = LOOK_US * 1000L};
    struct sock now;
    size_t looked = 0;
    for (size_t i = 0; i < net->count && looked < LOOKS_MAX; i++)
        looked += net->ones[i].sock->has_queues && net->ones[i].sock->send_queue > 0 &&
                  net->ones[i].sock->state != TCP_LISTEN;
    if (net->sockets.fd < 0 || looked == 0)
        return;
    uint64_t began = port_mono_us();
    while (nanosleep(&pause, &pause) < 0)
        ;
    for (size_t i = 0, left = looked; i < net->count && left > 0; i++) {
        struct net_one *one = &net->ones[i];
        if (!one->sock->has_queues || one->sock->send_queue == 0 || one->sock->state == TCP_LISTEN)
            continue;
        left--;
        if (one->sock->protocol != IPPROTO_TCP ||
            sock_diag_again(net->sockets.fd, one->sock, &now, NULL) < 0)
            continue;
        one->has_growth = true;
        one->growth_bytes = (int64_t)now.send_queue - (int64_t)one->sock->send_queue;
    }
    net->look_us = port_mono_us() - began;
}

static uint64_t queued(const struct sock *s)
{
    return s->has_queues ? (uint64_t)s->receive_queue + s->send_queue : 0;
}

/* Worst first; then listening ones, the fullest, and by file. */
static int compare_ones(const void *a, const void *b)
{
    const struct net_one *x = a, *y = b;
    if (x->trouble != y->trouble)
        return x->trouble > y->trouble ? -1 : 1;
    bool x_listens = x->sock->state == TCP_LISTEN, y_listens = y->sock->state == TCP_LISTEN;
    if (x_listens != y_listens)
        return x_listens ? -1 : 1;
    if (!x_listens && queued(x->sock) != queued(y->sock))
        return queued(x->sock) > queued(y->sock) ? -1 : 1;
    return (x->fd > y->fd) - (x->fd < y->fd);
}

static int judge(struct net *net, const struct net_file *files, size_t count, struct failure *f)
{
    size_t unnamed = 0;
    net->ones = calloc(net->sockets.count + 1, sizeof *net->ones);
    if (!net->ones)
        return fail(f, ERR_NOMEM, "out of memory for %zu sockets", net->sockets.count);
    for (size_t i = 0; i < count; i++) {
        const struct sock *s = net_sockets_find(&net->sockets, files[i].inode);
        if (!s)
            continue;
        if (net->count > 0 && net->ones[net->count - 1].sock == s) {
            net->ones[net->count - 1].fd_count++;
            continue;
        }
        struct net_one *one = &net->ones[net->count++];
        *one = (struct net_one){.sock = s, .fd = files[i].fd, .fd_count = 1};
        one->trouble = net_trouble(s, one->text, sizeof one->text);
        uint64_t other = s->state == TCP_LISTEN ? s->inode : s->peer_inode;
        unnamed += holders_want(&net->holders, HELD_SOCKET, other) < 0;
    }
    if (unnamed > 0)
        os_result_miss(net->result, "who holds the other ends of %zu sockets", unnamed);
    return 0;
}

/* ---- the whole ---- */

static int find_sockets(struct net *net, const struct net_file *files, size_t count,
                        struct failure *f)
{
    size_t distinct = 0;
    uint64_t *inodes = calloc(count + 1, sizeof *inodes);
    if (!inodes)
        return fail(f, ERR_NOMEM, "out of memory for %zu sockets", count);
    for (size_t i = 0; i < count; i++)
        if (distinct == 0 || inodes[distinct - 1] != files[i].inode)
            inodes[distinct++] = files[i].inode;
    net->file_count = distinct;
    int e = net_sockets_open(&net->sockets, net->root, net->process->pid, inodes, distinct,
                             net->result, f);
    if (e == 0)
        e = judge(net, files, count, f);
    net->sockets.inodes = NULL;
    free(inodes);
    return e;
}

static int read_all(struct net *net, struct failure *f)
{
    struct net_file *files = NULL;
    size_t count = 0;
    uint32_t pid = net->process->pid;
    int e = net_read_files(net->root, pid, &files, &count, net->result, f);
    if (e == 0 && count == 0)
        e = fail(f, ERR_NOTFOUND, "process %u has no socket", pid);
    if (e == 0)
        e = find_sockets(net, files, count, f);
    free(files);
    if (e < 0)
        return e;
    holders_find(&net->holders, net->root, net->result);
    look_again(net);
    if (net->count > 1)
        qsort(net->ones, net->count, sizeof *net->ones, compare_ones);
    read_counters(net, "net/netstat");
    read_counters(net, "net/snmp");
    net->own_namespace = proc_has_own_namespace(net->root, pid, "net");
    return 0;
}

static int write_all(const struct net *net, const struct os_output *out, struct failure *f)
{
    struct buf text, json;
    buf_init(&text, TEXT_LIMIT);
    buf_init(&json, TEXT_LIMIT);
    net_put_text(net, &text);
    net_put_json(net, &json);
    int e = os_output_file(out, "txt", buf_span(&text), f);
    if (e == 0)
        e = os_output_file(out, "json", buf_span(&json), f);
    buf_done(&text);
    buf_done(&json);
    return e;
}

int net_capture(const char *root, const struct os_take *take, const struct os_output *out,
                struct os_result *result, struct failure *f)
{
    struct proc_stat stat;
    struct net net = {.root = root, .process = &take->process, .result = result, .sockets.fd = -1};
    int e = proc_stat_of(root, &take->process, &stat, f);
    if (e < 0)
        return e;
    result->threads = stat.threads;
    holders_init(&net.holders);
    e = read_all(&net, f);
    if (e == 0) /* the pid may have come into use again meanwhile */
        e = proc_stat_of(root, &take->process, &stat, f);
    if (e == 0)
        e = write_all(&net, out, f);
    net_sockets_close(&net.sockets);
    holders_done(&net.holders);
    free(net.ones);
    return e;
}

int os_net_capture(const struct os_take *take, const struct os_output *out,
                   struct os_result *result, struct failure *f)
{
    return net_capture("", take, out, result, f);
}
