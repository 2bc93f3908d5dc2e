/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to logs*.c: recognising times in lines, choosing the lines of a window, and the two kinds
 * of sources (files that the process has open, the journal).
 */
#ifndef TRAWL_AGENT_OS_LINUX_LOGS_LINUX_H
#define TRAWL_AGENT_OS_LINUX_LOGS_LINUX_H

#include <sys/types.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/process.h"
#include "common/buf.h"

#define LOGS_LINE_SIZE 4096 /* longer lines are cut */

/* ---- logs_time.c ---- */

/*
 * The time that a line of a log bears: ISO 8601, RFC 3339, the formats of syslog, nginx, Apache,
 * redis, PostgreSQL, Python, Go and logback. A time without a zone is in the host's; one without a
 * year or a day is the latest not after `latest_us`. ERR_NOTFOUND: it bears none. Pure but for the
 * host's zone.
 */
int logs_time(struct span line, int64_t latest_us, int64_t *out_us);

/* ---- logs_window.c ---- */

/* Takes lines oldest first, keeps those of the window and the newest of them that fit into `out`.
 */
struct logs_window {
    int64_t from_us, to_us;
    struct buf *out;       /* its limit is kept */
    bool inside;           /* the line before was taken: one without a time follows it */
    bool take_all;         /* the source bears no times */
    bool cut;              /* older lines had to go */
    uint64_t timed, taken; /* lines with a time; lines taken */
};
void logs_window_line(struct logs_window *window, struct span line);
/* All lines of `text`, also an unfinished last one. */
void logs_window_text(struct logs_window *window, struct span text);

/* ---- logs_journal.c ---- */

#define LOGS_JOURNALCTL "/usr/bin/journalctl"
bool logs_has_journal(const char *root);
/*
 * Starts journalctl(1) with these arguments (the last NULL), its output to come from *output, in an
 * environment of our own. The kernel ends it when the thread that started it ends. The caller reaps
 * it.
 */
int logs_start_journal(const char *program, const char *const *list, pid_t *pid, int *output,
                       struct failure *f);
/*
 * Runs journalctl for the unit of the process, or for its pid, and feeds its lines to the window.
 * It is given 10 s and 16 MiB of output. ERR_TIMEOUT, ERR_LIMIT, ERR_IO: what came until then was
 * fed.
 */
int logs_read_journal(const char *root, const struct os_process *process,
                      struct logs_window *window, struct failure *f);
/* Whether the name of a unit holds only characters that systemd gives them (systemd.unit(5)). */
bool logs_is_unit_name(const char *name);

/* ---- logs_file.c ---- */

#define LOGS_FILES_MAX 8

/* A log file, open for reading. */
struct logs_file {
    int fd;
    uint64_t device, inode;
    char path[PROC_PATH_SIZE]; /* as the process knows it */
};
/*
 * Opens the log files of the process: regular files that it writes and that are named as logs are,
 * or are its standard output or error; and the one that was rotated away last, when it holds some
 * of the window. Returns how many. What cannot be read is said in `missing`.
 */
size_t logs_open_files(const char *root, const struct os_process *process, int64_t from_us,
                       struct logs_file *files, char *missing, size_t size_bytes);
/* Reads back from the end, at most 8 MiB, and feeds the window. */
int logs_read_file(const struct logs_file *file, struct logs_window *window, char *missing,
                   size_t size_bytes, struct failure *f);

/* Adds "what: why" to what is missing. */
void logs_miss(char *missing, size_t size_bytes, const char *what, const char *why);

/* As os_logs_capture(), with a root for tests. Appends to `out`; on failure nothing was appended.
 */
int logs_capture(const char *root, const struct os_process *process, int64_t from_us, int64_t to_us,
                 struct buf *out, char *missing, size_t size_bytes, struct failure *f);

#endif
