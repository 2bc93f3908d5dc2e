/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crash socket: what a kernel says and what somebody else may say, who is at the other end,
 * which place is taken. The kernel is played by a child; the real one is in the scenario
 * 79_crash_socket.
 */
#include "agent/os/crash_socket.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent/os/core_pattern.h"
#include "agent/os/linux/crash_socket_linux.h"
#include "tests/check.h"
#include "tests/unit/os/tree.h"

#define ALL_OFFERED 0x0fu

/* ---- what is said ---- */

static int answer_of(struct crash_request request, size_t size_bytes, struct crash_ack *out)
{
    struct failure f = {0};
    return crash_request_answer(span_of(&request, size_bytes), out, &f);
}

TEST(a_request_is_answered_with_what_the_kernel_offers)
{
    struct crash_ack ack;
    REQUIRE(answer_of((struct crash_request){16, 16, ALL_OFFERED}, 16, &ack) == 0);
    CHECK_EQ_INT(ack.size, 16);
    CHECK_EQ_INT(ack.spare, 0);
    CHECK_EQ_INT(ack.mask, CRASH_ASK_KERNEL | CRASH_ASK_WAIT);
    REQUIRE(answer_of((struct crash_request){64, 32, 1}, 16, &ack) == 0);
    CHECK_EQ_INT(ack.mask, CRASH_ASK_KERNEL);
    CHECK_EQ_INT(ack.size, 16); /* never more than we know */
}

TEST(a_request_that_cannot_be_the_kernels_is_refused)
{
    struct crash_ack ack;
    CHECK_EQ_INT(answer_of((struct crash_request){16, 16, ALL_OFFERED}, 15, &ack), ERR_PROTOCOL);
    CHECK_EQ_INT(answer_of((struct crash_request){15, 16, ALL_OFFERED}, 16, &ack), ERR_PROTOCOL);
    CHECK_EQ_INT(answer_of((struct crash_request){4096, 16, ALL_OFFERED}, 16, &ack), ERR_PROTOCOL);
    CHECK_EQ_INT(answer_of((struct crash_request){UINT32_MAX, 16, ALL_OFFERED}, 16, &ack),
                 ERR_PROTOCOL);
    CHECK_EQ_INT(answer_of((struct crash_request){16, 15, ALL_OFFERED}, 16, &ack), ERR_UNSUPPORTED);
    CHECK_EQ_INT(answer_of((struct crash_request){16, 16, 2}, 16, &ack), ERR_UNSUPPORTED);
}

/* A child says `first`, waits for an answer when `asks`, says `then`, and closes. What we make of
 * it; *left: the bytes that came behind it. */
static int talk(struct span first, bool asks, struct span then, char left[16])
{
    int ends[2];
    struct failure f = {0};
    struct crash_ack ack;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        bool said = write(ends[1], first.data, first.size_bytes) == (ssize_t)first.size_bytes;
        if (asks && said)
            said = recv(ends[1], &ack, sizeof ack, MSG_WAITALL) == (ssize_t)sizeof ack;
        if (said)
            said = write(ends[1], then.data, then.size_bytes) == (ssize_t)then.size_bytes;
        _exit(!said);
    }
    close(ends[1]);
    int rc = os_crash_socket_answer(ends[0], &f);
    memset(left, 0, 16);
    CHECK(rc == 0 || f.text[0]);
    (void)!recv(ends[0], left, 15, MSG_WAITALL);
    close(ends[0]);
    REQUIRE(waitpid(child, NULL, 0) == child);
    return rc;
}

TEST(the_core_follows_whether_the_kernel_asks_or_not)
{
    static const char core[] = "\x7f"
                               "ELF and so on";
    struct crash_request request = {16, 16, ALL_OFFERED};
    uint8_t more[40] = {0}, mark[8] = {0};
    char left[16];
    CHECK_EQ_INT(talk(span_of(core, 10), false, span_of("", 0), left), 0);
    CHECK(memcmp(left, core, 10) == 0); /* only looked at */
    memcpy(mark + 4, ELFMAG, SELFMAG);
    CHECK_EQ_INT(talk(span_of(&request, 16), true, span_of(mark, 8), left), 0);
    CHECK(memcmp(left, ELFMAG, SELFMAG) == 0);
    request.size = sizeof more; /* of a newer kernel */
    memcpy(more, &request, sizeof request);
    CHECK_EQ_INT(talk(span_of(more, sizeof more), true, span_of(mark, 8), left), 0);
    CHECK(memcmp(left, ELFMAG, SELFMAG) == 0);
}

TEST(what_ends_or_refuses_in_the_middle_is_said)
{
    struct crash_request request = {16, 16, ALL_OFFERED};
    uint32_t conflicting = 4;
    char left[16];
    CHECK_EQ_INT(talk(span_of("", 0), false, span_of("", 0), left), ERR_CLOSED);
    CHECK_EQ_INT(talk(span_of("\x7f"
                              "E",
                              2),
                      false, span_of("", 0), left),
                 ERR_CLOSED);
    CHECK_EQ_INT(talk(span_of(&request, 9), false, span_of("", 0), left), ERR_CLOSED);
    CHECK_EQ_INT(talk(span_of(&request, 16), true, span_of("", 0), left), ERR_CLOSED);
    CHECK_EQ_INT(talk(span_of(&request, 16), true, span_of(&conflicting, 2), left), ERR_CLOSED);
    CHECK_EQ_INT(talk(span_of(&request, 16), true, span_of(&conflicting, 4), left), ERR_PROTOCOL);
    request.size = 64; /* and does not say it all */
    CHECK_EQ_INT(talk(span_of(&request, 16), false, span_of("", 0), left), ERR_CLOSED);
    request.size = 7;
    CHECK_EQ_INT(talk(span_of(&request, 16), false, span_of("", 0), left), ERR_PROTOCOL);
}

/* ---- what /proc says ---- */

TEST(the_core_limit_is_the_soft_one)
{
    uint64_t limit = 7;
    static const char head[] = "Limit                     Soft Limit           Hard Limit  Units\n";
    char text[400];
    snprintf(text, sizeof text,
             "%sMax core file size        4096                 unlimited   bytes\n", head);
    CHECK_EQ_INT(crash_core_limit(span_str(text), &limit), 0);
    CHECK_EQ_INT(limit, 4096);
    snprintf(text, sizeof text,
             "%sMax core file size        unlimited            unlimited   bytes", head);
    CHECK_EQ_INT(crash_core_limit(span_str(text), &limit), 0);
    CHECK(limit == UINT64_MAX);
    CHECK_EQ_INT(crash_core_limit(span_str(head), &limit), ERR_NOTFOUND);
    CHECK(crash_core_limit(span_str("Max core file size  x"), &limit) != 0);
}

TEST(the_signal_is_the_last_field_of_stat)
{
    char text[400] = "12 (a) b) c) R";
    CHECK_EQ_INT(crash_stat_signal(span_str(text)), 0);
    for (int i = 4; i < 52; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %d", i);
    CHECK_EQ_INT(crash_stat_signal(span_str(text)), 0); /* one is missing */
    snprintf(text + strlen(text), sizeof text - strlen(text), " 139\n");
    CHECK_EQ_INT(crash_stat_signal(span_str(text)), 11); /* without the flag of a core */
    CHECK_EQ_INT(crash_stat_signal(span_str("12 a R 1")), 0);
    CHECK_EQ_INT(crash_stat_signal(span_of("", 0)), 0);
}

/* ---- who it is ---- */

TEST(a_peer_that_does_not_crash_is_refused)
{
    int ends[2];
    struct os_crash_arguments a = {.pid = 4711};
    struct failure f = {0};
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    int rc = os_crash_socket_identify(ends[0], &a, &f);
    if (os_core_pattern_socket("") == OS_CORE_SOCKET_NONE)
        CHECK(rc != 0);
    else
        CHECK_EQ_INT(rc, ERR_DENIED);
    CHECK_EQ_INT(a.pid, 4711);
    CHECK(f.text[0] != '\0');
    f = (struct failure){0};
    CHECK(os_crash_socket_identify(STDIN_FILENO, &a, &f) != 0); /* no socket at all */
    close(ends[0]);
    close(ends[1]);
}

/* ---- places ---- */

static char root[64];

/* What is in it goes with the test; not /tmp where the place has to be root's alone. */
static void make_root(void)
{
    snprintf(root, sizeof root, "%s", tree_make());
}

static void path_in(char out[200], const char *name)
{
    snprintf(out, 200, "%s/%s", root, name);
}

TEST(a_listening_socket_is_known_by_proc)
{
    make_root();
    tree_write(root, "/proc/net/unix",
               "Num       RefCount Protocol Flags    Type St Inode Path\n"
               "0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/here.sock\n"
               "0000000000000000: 00000003 00000000 00000000 0001 03 12 /run/connected.sock\n"
               "0000000000000000: 00000002 00000000 00000000 0002 01 13 /run/datagram.sock\n"
               "0000000000000000: 00000002 00000000 00010000 0005 01 14 /run/packets.sock\n"
               "garbage\n");
    CHECK(os_crash_socket_is_served(root, "/run/here.sock"));
    CHECK(!os_crash_socket_is_served(root, "/run/here.soc"));
    CHECK(!os_crash_socket_is_served(root, "/run/connected.sock"));
    CHECK(!os_crash_socket_is_served(root, "/run/datagram.sock"));
    CHECK(!os_crash_socket_is_served(root, "/run/packets.sock"));
    CHECK(!os_crash_socket_is_served("/nowhere", "/run/here.sock"));
}

TEST(a_kernel_without_sockets_is_known)
{
    make_root();
    CHECK_EQ_INT(os_core_pattern_socket(root), OS_CORE_SOCKET_NONE);
    tree_write(root, "/proc/sys/kernel/core_modes", "file\npipe\n");
    CHECK_EQ_INT(os_core_pattern_socket(root), OS_CORE_SOCKET_NONE);
    tree_write(root, "/proc/sys/kernel/core_modes", "file\npipe\nsocket\n");
    CHECK(os_core_pattern_socket(root) != OS_CORE_SOCKET_NONE);
}

TEST(only_a_place_of_roots_is_taken)
{
    char path[200];
    struct failure f = {0};
    int fd = -1;
    CHECK_EQ_INT(os_crash_socket_listen("crash.sock", &fd, &f), ERR_INVALID);
    CHECK_EQ_INT(os_crash_socket_listen("/run/a b.sock", &fd, &f), ERR_INVALID);
    CHECK_EQ_INT(os_crash_socket_listen("/run/../run/x.sock", &fd, &f), ERR_INVALID);
    CHECK_EQ_INT(os_crash_socket_listen("/proc/self/cwd/x.sock", &fd, &f), ERR_INVALID);
    snprintf(path, sizeof path, "/run/%0150d", 1);
    CHECK_EQ_INT(os_crash_socket_listen(path, &fd, &f), ERR_INVALID);
    make_root();
    path_in(path, "x.sock");
    CHECK_EQ_INT(os_crash_socket_listen(path, &fd, &f), ERR_DENIED);
    CHECK_EQ_INT(fd, -1);
}

TEST(one_listens_and_a_stale_one_is_replaced)
{
    char path[200], plain[200];
    struct failure f = {0};
    struct stat st;
    int fd = -1, other = -1;
    if (geteuid() != 0)
        check_skip("only root has a place of its own");
    snprintf(root, sizeof root, "/run/trawl-socket-XXXXXX");
    REQUIRE(mkdtemp(root) != NULL);
    path_in(path, "x.sock");
    path_in(plain, "plain");
    REQUIRE(os_crash_socket_listen(path, &fd, &f) == 0);
    REQUIRE(lstat(path, &st) == 0);
    CHECK_EQ_INT(st.st_mode & 0777, 0600);
    CHECK(os_crash_socket_is_served("", path));
    CHECK_EQ_INT(os_crash_socket_check(path, &f), 0);
    CHECK_EQ_INT(os_crash_socket_listen(path, &other, &f), ERR_INUSE);
    close(fd);
    CHECK(!os_crash_socket_is_served("", path));
    REQUIRE(os_crash_socket_listen(path, &fd, &f) == 0);
    REQUIRE(chmod(path, 0666) == 0);
    CHECK_EQ_INT(os_crash_socket_check(path, &f), ERR_DENIED);
    close(fd);
    tree_write(root, "/plain", "");
    CHECK_EQ_INT(os_crash_socket_listen(plain, &other, &f), ERR_EXISTS);
    CHECK_EQ_INT(os_crash_socket_check(plain, &f), ERR_DENIED);
    unlink(path);
    unlink(plain);
    rmdir(root);
}

TEST(a_place_has_one_listener_as_long_as_it_lives)
{
    char path[200];
    struct failure f = {0};
    int ends[2], fd = -1;
    char byte = 0;
    make_root();
    path_in(path, "x.sock");
    CHECK_EQ_INT(os_crash_socket_holder(path), 0);
    REQUIRE(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (os_crash_socket_lock(path, &fd, &f) == 0)
            (void)!write(ends[1], &byte, 1);
        for (;;)
            pause();
    }
    REQUIRE(read(ends[0], &byte, 1) == 1);
    CHECK_EQ_INT(os_crash_socket_holder(path), child);
    CHECK_EQ_INT(os_crash_socket_lock(path, &fd, &f), ERR_INUSE);
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, NULL, 0) == child);
    CHECK_EQ_INT(os_crash_socket_holder(path), 0);
    CHECK_EQ_INT(os_crash_socket_lock(path, &fd, &f), 0);
}

static int inherit(const char *pid, const char *count, int fd, char path[OS_CRASH_SOCKET_SIZE])
{
    struct failure f = {0};
    int got = -1;
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", count, 1);
    if (fd >= 0 && fd != 3)
        REQUIRE(dup2(fd, 3) == 3);
    return os_crash_socket_inherit(&got, path, &f);
}

TEST(only_one_listening_socket_is_taken_from_the_init_system)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[OS_CRASH_SOCKET_SIZE], me[24];
    make_root();
    snprintf(me, sizeof me, "%d", (int)getpid());
    snprintf(address.sun_path, sizeof address.sun_path, "%s/x.sock", root);
    int null = open("/dev/null", O_RDONLY), made = socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE(null >= 0 && made >= 0);
    CHECK_EQ_INT(inherit("1", "1", null, path), ERR_NOTFOUND); /* meant for another */
    CHECK_EQ_INT(inherit("x", "1", null, path), ERR_NOTFOUND);
    CHECK_EQ_INT(inherit(me, "1", null, path), ERR_INVALID);
    CHECK(getenv("LISTEN_FDS") == NULL); /* and no child takes it for its own */
    REQUIRE(bind(made, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK_EQ_INT(inherit(me, "1", made, path), ERR_INVALID); /* does not listen */
    REQUIRE(listen(made, 1) == 0);
    CHECK_EQ_INT(inherit(me, "2", made, path), ERR_INVALID);
    CHECK_EQ_INT(inherit(me, "1", made, path), 0);
    CHECK_EQ_STR(path, address.sun_path);
}
