/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split into agent, broker and workers on Linux, and what a process may say of itself.
 * Invariant: a descriptor that arrives and is not handed to the caller is closed; a worker never
 * outlives its deadline, nor the broker that started it. Called by agent/main.c, agent/broker.c.
 */
#include "agent/os/privilege.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/port.h"
#include "common/text.h"

#define GIVE_DEPTH_MAX 16  /* folders below the one that is given */
#define PASSED_MAX 4       /* descriptors looked for in one message, to close what is too much */
#define REAP_LIMIT_MS 1000 /* how long os_worker_kill() waits for the end */
#define NICE_URGENT (-10)  /* above services, below what keeps the machine going */
#define NICE_WORKER 10     /* below services, above what is meant to starve */

bool os_is_privileged(void)
{
    return geteuid() == 0;
}

/* All handlers back to default, nothing blocked: as if the child had been started afresh. */
static void signals_afresh(void)
{
    struct sigaction usual;
    memset(&usual, 0, sizeof usual);
    usual.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &usual, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* fork() with all signals blocked in the child until signals_afresh(), so that no handler of ours
 * runs there. */
static pid_t fork_quietly(void)
{
    sigset_t all, before;
    sigfillset(&all);
    fflush(NULL);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    int error = errno;
    if (pid != 0)
        sigprocmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

/*
 * A terminal's Ctrl-C and an init system's SIGTERM reach the whole group; the broker stays until
 * the agent has gone, so that it can do what the agent asks of it last. Its end is the end of the
 * socket.
 */
static _Noreturn void be_broker(int (*run)(int fd, void *context), void *context, int fd)
{
    signals_afresh();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    int result = run(fd, context);
    fflush(NULL);
    _exit(result & 0xff);
}

int os_broker_fork(int (*run)(int fd, void *context), void *context, int *fd, struct failure *f)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make the broker's socket");
    pid_t pid = fork_quietly();
    if (pid < 0) {
        int error = errno;
        close(pair[0]);
        close(pair[1]);
        return fail_errno(f, err_from_errno(error), error, "cannot start the broker");
    }
    if (pid == 0) {
        /* Our copy of the agent's end would keep the socket open for ever. */
        close(pair[0]);
        be_broker(run, context, pair[1]);
    }
    close(pair[1]);
    *fd = pair[0];
    return 0;
}

struct identity {
    uid_t uid;
    gid_t gid;
};

/*
 * Reads /etc/passwd itself: getpwnam() loads shared libraries, which a static program does not
 * have. Users that are known only to a directory service can be given by number.
 */
static int find_user(const char *user, struct identity *out, struct failure *f)
{
    uint64_t number = UINT64_MAX;
    bool by_number = text_u64_in(user, 0, UINT32_MAX - 1, &number) == 0;
    FILE *file = fopen("/etc/passwd", "re");
    if (!file && !by_number)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '/etc/passwd'");
    bool found = false;
    for (struct passwd *entry; file && !found && (entry = fgetpwent(file)) != NULL;) {
        found = by_number ? entry->pw_uid == number : strcmp(entry->pw_name, user) == 0;
        if (found)
            *out = (struct identity){entry->pw_uid, entry->pw_gid};
    }
    if (file)
        fclose(file);
    if (found)
        return 0;
    if (!by_number)
        return fail(f, ERR_NOTFOUND, "no user '%s' in '/etc/passwd'", user);
    *out = (struct identity){(uid_t)number, (gid_t)number};
    return 0;
}

/* What a later exec could gain; must go while we still may. */
static int drop_bounding(struct failure *f)
{
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned long capability = 0; capability < 64; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL)
            break;
        return fail_errno(f, err_from_errno(errno), errno, "cannot give up capability %lu",
                          capability);
    }
    return 0;
}

/* capset(2), version 3: two words of each set, all empty. */
static int drop_capabilities(struct failure *f)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    if (syscall(SYS_capset, &header, none) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot give up capabilities");
    return 0;
}

/* Trust nothing: what was given up must be gone, and must not come back. */
static int check_dropped(const struct identity *to, struct failure *f)
{
    uid_t uid[3];
    gid_t gid[3];
    if (getresuid(&uid[0], &uid[1], &uid[2]) != 0 || getresgid(&gid[0], &gid[1], &gid[2]) != 0)
        return fail_errno(f, ERR_DENIED, errno, "cannot read our own ids");
    for (int i = 0; i < 3; i++) {
        if (uid[i] != to->uid || gid[i] != to->gid)
            return fail(f, ERR_DENIED, "privileges were not dropped: uid %u, gid %u", uid[i],
                        gid[i]);
    }
    if (setresuid(0, 0, 0) == 0)
        return fail(f, ERR_DENIED, "privileges were not dropped: root can be regained");
    return 0;
}

int os_drop_privileges(const char *user, struct failure *f)
{
    struct identity to;
    int rc = find_user(user, &to, f);
    if (rc)
        return rc;
    if (to.uid == 0 || to.gid == 0)
        return fail(f, ERR_INVALID, "user '%s' is privileged itself", user);
    rc = drop_bounding(f);
    if (rc)
        return rc;
    if (setgroups(0, NULL) != 0 || setresgid(to.gid, to.gid, to.gid) != 0 ||
        setresuid(to.uid, to.uid, to.uid) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot become user '%s'", user);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot forbid new privileges");
    rc = drop_capabilities(f);
    return rc ? rc : check_dropped(&to, f);
}

/* One folder being given away. Nothing on another file system is touched. */
struct gift {
    struct identity to;
    dev_t device;
    struct failure *f;
};

static int give_entries(const struct gift *gift, int dir_fd, unsigned depth);

/*
 * Gives one open object. A file with a second name is refused: the user could have linked somebody
 * else's file into its own folder, to get it at the next start.
 */
static int give_open(const struct gift *gift, int fd, const struct stat *st, const char *name)
{
    if (st->st_uid == gift->to.uid && st->st_gid == gift->to.gid)
        return 0;
    if (!S_ISDIR(st->st_mode) && st->st_nlink > 1)
        return fail(gift->f, ERR_REFUSED, "'%s' has a second name, its owner is not changed", name);
    if (fchownat(fd, "", gift->to.uid, gift->to.gid, AT_EMPTY_PATH) != 0)
        return fail_errno(gift->f, err_from_errno(errno), errno, "cannot change the owner of '%s'",
                          name);
    return 0;
}

/* Symbolic links and what vanished meanwhile are left alone. */
static int give_entry(const struct gift *gift, int dir_fd, const char *name, unsigned depth)
{
    int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT
                   ? 0
                   : fail_errno(gift->f, err_from_errno(errno), errno, "cannot open '%s'", name);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) == 0 && st.st_dev == gift->device && !S_ISLNK(st.st_mode)) {
        rc = give_open(gift, fd, &st, name);
        if (rc == 0 && S_ISDIR(st.st_mode)) {
            int inside = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            rc = inside < 0
                     ? fail_errno(gift->f, err_from_errno(errno), errno, "cannot open '%s'", name)
                     : give_entries(gift, inside, depth + 1);
        }
    }
    close(fd);
    return rc;
}

/* Takes dir_fd. */
static int give_entries(const struct gift *gift, int dir_fd, unsigned depth)
{
    DIR *dir = depth > GIVE_DEPTH_MAX ? NULL : fdopendir(dir_fd);
    if (!dir) {
        close(dir_fd);
        return fail(gift->f, ERR_LIMIT, "folders are nested deeper than %d", GIVE_DEPTH_MAX);
    }
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = give_entry(gift, dirfd(dir), entry->d_name, depth);
    }
    closedir(dir);
    return rc;
}

int os_give_directory(const char *path, const char *user, struct failure *f)
{
    struct gift gift = {.f = f};
    int rc = find_user(user, &gift.to, f);
    if (rc)
        return rc;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return fail_errno(f, err_from_errno(error), error, "cannot open '%s'", path);
    }
    gift.device = st.st_dev;
    if (st.st_uid != gift.to.uid || st.st_gid != gift.to.gid) {
        if (fchown(fd, gift.to.uid, gift.to.gid) != 0) {
            int error = errno;
            close(fd);
            return fail_errno(f, err_from_errno(error), error, "cannot change the owner of '%s'",
                              path);
        }
    }
    return give_entries(&gift, fd, 0);
}

/* Room for ancillary data, aligned as cmsg(3) wants it. */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(PASSED_MAX * sizeof(int))];
};

/* Waits until the socket can be read or written. deadline_us 0: as long as it takes. */
static int wait_for(int fd, short events, uint64_t deadline_us, struct failure *f)
{
    for (;;) {
        int left_ms = -1;
        if (deadline_us) {
            uint64_t now = port_mono_us();
            left_ms = now >= deadline_us ? 0 : (int)((deadline_us - now + 999) / 1000);
        }
        struct pollfd poll_fd = {fd, events, 0};
        int count = poll(&poll_fd, 1, left_ms);
        if (count > 0)
            return 0;
        if (count == 0)
            return fail(f, ERR_TIMEOUT, "no message in time");
        if (errno != EINTR)
            return fail_errno(f, err_from_errno(errno), errno, "cannot wait for a message");
    }
}

int os_message_send(int fd, const void *message, size_t size_bytes, int pass_fd, struct failure *f)
{
    union control control;
    struct iovec part = {(void *)message, size_bytes};
    struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (pass_fd >= 0) {
        head.msg_control = control.bytes;
        head.msg_controllen = CMSG_SPACE(sizeof pass_fd);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&head);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof pass_fd);
        memcpy(CMSG_DATA(rights), &pass_fd, sizeof pass_fd);
    }
    for (;;) {
        ssize_t sent = sendmsg(fd, &head, MSG_NOSIGNAL);
        if (sent == (ssize_t)size_bytes)
            return 0;
        if (sent >= 0)
            return fail(f, ERR_PROTOCOL, "message of %zu bytes was cut to %zd", size_bytes, sent);
        if (errno == EAGAIN) {
            int rc = wait_for(fd, POLLOUT, 0, f);
            if (rc)
                return rc;
        } else if (errno != EINTR) {
            return fail_errno(f, err_from_errno(errno), errno, "cannot send a message");
        }
    }
}

/* Takes the descriptors out of a message: the first goes to *first (-1: none), the others are
 * closed. */
static unsigned take_descriptors(struct msghdr *head, int *first)
{
    unsigned count = 0;
    *first = -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(head); part; part = CMSG_NXTHDR(head, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t descriptors = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < descriptors; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (count++ == 0)
                *first = fd;
            else
                close(fd);
        }
    }
    return count;
}

/* What recvmsg() gave, judged. Closes or hands over every descriptor. */
static int judge_message(struct msghdr *head, ssize_t got, size_t size_bytes, int *passed_fd,
                         struct failure *f)
{
    int first;
    unsigned count = take_descriptors(head, &first);
    int rc = 0;
    if (got == 0)
        rc = fail(f, ERR_CLOSED, "the other end has gone");
    else if ((size_t)got != size_bytes || head->msg_flags & MSG_TRUNC)
        rc = fail(f, ERR_PROTOCOL, "message is not of %zu bytes", size_bytes);
    else if (count > 1 || head->msg_flags & MSG_CTRUNC)
        rc = fail(f, ERR_PROTOCOL, "message carries more than one descriptor, or no room for it");
    if (rc == 0 && passed_fd) {
        *passed_fd = first;
        return 0;
    }
    if (first >= 0)
        close(first);
    return rc;
}

int os_message_receive(int fd, void *message, size_t size_bytes, int *passed_fd, int timeout_ms,
                       struct failure *f)
{
    uint64_t deadline_us = timeout_ms < 0 ? 0 : port_mono_us() + (uint64_t)timeout_ms * 1000 + 1;
    union control control;
    for (;;) {
        int rc = wait_for(fd, POLLIN, deadline_us, f);
        if (rc)
            return rc;
        struct iovec part = {message, size_bytes};
        struct msghdr head = {.msg_iov = &part,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes};
        ssize_t got = recvmsg(fd, &head, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (got >= 0)
            return judge_message(&head, got, size_bytes, passed_fd, f);
        if (errno != EINTR && errno != EAGAIN)
            return fail_errno(f, err_from_errno(errno), errno, "cannot receive a message");
    }
}

/*
 * The kernel kills this process at its deadline, also when nobody looks; and when the broker dies.
 * The second alone would not do: it is lost when the broker is gone before it is asked for.
 */
static void bind_life(pid_t parent, uint64_t deadline_us)
{
    struct sigevent end;
    memset(&end, 0, sizeof end);
    end.sigev_notify = SIGEV_SIGNAL;
    end.sigev_signo = SIGKILL;
    timer_t timer;
    struct itimerspec when = {
        {0, 0}, {(time_t)(deadline_us / 1000000), (long)(deadline_us % 1000000) * 1000}};
    if (timer_create(CLOCK_BOOTTIME, &end, &timer) == 0)
        timer_settime(timer, 0, &when, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(1);
}

int os_worker_start(struct os_worker *worker, uint64_t deadline_us, int (*run)(void *context),
                    void *context, struct failure *f)
{
    if (deadline_us == 0)
        return fail(f, ERR_INVALID, "a worker needs a deadline");
    pid_t parent = getpid();
    uint64_t now = port_mono_us();
    pid_t pid = fork_quietly();
    if (pid < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot start a worker");
    if (pid == 0) {
        bind_life(parent, deadline_us);
        signals_afresh();
        int result = run(context);
        fflush(NULL);
        _exit(result & 0xff);
    }
    *worker = (struct os_worker){.pid = pid, .deadline_mono_us = now + deadline_us};
    return 0;
}

int os_worker_poll(struct os_worker *worker, int *exit_status)
{
    int status = 0;
    pid_t pid = worker->pid > 0 ? waitpid(worker->pid, &status, WNOHANG) : -1;
    if (pid == 0) {
        if (port_mono_us() >= worker->deadline_mono_us)
            kill(worker->pid, SIGKILL);
        return ERR_AGAIN;
    }
    if (pid < 0 && worker->pid > 0 && errno == EINTR)
        return ERR_AGAIN;
    /* Nothing to wait for: somebody else reaped it; that it ended is all we know. */
    *exit_status = pid < 0               ? -SIGKILL
                   : WIFSIGNALED(status) ? -WTERMSIG(status)
                                         : WEXITSTATUS(status);
    worker->pid = 0;
    return 0;
}

void os_worker_kill(struct os_worker *worker)
{
    if (worker->pid <= 0)
        return;
    kill(worker->pid, SIGKILL);
    int status;
    struct timespec step = {0, 1000000};
    for (int i = 0; i < REAP_LIMIT_MS && os_worker_poll(worker, &status) == ERR_AGAIN; i++)
        nanosleep(&step, NULL);
}

/* "Rss:    1234 kB" -> bytes; 0 when the line is not there. */
static uint64_t line_kilobytes(const char *text, const char *key)
{
    const char *line = strstr(text, key);
    if (!line)
        return 0;
    struct span rest = span_str(line + strlen(key));
    while (rest.size_bytes > 0 && (*rest.data == ' ' || *rest.data == '\t')) {
        rest.data++;
        rest.size_bytes--;
    }
    uint64_t value = 0;
    return text_take_u64(&rest, &value) == 0 ? value * 1024 : 0;
}

static bool read_small(const char *path, char *out, size_t size_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, out, size_bytes - 1);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* Where smaps_rollup is missing (before Linux 4.14): resident less what is backed by files. */
static void usage_from_statm(uint64_t *private_bytes, uint64_t *resident_bytes)
{
    char text[256];
    uint64_t pages[3] = {0, 0, 0};
    if (read_small("/proc/self/statm", text, sizeof text)) {
        struct span rest = span_str(text), field;
        for (int i = 0; i < 3 && text_take_until(&rest, ' ', &field) == 0; i++)
            text_take_u64(&field, &pages[i]);
    }
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    *resident_bytes = pages[1] * page;
    *private_bytes = pages[1] > pages[2] ? (pages[1] - pages[2]) * page : 0;
}

void os_self_usage(uint64_t *cpu_us, uint64_t *private_bytes, uint64_t *resident_bytes)
{
    struct timespec cpu = {0, 0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    *cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000;
    char text[2048];
    if (!read_small("/proc/self/smaps_rollup", text, sizeof text)) {
        usage_from_statm(private_bytes, resident_bytes);
        return;
    }
    *resident_bytes = line_kilobytes(text, "\nRss:");
    *private_bytes =
        line_kilobytes(text, "\nPrivate_Clean:") + line_kilobytes(text, "\nPrivate_Dirty:");
}

void os_be_urgent(bool urgent)
{
    setpriority(PRIO_PROCESS, 0, urgent ? NICE_URGENT : 0);
}

void os_be_nice(void)
{
    setpriority(PRIO_PROCESS, 0, NICE_WORKER);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}
