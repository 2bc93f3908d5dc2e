/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network interfaces and protocols: /proc/net/dev, snmp, netstat and sockstat (kernel:
 * Documentation/networking/snmp_counter.rst). Of the agent's own network namespace. Called by
 * counters.c.
 */
#include "agent/os/linux/counters_linux.h"

#include <string.h>

#include "common/text.h"

#define INTERFACES_MAX 64

/* ---- /proc/net/dev ---- */

#define BYTES(name)                             \
    {                                           \
        NULL, "net." name, "bytes", OS_COUNT, 1 \
    }
#define EVENTS(name)                        \
    {                                       \
        NULL, "net." name, "1", OS_COUNT, 1 \
    }

/* In the order of the columns. */
static const struct counter_row interface_rows[] = {
    BYTES("receive_bytes"),
    EVENTS("receive_packets"),
    EVENTS("receive_errors"),
    EVENTS("receive_drops"),
    EVENTS("receive_fifo_errors"),
    EVENTS("receive_frame_errors"),
    EVENTS("receive_compressed"),
    EVENTS("receive_multicast"),
    BYTES("transmit_bytes"),
    EVENTS("transmit_packets"),
    EVENTS("transmit_errors"),
    EVENTS("transmit_drops"),
    EVENTS("transmit_fifo_errors"),
    EVENTS("transmit_collisions"),
    EVENTS("transmit_carrier_losses"),
    EVENTS("transmit_compressed"),
};
#define INTERFACE_ROWS (sizeof interface_rows / sizeof interface_rows[0])

/* "  eth0: 123252888    2456 ..."; the two lines of headings hold no ':'. */
static void parse_interface(struct os_counters *c, struct series_group *group, struct span line)
{
    struct span name;
    uint64_t values[INTERFACE_ROWS];
    while (line.size_bytes > 0 && line.data[0] == ' ')
        line = span_of(line.data + 1, line.size_bytes - 1);
    if (!memchr(line.data, ':', line.size_bytes) || text_take_until(&line, ':', &name) < 0)
        return;
    for (size_t i = 0; i < INTERFACE_ROWS; i++)
        if (proc_take_number(&line, &values[i]) < 0)
            return;
    struct instance *interface = group_find(c, group, name);
    for (size_t i = 0; interface && i < INTERFACE_ROWS; i++)
        counter_value(c, group->type, interface, i, values[i]);
}

static void parse_interfaces(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct span line;
    while (proc_take_line(&text, &line) == 0)
        if (line.size_bytes > 0)
            parse_interface(c, &file->groups[0], line);
}

/* ---- /proc/net/snmp, /proc/net/netstat: a line of names, then a line of numbers ---- */

#define EVENT(key, name)            \
    {                               \
        key, name, "1", OS_COUNT, 1 \
    }
#define BYTE(key, name)                 \
    {                                   \
        key, name, "bytes", OS_COUNT, 1 \
    }

static const struct counter_row snmp_rows[] = {
    EVENT("Ip:InReceives", "ip.receive_packets"),
    EVENT("Ip:InHdrErrors", "ip.receive_header_errors"),
    EVENT("Ip:InAddrErrors", "ip.receive_address_errors"),
    EVENT("Ip:InDiscards", "ip.receive_discards"),
    EVENT("Ip:OutRequests", "ip.transmit_packets"),
    EVENT("Ip:OutDiscards", "ip.transmit_discards"),
    EVENT("Ip:OutNoRoutes", "ip.no_routes"),
    EVENT("Ip:ReasmFails", "ip.reassembly_failures"),
    EVENT("Tcp:ActiveOpens", "tcp.active_opens"),
    EVENT("Tcp:PassiveOpens", "tcp.passive_opens"),
    EVENT("Tcp:AttemptFails", "tcp.failed_opens"),
    EVENT("Tcp:EstabResets", "tcp.resets"),
    {"Tcp:CurrEstab", "tcp.established", "1", OS_GAUGE, 1},
    EVENT("Tcp:InSegs", "tcp.receive_segments"),
    EVENT("Tcp:OutSegs", "tcp.transmit_segments"),
    EVENT("Tcp:RetransSegs", "tcp.retransmits"),
    EVENT("Tcp:InErrs", "tcp.receive_errors"),
    EVENT("Tcp:OutRsts", "tcp.transmit_resets"),
    EVENT("Udp:InDatagrams", "udp.receive_datagrams"),
    EVENT("Udp:NoPorts", "udp.no_ports"),
    EVENT("Udp:InErrors", "udp.receive_errors"),
    EVENT("Udp:OutDatagrams", "udp.transmit_datagrams"),
    EVENT("Udp:RcvbufErrors", "udp.receive_buffer_errors"),
    EVENT("Udp:SndbufErrors", "udp.transmit_buffer_errors"),
};
#define SNMP_ROWS (sizeof snmp_rows / sizeof snmp_rows[0])

static const struct counter_row netstat_rows[] = {
    EVENT("TcpExt:ListenOverflows", "tcp.listen_overflows"),
    EVENT("TcpExt:ListenDrops", "tcp.listen_drops"),
    EVENT("TcpExt:SyncookiesSent", "tcp.syncookies_sent"),
    EVENT("TcpExt:SyncookiesFailed", "tcp.syncookies_failed"),
    EVENT("TcpExt:PruneCalled", "tcp.receive_pruned"),
    EVENT("TcpExt:TCPTimeouts", "tcp.timeouts"),
    EVENT("TcpExt:TCPLossProbes", "tcp.loss_probes"),
    EVENT("TcpExt:TCPLostRetransmit", "tcp.lost_retransmits"),
    EVENT("TcpExt:TCPFastRetrans", "tcp.fast_retransmits"),
    EVENT("TcpExt:TCPSlowStartRetrans", "tcp.slow_start_retransmits"),
    EVENT("TcpExt:TCPSynRetrans", "tcp.syn_retransmits"),
    EVENT("TcpExt:TCPRetransFail", "tcp.retransmits_failed"),
    EVENT("TcpExt:TCPSpuriousRTOs", "tcp.spurious_timeouts"),
    EVENT("TcpExt:TCPBacklogDrop", "tcp.backlog_drops"),
    EVENT("TcpExt:TCPRcvQDrop", "tcp.receive_queue_drops"),
    EVENT("TcpExt:TCPZeroWindowDrop", "tcp.zero_window_drops"),
    EVENT("TcpExt:TCPReqQFullDrop", "tcp.request_queue_drops"),
    EVENT("TcpExt:TCPReqQFullDoCookies", "tcp.request_queue_cookies"),
    EVENT("TcpExt:TCPTimeWaitOverflow", "tcp.time_wait_overflows"),
    EVENT("TcpExt:TCPAbortOnData", "tcp.aborts_on_data"),
    EVENT("TcpExt:TCPAbortOnClose", "tcp.aborts_on_close"),
    EVENT("TcpExt:TCPAbortOnMemory", "tcp.aborts_on_memory"),
    EVENT("TcpExt:TCPAbortOnTimeout", "tcp.aborts_on_timeout"),
    EVENT("TcpExt:TCPMemoryPressures", "tcp.memory_pressures"),
    EVENT("TcpExt:TCPOFOQueue", "tcp.out_of_order"),
    EVENT("TcpExt:TCPOFODrop", "tcp.out_of_order_drops"),
    EVENT("TcpExt:TCPChallengeACK", "tcp.challenge_acks"),
    EVENT("TcpExt:TCPToZeroWindowAdv", "tcp.to_zero_window"),
    EVENT("TcpExt:TCPWantZeroWindowAdv", "tcp.want_zero_window"),
    EVENT("TcpExt:TCPKeepAlive", "tcp.keepalives"),
    EVENT("TcpExt:PAWSEstab", "tcp.paws_drops"),
    EVENT("TcpExt:TCPRcvCollapsed", "tcp.receive_collapsed"),
    EVENT("TcpExt:DelayedACKs", "tcp.delayed_acks"),
    BYTE("IpExt:InOctets", "ip.receive_bytes"),
    BYTE("IpExt:OutOctets", "ip.transmit_bytes"),
    EVENT("IpExt:InNoRoutes", "ip.receive_no_routes"),
    EVENT("IpExt:InTruncatedPkts", "ip.receive_truncated"),
    EVENT("IpExt:InCsumErrors", "ip.receive_checksum_errors"),
};
#define NETSTAT_ROWS (sizeof netstat_rows / sizeof netstat_rows[0])

static int16_t find_column(const struct group_type *type, struct span prefix, struct span name)
{
    for (size_t i = 0; i < type->row_count; i++) {
        struct span key = span_str(type->rows[i].key);
        if (key.size_bytes == prefix.size_bytes + name.size_bytes &&
            memcmp(key.data, prefix.data, prefix.size_bytes) == 0 &&
            memcmp(key.data + prefix.size_bytes, name.data, name.size_bytes) == 0)
            return (int16_t)i;
    }
    return -1;
}

static bool is_wanted(const struct group_type *type, struct span prefix)
{
    for (size_t i = 0; i < type->row_count; i++)
        if (strncmp(type->rows[i].key, (const char *)prefix.data, prefix.size_bytes) == 0)
            return true;
    return false;
}

/* Notes which row each column is, beginning at `column`; returns the column behind. */
static size_t map_columns(struct counter_file *file, struct span prefix, struct span names,
                          size_t column)
{
    struct span name;
    while (column < COUNTER_LINES_MAX && proc_take_field(&names, &name) == 0)
        file->map[column++] = find_column(file->groups[0].type, prefix, name);
    return column;
}

static size_t give_columns(struct os_counters *c, struct counter_file *file, struct span values,
                           size_t column)
{
    struct series_group *group = &file->groups[0];
    struct span field;
    uint64_t value;
    for (; column < COUNTER_LINES_MAX && proc_take_field(&values, &field) == 0; column++)
        if (file->map[column] >= 0 && text_take_u64(&field, &value) == 0 && field.size_bytes == 0)
            counter_value(c, group->type, group_host(group), (size_t)file->map[column], value);
    return column;
}

static bool take_pair(struct span *text, struct span *prefix, struct span *names,
                      struct span *values)
{
    struct span again;
    if (proc_take_line(text, names) < 0 || proc_take_line(text, values) < 0 ||
        proc_take_field(names, prefix) < 0 || !proc_ends_with(*prefix, ":") ||
        proc_take_field(values, &again) < 0)
        return false;
    return span_equal(*prefix, again);
}

/* How long the lines of names are that we take from. */
static size_t names_length(const struct counter_file *file, struct span text)
{
    struct span prefix, names, values;
    size_t length = 0;
    while (take_pair(&text, &prefix, &names, &values))
        if (is_wanted(file->groups[0].type, prefix))
            length += names.size_bytes;
    return length;
}

static void map_names(struct counter_file *file, struct span text)
{
    struct span prefix, names, values;
    size_t column = 0;
    memset(file->map, 0xff, sizeof file->map);
    file->map_length = names_length(file, text);
    while (take_pair(&text, &prefix, &names, &values))
        if (is_wanted(file->groups[0].type, prefix))
            column = map_columns(file, prefix, names, column);
    file->mapped = true;
}

/*
 * The names of the lines that we take from are built into the kernel, so their columns are searched
 * for once; should the lines change all the same, their length tells. (IcmpMsg grows: not taken.)
 */
static void parse_pairs(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct span prefix, names, values;
    size_t column = 0;
    if (!file->mapped || names_length(file, text) != file->map_length)
        map_names(file, text);
    while (take_pair(&text, &prefix, &names, &values))
        if (is_wanted(file->groups[0].type, prefix))
            column = give_columns(c, file, values, column);
}

/* ---- /proc/net/sockstat: "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 0" ---- */

#define SOCKETS(key, name)          \
    {                               \
        key, name, "1", OS_GAUGE, 1 \
    }

static const struct counter_row socket_rows[] = {
    SOCKETS("sockets:used", "sockets.used"), SOCKETS("TCP:inuse", "tcp.sockets"),
    SOCKETS("TCP:orphan", "tcp.orphans"),    SOCKETS("TCP:tw", "tcp.time_wait"),
    SOCKETS("TCP:alloc", "tcp.allocated"),   {"TCP:mem", "tcp.memory", "pages", OS_GAUGE, 1},
    SOCKETS("UDP:inuse", "udp.sockets"),     {"UDP:mem", "udp.memory", "pages", OS_GAUGE, 1},
};
#define SOCKET_ROWS (sizeof socket_rows / sizeof socket_rows[0])

static void parse_sockets(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct series_group *group = &file->groups[0];
    struct span line, prefix, name;
    uint64_t value;
    while (proc_take_line(&text, &line) == 0) {
        if (proc_take_field(&line, &prefix) < 0)
            continue;
        while (proc_take_field(&line, &name) == 0 && proc_take_number(&line, &value) == 0) {
            int16_t row = find_column(group->type, prefix, name);
            if (row >= 0)
                counter_value(c, group->type, group_host(group), (size_t)row, value);
        }
    }
}

static const struct counter_file_type files[] = {
    {"/proc/net/dev", parse_interfaces, {{interface_rows, INTERFACE_ROWS, INTERFACES_MAX, 1}}},
    {"/proc/net/snmp", parse_pairs, {{snmp_rows, SNMP_ROWS, 0, 1}}},
    {"/proc/net/netstat", parse_pairs, {{netstat_rows, NETSTAT_ROWS, 0, 1}}},
    {"/proc/net/sockstat", parse_sockets, {{socket_rows, SOCKET_ROWS, 0, 1}}},
};
const struct counter_topic counters_net = {files, sizeof files / sizeof files[0]};
