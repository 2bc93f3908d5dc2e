/* SPDX-License-Identifier: Apache-2.0 */
/* Local datagrams with credentials. See agent/os/datagram.h. */
#include "agent/os/datagram.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/text.h"

#define SEND_SECONDS 2
#define SOCKET_MODE 0666

static int set_path(struct sockaddr_un *address, const char *path, struct failure *f)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (text_copy(address->sun_path, sizeof address->sun_path, path))
        return fail(f, ERR_LIMIT, "path of a socket is too long (limit %zu): '%s'",
                    sizeof address->sun_path - 1, path);
    return 0;
}

/* Whether somebody listens there; only a socket without a listener may go. */
static int make_room(const struct sockaddr_un *address, struct failure *f)
{
    struct stat info;
    if (lstat(address->sun_path, &info))
        return 0;
    if (!S_ISSOCK(info.st_mode))
        return fail(f, ERR_EXISTS, "'%s' is there and no socket", address->sun_path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)address, sizeof *address);
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (rc == 0)
        return fail(f, ERR_BUSY, "another agent listens at '%s'", address->sun_path);
    if (error == ECONNREFUSED)
        (void)unlink(address->sun_path);
    return 0;
}

int os_datagram_open(const char *path, int *out, struct failure *f)
{
    struct sockaddr_un address;
    const int on = 1;
    int e = set_path(&address, path, f);
    if (!e)
        e = make_room(&address, f);
    if (e)
        return e;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make a socket");
    /* Credentials are asked for before anybody can send. */
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) ||
        chmod(address.sun_path, SOCKET_MODE)) {
        e = fail_errno(f, err_from_errno(errno), errno, "cannot listen at '%s'", path);
        close(fd);
        return e;
    }
    *out = fd;
    return 0;
}

void os_datagram_close(const char *path, int fd)
{
    close(fd);
    (void)unlink(path);
}

static void take_sender(struct msghdr *head, struct os_sender *sender)
{
    *sender = (struct os_sender){0, UINT32_MAX};
    for (struct cmsghdr *part = CMSG_FIRSTHDR(head); part; part = CMSG_NXTHDR(head, part)) {
        struct ucred who;
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_CREDENTIALS ||
            part->cmsg_len < CMSG_LEN(sizeof who))
            continue;
        memcpy(&who, CMSG_DATA(part), sizeof who);
        *sender = (struct os_sender){(uint32_t)who.pid, (uint32_t)who.uid};
    }
}

int os_datagram_receive(int fd, void *data, size_t size_bytes, size_t *got_bytes,
                        struct os_sender *sender)
{
    /* Room for the credentials only: descriptors do not fit and the kernel drops them. */
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {data, size_bytes};
    struct msghdr head = {.msg_iov = &part,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do
        got = recvmsg(fd, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? ERR_AGAIN : err_from_errno(errno);
    take_sender(&head, sender);
    if (head.msg_flags & MSG_TRUNC)
        return ERR_LIMIT;
    *got_bytes = (size_t)got;
    return 0;
}

static int explain(int error, const char *path, size_t size_bytes, struct failure *f)
{
    if (error == ENOENT)
        return fail(f, ERR_NOTFOUND, "nothing at '%s'", path);
    if (error == ECONNREFUSED)
        return fail(f, ERR_CLOSED, "nobody listens at '%s'", path);
    if (error == EAGAIN || error == EWOULDBLOCK)
        return fail(f, ERR_TIMEOUT, "who listens at '%s' took nothing for %d s", path,
                    SEND_SECONDS);
    if (error == EMSGSIZE)
        return fail(f, ERR_LIMIT, "a report of %zu bytes is too long", size_bytes);
    return fail_errno(f, err_from_errno(error), error, "cannot send to '%s'", path);
}

int os_datagram_send(const char *path, struct span bytes, struct failure *f)
{
    struct sockaddr_un address;
    const struct timeval patience = {SEND_SECONDS, 0};
    int e = set_path(&address, path, f);
    if (e)
        return e;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make a socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    ssize_t sent;
    do
        sent = sendto(fd, bytes.data, bytes.size_bytes, MSG_NOSIGNAL,
                      (const struct sockaddr *)&address, sizeof address);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        e = explain(errno, path, bytes.size_bytes, f);
    close(fd);
    return e;
}
