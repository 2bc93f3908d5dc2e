/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel messages from /dev/kmsg: one record for each read(2), not blocking. Invariant: what was
 * overwritten before it could be read is skipped, never an end. Called by the watcher through
 * os/host.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/host.h"
#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define RECORD_SIZE 8192

struct os_kernel_log {
    int fd;
    uint64_t next_sequence; /* 0: none was read yet */
};

int os_kernel_log_open(struct os_kernel_log **out, struct failure *f)
{
    int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '/dev/kmsg'");
    struct os_kernel_log *log = calloc(1, sizeof *log);
    if (!log) {
        close(fd);
        return fail(f, ERR_NOMEM, "out of memory for kernel messages");
    }
    log->fd = fd;
    (void)lseek(fd, 0, SEEK_END);
    *out = log;
    return 0;
}

void os_kernel_log_close(struct os_kernel_log *log)
{
    if (!log)
        return;
    close(log->fd);
    free(log);
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec ts = {0};
    (void)clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int os_kernel_log_fd(const struct os_kernel_log *log)
{
    return log->fd;
}

static void note_lost(struct os_kernel_log *log, uint64_t sequence, uint64_t *lost)
{
    if (lost && log->next_sequence && sequence > log->next_sequence)
        *lost += sequence - log->next_sequence;
    log->next_sequence = sequence + 1;
}

size_t os_kernel_log_read(struct os_kernel_log *log,
                          void (*each)(void *context, const struct os_kernel_message *message),
                          void *context, uint64_t *lost)
{
    uint8_t record[RECORD_SIZE];
    char text[RECORD_SIZE];
    size_t count = 0;
    /* The kernel's stamps leave out the time that the machine was suspended, our clock does not. */
    uint64_t suspended_us = clock_us(CLOCK_BOOTTIME) - clock_us(CLOCK_MONOTONIC);
    for (int i = 0; i < OS_KERNEL_LOG_MOST; i++) {
        struct proc_kernel_message m;
        ssize_t got = read(log->fd, record, sizeof record);
        if (got < 0 && (errno == EPIPE || errno == EINTR || errno == EINVAL))
            continue; /* overwritten, or longer than a record can be */
        if (got <= 0)
            break;
        if (proc_parse_kernel_message(span_of(record, (size_t)got), &m) < 0)
            continue;
        note_lost(log, m.sequence, lost);
        (void)text_copy_span(text, sizeof text, m.text);
        const struct os_kernel_message message = {m.priority, m.from_kernel,
                                                  m.time_us + suspended_us, text};
        each(context, &message);
        count++;
    }
    return count;
}
