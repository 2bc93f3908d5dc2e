/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent crash ...`, as the kernel runs it for every process that dies of a signal: root, no
 * environment, nobody to answer to. Works with the agent dead. Called by main and crash_listen.
 */
#ifndef TRAWL_AGENT_CRASH_HANDLER_H
#define TRAWL_AGENT_CRASH_HANDLER_H

#include "agent/os/crash.h"

/* argv: "trawl-agent crash FILE %P %p %I %i %u %g %d %s %t %c [%F]" (core(5)). Exit status. */
int crash_handler_main(int argc, char **argv);

/*
 * The same for a crash that came over the crash socket, in the child that the listener made for it.
 * Takes `connection` and arguments->pidfd. Exit status.
 */
int crash_handler_serve(const struct os_crash_arguments *arguments, int connection,
                        const char *config_path);

#endif
