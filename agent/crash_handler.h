/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent crash ...`, as the kernel runs it for every process that dies of a signal: root, no
 * environment, nobody to answer to. Works with the agent dead. Called by main.
 */
#ifndef TRAWL_AGENT_CRASH_HANDLER_H
#define TRAWL_AGENT_CRASH_HANDLER_H

/* argv: "trawl-agent crash FILE %P %p %I %i %u %g %d %s %t %c [%F]" (core(5)). Exit status. */
int crash_handler_main(int argc, char **argv);

#endif
