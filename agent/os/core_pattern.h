/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's core pattern (core(5), "Naming of core dump files", "Piping core dumps to a
 * program"): reading and changing it, and doing what the kernel would have done with one that was
 * there before. Called by crash_handler and crash_command.
 */
#ifndef TRAWL_AGENT_OS_CORE_PATTERN_H
#define TRAWL_AGENT_OS_CORE_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/crash.h"

#define OS_CORE_PATTERN_SIZE 128 /* with the terminating zero */

/* `root`: "" or a directory with the proc tree of a test. */
int os_core_pattern_read(const char *root, char out[OS_CORE_PATTERN_SIZE], struct failure *f);
/* ERR_DENIED; ERR_LIMIT: the kernel would cut it. */
int os_core_pattern_write(const char *root, const char *pattern, struct failure *f);
/* Whether this kernel has %F (Linux >= 6.16). */
bool os_core_pattern_has_pidfd(void);
/* How this kernel hands crashes to a unix socket (kernel: fs/coredump.c, coredump_parse()). */
enum os_core_socket {
    OS_CORE_SOCKET_NONE,
    OS_CORE_SOCKET_PLAIN, /* "@PATH", Linux 6.16: the core follows the connection */
    OS_CORE_SOCKET_ASKS   /* "@@PATH", Linux 6.17: the kernel asks first, and waits until the end */
};
/* `root`: as in os_core_pattern_read(). */
enum os_core_socket os_core_pattern_socket(const char *root);
/*
 * Whether only root can change what `path` names: the file and every directory above it belong to
 * root and are writable by nobody else (a sticky directory, as /tmp, is not enough). ERR_DENIED
 * with the one that is not, ERR_NOTFOUND.
 */
int os_check_only_root(const char *path, struct failure *f);

/* What the specifiers become, besides os_crash_arguments. */
struct os_core_words {
    const struct os_crash_arguments *arguments;
    const char *comm;       /* %e */
    const char *executable; /* %E; %f is what follows its last '/' */
    const char *host;       /* %h */
    int cpu;                /* %C; -1: not known */
    bool uses_pid;          /* kernel.core_uses_pid */
};

#define OS_CORE_ARGUMENTS_MAX 64
#define OS_CORE_TEXT_MAX 8192
struct os_core_name {
    char text[OS_CORE_TEXT_MAX];
    char *words[OS_CORE_ARGUMENTS_MAX + 1]; /* into text, NULL-terminated; of a file: one */
    size_t count;
};
/* As the kernel's format_corename() does it: first words, then specifiers. Pure. ERR_LIMIT;
 * ERR_INVALID: a program without an absolute path. */
int os_core_pattern_expand(const char *pattern, const struct os_core_words *words,
                           struct os_core_name *out);

/* ---- what was there before ---- */

struct os_chain;

/*
 * Begins what `pattern` asks for: starts the program, or makes the file as the process would, in
 * its own root and directory, within its core limit. *out NULL with 0: nothing is to be done (no
 * limit allows it, or it is protected). The process is still held. ERR_*: what was there before
 * cannot have its core; *f says why.
 */
int os_chain_open(struct os_chain **out, const struct os_crash *crash, const char *pattern,
                  struct failure *f);
/* ERR_CLOSED: it wants no more. Never ends us by a signal. */
int os_chain_feed(struct os_chain *chain, struct span bytes);
/* All that comes out of core_fd, without passing through us where possible. As os_chain_feed(). */
int os_chain_splice(struct os_chain *chain, int core_fd);
/* Ends its input. A program is waited for, as long as it takes; core_fd, if not -1, is closed when
 * the kernel would let the process go. */
void os_chain_close(struct os_chain *chain, int core_fd);

#endif
