/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split into agent, broker and workers: that messages arrive whole or not at all, that no
 * descriptor is left behind, that privileges do not come back, that workers end.
 */
#include "agent/os/privilege.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/port.h"
#include "tests/check.h"

#define SOMEBODY "65534"

struct message {
    uint32_t verb;
    char text[60];
};

static int open_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    REQUIRE(dir != NULL);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Sends back each message, with its descriptor, and the broker's pid. */
static int echo(int fd, void *context)
{
    struct message m;
    int passed;
    (void)context;
    while (os_message_receive(fd, &m, sizeof m, &passed, -1, NULL) == 0) {
        m.verb = (uint32_t)getpid();
        if (os_message_send(fd, &m, sizeof m, passed, NULL))
            return 1;
        if (passed >= 0)
            close(passed);
    }
    return 7;
}

TEST(the_broker_answers_and_ends_with_the_agent)
{
    int fd, passed, status, pair[2];
    char byte = 0;
    struct message m = {1, "hello"}, back;
    struct failure f = {0, ""};
    REQUIRE(os_broker_fork(echo, NULL, &fd, &f) == 0);
    CHECK_EQ_INT(os_message_send(fd, &m, sizeof m, -1, &f), 0);
    CHECK_EQ_INT(os_message_receive(fd, &back, sizeof back, &passed, 50000, &f), 0);
    CHECK_EQ_INT(passed, -1);
    CHECK_EQ_STR(back.text, "hello");
    CHECK(back.verb != (uint32_t)getpid());
    REQUIRE(pipe(pair) == 0);
    CHECK_EQ_INT(os_message_send(fd, &m, sizeof m, pair[1], &f), 0);
    CHECK_EQ_INT(os_message_receive(fd, &back, sizeof back, &passed, 50000, &f), 0);
    REQUIRE(passed >= 0 && passed != pair[1]);
    CHECK(fcntl(passed, F_GETFD) & FD_CLOEXEC);
    CHECK(write(passed, "x", 1) == 1 && read(pair[0], &byte, 1) == 1 && byte == 'x');
    /* What a terminal sends to all does not end it before its time. */
    kill((pid_t)back.verb, SIGINT);
    kill((pid_t)back.verb, SIGTERM);
    CHECK_EQ_INT(os_message_send(fd, &m, sizeof m, -1, &f), 0);
    CHECK_EQ_INT(os_message_receive(fd, &back, sizeof back, &passed, 50000, &f), 0);
    close(fd);
    CHECK_EQ_INT(waitpid((pid_t)back.verb, &status, 0), (pid_t)back.verb);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST(messages_are_of_one_size)
{
    int pair[2];
    char bytes[80] = "";
    struct failure f = {0, ""};
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    CHECK_EQ_INT(os_message_send(pair[0], bytes, 64, -1, &f), 0);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, 65, NULL, 50000, &f), ERR_PROTOCOL);
    CHECK_EQ_INT(os_message_send(pair[0], bytes, 65, -1, &f), 0);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, 64, NULL, 50000, &f), ERR_PROTOCOL);
    CHECK_EQ_STR(f.text, "message is not of 64 bytes");
    CHECK_EQ_INT(os_message_send(pair[0], bytes, 64, -1, &f), 0);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, 64, NULL, 50000, &f), 0);
}

TEST(receiving_ends_in_time_and_with_the_other_end)
{
    int pair[2];
    char bytes[64] = "";
    struct failure f = {0, ""};
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    uint64_t began = port_mono_us();
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, 64, NULL, 30, &f), ERR_TIMEOUT);
    CHECK(port_mono_us() - began >= 30000);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, 64, NULL, 0, &f), ERR_TIMEOUT);
    close(pair[0]);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, 64, NULL, 50000, &f), ERR_CLOSED);
    CHECK_EQ_INT(os_message_send(pair[1], bytes, 64, -1, &f), ERR_CLOSED);
}

/* As an agent that was taken over would: more descriptors than allowed. */
static void send_many(int fd, const void *bytes, size_t size, int count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control;
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct msghdr head = {.msg_iov = &part,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
    memset(&control, 0, sizeof control);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&head);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    for (int i = 0; i < count; i++)
        memcpy(CMSG_DATA(rights) + (size_t)i * sizeof(int), &(int){0}, sizeof(int));
    REQUIRE(sendmsg(fd, &head, 0) == (ssize_t)size);
}

TEST(no_descriptor_is_left_behind)
{
    int pair[2], passed = -5;
    char bytes[64] = "";
    struct failure f = {0, ""};
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    int before = open_descriptors();
    for (int count = 2; count <= 12; count++) {
        send_many(pair[0], bytes, sizeof bytes, count);
        CHECK_EQ_INT(os_message_receive(pair[1], bytes, sizeof bytes, &passed, 50000, &f),
                     ERR_PROTOCOL);
    }
    CHECK_EQ_INT(passed, -5);
    /* Of the wrong size; to one who wants none. */
    send_many(pair[0], bytes, 10, 1);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, sizeof bytes, &passed, 50000, &f),
                 ERR_PROTOCOL);
    send_many(pair[0], bytes, sizeof bytes, 1);
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, sizeof bytes, NULL, 50000, &f), 0);
    CHECK_EQ_INT(open_descriptors(), before);
}

static void no_more(int number)
{
    (void)number;
}

TEST(an_interrupted_wait_goes_on)
{
    int pair[2];
    char bytes[64] = "";
    struct failure f = {0, ""};
    struct sigaction action = {.sa_handler = no_more};
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    sigaction(SIGUSR1, &action, NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        struct timespec t = {0, 20000000};
        nanosleep(&t, NULL);
        kill(parent, SIGUSR1);
        nanosleep(&t, NULL);
        (void)!send(pair[0], bytes, sizeof bytes, 0);
        _exit(0);
    }
    CHECK_EQ_INT(os_message_receive(pair[1], bytes, sizeof bytes, NULL, 50000, &f), 0);
    waitpid(pid, NULL, 0);
}

/* ---- privileges ---- */

static uint64_t status_hex(const char *key)
{
    char line[256];
    uint64_t value = UINT64_MAX;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, 16);
    }
    if (file)
        fclose(file);
    return value;
}

static void drop_and_look(void)
{
    struct failure f = {0, ""};
    CHECK_EQ_INT(os_drop_privileges(SOMEBODY, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK_EQ_INT(getuid(), 65534);
    CHECK_EQ_INT(getegid(), 65534);
    CHECK_EQ_INT(getgroups(0, NULL), 0);
    CHECK(setuid(0) != 0 && seteuid(0) != 0 && setgid(0) != 0);
    CHECK_EQ_INT(status_hex("CapInh:"), 0);
    CHECK_EQ_INT(status_hex("CapPrm:"), 0);
    CHECK_EQ_INT(status_hex("CapEff:"), 0);
    CHECK_EQ_INT(status_hex("CapBnd:"), 0);
    CHECK_EQ_INT(status_hex("NoNewPrivs:"), 1);
    CHECK(!os_is_privileged());
    CHECK(open("/etc/shadow", O_RDONLY) < 0);
    CHECK_EQ_INT(os_drop_privileges("daemon", &f), ERR_DENIED);
}

static int status_of(pid_t pid)
{
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

TEST(privileges_are_dropped_for_good)
{
    if (geteuid() != 0)
        SKIP("needs root, to have something to drop");
    CHECK(os_is_privileged());
    pid_t pid = fork();
    if (pid == 0) {
        drop_and_look();
        _exit(0);
    }
    CHECK_EQ_INT(status_of(pid), 0);
}

TEST(only_to_somebody_without_privileges)
{
    struct failure f = {0, ""};
    CHECK_EQ_INT(os_drop_privileges("root", &f), ERR_INVALID);
    CHECK_EQ_INT(os_drop_privileges("0", &f), ERR_INVALID);
    CHECK_EQ_INT(os_drop_privileges("no-such-user", &f), ERR_NOTFOUND);
    CHECK_EQ_STR(f.text, "no user 'no-such-user' in '/etc/passwd'");
    CHECK_EQ_INT(getuid(), geteuid());
}

static char folder[64];

/* A folder of ours with a file, a folder with a file in it, and a link to a file elsewhere. */
static void make_folder(void)
{
    char command[400];
    snprintf(folder, sizeof folder, "/tmp/trawl-give-XXXXXX");
    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(command, sizeof command, "%s/in", folder);
    REQUIRE(mkdir(command, 0700) == 0);
    const char *names[] = {"file", "in/file", "outside"};
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof command, "%s/%s", folder, names[i]);
        if (i == 2)
            snprintf(command, sizeof command, "%s.outside", folder);
        int fd = open(command, O_CREAT | O_WRONLY, 0600);
        REQUIRE(fd >= 0);
        close(fd);
    }
    char link[400];
    snprintf(link, sizeof link, "%s/link", folder);
    REQUIRE(symlink(command, link) == 0);
}

static uid_t owner(const char *name, bool outside)
{
    char path[400];
    struct stat st;
    snprintf(path, sizeof path, outside ? "%s.outside" : "%s/%s", folder, name);
    REQUIRE(lstat(path, &st) == 0);
    return st.st_uid;
}

static void remove_folder(void)
{
    const char *names[] = {"file", "in/file", "link", "hard"};
    char path[400];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s.outside", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/in", folder);
    rmdir(path);
    rmdir(folder);
}

TEST(a_folder_is_given_but_not_what_it_links_to)
{
    struct failure f = {0, ""};
    if (geteuid() != 0)
        SKIP("needs root, to give files away");
    make_folder();
    CHECK_EQ_INT(os_give_directory(folder, SOMEBODY, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK_EQ_INT(owner("", false), 65534);
    CHECK_EQ_INT(owner("file", false), 65534);
    CHECK_EQ_INT(owner("in", false), 65534);
    CHECK_EQ_INT(owner("in/file", false), 65534);
    CHECK_EQ_INT(owner("", true), 0);
    CHECK_EQ_INT(os_give_directory(folder, SOMEBODY, &f), 0);
    remove_folder();
    CHECK_EQ_INT(os_give_directory(folder, SOMEBODY, &f), ERR_NOTFOUND);
}

TEST(a_linked_folder_or_file_is_not_given)
{
    struct failure f = {0, ""};
    char link_path[400], outside[400];
    if (geteuid() != 0)
        SKIP("needs root, to give files away");
    make_folder();
    snprintf(link_path, sizeof link_path, "%s/hard", folder);
    snprintf(outside, sizeof outside, "%s.outside", folder);
    REQUIRE(link(outside, link_path) == 0);
    CHECK_EQ_INT(os_give_directory(folder, SOMEBODY, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "'hard'") != NULL);
    CHECK_EQ_INT(owner("", true), 0);
    snprintf(link_path, sizeof link_path, "%s.link", folder);
    REQUIRE(symlink(folder, link_path) == 0);
    CHECK(os_give_directory(link_path, SOMEBODY, &f) != 0);
    unlink(link_path);
    remove_folder();
}

/* ---- workers ---- */

static int await_worker(struct os_worker *worker, int *status)
{
    struct timespec step = {0, 1000000};
    for (int i = 0; i < 40000; i++) {
        int rc = os_worker_poll(worker, status);
        if (rc != ERR_AGAIN)
            return rc;
        nanosleep(&step, NULL);
    }
    return ERR_AGAIN;
}

static int give_context(void *context)
{
    return *(int *)context;
}

static int run_on(void *context)
{
    while (!context)
        pause();
    return 0;
}

/* Whatever the broker blocks or ignores, a worker begins afresh. */
static int look_at_signals(void *context)
{
    (void)context;
    sigset_t mask;
    struct sigaction action;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    sigaction(SIGTERM, NULL, &action);
    return sigismember(&mask, SIGUSR1) || action.sa_handler != SIG_DFL;
}

TEST(a_worker_says_how_it_ended)
{
    struct os_worker worker;
    struct failure f = {0, ""};
    int code = 42, status = -1;
    REQUIRE(os_worker_start(&worker, 5000000, give_context, &code, &f) == 0);
    CHECK_EQ_INT(await_worker(&worker, &status), 0);
    CHECK_EQ_INT(status, 42);
    CHECK_EQ_INT(os_worker_start(&worker, 0, give_context, &code, &f), ERR_INVALID);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGTERM, SIG_IGN);
    REQUIRE(os_worker_start(&worker, 5000000, look_at_signals, NULL, &f) == 0);
    CHECK_EQ_INT(await_worker(&worker, &status), 0);
    CHECK_EQ_INT(status, 0);
}

TEST(a_worker_ends_at_its_deadline)
{
    struct os_worker worker;
    struct failure f = {0, ""};
    int status = 0;
    uint64_t began = port_mono_us();
    REQUIRE(os_worker_start(&worker, 2000000, run_on, NULL, &f) == 0);
    CHECK_EQ_INT(os_worker_poll(&worker, &status), ERR_AGAIN);
    CHECK_EQ_INT(await_worker(&worker, &status), 0);
    CHECK_EQ_INT(status, -SIGKILL);
    CHECK(port_mono_us() - began >= 2000000);
}

/* Also when the broker hangs: the kernel keeps the deadline. */
TEST(a_worker_ends_at_its_deadline_with_nobody_looking)
{
    struct os_worker worker;
    struct failure f = {0, ""};
    int status = 0;
    REQUIRE(os_worker_start(&worker, 50000, run_on, NULL, &f) == 0);
    CHECK_EQ_INT(waitpid(worker.pid, &status, 0), worker.pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    /* Reaped by somebody else: ended, and not for ever "still running". */
    CHECK_EQ_INT(os_worker_poll(&worker, &status), 0);
    CHECK(status < 0);
}

TEST(a_worker_can_be_killed)
{
    struct os_worker worker;
    struct failure f = {0, ""};
    REQUIRE(os_worker_start(&worker, 60000000, run_on, NULL, &f) == 0);
    pid_t pid = worker.pid;
    os_worker_kill(&worker);
    CHECK_EQ_INT(worker.pid, 0);
    CHECK(kill(pid, 0) != 0 && errno == ESRCH);
    os_worker_kill(&worker);
}

TEST(a_worker_ends_with_its_broker)
{
    int pair[2];
    pid_t worker_pid = 0;
    REQUIRE(pipe(pair) == 0);
    pid_t broker = fork();
    if (broker == 0) {
        struct os_worker worker;
        REQUIRE(os_worker_start(&worker, 60000000, run_on, NULL, NULL) == 0);
        (void)!write(pair[1], &worker.pid, sizeof worker.pid);
        run_on(NULL);
    }
    REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    REQUIRE(read(pair[0], &worker_pid, sizeof worker_pid) == (ssize_t)sizeof worker_pid);
    kill(broker, SIGKILL);
    waitpid(broker, NULL, 0);
    int status = 0;
    CHECK_EQ_INT(waitpid(worker_pid, &status, 0), worker_pid);
    /* Killed with it; or it saw before it began that its broker was gone, and ended by itself. */
    bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    CHECK(is_killed || (WIFEXITED(status) && WEXITSTATUS(status) == 1));
}

TEST(we_know_what_we_cost)
{
    uint64_t cpu_us = 0, private_bytes = 0, resident_bytes = 0, later_us, unused;
    os_self_usage(&cpu_us, &private_bytes, &resident_bytes);
    CHECK(private_bytes > 10000);
    CHECK(resident_bytes >= private_bytes);
    volatile unsigned work = 0;
    while (work < 20000000)
        work++;
    os_self_usage(&later_us, &unused, &unused);
    CHECK(later_us > cpu_us);
    pid_t pid = fork();
    if (pid == 0) {
        os_be_nice();
        _exit(getpriority(PRIO_PROCESS, 0));
    }
    CHECK(status_of(pid) >= 10);
}
