/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets as the kernel describes them over netlink (sock_diag(7); kernel:
 * include/uapi/linux/{inet,unix}_diag.h), and as its tables in /proc/PID/net do where netlink is
 * not to be had. Invariant: what the kernel did not say is marked unknown, never a zero. Parsing is
 * pure. Called by net_sockets.c and watch_socket.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_SOCK_DIAG_H
#define TRAWL_AGENT_OS_LINUX_SOCK_DIAG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

#define SOCK_PATH_SIZE 112
#define SOCK_CONGESTION_SIZE 17

/* What is taken of struct tcp_info (tcp(7)): our name, its member, its name for programs. */
#define SOCK_TCP_LIST(X)                                             \
    X(CONGESTION_STATE, tcpi_ca_state, "congestion_state")           \
    X(RETRANSMITS, tcpi_retransmits, "retransmits")                  \
    X(PROBES, tcpi_probes, "probes")                                 \
    X(BACKOFF, tcpi_backoff, "backoff")                              \
    X(RTO, tcpi_rto, "rto_us")                                       \
    X(ATO, tcpi_ato, "ato_us")                                       \
    X(SEND_MSS, tcpi_snd_mss, "send_mss")                            \
    X(RECEIVE_MSS, tcpi_rcv_mss, "receive_mss")                      \
    X(UNACKED, tcpi_unacked, "unacked")                              \
    X(SACKED, tcpi_sacked, "sacked")                                 \
    X(LOST, tcpi_lost, "lost")                                       \
    X(RETRANS, tcpi_retrans, "retransmitted_now")                    \
    X(LAST_SENT, tcpi_last_data_sent, "last_sent_ms")                \
    X(LAST_RECEIVED, tcpi_last_data_recv, "last_received_ms")        \
    X(LAST_ACK, tcpi_last_ack_recv, "last_ack_ms")                   \
    X(PMTU, tcpi_pmtu, "path_mtu")                                   \
    X(RTT, tcpi_rtt, "rtt_us")                                       \
    X(RTT_VARIANCE, tcpi_rttvar, "rtt_variance_us")                  \
    X(SSTHRESH, tcpi_snd_ssthresh, "send_ssthresh")                  \
    X(CWND, tcpi_snd_cwnd, "cwnd")                                   \
    X(REORDERING, tcpi_reordering, "reordering")                     \
    X(RECEIVE_SPACE, tcpi_rcv_space, "receive_space_bytes")          \
    X(TOTAL_RETRANS, tcpi_total_retrans, "retransmitted_total")      \
    X(PACING_RATE, tcpi_pacing_rate, "pacing_bytes_per_s")           \
    X(BYTES_ACKED, tcpi_bytes_acked, "bytes_acked")                  \
    X(BYTES_RECEIVED, tcpi_bytes_received, "bytes_received")         \
    X(SEGMENTS_OUT, tcpi_segs_out, "segments_out")                   \
    X(SEGMENTS_IN, tcpi_segs_in, "segments_in")                      \
    X(NOT_SENT, tcpi_notsent_bytes, "not_sent_bytes")                \
    X(MIN_RTT, tcpi_min_rtt, "min_rtt_us")                           \
    X(DELIVERY_RATE, tcpi_delivery_rate, "delivery_bytes_per_s")     \
    X(BUSY, tcpi_busy_time, "busy_us")                               \
    X(WINDOW_LIMITED, tcpi_rwnd_limited, "peer_window_limited_us")   \
    X(BUFFER_LIMITED, tcpi_sndbuf_limited, "send_buffer_limited_us") \
    X(BYTES_SENT, tcpi_bytes_sent, "bytes_sent")                     \
    X(BYTES_RETRANS, tcpi_bytes_retrans, "bytes_retransmitted")      \
    X(OUT_OF_ORDER, tcpi_rcv_ooopack, "out_of_order")                \
    X(PEER_WINDOW, tcpi_snd_wnd, "peer_window_bytes")

enum sock_tcp_value {
#define X(name, member, text) SOCK_TCP_##name,
    SOCK_TCP_LIST(X)
#undef X
        SOCK_TCP_VALUES
};
const char *sock_tcp_name(enum sock_tcp_value value);

/* sock_diag.h's SK_MEMINFO_*: bytes, but for the last, which counts datagrams or connections. */
enum sock_memory {
    SOCK_MEMORY_RECEIVED,
    SOCK_MEMORY_RECEIVE_LIMIT,
    SOCK_MEMORY_SENDING,
    SOCK_MEMORY_SEND_LIMIT,
    SOCK_MEMORY_FORWARD,
    SOCK_MEMORY_QUEUED,
    SOCK_MEMORY_OPTIONS,
    SOCK_MEMORY_BACKLOG,
    SOCK_MEMORY_DROPS,
    SOCK_MEMORY_VALUES
};

enum sock_timer {
    SOCK_TIMER_NONE,
    SOCK_TIMER_RETRANSMIT,
    SOCK_TIMER_KEEPALIVE,
    SOCK_TIMER_TIME_WAIT,
    SOCK_TIMER_PROBE /* the peer's window is closed */
};

struct sock {
    uint8_t family;   /* AF_INET, AF_INET6, AF_UNIX */
    uint8_t protocol; /* IPPROTO_TCP, ...; AF_UNIX: 0 */
    uint8_t type;     /* AF_UNIX: SOCK_STREAM, ... */
    uint8_t state;    /* TCP_ESTABLISHED ... of netinet/tcp.h, for all */
    bool has_timer;
    uint8_t timer; /* enum sock_timer */
    uint8_t timer_retries;
    uint32_t timer_ms; /* until it fires */
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port; /* host order */
    uint32_t interface;
    bool has_queues, has_backlog_max;
    uint32_t receive_queue; /* bytes; listening: connections that wait to be accepted */
    uint32_t send_queue;    /* bytes; listening, with has_backlog_max: how many may wait */
    uint64_t inode;
    uint64_t peer_inode; /* 0: not known */
    uint32_t memory_known;
    uint32_t memory[SOCK_MEMORY_VALUES];
    uint64_t tcp_known; /* a bit for each value */
    uint64_t tcp[SOCK_TCP_VALUES];
    char congestion[SOCK_CONGESTION_SIZE]; /* "" not known */
    bool has_options, has_shutdown;
    uint16_t options;          /* as struct inet_diag_sockopt lies in memory */
    uint8_t shutdown;          /* 1: no more reading, 2: no more writing */
    char path[SOCK_PATH_SIZE]; /* AF_UNIX; '@' first: abstract */
};

bool sock_has_tcp(const struct sock *s, enum sock_tcp_value value);
bool sock_has_memory(const struct sock *s, enum sock_memory value);
/* "tcp", "tcp6", "udp", "unix stream", ... */
const char *sock_kind(const struct sock *s);
/* "established", "listening", ... */
const char *sock_state(const struct sock *s);
/* The name of an option that is set, in turn from *at = 0; NULL after the last. */
const char *sock_next_option(const struct sock *s, unsigned *at);

typedef void (*sock_each_fn)(void *context, const struct sock *sock);

/*
 * A connection to the kernel's socket tables in the network namespace of process `pid`. ERR_DENIED:
 * that namespace may not be entered. Gives a file descriptor.
 */
int sock_diag_open(uint32_t pid, int *out, struct failure *f);

/* All sockets of a family and protocol (AF_UNIX: 0). ERR_UNSUPPORTED: this kernel does not list
 * them. */
int sock_diag_each(int fd, uint8_t family, uint8_t protocol, sock_each_fn each, void *context,
                   struct failure *f);

/*
 * Those that listen on TCP, of one family; port 0: on any. The kernel looks at no others, and what
 * is not needed to tell who listens where is not asked for.
 */
int sock_diag_listeners(int fd, uint8_t family, uint16_t port, sock_each_fn each, void *context,
                        struct failure *f);

/* The one connection that is at the other end of `s`, when it is in the same network namespace.
 * ERR_NOTFOUND. */
int sock_diag_peer(int fd, const struct sock *s, struct sock *out, struct failure *f);
/* The same connection again, as it is now. */
int sock_diag_again(int fd, const struct sock *s, struct sock *out, struct failure *f);

/* ---- pure ---- */

/* One message's payload (after its netlink header). ERR_CORRUPT with `*out` untouched. */
int sock_diag_parse(uint8_t protocol, struct span payload, struct sock *out);

struct sock_diag_answer {
    uint8_t family, protocol; /* asked for */
    uint32_t sequence;
    sock_each_fn each;
    void *context;
    bool done;
    bool interrupted; /* the table changed meanwhile: one may be missing or double */
};
/* One datagram of an answer. Damaged messages are skipped; a damaged frame is ERR_CORRUPT. */
int sock_diag_feed(struct sock_diag_answer *answer, struct span datagram, struct failure *f);

#endif
