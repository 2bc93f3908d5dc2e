/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets in words. Pure. Called by triage_file.c.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define ADDRESS_SIZE (INET6_ADDRSTRLEN + 8)

const char *triage_tcp_state(uint8_t state)
{
    static const char *const names[] = {"?",          "established", "SYN sent",  "SYN received",
                                        "FIN wait 1", "FIN wait 2",  "time wait", "closed",
                                        "close wait", "last ACK",    "listening", "closing"};
    return state < sizeof names / sizeof names[0] ? names[state] : "?";
}

static void put_address(int family, const uint8_t *address, uint16_t port, char *out)
{
    char text[INET6_ADDRSTRLEN];
    if (!inet_ntop(family, address, text, sizeof text))
        (void)text_copy(text, sizeof text, "?");
    (void)text_format(out, ADDRESS_SIZE, family == AF_INET6 ? "[%s]:%u" : "%s:%u", text,
                      (unsigned)port);
}

void triage_describe_socket(const struct proc_socket *socket, bool is_udp, char *out,
                            size_t size_bytes)
{
    char local[ADDRESS_SIZE], remote[ADDRESS_SIZE];
    put_address(socket->family, socket->local, socket->local_port, local);
    put_address(socket->family, socket->remote, socket->remote_port, remote);
    unsigned long long send = socket->send_queue, receive = socket->receive_queue;
    if (!is_udp && socket->state == TCP_LISTEN)
        (void)text_format(out, size_bytes, "tcp %s listening, %llu connections wait to be accepted",
                          local, receive);
    else if (is_udp && socket->remote_port == 0)
        (void)text_format(out, size_bytes, "udp %s, %llu B to send, %llu B received", local, send,
                          receive);
    else
        (void)text_format(out, size_bytes, "%s %s to %s %s, %llu B to send, %llu B received",
                          is_udp ? "udp" : "tcp", local, remote,
                          is_udp ? "connected" : triage_tcp_state(socket->state), send, receive);
}
