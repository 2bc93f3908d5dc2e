/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent crash-handler install|remove|status`, and the same for the agent's setting
 * crash-handler. Invariant: the core pattern of before is written down before ours takes its place,
 * and is put back only where ours still stands. Called by main, start.c, the broker and
 * crash_listen.
 */
#ifndef TRAWL_AGENT_CRASH_COMMAND_H
#define TRAWL_AGENT_CRASH_COMMAND_H

#include "agent/settings.h"

/* `words`: those of the command line; words[2] says what is to be done. */
int crash_command(const struct settings *settings, int count, char **words, struct failure *f);

/* As root. Doing it twice changes nothing. ERR_DENIED, ERR_LIMIT, ERR_REFUSED, ERR_UNSUPPORTED. */
int crash_install(const struct settings *settings, bool by_agent, struct failure *f);
/* ERR_CONFLICT: somebody else's pattern stands there, and is left alone unless `force`. Not
 * installed: 0. `only_by_agent`: only what the agent's setting put there. */
int crash_remove(const char *config_path, bool force, bool only_by_agent, struct failure *f);

/*
 * The listener at `socket` has started, or is about to stop: puts the pattern that leads to it back
 * in, or what was there before. Only where 'install --socket' was done for it and nobody else has
 * changed the pattern meanwhile (ERR_CONFLICT); else nothing.
 */
int crash_resume(const char *config_path, const char *socket, struct failure *f);
int crash_suspend(const char *config_path, const char *socket, struct failure *f);

/* Says that this kernel hands no crash to a socket: ERR_UNSUPPORTED. */
int crash_no_socket(struct failure *f);
void crash_command_help(void);

#endif
