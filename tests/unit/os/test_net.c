/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets: what netlink's answers are read as, who is in trouble, and what net says of real
 * sockets: a backlog that overflows, data that nobody reads, a window that is closed, another
 * network namespace, and the tables of /proc where netlink is not to be had.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <net/if.h>

#include "agent/os/linux/net_linux.h"
#include "agent/os/net.h"
#include "common/port.h"
#include "tests/unit/os/taken.h"
#include "tests/unit/os/tree.h"

#define DEADLINE_US 50000000

static struct taken taken;
static struct failure failure;
static struct os_result result;

static int net(pid_t pid)
{
    struct os_take take = {0};
    REQUIRE(os_process_get("", (uint32_t)pid, &take.process, &failure) == 0);
    taken_init(&taken);
    memset(&result, 0, sizeof result);
    return os_net_capture(&take, &taken.output, &result, &failure);
}

static bool says(const char *text)
{
    return strstr(buf_str(&taken.text), text) != NULL;
}

static bool json_says(const char *text)
{
    return strstr(buf_str(&taken.json), text) != NULL;
}

static void net_until(pid_t pid, const char *text)
{
    uint64_t end_us = port_mono_us() + DEADLINE_US;
    struct timespec nap = {0, 5000000};
    for (;;) {
        REQUIRE(net(pid) == 0);
        if (says(text))
            return;
        if (port_mono_us() > end_us) {
            printf("never said '%s':\n%s\n", text, buf_str(&taken.text));
            check_abort();
        }
        taken_done(&taken);
        nanosleep(&nap, NULL);
    }
}

/* ---- netlink's answers ---- */

static uint8_t datagram[1024];
static size_t length;

static void append(const void *data, size_t size)
{
    REQUIRE(length + size + 4 <= sizeof datagram);
    memcpy(datagram + length, data, size);
    length += size;
    while (length % 4)
        datagram[length++] = 0;
}

static void append_attribute(uint16_t type, const void *data, size_t size)
{
    struct nlattr head = {(uint16_t)(sizeof head + size), type};
    append(&head, sizeof head);
    append(data, size);
}

static void begin_message(uint16_t type)
{
    struct nlmsghdr head = {.nlmsg_type = type, .nlmsg_seq = 7};
    length = 0;
    append(&head, sizeof head);
}

static struct span end_message(void)
{
    uint32_t size = (uint32_t)length;
    memcpy(datagram, &size, sizeof size);
    return span_of(datagram, length);
}

static struct sock seen;
static size_t seen_count;

static void keep(void *context, const struct sock *s)
{
    (void)context;
    seen = *s;
    seen_count++;
}

static struct sock_diag_answer answer(void)
{
    seen_count = 0;
    return (struct sock_diag_answer){
        .family = AF_INET, .protocol = IPPROTO_TCP, .sequence = 7, .each = keep};
}

static struct span listening(void)
{
    struct inet_diag_msg m = {.idiag_family = AF_INET,
                              .idiag_state = TCP_LISTEN,
                              .idiag_rqueue = 3,
                              .idiag_wqueue = 2,
                              .idiag_inode = 99};
    uint32_t memory[SK_MEMINFO_VARS] = {[SK_MEMINFO_DROPS] = 5};
    uint32_t info[20] = {0};
    m.id.idiag_sport = htons(8080);
    info[2] = 204000; /* rto; what is behind is from a newer kernel than this one */
    begin_message(SOCK_DIAG_BY_FAMILY);
    append(&m, sizeof m);
    append_attribute(INET_DIAG_SKMEMINFO, memory, sizeof memory);
    append_attribute(INET_DIAG_INFO, info, sizeof info);
    append_attribute(INET_DIAG_CONG, "cubic", 6);
    append_attribute(INET_DIAG_SHUTDOWN, "\3", 1);
    return end_message();
}

TEST(an_answer_of_the_kernel)
{
    struct sock_diag_answer a = answer();
    REQUIRE(sock_diag_feed(&a, listening(), &failure) == 0);
    CHECK_EQ_INT(seen_count, 1);
    CHECK(!a.done);
    CHECK_EQ_INT(seen.inode, 99);
    CHECK_EQ_INT(seen.local_port, 8080);
    CHECK_EQ_INT(seen.receive_queue, 3);
    CHECK(seen.has_backlog_max && seen.send_queue == 2);
    CHECK_EQ_STR(seen.congestion, "cubic");
    CHECK(seen.has_shutdown && seen.shutdown == 3);
    CHECK_EQ_INT(seen.memory[SOCK_MEMORY_DROPS], 5);
    CHECK(sock_has_tcp(&seen, SOCK_TCP_RTO));
    CHECK_EQ_INT(seen.tcp[SOCK_TCP_RTO], 204000);
    /* An older kernel's answer ends before these: unknown, not 0. */
    CHECK(!sock_has_tcp(&seen, SOCK_TCP_DELIVERY_RATE));
    CHECK(!sock_has_tcp(&seen, SOCK_TCP_CWND));
    char text[NET_TROUBLE_SIZE];
    CHECK(net_trouble(&seen, text, sizeof text) > 0);
    CHECK_EQ_STR(text, "backlog full: 3 of 2 connections wait to be accepted, dropped until now: "
                       "5");
}

TEST(every_cut_of_an_answer_is_safe)
{
    struct span whole = listening();
    for (size_t size = 0; size < whole.size_bytes; size++) {
        struct sock_diag_answer a = answer();
        uint8_t *copy = malloc(size + 1); /* its end is where a sanitizer sees it */
        REQUIRE(copy != NULL);
        memcpy(copy, whole.data, size);
        CHECK_EQ_INT(sock_diag_feed(&a, span_of(copy, size), &failure), size ? ERR_CORRUPT : 0);
        CHECK_EQ_INT(seen_count, 0);
        if (size >= sizeof(struct nlmsghdr)) { /* and with a frame that fits the cut */
            uint32_t now = (uint32_t)size;
            memcpy(copy, &now, sizeof now);
            (void)sock_diag_feed(&a, span_of(copy, size), &failure);
            CHECK(seen_count <= 1);
        }
        free(copy);
    }
}

TEST(errors_and_the_end_of_an_answer)
{
    int32_t none = -ENOENT, zero = 0;
    struct sock_diag_answer a = answer();
    begin_message(NLMSG_ERROR);
    append(&none, sizeof none);
    CHECK_EQ_INT(sock_diag_feed(&a, end_message(), &failure), ERR_UNSUPPORTED);
    CHECK(a.done);
    a = answer();
    begin_message(NLMSG_DONE);
    append(&zero, sizeof zero);
    CHECK_EQ_INT(sock_diag_feed(&a, end_message(), &failure), 0);
    CHECK(a.done);
    a = answer();
    a.sequence = 8; /* of another question */
    CHECK_EQ_INT(sock_diag_feed(&a, listening(), &failure), 0);
    CHECK_EQ_INT(seen_count, 0);
}

TEST(unix_sockets_of_the_kernel)
{
    struct unix_diag_msg m = {
        .udiag_family = AF_UNIX, .udiag_type = SOCK_STREAM, .udiag_state = 1, .udiag_ino = 5};
    uint32_t peer = 6;
    struct sock_diag_answer a = answer();
    begin_message(SOCK_DIAG_BY_FAMILY);
    append(&m, sizeof m);
    append_attribute(UNIX_DIAG_NAME, "\0abstract", 9);
    append_attribute(UNIX_DIAG_PEER, &peer, sizeof peer);
    REQUIRE(sock_diag_feed(&a, end_message(), &failure) == 0);
    CHECK_EQ_INT(seen.peer_inode, 6);
    CHECK_EQ_STR(seen.path, "@abstract");
    CHECK(!seen.has_queues);
    char text[200];
    net_describe(&seen, text, sizeof text);
    CHECK_EQ_STR(text, "unix stream @abstract established");
}

TEST(counters_of_a_namespace)
{
    static const char text[] = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\n"
                               "TcpExt: 1 22 333\nIpExt: InNoRoutes\nIpExt: 4\n";
    uint64_t value = 0;
    CHECK_EQ_INT(net_find_counter(span_str(text), "TcpExt:", "ListenOverflows", &value), 0);
    CHECK_EQ_INT(value, 22);
    CHECK_EQ_INT(net_find_counter(span_str(text), "IpExt:", "InNoRoutes", &value), 0);
    CHECK_EQ_INT(value, 4);
    CHECK_EQ_INT(net_find_counter(span_str(text), "TcpExt:", "Nothing", &value), ERR_NOTFOUND);
    CHECK_EQ_INT(net_find_counter(span_str("TcpExt: A\nTcpExt: x\n"), "TcpExt:", "A", &value),
                 ERR_CORRUPT);
}

/* ---- real sockets: this test's own process ---- */

static uint16_t port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    return ntohs(address.sin_port);
}

static int listen_on_any(int backlog)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    REQUIRE(listen(fd, backlog) == 0);
    return fd;
}

static int connect_to(uint16_t port, int flags)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    REQUIRE(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        REQUIRE(errno == EINPROGRESS);
    return fd;
}

TEST(a_backlog_that_overflows)
{
    int listener = listen_on_any(2);
    char expected[160];
    for (int i = 0; i < 6; i++)
        (void)connect_to(port_of(listener), SOCK_NONBLOCK);
    net_until(getpid(), "backlog full: 3 of 2 connections wait to be accepted");
    snprintf(expected, sizeof expected,
             "\"local\":\"127.0.0.1:%u\",\"remote\":null,\"trouble\":"
             "\"backlog full",
             (unsigned)port_of(listener));
    CHECK(json_says(expected));
    CHECK(says("\n! fd "));
    CHECK(json_says("\"backlog\":3,\"backlog_max\":2"));
    /* The worst comes first. */
    const char *listed = strstr(buf_str(&taken.text), "those in trouble first\n");
    REQUIRE(listed != NULL);
    const char *second = strchr(listed, '\n') + 1;
    CHECK(strstr(second, "listening") < strchr(second, '\n'));
    taken_done(&taken);
    /* Connections beyond the backlog are asked for again and again, and counted. */
    net_until(getpid(), "no answer yet to its connect");
    CHECK(says("SYN sent"));
    taken_done(&taken);
    net_until(getpid(), " wait to be accepted, dropped until now: ");
    CHECK(!says("ListenOverflows             0 "));
    taken_done(&taken);
}

TEST(data_that_nobody_reads)
{
    int listener = listen_on_any(5), client = connect_to(port_of(listener), 0);
    int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    char expected[200];
    REQUIRE(server >= 0 && send(client, "unread data", 11, 0) == 11);
    net_until(getpid(), "11 B not yet read by this process");
    snprintf(expected, sizeof expected,
             "fd %d  tcp 127.0.0.1:%u to 127.0.0.1:%u established, 11 B unread, 0 B to send\n",
             server, (unsigned)port_of(listener), (unsigned)port_of(client));
    CHECK(says(expected));
    CHECK(json_says("\"receive_queue_bytes\":11"));
    CHECK(json_says("\"rtt_us\":") && json_says("\"congestion_control\":\""));
    CHECK(json_says("\"bytes_received\":11"));
    /* Both ends are here. */
    snprintf(expected, sizeof expected, "\"peer\":[{\"pid\":%d,", getpid());
    CHECK(json_says(expected));
    CHECK(says("other end: this process itself"));
    CHECK_EQ_STR(result.missing, "");
    taken_done(&taken);
}

TEST(a_peer_that_does_not_read)
{
    static char block[65536];
    int listener = listen_on_any(5), client = connect_to(port_of(listener), SOCK_NONBLOCK);
    int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    uint64_t end_us = port_mono_us() + DEADLINE_US;
    struct pollfd ready = {.fd = client, .events = POLLOUT};
    REQUIRE(server >= 0);
    while (poll(&ready, 1, 300) > 0 && port_mono_us() < end_us)
        if (send(client, block, sizeof block, 0) < 0 && errno != EAGAIN)
            break;
    net_until(getpid(), "the peer takes no more: ");
    CHECK(says("send queue changed by 0 B in "));
    CHECK(json_says("\"timer\":\"probe\""));
    CHECK(json_says("\"send_queue_growth_bytes\":0"));
    taken_done(&taken);
}

TEST(a_peer_that_has_closed)
{
    int listener = listen_on_any(5), client = connect_to(port_of(listener), 0);
    int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(server >= 0);
    close(client);
    net_until(getpid(), "the peer has closed, this process has not");
    taken_done(&taken);
}

TEST(unix_and_udp_sockets)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
    int udp = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    socklen_t size = sizeof any;
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "trawl-test-%d", getpid());
    REQUIRE(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    REQUIRE(listen(listener, 4) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0);
    bool six = bind(udp, (struct sockaddr *)&any, sizeof any) == 0 &&
               getsockname(udp, (struct sockaddr *)&any, &size) == 0;
    if (six)
        REQUIRE(sendto(udp, "x", 1, 0, (struct sockaddr *)&any, sizeof any) == 1);
    REQUIRE(net(getpid()) == 0);
    CHECK(says("unix stream @trawl-test-"));
    CHECK(says("listening, 0 of 4 connections wait to be accepted"));
    CHECK(says("unix datagram established") || says("unix datagram not connected"));
    CHECK(says("other end: this process itself"));
    if (six)
        CHECK(says("udp6 [::1]:"));
    taken_done(&taken);
}

TEST(a_process_without_sockets)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        for (int fd = 0; fd < 1024; fd++)
            close(fd);
        pause();
        _exit(0);
    }
    struct timespec nap = {0, 5000000};
    int e = 0;
    for (int i = 0; i < 2000 && e != ERR_NOTFOUND; i++) {
        e = net(pid);
        taken_done(&taken);
        nanosleep(&nap, NULL);
    }
    CHECK_EQ_INT(e, ERR_NOTFOUND);
    CHECK(strstr(failure.text, "has no socket") != NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- another namespace ---- */

static void bring_loopback_up(void)
{
    struct ifreq request = {.ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "lo");
    (void)ioctl(fd, SIOCSIFFLAGS, &request);
    close(fd);
}

TEST(a_process_in_a_network_namespace_of_its_own)
{
    int ready[2];
    char byte, own[64], after[64];
    ssize_t before = readlink("/proc/self/ns/net", own, sizeof own);
    REQUIRE(before > 0 && pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWNET) != 0)
            _exit(77);
        bring_loopback_up();
        int listener = listen_on_any(5), client = connect_to(port_of(listener), 0);
        int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        (void)send(client, "inside", 6, 0);
        (void)!write(ready[1], server >= 0 ? "y" : "n", 1);
        pause();
        _exit(0);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) {
        int status = 0;
        waitpid(pid, &status, 0);
        SKIP("no network namespace can be made here");
    }
    net_until(pid, "6 B not yet read by this process");
    CHECK(says("its own network namespace"));
    CHECK(json_says("\"own\":true"));
    CHECK(json_says("\"rtt_us\":"));
    CHECK(says("other end: this process itself"));
    CHECK_EQ_STR(result.missing, "");
    /* We are where we were. */
    CHECK_EQ_INT(readlink("/proc/self/ns/net", after, sizeof after), before);
    CHECK_EQ_MEM(own, after, (size_t)before);
    taken_done(&taken);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- without netlink ---- */

TEST(a_recorded_process)
{
    struct os_take take = {0};
    const char *root = TESTS_DIR "/fixtures/proc/web1";
    REQUIRE(os_process_get(root, 1200, &take.process, &failure) == 0);
    taken_init(&taken);
    REQUIRE(net_capture(root, &take, &taken.output, &result, &failure) == 0);
    CHECK(says("process 1200 redis-server, "));
    CHECK(says("tcp 127.0.0.1:7399 listening, 0 connections wait to be accepted\n"));
    CHECK(says("established, 0 B unread, 0 B to send\n"));
    CHECK(!json_says("\"rtt_us\"") && !json_says("\"backlog_max\""));
    take.process.start_ticks++;
    CHECK_EQ_INT(net_capture(root, &take, &taken.output, &result, &failure), ERR_GONE);
    taken_done(&taken);
}
