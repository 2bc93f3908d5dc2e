/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets in words, and which of them are in trouble. Invariant: only what the kernel said is
 * judged. Pure. Called by net.c and triage_file.c.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/os/linux/net_sockets.h"
#include "common/text.h"

#define NEARLY_FULL 90 /* percent of a backlog */

static void put_address(uint8_t family, const uint8_t *address, uint16_t port, char *out,
                        size_t size_bytes)
{
    char text[INET6_ADDRSTRLEN];
    if (!inet_ntop(family, address, text, sizeof text))
        (void)text_copy(text, sizeof text, "?");
    (void)text_format(out, size_bytes, family == AF_INET6 ? "[%s]:%u" : "%s:%u", text,
                      (unsigned)port);
}

void net_put_local(const struct sock *s, char *out, size_t size_bytes)
{
    if (s->family == AF_UNIX)
        (void)text_copy(out, size_bytes, s->path);
    else
        put_address(s->family, s->local, s->local_port, out, size_bytes);
}

void net_put_remote(const struct sock *s, char *out, size_t size_bytes)
{
    if (s->family == AF_UNIX || s->remote_port == 0)
        (void)text_copy(out, size_bytes, "");
    else
        put_address(s->family, s->remote, s->remote_port, out, size_bytes);
}

static void describe_queues(const struct sock *s, char *out, size_t size_bytes)
{
    if (!s->has_queues)
        (void)text_copy(out, size_bytes, "");
    else if (s->state == TCP_LISTEN && s->has_backlog_max)
        (void)text_format(out, size_bytes, ", %u of %u connections wait to be accepted",
                          s->receive_queue, s->send_queue);
    else if (s->state == TCP_LISTEN)
        (void)text_format(out, size_bytes, ", %u connections wait to be accepted",
                          s->receive_queue);
    else
        (void)text_format(out, size_bytes, ", %u B unread, %u B to send", s->receive_queue,
                          s->send_queue);
}

void net_describe(const struct sock *s, char *out, size_t size_bytes)
{
    char local[SOCK_PATH_SIZE], remote[NET_ADDRESS_SIZE], queues[80];
    net_put_local(s, local, sizeof local);
    net_put_remote(s, remote, sizeof remote);
    describe_queues(s, queues, sizeof queues);
    (void)text_format(out, size_bytes, "%s%s%s%s%s %s%s", sock_kind(s), local[0] ? " " : "", local,
                      remote[0] ? " to " : "", remote, sock_state(s), queues);
}

/* ---- trouble ---- */

enum { /* from least to worst */
       NO_TROUBLE,
       UNREAD,
       CLOSE_WAIT,
       TO_SEND,
       DROPS,
       CONNECTING,
       WINDOW_CLOSED,
       RETRANSMITS,
       BACKLOG_FULL
};

static unsigned listening_trouble(const struct sock *s, char *out, size_t size_bytes)
{
    uint32_t drops = sock_has_memory(s, SOCK_MEMORY_DROPS) ? s->memory[SOCK_MEMORY_DROPS] : 0;
    char dropped[48] = "";
    if (drops > 0)
        (void)text_format(dropped, sizeof dropped, ", dropped until now: %u", drops);
    if (s->has_backlog_max && s->receive_queue > 0 &&
        (uint64_t)s->receive_queue * 100 >= (uint64_t)s->send_queue * NEARLY_FULL) {
        (void)text_format(out, size_bytes, "backlog %s: %u of %u connections wait to be accepted%s",
                          s->receive_queue >= s->send_queue ? "full" : "nearly full",
                          s->receive_queue, s->send_queue, dropped);
        return BACKLOG_FULL;
    }
    if (drops == 0)
        return NO_TROUBLE;
    (void)text_format(out, size_bytes, "connections dropped until now: %u", drops);
    return DROPS;
}

static unsigned sending_trouble(const struct sock *s, char *out, size_t size_bytes)
{
    uint64_t lost = sock_has_tcp(s, SOCK_TCP_LOST) ? s->tcp[SOCK_TCP_LOST] : 0;
    if (s->state == TCP_SYN_SENT) {
        (void)text_format(out, size_bytes, "no answer yet to its connect, asked %u times again",
                          (unsigned)s->timer_retries);
        return CONNECTING;
    }
    if (s->has_timer && s->timer == SOCK_TIMER_PROBE && s->send_queue > 0) {
        (void)text_format(out, size_bytes, "the peer takes no more: %u B wait for its window",
                          s->send_queue);
        return WINDOW_CLOSED;
    }
    if ((s->has_timer && s->timer == SOCK_TIMER_RETRANSMIT && s->timer_retries > 0) || lost > 0) {
        (void)text_format(out, size_bytes, "retransmitting: %u times in a row, %llu segments lost",
                          (unsigned)s->timer_retries, (unsigned long long)lost);
        return RETRANSMITS;
    }
    return NO_TROUBLE;
}

static unsigned tcp_trouble(const struct sock *s, char *out, size_t size_bytes)
{
    unsigned trouble = sending_trouble(s, out, size_bytes);
    if (trouble != NO_TROUBLE)
        return trouble;
    if (s->state == TCP_CLOSE_WAIT) {
        (void)text_copy(out, size_bytes, "the peer has closed, this process has not");
        return CLOSE_WAIT;
    }
    return NO_TROUBLE;
}

unsigned net_trouble(const struct sock *s, char *out, size_t size_bytes)
{
    unsigned trouble = NO_TROUBLE;
    out[0] = '\0';
    if (s->state == TCP_LISTEN)
        return listening_trouble(s, out, size_bytes);
    if (s->family != AF_UNIX && s->protocol == IPPROTO_TCP)
        trouble = tcp_trouble(s, out, size_bytes);
    if (trouble > CLOSE_WAIT || !s->has_queues)
        return trouble;
    /* What a TCP connection dropped came again; a datagram does not. */
    if (s->protocol != IPPROTO_TCP && sock_has_memory(s, SOCK_MEMORY_DROPS) &&
        s->memory[SOCK_MEMORY_DROPS] > 0) {
        (void)text_format(out, size_bytes, "%u dropped at its receive buffer",
                          s->memory[SOCK_MEMORY_DROPS]);
        return DROPS;
    }
    if (s->send_queue > 0) {
        (void)text_format(out, size_bytes, "%u B not yet taken by the peer", s->send_queue);
        return TO_SEND;
    }
    if (s->receive_queue > 0 && trouble == NO_TROUBLE) {
        (void)text_format(out, size_bytes, "%u B not yet read by this process", s->receive_queue);
        return UNREAD;
    }
    return trouble;
}
