/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A local datagram socket to which any user of this host may send, and the kernel's word on who
 * did (unix(7), SCM_CREDENTIALS). Called by the agent's intake and by `emit`.
 */
#ifndef TRAWL_AGENT_OS_DATAGRAM_H
#define TRAWL_AGENT_OS_DATAGRAM_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct os_sender {
    uint32_t pid; /* 0: not of this pid namespace, or not known */
    uint32_t uid; /* UINT32_MAX: not known */
};

/*
 * Makes the socket at `path`, open to all users; a socket there to which nobody listens any more is
 * replaced. *fd does not block. ERR_BUSY: somebody listens there; ERR_EXISTS: something else lies
 * there; ERR_DENIED, ERR_NOTFOUND (no such directory), ERR_LIMIT (path too long).
 */
int os_datagram_open(const char *path, int *fd, struct failure *f);
/* Closes it and removes the path. */
void os_datagram_close(const char *path, int fd);

/*
 * The next datagram. Descriptors that come along are dropped. ERR_AGAIN: none; ERR_LIMIT: it was
 * longer than size_bytes (*sender is set, the datagram is gone); else an error of the socket.
 */
int os_datagram_receive(int fd, void *data, size_t size_bytes, size_t *got_bytes,
                        struct os_sender *sender);

/* Sends one; waits up to two seconds while the reader is behind. ERR_NOTFOUND (nothing at this
 * path), ERR_CLOSED (nobody listens), ERR_TIMEOUT, ERR_LIMIT, ERR_DENIED. */
int os_datagram_send(const char *path, struct span bytes, struct failure *f);

#endif
