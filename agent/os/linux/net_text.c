/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What net found, for people and for programs. Invariant: what is in trouble stands first; a value
 * that the kernel did not give is absent. Called by net.c.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/os/linux/net_linux.h"
#include "common/text.h"

#define TEXT_SOCKETS_MAX 2000 /* in the text; the JSON has all */
#define DESCRIPTION_SIZE 320

static void put_safe(struct buf *out, const char *text)
{
    (void)text_append_safe(out, span_str(text), false);
}

/* ---- text ---- */

static void put_rate(struct buf *out, const char *words, uint64_t bytes_per_s)
{
    char text[32];
    text_put_size(bytes_per_s, text, sizeof text);
    (void)buf_printf(out, ", %s %s/s", words, text);
}

static uint64_t tcp(const struct sock *s, enum sock_tcp_value value)
{
    return s->tcp[value];
}

static void put_rtt(struct buf *out, const struct sock *s)
{
    if (sock_has_tcp(s, SOCK_TCP_RTT) && tcp(s, SOCK_TCP_RTT) > 0)
        (void)buf_printf(
            out, "rtt %.3f ms (+-%.3f, least %.3f)", (double)tcp(s, SOCK_TCP_RTT) / 1000,
            (double)tcp(s, SOCK_TCP_RTT_VARIANCE) / 1000, (double)tcp(s, SOCK_TCP_MIN_RTT) / 1000);
    else
        (void)buf_append_str(out, "rtt not measured yet");
    if (sock_has_tcp(s, SOCK_TCP_RTO))
        (void)buf_printf(out, ", rto %llu ms", (unsigned long long)(tcp(s, SOCK_TCP_RTO) / 1000));
}

static void put_if(struct buf *out, const struct sock *s, enum sock_tcp_value value,
                   const char *words)
{
    if (sock_has_tcp(s, value) && tcp(s, value) > 0)
        (void)buf_printf(out, ", %s %llu", words, (unsigned long long)tcp(s, value));
}

static void put_tcp(struct buf *out, const struct sock *s)
{
    if (!sock_has_tcp(s, SOCK_TCP_CWND) || s->state == TCP_LISTEN)
        return;
    (void)buf_append_str(out, "      ");
    put_rtt(out, s);
    put_if(out, s, SOCK_TCP_CWND, "cwnd");
    if (s->congestion[0]) {
        (void)buf_append_str(out, " ");
        put_safe(out, s->congestion);
    }
    put_if(out, s, SOCK_TCP_UNACKED, "unacked");
    put_if(out, s, SOCK_TCP_LOST, "lost");
    put_if(out, s, SOCK_TCP_TOTAL_RETRANS, "retransmitted in all");
    if (sock_has_tcp(s, SOCK_TCP_DELIVERY_RATE) && tcp(s, SOCK_TCP_DELIVERY_RATE) > 0)
        put_rate(out, "delivers", tcp(s, SOCK_TCP_DELIVERY_RATE));
    put_if(out, s, SOCK_TCP_BYTES_SENT, "bytes sent");
    put_if(out, s, SOCK_TCP_BYTES_RECEIVED, "received");
    if (sock_has_tcp(s, SOCK_TCP_LAST_SENT))
        (void)buf_printf(out, ", last sent %llu ms, received %llu ms ago",
                         (unsigned long long)tcp(s, SOCK_TCP_LAST_SENT),
                         (unsigned long long)tcp(s, SOCK_TCP_LAST_RECEIVED));
    (void)buf_append_str(out, "\n");
}

static const char *timer_name(uint8_t timer)
{
    static const char *const names[] = {"none", "retransmit", "keepalive", "time wait", "probe"};
    return timer < sizeof names / sizeof names[0] ? names[timer] : "?";
}

static void put_timer(struct buf *out, const struct sock *s)
{
    if (s->has_timer && s->timer != SOCK_TIMER_NONE)
        (void)buf_printf(out, "      timer %s in %u ms, %u times fired\n", timer_name(s->timer),
                         s->timer_ms, (unsigned)s->timer_retries);
}

static void put_memory(struct buf *out, const struct sock *s)
{
    if (!s->memory_known || s->state == TCP_LISTEN)
        return;
    const uint32_t *m = s->memory;
    if (m[SOCK_MEMORY_RECEIVED] == 0 && m[SOCK_MEMORY_QUEUED] == 0 && m[SOCK_MEMORY_DROPS] == 0 &&
        m[SOCK_MEMORY_SENDING] == 0)
        return;
    (void)buf_printf(out, "      memory: received %u of %u B, sending %u of %u B, dropped %u\n",
                     m[SOCK_MEMORY_RECEIVED], m[SOCK_MEMORY_RECEIVE_LIMIT],
                     m[SOCK_MEMORY_QUEUED] > m[SOCK_MEMORY_SENDING] ? m[SOCK_MEMORY_QUEUED]
                                                                    : m[SOCK_MEMORY_SENDING],
                     m[SOCK_MEMORY_SEND_LIMIT], m[SOCK_MEMORY_DROPS]);
}

static void put_options(struct buf *out, const struct sock *s)
{
    unsigned at = 0;
    bool first = true;
    for (const char *name; (name = sock_next_option(s, &at)) != NULL; first = false)
        (void)buf_printf(out, "%s%s", first ? "      options " : ", ", name);
    if (!first)
        (void)buf_append_str(out, "\n");
}

static void put_others(const struct net *net, const struct net_one *one, struct buf *out)
{
    char text[HOLDERS_TEXT_SIZE];
    const struct sock *s = one->sock;
    uint32_t self = net->process->pid;
    if (s->peer_inode != 0) {
        (void)holders_describe(&net->holders, HELD_SOCKET, s->peer_inode, false, self, text,
                               sizeof text);
        (void)buf_append_str(out, "      other end: ");
        put_safe(out, text[0] ? text : "a socket of this host that no process was seen to hold");
        (void)buf_append_str(out, "\n");
    }
    if (s->state == TCP_LISTEN && holders_describe(&net->holders, HELD_SOCKET, s->inode, false,
                                                   self, text, sizeof text) > 0) {
        (void)buf_append_str(out, "      shared with ");
        put_safe(out, text);
        (void)buf_append_str(out, "\n");
    }
}

static void put_one(const struct net *net, const struct net_one *one, struct buf *out)
{
    char text[DESCRIPTION_SIZE];
    net_describe(one->sock, text, sizeof text);
    (void)buf_printf(out, "  fd %u", one->fd);
    if (one->fd_count > 1)
        (void)buf_printf(out, " (and %u more)", one->fd_count - 1);
    (void)buf_append_str(out, "  ");
    put_safe(out, text);
    (void)buf_append_str(out, "\n");
    if (one->trouble > 0)
        (void)buf_printf(out, "      ! %s\n", one->text);
    if (one->has_growth)
        (void)buf_printf(
            out, "      send queue %s by %lld B in %llu ms\n",
            one->growth_bytes > 0   ? "grew"
            : one->growth_bytes < 0 ? "shrank"
                                    : "changed",
            (long long)(one->growth_bytes < 0 ? -one->growth_bytes : one->growth_bytes),
            (unsigned long long)(net->look_us / 1000));
    put_tcp(out, one->sock);
    put_timer(out, one->sock);
    put_memory(out, one->sock);
    put_options(out, one->sock);
    put_others(net, one, out);
}

static void put_counts(const struct net *net, struct buf *out)
{
    size_t listening = 0, connected = 0, udp = 0, local = 0, trouble = 0;
    for (size_t i = 0; i < net->count; i++) {
        const struct sock *s = net->ones[i].sock;
        trouble += net->ones[i].trouble > 0;
        if (s->family == AF_UNIX)
            local++;
        else if (s->protocol != IPPROTO_TCP)
            udp++;
        else if (s->state == TCP_LISTEN)
            listening++;
        else
            connected++;
    }
    (void)buf_printf(out,
                     "%zu sockets: %zu tcp listening, %zu tcp connections, %zu udp or raw, %zu "
                     "unix, %zu of another kind; %zu with something to look at\n",
                     net->file_count, listening, connected, udp, local,
                     net->file_count - net->count, trouble);
}

static void put_counters(const struct net *net, struct buf *out)
{
    (void)buf_printf(out, "\n%s network namespace, since it began\n",
                     net->own_namespace ? "its own" : "the host's");
    for (size_t i = 0; i < NET_COUNTERS; i++)
        if (net->counters_known >> i & 1)
            (void)buf_printf(out, "  %-18s %10llu  %s\n", net_counters[i].name,
                             (unsigned long long)net->counters[i], net_counters[i].words);
}

void net_put_text(const struct net *net, struct buf *out)
{
    size_t shown = net->count < TEXT_SOCKETS_MAX ? net->count : TEXT_SOCKETS_MAX;
    (void)buf_printf(out, "process %u ", net->process->pid);
    put_safe(out, net->process->name);
    (void)buf_append_str(out, ", ");
    put_counts(net, out);
    for (size_t i = 0; i < shown && i < 5 && net->ones[i].trouble > 0; i++) {
        (void)buf_printf(out, "! fd %u %s", net->ones[i].fd, sock_kind(net->ones[i].sock));
        (void)buf_printf(out, ": %s\n", net->ones[i].text);
    }
    (void)buf_append_str(out, "\nsockets, those in trouble first\n");
    for (size_t i = 0; i < shown; i++)
        put_one(net, &net->ones[i], out);
    if (shown < net->count)
        (void)buf_printf(out, "  ... %zu more, in the JSON\n", net->count - shown);
    put_counters(net, out);
}

/* ---- JSON ---- */

static void json_holder(struct json_text *j, const struct holder *holder)
{
    json_text_object(j, NULL);
    json_text_u64(j, "pid", holder->pid);
    json_text_str(j, "name", holder->name);
    json_text_u64(j, "fd", holder->fd);
    json_text_end(j);
}

static void json_holders(const struct net *net, struct json_text *j, const char *key,
                         uint64_t inode)
{
    size_t count;
    const struct holder *all = holders_of(&net->holders, HELD_SOCKET, inode, &count);
    if (count == 0)
        return;
    json_text_array(j, key);
    for (size_t i = 0; i < count && i < 64; i++)
        json_holder(j, &all[i]);
    json_text_end(j);
}

static void json_tcp(struct json_text *j, const struct sock *s)
{
    if (s->tcp_known == 0 || s->state == TCP_LISTEN) /* of a listening one they mean others */
        return;
    json_text_object(j, "tcp");
    for (unsigned i = 0; i < SOCK_TCP_VALUES; i++)
        if (sock_has_tcp(s, i) && s->tcp[i] != UINT64_MAX) /* no limit to its pacing */
            json_text_u64(j, sock_tcp_name(i), s->tcp[i]);
    if (s->congestion[0])
        json_text_str(j, "congestion_control", s->congestion);
    json_text_end(j);
}

static void json_memory(struct json_text *j, const struct sock *s)
{
    static const char *const names[SOCK_MEMORY_VALUES] = {
        "received_bytes",   "receive_limit_bytes", "sending_bytes",
        "send_limit_bytes", "forward_bytes",       "queued_bytes",
        "options_bytes",    "backlog_bytes",       "drops"};
    if (s->memory_known == 0)
        return;
    json_text_object(j, "memory");
    for (unsigned i = 0; i < SOCK_MEMORY_VALUES; i++)
        if (sock_has_memory(s, i))
            json_text_u64(j, names[i], s->memory[i]);
    json_text_end(j);
}

static void json_queues(struct json_text *j, const struct sock *s)
{
    if (!s->has_queues)
        return;
    if (s->state != TCP_LISTEN) {
        json_text_u64(j, "receive_queue_bytes", s->receive_queue);
        json_text_u64(j, "send_queue_bytes", s->send_queue);
        return;
    }
    json_text_u64(j, "backlog", s->receive_queue);
    if (s->has_backlog_max)
        json_text_u64(j, "backlog_max", s->send_queue);
}

static void json_options(struct json_text *j, const struct sock *s)
{
    unsigned at = 0;
    if (s->has_options) {
        json_text_array(j, "options");
        for (const char *name; (name = sock_next_option(s, &at)) != NULL;)
            json_text_str(j, NULL, name);
        json_text_end(j);
    }
    if (s->has_shutdown && s->shutdown != 0) {
        json_text_bool(j, "reading_shut", s->shutdown & 1);
        json_text_bool(j, "writing_shut", s->shutdown & 2);
    }
}

static void json_one(const struct net *net, struct json_text *j, const struct net_one *one)
{
    char address[SOCK_PATH_SIZE];
    const struct sock *s = one->sock;
    json_text_object(j, NULL);
    json_text_u64(j, "fd", one->fd);
    json_text_u64(j, "fds", one->fd_count);
    json_text_str(j, "kind", sock_kind(s));
    json_text_str(j, "state", sock_state(s));
    json_text_u64(j, "inode", s->inode);
    net_put_local(s, address, sizeof address);
    json_text_str(j, "local", address[0] ? address : NULL);
    net_put_remote(s, address, sizeof address);
    json_text_str(j, "remote", address[0] ? address : NULL);
    if (one->trouble > 0)
        json_text_str(j, "trouble", one->text);
    json_queues(j, s);
    if (one->has_growth)
        json_text_i64(j, "send_queue_growth_bytes", one->growth_bytes);
    if (s->has_timer && s->timer != SOCK_TIMER_NONE) {
        json_text_str(j, "timer", timer_name(s->timer));
        json_text_u64(j, "timer_ms", s->timer_ms);
        json_text_u64(j, "timer_retries", s->timer_retries);
    }
    json_tcp(j, s);
    json_memory(j, s);
    json_options(j, s);
    json_holders(net, j, "peer", s->peer_inode);
    if (s->state == TCP_LISTEN)
        json_holders(net, j, "held_by", s->inode);
    json_text_end(j);
}

static void json_counters(const struct net *net, struct json_text *j)
{
    json_text_object(j, "namespace");
    json_text_bool(j, "own", net->own_namespace);
    for (size_t i = 0; i < NET_COUNTERS; i++)
        if (net->counters_known >> i & 1)
            json_text_u64(j, net_counters[i].name, net->counters[i]);
    json_text_end(j);
}

/* A socket that does not fit any more is taken back whole; the rest is said to be missing. */
static void json_sockets(const struct net *net, struct json_text *j)
{
    size_t room = j->out->limit_bytes - 4096;
    json_text_array(j, "sockets");
    for (size_t i = 0; i < net->count; i++) {
        struct json_text_mark mark = json_text_mark(j);
        json_one(net, j, &net->ones[i]);
        if (j->rc == 0 && j->out->size_bytes <= room)
            continue;
        json_text_undo(j, &mark);
        os_result_miss(net->result, "%zu sockets in the JSON (limit %zu MiB)", net->count - i,
                       j->out->limit_bytes >> 20);
        break;
    }
    json_text_end(j);
}

void net_put_json(const struct net *net, struct buf *out)
{
    struct json_text j;
    json_text_init(&j, out);
    json_text_object(&j, NULL);
    json_text_u64(&j, "pid", net->process->pid);
    json_text_str(&j, "name", net->process->name);
    json_text_u64(&j, "socket_count", net->file_count);
    if (net->look_us > 0)
        json_text_u64(&j, "second_look_us", net->look_us);
    json_counters(net, &j);
    json_sockets(net, &j);
    json_text_str(&j, "missing", net->result->missing[0] ? net->result->missing : NULL);
    json_text_end(&j);
    (void)buf_append_str(out, "\n");
}
