/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Netlink's descriptions of sockets into struct sock. Invariant: every length is checked against
 * what is there; an attribute that is shorter than ours leaves the rest unknown (older kernels), a
 * longer one is cut (newer ones). Pure. Called by sock_diag.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/unix_diag.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/os/linux/sock_diag.h"
#include "common/text.h"

#define TYPE_MASK 0x3fffu /* NLA_TYPE_MASK, unsigned */
#define STATE_LISTEN 10   /* net/tcp_states.h; netinet/tcp.h and linux/tcp.h exclude each other */

_Static_assert((int)SK_MEMINFO_VARS == (int)SOCK_MEMORY_VALUES, "as the kernel numbers them");
_Static_assert(SOCK_TCP_VALUES <= 64, "one bit each");

static const struct {
    uint16_t offset, size_bytes;
    const char *name;
} tcp_values[] = {
#define X(name, member, text) \
    {offsetof(struct tcp_info, member), sizeof(((struct tcp_info *)0)->member), text},
    SOCK_TCP_LIST(X)
#undef X
};

const char *sock_tcp_name(enum sock_tcp_value value)
{
    return value < SOCK_TCP_VALUES ? tcp_values[value].name : "?";
}

/* ---- attributes ---- */

/* Netlink aligns to 4 bytes; the last may lack its padding. */
static struct span skip_aligned(struct span s, size_t bytes)
{
    size_t aligned = (bytes + 3) & ~(size_t)3;
    if (aligned > s.size_bytes)
        aligned = s.size_bytes;
    return span_of(s.data + aligned, s.size_bytes - aligned);
}

static bool take_attribute(struct span *s, uint16_t *type, struct span *value)
{
    struct nlattr head;
    if (s->size_bytes < sizeof head)
        return false;
    memcpy(&head, s->data, sizeof head);
    if (head.nla_len < sizeof head || head.nla_len > s->size_bytes)
        return false;
    *type = head.nla_type & TYPE_MASK;
    *value = span_of(s->data + sizeof head, head.nla_len - sizeof head);
    *s = skip_aligned(*s, head.nla_len);
    return true;
}

static void take_memory(struct sock *s, struct span value)
{
    for (uint32_t i = 0; i < SOCK_MEMORY_VALUES && (i + 1) * 4 <= value.size_bytes; i++) {
        memcpy(&s->memory[i], value.data + (size_t)4 * i, 4);
        s->memory_known |= 1u << i;
    }
}

static void take_tcp(struct sock *s, struct span info)
{
    for (size_t i = 0; i < SOCK_TCP_VALUES; i++) {
        size_t offset = tcp_values[i].offset, size = tcp_values[i].size_bytes;
        uint8_t byte;
        uint32_t word;
        if (offset + size > info.size_bytes)
            continue;
        if (size == 1) {
            memcpy(&byte, info.data + offset, 1);
            s->tcp[i] = byte;
        } else if (size == 4) {
            memcpy(&word, info.data + offset, 4);
            s->tcp[i] = word;
        } else {
            memcpy(&s->tcp[i], info.data + offset, 8);
        }
        s->tcp_known |= UINT64_C(1) << i;
    }
}

static void take_text(char *out, size_t size_bytes, struct span value)
{
    const void *end = value.size_bytes ? memchr(value.data, '\0', value.size_bytes) : NULL;
    if (end)
        value.size_bytes = (size_t)((const uint8_t *)end - value.data);
    (void)text_copy_span(out, size_bytes, value);
}

/* ---- TCP, UDP, raw ---- */

static void take_inet_attribute(struct sock *s, uint16_t type, struct span value)
{
    switch (type) {
    case INET_DIAG_SKMEMINFO:
        take_memory(s, value);
        break;
    case INET_DIAG_INFO:
        take_tcp(s, value);
        break;
    case INET_DIAG_CONG:
        take_text(s->congestion, sizeof s->congestion, value);
        break;
    case INET_DIAG_SHUTDOWN:
        if (value.size_bytes < 1)
            break;
        s->shutdown = value.data[0];
        s->has_shutdown = true;
        break;
    case INET_DIAG_SOCKOPT:
        if (value.size_bytes < 2)
            break;
        memcpy(&s->options, value.data, 2);
        s->has_options = true;
        break;
    default:
        break;
    }
}

static int parse_inet(uint8_t protocol, struct span payload, struct sock *out)
{
    struct inet_diag_msg m;
    struct sock s = {.protocol = protocol};
    struct span value;
    uint16_t type;
    if (payload.size_bytes < sizeof m)
        return ERR_CORRUPT;
    memcpy(&m, payload.data, sizeof m);
    s.family = m.idiag_family;
    s.state = m.idiag_state;
    s.has_timer = true;
    s.timer = m.idiag_timer;
    s.timer_retries = m.idiag_retrans;
    s.timer_ms = m.idiag_expires;
    memcpy(s.local, m.id.idiag_src, sizeof s.local);
    memcpy(s.remote, m.id.idiag_dst, sizeof s.remote);
    s.local_port = ntohs(m.id.idiag_sport);
    s.remote_port = ntohs(m.id.idiag_dport);
    s.interface = m.id.idiag_if;
    s.has_queues = true;
    s.receive_queue = m.idiag_rqueue;
    s.send_queue = m.idiag_wqueue;
    s.has_backlog_max = s.state == STATE_LISTEN;
    s.inode = m.idiag_inode;
    payload = skip_aligned(payload, sizeof m);
    while (take_attribute(&payload, &type, &value))
        take_inet_attribute(&s, type, value);
    *out = s;
    return 0;
}

/* ---- unix ---- */

static void take_path(struct sock *s, struct span value)
{
    if (value.size_bytes > 0 && value.data[0] == '\0') {
        s->path[0] = '@';
        (void)text_copy_span(s->path + 1, sizeof s->path - 1,
                             span_of(value.data + 1, value.size_bytes - 1));
    } else {
        take_text(s->path, sizeof s->path, value);
    }
}

static void take_unix_attribute(struct sock *s, uint16_t type, struct span value)
{
    struct unix_diag_rqlen queues;
    uint32_t peer;
    switch (type) {
    case UNIX_DIAG_NAME:
        take_path(s, value);
        break;
    case UNIX_DIAG_PEER:
        if (value.size_bytes < sizeof peer)
            break;
        memcpy(&peer, value.data, sizeof peer);
        s->peer_inode = peer;
        break;
    case UNIX_DIAG_RQLEN:
        if (value.size_bytes < sizeof queues)
            break;
        memcpy(&queues, value.data, sizeof queues);
        s->receive_queue = queues.udiag_rqueue;
        s->send_queue = queues.udiag_wqueue;
        s->has_queues = true;
        s->has_backlog_max = s->state == STATE_LISTEN;
        break;
    case UNIX_DIAG_MEMINFO:
        take_memory(s, value);
        break;
    case UNIX_DIAG_SHUTDOWN:
        if (value.size_bytes < 1)
            break;
        s->shutdown = value.data[0];
        s->has_shutdown = true;
        break;
    default:
        break;
    }
}

static int parse_unix(struct span payload, struct sock *out)
{
    struct unix_diag_msg m;
    struct sock s = {.family = AF_UNIX};
    struct span value;
    uint16_t type;
    if (payload.size_bytes < sizeof m)
        return ERR_CORRUPT;
    memcpy(&m, payload.data, sizeof m);
    s.type = m.udiag_type;
    s.state = m.udiag_state;
    s.inode = m.udiag_ino;
    payload = skip_aligned(payload, sizeof m);
    while (take_attribute(&payload, &type, &value))
        take_unix_attribute(&s, type, value);
    *out = s;
    return 0;
}

int sock_diag_parse(uint8_t protocol, struct span payload, struct sock *out)
{
    if (payload.size_bytes < 1)
        return ERR_CORRUPT;
    switch (payload.data[0]) {
    case AF_UNIX:
        return parse_unix(payload, out);
    case AF_INET:
    case AF_INET6:
        return parse_inet(protocol, payload, out);
    default:
        return ERR_CORRUPT;
    }
}

/* ---- an answer ---- */

static int fail_answer(const struct sock_diag_answer *a, struct span payload, struct failure *f)
{
    int32_t error = 0;
    if (payload.size_bytes < sizeof error)
        return fail(f, ERR_CORRUPT, "a cut answer of the kernel's socket tables");
    memcpy(&error, payload.data, sizeof error);
    if (error == 0)
        return 0;
    int number = error < 0 && error > -4096 ? -error : 0;
    int code = number == ENOENT || number == EINVAL || number == EOPNOTSUPP
                   ? ERR_UNSUPPORTED
                   : err_from_errno(number);
    return fail_errno(f, code, number, "the kernel does not list sockets of family %u, protocol %u",
                      a->family, a->protocol);
}

static int feed_message(struct sock_diag_answer *a, const struct nlmsghdr *head,
                        struct span payload, struct failure *f)
{
    struct sock s;
    if (head->nlmsg_seq != a->sequence)
        return 0; /* of an earlier question */
    if (head->nlmsg_flags & NLM_F_DUMP_INTR)
        a->interrupted = true;
    switch (head->nlmsg_type) {
    case NLMSG_DONE:
        a->done = true;
        return payload.size_bytes < 4 ? 0 : fail_answer(a, payload, f);
    case NLMSG_ERROR:
        a->done = true;
        return fail_answer(a, payload, f);
    case SOCK_DIAG_BY_FAMILY:
        if (sock_diag_parse(a->protocol, payload, &s) == 0)
            a->each(a->context, &s);
        return 0;
    default:
        return 0;
    }
}

int sock_diag_feed(struct sock_diag_answer *a, struct span datagram, struct failure *f)
{
    struct nlmsghdr head;
    while (datagram.size_bytes > 0 && !a->done) {
        if (datagram.size_bytes < sizeof head)
            return fail(f, ERR_CORRUPT, "a cut answer of the kernel's socket tables");
        memcpy(&head, datagram.data, sizeof head);
        if (head.nlmsg_len < sizeof head || head.nlmsg_len > datagram.size_bytes)
            return fail(f, ERR_CORRUPT, "a cut answer of the kernel's socket tables");
        struct span payload = span_of(datagram.data + sizeof head, head.nlmsg_len - sizeof head);
        int result = feed_message(a, &head, payload, f);
        if (result != 0)
            return result;
        datagram = skip_aligned(datagram, head.nlmsg_len);
    }
    return 0;
}
