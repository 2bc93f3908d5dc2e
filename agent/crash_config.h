/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the crash handler needs to know, in a file that only root can write, because it names the
 * program that was there before: spool, policy, the core pattern of before. The kernel's command
 * line (at most 127 bytes) names this file. Invariant: a file that others than root could have
 * written is not believed. Called by crash_handler and crash_command.
 */
#ifndef TRAWL_AGENT_CRASH_CONFIG_H
#define TRAWL_AGENT_CRASH_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/core_pattern.h"
#include "agent/os/crash_socket.h"
#include "common/buf.h"

#define CRASH_CONFIG_PATH "/etc/trawl/crash-handler"
/* Above what the agent's user owns: nobody but root can put another socket there. */
#define CRASH_SOCKET_PATH "/run/trawl-crash.sock"
#define CRASH_CORE_BYTES (UINT64_C(4) << 30)

struct crash_config {
    char spool[256];
    char policy[256];
    char previous[OS_CORE_PATTERN_SIZE]; /* core pattern of before; may be empty */
    char pattern[OS_CORE_PATTERN_SIZE];  /* ours, as it was written */
    uint64_t size_bytes;                 /* of the spool */
    uint64_t core_bytes;                 /* of a whole core, before it is packed */
    bool by_agent; /* put there by the agent's setting: taken back when it stops */
    /* Where the listener is; empty: the kernel runs us. While it is stopped `previous` stands in
     * the kernel; it puts `pattern` back when it starts. */
    char socket[OS_CRASH_SOCKET_SIZE];
};

/* ERR_NOTFOUND; ERR_DENIED (not root's alone), ERR_CORRUPT. */
int crash_config_read(struct crash_config *config, const char *path, struct failure *f);
/* Mode 0600; makes the directory above it. */
int crash_config_write(const struct crash_config *config, const char *path, struct failure *f);

#endif
