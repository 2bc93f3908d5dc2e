/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that do not come to be: refused peers, limits, silence, nobody there, no TLS. Each is
 * reported where someone will look for it, and in words that say what to do.
 */
#include <sys/resource.h>
#include <sys/socket.h>

#include "tests/unit/common/conn_world.h"

/* ---- who does not get in ---- */

TEST(a_refused_client_is_reported_at_both_ends)
{
    static const char says[] =
        "certificate not signed by this fleet's CA (it names 'spiffe://prod/agent/eve')";
    struct world w;
    struct end e;
    struct fleet other;
    struct member eve;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    fleet_init(&other, "prod");
    fleet_member(&other, &eve, "agent", "eve");
    struct tls_config *config = fleet_config(TLS_CLIENT, &w.fleet, &eve);
    end_init(&e, &w);
    dial_with(&w, &e, config, "127.0.0.1", w.port, NULL);
    WAIT_FOR(&w, e.closed && w.accepted && w.ends[0].closed);
    CHECK_EQ_INT(w.turned_away, 1);
    CHECK_EQ_INT(w.why.code, ERR_IDENTITY);
    CHECK_EQ_STR(w.why.text, says);
    CHECK(strncmp(w.address, "127.0.0.1:", 10) == 0);
    CHECK_EQ_STR(w.ends[0].why.text, says);
    CHECK_EQ_INT(w.ends[0].opened, 0);
    CHECK_EQ_INT(e.opened, 0);
    CHECK_EQ_INT(e.why.code, ERR_IDENTITY);
    CHECK_EQ_STR(e.why.text, "peer refused our certificate: not signed by its fleet's CA");
    tls_config_close(config);
    member_done(&eve);
    fleet_done(&other);
    end_done(&e);
    world_done(&w);
}

TEST(a_client_refuses_a_server_of_another_name)
{
    struct world w;
    struct end e;
    struct failure f = {0};
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    REQUIRE(conn_connect(&e.conn, &w.loop, w.client, "127.0.0.1", w.port, "other.example", NULL,
                         &events, &e, &f) == 0);
    WAIT_FOR(&w, e.closed && w.accepted && w.ends[0].closed);
    CHECK_EQ_INT(e.why.code, ERR_IDENTITY);
    CHECK(strstr(e.why.text, "is not for 'other.example'") != NULL);
    CHECK_EQ_STR(w.why.text, "peer refused our certificate: bad, or not for the name it asked for");
    end_done(&e);
    world_done(&w);
}

TEST(joining)
{
    struct world w;
    struct end e;
    world_init(&w);
    tls_config_close(w.server);
    w.server = fleet_config(TLS_JOIN_SERVER, &w.fleet, &w.collector);
    world_listen(&w, "127.0.0.1", 10, NULL);
    struct tls_config *config = fleet_config(TLS_JOIN_CLIENT, &w.fleet, NULL);
    end_init(&e, &w);
    dial_with(&w, &e, config, "localhost", w.port, NULL);
    WAIT_FOR(&w, e.closed || (e.opened && w.accepted && w.ends[0].opened));
    REQUIRE(!e.closed);
    CHECK_EQ_STR(e.role, "collector");
    CHECK_EQ_STR(w.ends[0].role, "");
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    tls_config_close(config);
    end_done(&e);
    world_done(&w);
}

TEST(over_the_limit_of_connections)
{
    struct world w;
    struct end e[4];
    world_init(&w);
    world_listen(&w, "127.0.0.1", 2, NULL);
    for (int i = 0; i < 4; i++)
        end_init(&e[i], &w);
    dial(&w, &e[0]);
    dial(&w, &e[1]);
    WAIT_FOR(&w, e[0].opened && e[1].opened && conn_listener_count(w.listener) == 2);
    dial(&w, &e[2]);
    WAIT_FOR(&w, e[2].closed && w.turned_away);
    CHECK_EQ_INT(w.why.code, ERR_LIMIT);
    CHECK_EQ_STR(w.why.text, "limit of 2 connections reached");
    CHECK(strncmp(w.address, "127.0.0.1:", 10) == 0);
    CHECK_EQ_INT(e[2].opened, 0);
    CHECK_EQ_INT(e[2].why.code, ERR_CLOSED);
    conn_close(e[0].conn);
    WAIT_FOR(&w, conn_listener_count(w.listener) == 1);
    dial(&w, &e[3]);
    WAIT_FOR(&w, e[3].opened || e[3].closed);
    CHECK_EQ_INT(e[3].opened, 1);
    conn_close(e[1].conn);
    conn_close(e[3].conn);
    WAIT_FOR(&w, e[0].closed && e[1].closed && e[3].closed);
    WAIT_FOR(&w, conn_listener_count(w.listener) == 0);
    for (int i = 0; i < 4; i++)
        end_done(&e[i]);
    world_done(&w);
}

TEST(many_over_the_limit_are_all_told)
{
    enum { COUNT = 20 };
    struct world w;
    struct end e[COUNT + 1];
    world_init(&w);
    world_listen(&w, "127.0.0.1", 1, NULL);
    for (int i = 0; i <= COUNT; i++)
        end_init(&e[i], &w);
    dial(&w, &e[COUNT]);
    WAIT_FOR(&w, e[COUNT].opened);
    for (int i = 0; i < COUNT; i++)
        dial(&w, &e[i]);
    for (int i = 0; i < COUNT; i++)
        WAIT_FOR(&w, e[i].closed);
    WAIT_FOR(&w, w.turned_away == COUNT);
    conn_close(e[COUNT].conn);
    WAIT_FOR(&w, e[COUNT].closed && conn_listener_count(w.listener) == 0);
    for (int i = 0; i <= COUNT; i++)
        end_done(&e[i]);
    world_done(&w);
}

TEST(refused_by_the_owner_of_the_listener)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.accept_result = -1;
    world_listen(&w, "127.0.0.1", 2, NULL);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.closed && w.turned_away);
    CHECK_EQ_INT(e.why.code, ERR_CLOSED);
    CHECK_EQ_INT(w.why.code, ERR_REFUSED);
    end_done(&e);
    world_done(&w);
}

/* At the limit of open files peers wait, and get in when others leave: none is turned away. */
TEST_LIMIT(at_the_limit_of_open_files_peers_wait, 60)
{
    enum { COUNT = 60, LIMIT = 180 };
    static struct end e[COUNT];
    struct world w;
    struct rlimit limit;
    unsigned open = 0, before = COUNT;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = LIMIT;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    world_init(&w);
    world_listen(&w, "127.0.0.1", COUNT, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        end_init(&e[i], &w);
        dial(&w, &e[i]);
    }
    WAIT_FOR(&w, conn_listener_count(w.listener) >= 40);
    for (unsigned quiet = 0; quiet < 300; quiet = open == before ? quiet + 1 : 0) {
        before = open;
        (void)uv_run(&w.loop, UV_RUN_NOWAIT);
        open = conn_listener_count(w.listener);
    }
    CHECK(open < COUNT);
    CHECK_EQ_INT(w.turned_away, 0);
    for (unsigned i = 0; i < COUNT; i++) {
        WAIT_FOR(&w, e[i].opened || e[i].closed);
        CHECK_EQ_INT(e[i].opened, 1);
        conn_close(e[i].conn);
    }
    for (unsigned i = 0; i < COUNT; i++)
        WAIT_FOR(&w, e[i].closed == 1);
    CHECK_EQ_INT(w.accepted, COUNT);
    CHECK_EQ_INT(w.turned_away, 0);
    for (unsigned i = 0; i < COUNT; i++)
        end_done(&e[i]);
    world_done(&w);
}

/* ---- silence, and nobody there ---- */

/* A socket without TLS at either end. */
struct raw {
    uv_tcp_t tcp, accepted;
    uv_connect_t connect;
    uv_buf_t said;
    uv_write_t write;
    unsigned connected, got_bytes, ended;
    int socket_error; /* at the end; libuv may report a reset as an end of input */
};

static void raw_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *b)
{
    static char bytes[65536];
    (void)handle;
    (void)suggested;
    *b = uv_buf_init(bytes, sizeof bytes);
}

static void raw_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *b)
{
    struct raw *raw = stream->data;
    (void)b;
    if (count > 0)
        raw->got_bytes += (unsigned)count;
    else if (count < 0) {
        raw->ended = 1;
        uv_os_fd_t fd;
        socklen_t size = sizeof raw->socket_error;
        REQUIRE(uv_fileno((uv_handle_t *)stream, &fd) == 0);
        REQUIRE(getsockopt(fd, SOL_SOCKET, SO_ERROR, &raw->socket_error, &size) == 0);
        (void)uv_read_stop(stream);
    }
}

static void raw_connected(uv_connect_t *req, int status)
{
    struct raw *raw = req->handle->data;
    CHECK_EQ_INT(status, 0);
    raw->connected = 1;
    (void)uv_read_start((uv_stream_t *)&raw->tcp, raw_alloc, raw_read);
    if (raw->said.len)
        REQUIRE(uv_write(&raw->write, (uv_stream_t *)&raw->tcp, &raw->said, 1, NULL) == 0);
}

static void raw_dial(struct raw *raw, struct world *w, struct span say)
{
    struct sockaddr_in address;
    memset(raw, 0, sizeof *raw);
    raw->said = uv_buf_init((char *)say.data, (unsigned)say.size_bytes);
    REQUIRE(uv_ip4_addr("127.0.0.1", w->port, &address) == 0);
    REQUIRE(uv_tcp_init(&w->loop, &raw->tcp) == 0);
    raw->tcp.data = raw;
    REQUIRE(uv_tcp_connect(&raw->connect, &raw->tcp, (const struct sockaddr *)&address,
                           raw_connected) == 0);
}

static void raw_accept(uv_stream_t *server, int status)
{
    struct raw *raw = server->data;
    CHECK_EQ_INT(status, 0);
    REQUIRE(uv_tcp_init(server->loop, &raw->accepted) == 0);
    REQUIRE(uv_accept(server, (uv_stream_t *)&raw->accepted) == 0);
    raw->accepted.data = raw;
    raw->connected = 1;
}

static uint16_t raw_listen(struct raw *raw, struct world *w)
{
    struct sockaddr_in address;
    int size = sizeof address;
    memset(raw, 0, sizeof *raw);
    REQUIRE(uv_ip4_addr("127.0.0.1", 0, &address) == 0);
    REQUIRE(uv_tcp_init(&w->loop, &raw->tcp) == 0);
    raw->tcp.data = raw;
    REQUIRE(uv_tcp_bind(&raw->tcp, (const struct sockaddr *)&address, 0) == 0);
    REQUIRE(uv_listen((uv_stream_t *)&raw->tcp, 8, raw_accept) == 0);
    REQUIRE(uv_tcp_getsockname(&raw->tcp, (struct sockaddr *)&address, &size) == 0);
    return ntohs(address.sin_port);
}

TEST(a_silent_client_is_turned_away)
{
    static const struct conn_limits limits = {.handshake_timeout_ms = 150};
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, &limits);
    raw_dial(&raw, &w, (struct span){NULL, 0});
    WAIT_FOR(&w, w.turned_away && raw.ended);
    CHECK_EQ_INT(w.why.code, ERR_TIMEOUT);
    CHECK(strstr(w.why.text, "peer did not finish the TLS handshake within ") != NULL);
    CHECK_EQ_INT(w.ends[0].closed, 1);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    world_done(&w);
}

TEST(a_silent_server_is_given_up)
{
    static const struct conn_limits limits = {.handshake_timeout_ms = 150};
    struct world w;
    struct end e;
    struct raw raw;
    world_init(&w);
    uint16_t port = raw_listen(&raw, &w);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "127.0.0.1", port, &limits);
    WAIT_FOR(&w, e.closed);
    CHECK_EQ_INT(raw.connected, 1);
    CHECK_EQ_INT(e.why.code, ERR_TIMEOUT);
    CHECK_EQ_INT(e.opened, 0);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    uv_close((uv_handle_t *)&raw.accepted, NULL);
    end_done(&e);
    world_done(&w);
}

TEST(a_client_that_speaks_http)
{
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    raw_dial(&raw, &w, span_str("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    WAIT_FOR(&w, raw.ended);
    /* It closes in turn, as clients do; else we would wait a second for that. */
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_STR(w.why.text, "peer does not speak TLS");
    world_done(&w);
}

TEST(a_client_that_goes_at_once)
{
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    raw_dial(&raw, &w, (struct span){NULL, 0});
    WAIT_FOR(&w, raw.connected);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_INT(w.why.code, ERR_CLOSED);
    CHECK_EQ_STR(w.why.text, "peer closed the connection during the handshake");
    world_done(&w);
}

/* A peer that never closes its side gets the goodbye, and is not waited for long. */
TEST(a_peer_that_does_not_close_is_not_waited_for)
{
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    raw_dial(&raw, &w, span_str("nonsense that is no TLS at all"));
    WAIT_FOR(&w, raw.ended);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_INT(w.why.code, ERR_PROTOCOL);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    world_done(&w);
}

/* A close with input unread would reset the connection, and the alert might be lost with it. */
TEST(the_reason_arrives_though_input_is_unread)
{
    /* More than one read takes, and little enough for the kernel to take from the client at once.
     */
    enum { SIZE = 150000 };
    /* A ClientHello of TLS 1.1, and much behind it that nobody will read. */
    static const uint8_t hello[] = {22, 3, 1,        0, 45, 1,    0, 0, 41,
                                    3,  2, [43] = 0, 0, 2,  0xc0, 9, 1, 0};
    struct world w;
    struct raw raw;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    memcpy(bytes, hello, sizeof hello);
    raw_dial(&raw, &w, span_of(bytes, SIZE));
    WAIT_FOR(&w, raw.ended);
    CHECK_EQ_INT(raw.got_bytes, 7);
    CHECK_EQ_INT(raw.socket_error, 0);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_STR(w.why.text, "peer offers only an older TLS version, not 1.2");
    free(bytes);
    world_done(&w);
}

TEST(nobody_listens)
{
    char text[FAILURE_TEXT_SIZE];
    struct world w;
    struct end e;
    struct raw raw;
    world_init(&w);
    uint16_t port = raw_listen(&raw, &w);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "127.0.0.1", port, NULL);
    WAIT_FOR(&w, e.closed);
    CHECK_EQ_INT(e.why.code, ERR_UNREACHABLE);
    REQUIRE(text_format(text, sizeof text,
                        "cannot reach collector '127.0.0.1:%u': connection refused", port) == 0);
    CHECK_EQ_STR(e.why.text, text);
    CHECK_EQ_INT(e.opened, 0);
    end_done(&e);
    world_done(&w);
}

/* 192.0.2.0/24 is nobody's (RFC 5737): no route, or no answer; either way the same code. */
TEST(an_address_without_an_answer)
{
    static const struct conn_limits limits = {.connect_timeout_ms = 200};
    struct world w;
    struct end e;
    world_init(&w);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "192.0.2.1", 7443, &limits);
    WAIT_FOR(&w, e.closed);
    CHECK_EQ_INT(e.why.code, ERR_UNREACHABLE);
    const char *head = "cannot reach collector '192.0.2.1:7443': ";
    CHECK(strncmp(e.why.text, head, strlen(head)) == 0);
    end_done(&e);
    world_done(&w);
}

TEST(ipv6)
{
    struct world w;
    struct end e;
    struct failure f = {0};
    world_init(&w);
    if (conn_listen(&w.listener, &w.loop, w.server, "::1", 0, 10, NULL, &listener_events, &w, &f)) {
        CHECK_EQ_INT(f.code, ERR_INVALID);
        SKIP("no IPv6 here");
    }
    w.port = conn_listener_port(w.listener);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "::1", w.port, NULL);
    WAIT_FOR(&w, e.closed || (e.opened && w.ends[0].opened));
    CHECK_EQ_INT(e.opened, 1);
    CHECK(strncmp(e.address, "[::1]:", 6) == 0);
    CHECK(strncmp(w.ends[0].address, "[::1]:", 6) == 0);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    world_done(&w);
}

TEST(an_ipv4_peer_of_an_ipv6_listener)
{
    struct world w;
    struct end e;
    struct failure f = {0};
    world_init(&w);
    if (conn_listen(&w.listener, &w.loop, w.server, "::", 0, 10, NULL, &listener_events, &w, &f))
        SKIP("no IPv6 here");
    w.port = conn_listener_port(w.listener);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.closed || (e.opened && w.ends[0].opened));
    CHECK(strncmp(w.ends[0].address, "127.0.0.1:", 10) == 0);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    world_done(&w);
}

TEST(a_port_in_use)
{
    char text[FAILURE_TEXT_SIZE];
    struct world w;
    struct conn_listener *second = NULL;
    struct failure f = {0};
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    CHECK_EQ_INT(conn_listen(&second, &w.loop, w.server, "127.0.0.1", w.port, 10, NULL,
                             &listener_events, &w, &f),
                 ERR_INUSE);
    REQUIRE(text_format(text, sizeof text,
                        "port %u on 127.0.0.1 is in use: another collector runs there, or choose "
                        "another with --port",
                        w.port) == 0);
    CHECK_EQ_STR(f.text, text);
    CHECK(second == NULL);
    CHECK_EQ_INT(conn_listen(&second, &w.loop, w.server, "not an address", 0, 10, NULL,
                             &listener_events, &w, &f),
                 ERR_INVALID);
    CHECK_EQ_STR(f.text, "cannot listen on 'not an address': not an IP address");
    CHECK_EQ_INT(
        conn_listen(&second, &w.loop, w.server, "192.0.2.1", 0, 10, NULL, &listener_events, &w, &f),
        ERR_INVALID);
    CHECK_EQ_INT(w.listener_closed, 0);
    world_done(&w);
    CHECK_EQ_INT(w.listener_closed, 1);
}
