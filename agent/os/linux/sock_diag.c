/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the kernel for its sockets over netlink, in the network namespace of a process. Invariant:
 * the caller is in its own namespace again when sock_diag_open() returns; only the kernel's answers
 * are taken. Called by net_sockets.c and watch_socket.c.
 */
#include "agent/os/linux/sock_diag.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define ANSWER_SIZE 65536 /* a datagram of a dump is at most 32 KiB */
#define ANSWER_WAIT_S 2
#define SEQUENCE_MASK 0x7fffffffu
#define ALL_STATES UINT32_MAX

/* ---- words ---- */

bool sock_has_tcp(const struct sock *s, enum sock_tcp_value value)
{
    return s->tcp_known >> value & 1;
}

bool sock_has_memory(const struct sock *s, enum sock_memory value)
{
    return s->memory_known >> value & 1;
}

const char *sock_kind(const struct sock *s)
{
    bool six = s->family == AF_INET6;
    if (s->family == AF_UNIX)
        return s->type == SOCK_DGRAM       ? "unix datagram"
               : s->type == SOCK_SEQPACKET ? "unix seqpacket"
                                           : "unix stream";
    switch (s->protocol) {
    case IPPROTO_TCP:
        return six ? "tcp6" : "tcp";
    case IPPROTO_UDP:
        return six ? "udp6" : "udp";
    case IPPROTO_UDPLITE:
        return six ? "udplite6" : "udplite";
    default:
        return six ? "raw6" : "raw";
    }
}

const char *sock_state(const struct sock *s)
{
    static const char *const names[] = {"?",          "established", "SYN sent",  "SYN received",
                                        "FIN wait 1", "FIN wait 2",  "time wait", "closed",
                                        "close wait", "last ACK",    "listening", "closing"};
    if (s->state == TCP_CLOSE && (s->family == AF_UNIX || s->protocol != IPPROTO_TCP))
        return "not connected";
    return s->state < sizeof names / sizeof names[0] ? names[s->state] : "?";
}

/* struct inet_diag_sockopt, bit by bit from the lowest of its first byte. */
const char *sock_next_option(const struct sock *s, unsigned *at)
{
    static const char *const names[] = {"IP_RECVERR",
                                        NULL,
                                        "IP_FREEBIND",
                                        "IP_HDRINCL",
                                        NULL,
                                        "IP_TRANSPARENT",
                                        NULL,
                                        "IP_NODEFRAG",
                                        "IP_BIND_ADDRESS_NO_PORT",
                                        "IP_RECVERR_RFC4884",
                                        "TCP_FASTOPEN_CONNECT"};
    while (s->has_options && *at < sizeof names / sizeof names[0]) {
        unsigned bit = (*at)++;
        if (names[bit] && s->options >> bit & 1)
            return names[bit];
    }
    return NULL;
}

/* ---- the namespace ---- */

static int open_netlink(struct failure *f)
{
    struct timeval wait = {.tv_sec = ANSWER_WAIT_S};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot ask for the kernel's sockets");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return fd;
}

static bool is_same_file(int a, int b)
{
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A netlink socket belongs for ever to the namespace that its maker was in. */
static int open_inside(int own, int theirs, uint32_t pid, struct failure *f)
{
    if (is_same_file(own, theirs))
        return open_netlink(f);
    if (setns(theirs, CLONE_NEWNET) < 0)
        return fail_errno(f, err_from_errno(errno), errno,
                          "cannot enter the network namespace of process %u", pid);
    int fd = open_netlink(f);
    if (setns(own, CLONE_NEWNET) < 0 && fd >= 0) {
        close(fd);
        return fail_errno(f, err_from_errno(errno), errno,
                          "cannot leave the network namespace of process %u", pid);
    }
    return fd;
}

int sock_diag_open(uint32_t pid, int *out, struct failure *f)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", pid, "ns/net");
    int theirs = open(path, O_RDONLY | O_CLOEXEC);
    if (theirs < 0)
        return fail_errno(f, errno == ENOENT ? ERR_GONE : err_from_errno(errno), errno,
                          "cannot open '%s'", path);
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int fd = own < 0 ? fail_errno(f, err_from_errno(errno), errno, "cannot open our own namespace")
                     : open_inside(own, theirs, pid, f);
    if (own >= 0)
        close(own);
    close(theirs);
    if (fd < 0)
        return fd;
    *out = fd;
    return 0;
}

/* ---- questions ---- */

struct question {
    struct nlmsghdr head;
    union {
        struct inet_diag_req_v2 inet;
        struct unix_diag_req local;
    } body;
};

static uint32_t next_sequence(void)
{
    static uint32_t sequence;
    sequence = (sequence + 1) & SEQUENCE_MASK;
    return sequence;
}

static void make_question(struct question *q, uint8_t family, uint8_t protocol)
{
    *q = (struct question){.head = {.nlmsg_type = SOCK_DIAG_BY_FAMILY,
                                    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                                    .nlmsg_seq = next_sequence()}};
    if (family == AF_UNIX) {
        q->head.nlmsg_len = NLMSG_LENGTH(sizeof q->body.local);
        q->body.local.sdiag_family = AF_UNIX;
        q->body.local.udiag_states = ALL_STATES;
        q->body.local.udiag_show =
            UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN | UDIAG_SHOW_MEMINFO;
        return;
    }
    q->head.nlmsg_len = NLMSG_LENGTH(sizeof q->body.inet);
    q->body.inet.sdiag_family = family;
    q->body.inet.sdiag_protocol = protocol;
    q->body.inet.idiag_states = ALL_STATES;
    q->body.inet.idiag_ext =
        1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_CONG - 1) | 1 << (INET_DIAG_SKMEMINFO - 1);
}

static int send_question(int fd, const struct question *q, struct failure *f)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ssize_t sent;
    do {
        sent = sendto(fd, q, q->head.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot ask for the kernel's sockets");
    return 0;
}

static int receive(int fd, uint8_t *data, struct span *out, struct failure *f)
{
    struct sockaddr_nl from = {0};
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, data, ANSWER_SIZE, 0, (struct sockaddr *)&from, &length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return fail(f, ERR_TIMEOUT, "the kernel's socket tables gave no answer in %d s",
                        ANSWER_WAIT_S);
        if (got < 0)
            return fail_errno(f, err_from_errno(errno), errno, "cannot read the kernel's sockets");
        if (length < sizeof from || from.nl_pid != 0)
            continue; /* not from the kernel */
        *out = span_of(data, (size_t)got);
        return 0;
    }
}

static int read_answer(int fd, struct sock_diag_answer *answer, bool is_dump, struct failure *f)
{
    static uint8_t data[ANSWER_SIZE];
    struct span datagram = {0};
    do {
        int result = receive(fd, data, &datagram, f);
        if (result == 0)
            result = sock_diag_feed(answer, datagram, f);
        if (result != 0)
            return result;
    } while (is_dump && !answer->done);
    return 0;
}

static int ask_all(int fd, const struct question *q, uint8_t family, uint8_t protocol,
                   sock_each_fn each, void *context, struct failure *f)
{
    struct sock_diag_answer answer = {.family = family,
                                      .protocol = protocol,
                                      .sequence = q->head.nlmsg_seq,
                                      .each = each,
                                      .context = context};
    int result = send_question(fd, q, f);
    return result < 0 ? result : read_answer(fd, &answer, true, f);
}

int sock_diag_each(int fd, uint8_t family, uint8_t protocol, sock_each_fn each, void *context,
                   struct failure *f)
{
    struct question q;
    make_question(&q, family, protocol);
    return ask_all(fd, &q, family, protocol, each, context, f);
}

int sock_diag_listeners(int fd, uint8_t family, uint16_t port, sock_each_fn each, void *context,
                        struct failure *f)
{
    struct question q;
    make_question(&q, family, IPPROTO_TCP);
    q.body.inet.idiag_states = 1u << TCP_LISTEN;
    q.body.inet.idiag_ext = 0;
    q.body.inet.id.idiag_sport = htons(port);
    return ask_all(fd, &q, family, IPPROTO_TCP, each, context, f);
}

/* ---- one connection ---- */

static void keep(void *context, const struct sock *s)
{
    *(struct sock *)context = *s;
}

static int ask_one(int fd, const struct sock *wanted, struct sock *out, struct failure *f)
{
    struct question q;
    struct sock found = {0};
    struct failure why = {0};
    make_question(&q, wanted->family, wanted->protocol);
    q.head.nlmsg_flags = NLM_F_REQUEST;
    struct inet_diag_sockid *id = &q.body.inet.id;
    id->idiag_sport = htons(wanted->local_port);
    id->idiag_dport = htons(wanted->remote_port);
    memcpy(id->idiag_src, wanted->local, sizeof wanted->local);
    memcpy(id->idiag_dst, wanted->remote, sizeof wanted->remote);
    id->idiag_if = wanted->interface;
    id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    struct sock_diag_answer answer = {.family = wanted->family,
                                      .protocol = wanted->protocol,
                                      .sequence = q.head.nlmsg_seq,
                                      .each = keep,
                                      .context = &found};
    int result = send_question(fd, &q, f);
    if (result == 0)
        result = read_answer(fd, &answer, false, &why);
    /* A lookup without a connection gives a listener on that port, if there is one. */
    if (result == ERR_UNSUPPORTED || (result == 0 && found.remote_port != wanted->remote_port))
        return fail(f, ERR_NOTFOUND, "the other end is not on this host");
    if (result < 0)
        return fail(f, result, "%s", why.text);
    *out = found;
    return 0;
}

int sock_diag_peer(int fd, const struct sock *s, struct sock *out, struct failure *f)
{
    struct sock wanted = *s;
    memcpy(wanted.local, s->remote, sizeof wanted.local);
    memcpy(wanted.remote, s->local, sizeof wanted.remote);
    wanted.local_port = s->remote_port;
    wanted.remote_port = s->local_port;
    wanted.interface = 0;
    return ask_one(fd, &wanted, out, f);
}

int sock_diag_again(int fd, const struct sock *s, struct sock *out, struct failure *f)
{
    return ask_one(fd, s, out, f);
}
