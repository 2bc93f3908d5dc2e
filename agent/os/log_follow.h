/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log files and the journal, as they grow. Opening is the broker's (it may read what the agent may
 * not) and is done so that nobody who can write a directory of logs can make it open anything but a
 * log; reading is the agent's. Called by broker_logs.c and follow.c.
 */
#ifndef TRAWL_AGENT_OS_LOG_FOLLOW_H
#define TRAWL_AGENT_OS_LOG_FOLLOW_H

#include "agent/os/process.h"
#include "common/buf.h"

#define OS_LOG_PATH_SIZE 256
#define OS_LOG_LIST_MAX 64
#define OS_JOURNAL_CURSOR_SIZE 256

struct os_log {
    char path[OS_LOG_PATH_SIZE];
    uint64_t device, inode; /* both 0: none */
    uint64_t size_bytes;
    int64_t born_us; /* wall time; 0: the file system does not say */
};

struct os_log_list {
    uint32_t count;
    bool cut; /* there were more */
    char paths[OS_LOG_LIST_MAX][OS_LOG_PATH_SIZE];
};

/* What the patterns (glob(7), absolute, separated by commas) name now, sorted within each. */
void os_log_expand(const char *globs, struct os_log_list *out);

/*
 * Opens for reading. ERR_UNSUPPORTED, with the sentence: not a regular file, by way of a symbolic
 * link, or one with several names (a hard link to something else). *fd -1 with 0: it is `known` and
 * was not opened again.
 */
int os_log_open(const char *path, const struct os_log *known, int *fd, struct os_log *out,
                struct failure *f);
/* The index-th log file that the process has open (os/logs.h says which are). ERR_NOTFOUND: no
 * more. */
int os_log_open_of(const char *root, const struct os_process *process, uint32_t index,
                   const struct os_log *known, int *fd, struct os_log *out, struct failure *f);

/* What is behind `offset` now: *got 0 at the end. ERR_IO. */
int os_log_read(int fd, void *data, size_t size_bytes, uint64_t offset, size_t *got);
/* Identity, size and birth; the path is left as it is. */
int os_log_look(int fd, struct os_log *out);
void os_log_close(int fd);

/* ---- the journal ---- */

bool os_journal_exists(const char *root);
/*
 * Starts journalctl(1), from now on or behind `cursor` (which may be empty): entries in the export
 * format come out of *fd, which does not block. It ends when nobody reads any more, or the caller
 * dies. ERR_INVALID: that is no cursor.
 */
int os_journal_start(const char *root, const char *cursor, int *fd, int *pid, struct failure *f);
void os_journal_stop(int pid);
/* ERR_AGAIN: nothing now. ERR_CLOSED: it has ended. */
int os_journal_read(int fd, void *data, size_t size_bytes, size_t *got);

#endif
