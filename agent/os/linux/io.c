/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading /proc/PID/io and releasing mapped pages on Linux. Invariant: os_process_read_io() opens,
 * reads and closes at once, so a pid that is reused costs at most one wrong answer, which the
 * sampler's own start-time check drops. Called by the broker and the ring.
 */
#include "agent/os/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"

#define IO_TEXT_SIZE 512

static int read_text(const char *path, char *out, size_t size_bytes, size_t *got)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t n = read(fd, out, size_bytes);
    int error = n < 0 ? errno : 0;
    close(fd);
    *got = n > 0 ? (size_t)n : 0;
    return error;
}

int os_process_read_io(const char *root, uint32_t pid, struct os_process_io *out)
{
    char path[PROC_PATH_SIZE], text[IO_TEXT_SIZE];
    size_t got = 0;
    *out = (struct os_process_io){.pid = pid};
    proc_path(path, root, pid, "io");
    out->error = read_text(path, text, sizeof text, &got);
    if (!out->error && proc_parse_io(span_of(text, got), &out->read_bytes, &out->write_bytes))
        out->error = EIO;
    return out->error;
}

/* madvise(2): on a shared file mapping MADV_DONTNEED only empties our page table. */
void os_pages_release(void *data, size_t size_bytes)
{
    (void)madvise(data, size_bytes, MADV_DONTNEED);
}
