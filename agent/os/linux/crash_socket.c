/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crash socket: making it, knowing who is at its other end, answering the kernel. See
 * agent/os/crash_socket.h.
 */
#include "agent/os/crash_socket.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/core_pattern.h"
#include "agent/os/linux/crash_socket_linux.h"
#include "agent/os/linux/procfs.h"
#include "common/port.h"
#include "common/text.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* include/uapi/asm-generic/socket.h, Linux 6.5 */
#endif
#define BACKLOG 4096 /* cut to net.core.somaxconn */
#define ANSWER_SECONDS 5
#define FIRST_PASSED_FD 3 /* sd_listen_fds(3), SD_LISTEN_FDS_START */
#define STAT_LAST 52

/* ---- the listening end ---- */

static int check_path(const char *path, struct failure *f)
{
    if (path[0] != '/' || strlen(path) >= OS_CRASH_SOCKET_SIZE || strchr(path, ' ') ||
        strstr(path, ".."))
        return fail(f, ERR_INVALID,
                    "'%s' can be no crash socket: the kernel wants an absolute path of at most %d "
                    "bytes, without blanks and '..'",
                    path, OS_CRASH_SOCKET_SIZE - 1);
    return 0;
}

/* The directory that the path is in, which the kernel must reach without symbolic links. */
static int check_directory(const char *path, struct failure *f)
{
    char above[OS_CRASH_SOCKET_SIZE];
    const char *slash = strrchr(path, '/');
    (void)text_copy_span(above, sizeof above, span_of(path, (size_t)(slash - path)));
    char *real = realpath(above[0] ? above : "/", NULL);
    bool is_plain = real && strcmp(real, above[0] ? above : "/") == 0;
    free(real);
    if (!is_plain)
        return fail(
            f, ERR_INVALID,
            "directory '%s' is not there or is reached by a symbolic link, which the kernel "
            "does not follow to a crash socket",
            above);
    return os_check_only_root(above[0] ? above : "/", f);
}

int os_crash_socket_check(const char *path, struct failure *f)
{
    struct stat st;
    int rc = check_path(path, f);
    if (rc == 0)
        rc = check_directory(path, f);
    if (rc)
        return rc;
    if (lstat(path, &st) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot examine '%s'", path);
    if (!S_ISSOCK(st.st_mode) || st.st_uid != 0 || (st.st_mode & 077))
        return fail(f, ERR_DENIED, "'%s' is no socket that only root can come by (mode 0600)",
                    path);
    return 0;
}

/* Only a socket that nobody listens at goes. */
static int make_room(const char *path, struct failure *f)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT
                   ? 0
                   : fail_errno(f, err_from_errno(errno), errno, "cannot examine '%s'", path);
    if (!S_ISSOCK(st.st_mode))
        return fail(f, ERR_EXISTS, "'%s' is there already, and is no socket", path);
    if (os_crash_socket_is_served("", path))
        return fail(f, ERR_INUSE, "somebody listens at '%s' already", path);
    if (unlink(path) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot remove '%s'", path);
    return 0;
}

int os_crash_socket_listen(const char *path, int *fd, struct failure *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int rc = check_path(path, f);
    if (rc == 0)
        rc = check_directory(path, f);
    if (rc == 0)
        rc = make_room(path, f);
    if (rc)
        return rc;
    (void)text_copy(address.sun_path, sizeof address.sun_path, path);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t before = umask(0177);
    bool is_done = made >= 0 && bind(made, (struct sockaddr *)&address, sizeof address) == 0 &&
                   listen(made, BACKLOG) == 0;
    int e = errno;
    umask(before);
    if (!is_done) {
        if (made >= 0)
            close(made);
        return fail_errno(f, err_from_errno(e), e, "cannot listen at '%s'", path);
    }
    *fd = made;
    return 0;
}

static bool is_number(const char *name, uint64_t wanted)
{
    const char *text = getenv(name);
    uint64_t number;
    return text && text_u64(text, &number) == 0 && number == wanted;
}

static int get_option(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

int os_crash_socket_inherit(int *fd, char path[OS_CRASH_SOCKET_SIZE], struct failure *f)
{
    struct sockaddr_un address;
    socklen_t size = sizeof address;
    bool is_ours = is_number("LISTEN_PID", (uint64_t)getpid());
    bool is_one = is_number("LISTEN_FDS", 1);
    if (!is_ours)
        return fail(f, ERR_NOTFOUND, "the init system gave no socket");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    memset(&address, 0, sizeof address);
    if (!is_one || get_option(FIRST_PASSED_FD, SO_DOMAIN) != AF_UNIX ||
        get_option(FIRST_PASSED_FD, SO_TYPE) != SOCK_STREAM ||
        get_option(FIRST_PASSED_FD, SO_ACCEPTCONN) != 1 ||
        getsockname(FIRST_PASSED_FD, (struct sockaddr *)&address, &size) != 0 ||
        address.sun_path[0] != '/' || text_copy(path, OS_CRASH_SOCKET_SIZE, address.sun_path))
        return fail(f, ERR_INVALID,
                    "what the init system gave is not one unix stream socket with a path that "
                    "listens (ListenStream=/...)");
    (void)fcntl(FIRST_PASSED_FD, F_SETFD, FD_CLOEXEC);
    *fd = FIRST_PASSED_FD;
    return 0;
}

/* ---- one for a path ---- */

static int open_lock(const char *path, int flags)
{
    char name[OS_CRASH_SOCKET_SIZE + 8];
    (void)text_format(name, sizeof name, "%s.lock", path);
    return open(name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

int os_crash_socket_lock(const char *path, int *fd, struct failure *f)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int made = open_lock(path, O_RDWR | O_CREAT);
    if (made < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make '%s.lock'", path);
    if (fcntl(made, F_SETLK, &lock) != 0) {
        int e = errno;
        close(made);
        return e == EACCES || e == EAGAIN
                   ? fail(f, ERR_INUSE, "another crash listener serves '%s' (pid %u)", path,
                          os_crash_socket_holder(path))
                   : fail_errno(f, err_from_errno(e), e, "cannot lock '%s.lock'", path);
    }
    *fd = made;
    return 0;
}

uint32_t os_crash_socket_holder(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open_lock(path, O_RDONLY);
    if (fd < 0)
        return 0;
    bool is_held = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return is_held && lock.l_pid > 0 ? (uint32_t)lock.l_pid : 0;
}

bool os_crash_socket_is_served(const char *root, const char *path)
{
    char name[PROC_PATH_SIZE], line[1024];
    struct proc_unix_socket found;
    bool is_served = false;
    snprintf(name, sizeof name, "%s/proc/net/unix", root);
    FILE *list = fopen(name, "re");
    while (list && !is_served && fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = '\0';
        is_served = proc_parse_unix_socket(span_str(line), &found) == 0 && found.listens &&
                    found.type == SOCK_STREAM && span_equal(found.path, span_str(path));
    }
    if (list)
        fclose(list);
    return is_served;
}

/* ---- who it is ---- */

int crash_core_limit(struct span limits, uint64_t *out)
{
    struct span line;
    if (proc_find_key(limits, "Max core file size", &line))
        return ERR_NOTFOUND;
    if (proc_starts_with(line, "unlimited")) {
        *out = UINT64_MAX;
        return 0;
    }
    return proc_take_number(&line, out);
}

uint32_t crash_stat_signal(struct span stat)
{
    uint64_t code = 0;
    struct span field;
    size_t name_end = 0;
    for (size_t i = 0; i < stat.size_bytes; i++)
        if (stat.data[i] == ')')
            name_end = i + 1;
    struct span rest = span_of(stat.data + name_end, stat.size_bytes - name_end);
    for (int i = 3; i < STAT_LAST; i++)
        if (proc_take_field(&rest, &field))
            return 0;
    if (name_end == 0 || proc_take_number(&rest, &code))
        return 0;
    return (uint32_t)(code & 0x7f); /* wait(2) */
}

/* What the kernel does not say by the peer's descriptor. Missing ones stay what they are. */
static void read_rest(struct os_crash_arguments *a)
{
    char data[PROC_TEXT_SIZE];
    struct span text, line;
    uint64_t number;
    if (proc_read_pid("", a->pid, "limits", data, sizeof data, &text, NULL) == 0)
        (void)crash_core_limit(text, &a->core_limit);
    if (proc_read_pid("", a->pid, "status", data, sizeof data, &text, NULL) == 0 &&
        proc_find_key(text, "NStgid:", &line) == 0)
        while (proc_take_number(&line, &number) == 0)
            a->inner_pid = (uint32_t)number; /* the innermost is the last */
    if (a->signal == 0 && proc_read_pid("", a->pid, "stat", data, sizeof data, &text, NULL) == 0)
        a->signal = crash_stat_signal(text);
}

static int get_info(int pidfd, struct crash_peer_info *info, struct failure *f)
{
    *info = (struct crash_peer_info){.mask = CRASH_PEER_INFO_PID | CRASH_PEER_INFO_CREDS |
                                             CRASH_PEER_INFO_COREDUMP |
                                             CRASH_PEER_INFO_COREDUMP_SIGNAL};
    if (ioctl(pidfd, CRASH_PEER_GET_INFO, info) != 0)
        return errno == ESRCH ? fail(f, ERR_GONE, "who connected has ended already")
                              : fail_errno(f, ERR_UNSUPPORTED, errno, "cannot learn who connected");
    if (!(info->mask & CRASH_PEER_INFO_COREDUMP) || !(info->coredump_mask & CRASH_PEER_COREDUMPED))
        return fail(f, ERR_DENIED,
                    "pid %u connected to the crash socket by itself, and is not being dumped: "
                    "refused",
                    info->tgid);
    return 0;
}

int os_crash_socket_identify(int connection, struct os_crash_arguments *out, struct failure *f)
{
    struct crash_peer_info info;
    int pidfd = get_option(connection, SO_PEERPIDFD);
    if (pidfd < 0)
        return fail_errno(f, ERR_GONE, errno, "cannot learn who connected");
    int rc = get_info(pidfd, &info, f);
    if (rc) {
        close(pidfd);
        return rc;
    }
    *out = (struct os_crash_arguments){
        .pid = info.tgid,
        .inner_pid = info.tgid,
        .uid = info.ruid,
        .gid = info.rgid,
        .dumpable = info.coredump_mask & CRASH_PEER_COREDUMP_USER ? 1 : 2,
        .signal = info.mask & CRASH_PEER_INFO_COREDUMP_SIGNAL ? info.coredump_signal : 0,
        .time_s = port_wall_us() / 1000000,
        .pidfd = pidfd,
    };
    read_rest(out);
    return 0;
}

/* ---- what is said ---- */

int crash_request_answer(struct span bytes, struct crash_ack *out, struct failure *f)
{
    struct crash_request request;
    if (bytes.size_bytes < sizeof request)
        return fail(f, ERR_PROTOCOL, "the kernel's request ends after %zu bytes", bytes.size_bytes);
    memcpy(&request, bytes.data, sizeof request);
    if (request.size < CRASH_REQUEST_LEAST || request.size >= CRASH_REQUEST_MOST)
        return fail(f, ERR_PROTOCOL, "the kernel's request would be of %u bytes", request.size);
    if (request.size_ack < sizeof *out || !(request.mask & CRASH_ASK_KERNEL))
        return fail(f, ERR_UNSUPPORTED,
                    "this kernel does not offer to write a core to the socket (mask 0x%llx)",
                    (unsigned long long)request.mask);
    *out = (struct crash_ack){
        .size = sizeof *out,
        .mask = CRASH_ASK_KERNEL | (request.mask & CRASH_ASK_WAIT),
    };
    return 0;
}

static int receive(int fd, void *data, size_t size_bytes, int flags, struct failure *f)
{
    size_t done = 0;
    while (done < size_bytes) {
        ssize_t got = recv(fd, (uint8_t *)data + done, size_bytes - done, flags | MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(f, errno == EAGAIN ? ERR_TIMEOUT : ERR_CLOSED, errno,
                              "the kernel says nothing on the crash socket");
        if (got == 0 || (flags & MSG_PEEK && (size_t)got < size_bytes))
            return fail(f, ERR_CLOSED, "the kernel has closed the crash socket");
        done += (size_t)got;
    }
    return 0;
}

static int receive_request(int fd, struct span *out, uint8_t bytes[CRASH_REQUEST_MOST],
                           struct failure *f)
{
    uint32_t size;
    int rc = receive(fd, bytes, CRASH_REQUEST_LEAST, 0, f);
    if (rc)
        return rc;
    memcpy(&size, bytes, sizeof size);
    /* What a newer kernel says besides is not known here. */
    if (size > CRASH_REQUEST_LEAST && size < CRASH_REQUEST_MOST)
        rc = receive(fd, bytes + CRASH_REQUEST_LEAST, size - CRASH_REQUEST_LEAST, 0, f);
    *out = span_of(bytes, CRASH_REQUEST_LEAST);
    return rc;
}

static int exchange(int fd, struct failure *f)
{
    uint8_t bytes[CRASH_REQUEST_MOST];
    struct span request;
    struct crash_ack ack;
    uint32_t mark;
    int rc = receive_request(fd, &request, bytes, f);
    if (rc == 0)
        rc = crash_request_answer(request, &ack, f);
    if (rc)
        return rc;
    if (send(fd, &ack, sizeof ack, MSG_NOSIGNAL) != (ssize_t)sizeof ack)
        return fail_errno(f, ERR_CLOSED, errno, "cannot answer the kernel");
    rc = receive(fd, &mark, sizeof mark, 0, f);
    if (rc == 0 && mark != CRASH_MARK_TAKEN)
        rc = fail(f, ERR_PROTOCOL, "the kernel does not take the answer (mark %u)", mark);
    return rc;
}

int os_crash_socket_answer(int connection, struct failure *f)
{
    struct timeval limit = {.tv_sec = ANSWER_SECONDS}, none = {0};
    uint8_t first[SELFMAG];
    (void)setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int rc = receive(connection, first, sizeof first, MSG_PEEK, f);
    if (rc == 0 && memcmp(first, ELFMAG, SELFMAG) != 0)
        rc = exchange(connection, f);
    (void)setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    return rc;
}
