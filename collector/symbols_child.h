/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that reads one ELF file: this program again, as `trawl-collector symbols-read`, with
 * the file as standard input, the table's file as standard output and a pipe for one sentence as
 * standard error. Invariant: it has no other descriptor and can get none, no privilege, and ends by
 * itself. Called by main() and symbols_add.
 */
#ifndef TRAWL_COLLECTOR_SYMBOLS_CHILD_H
#define TRAWL_COLLECTOR_SYMBOLS_CHILD_H

#include "common/err.h"

#define SYMBOLS_CHILD_COMMAND "symbols-read"
#define SYMBOLS_CHILD_WHY "why: " /* the sentence's line begins so */
#define SYMBOLS_CHILD_CPU_S 120
#define SYMBOLS_CHILD_MEMORY_MIB 2048

/* Does not return: exit status 0, or 1 with its sentence. */
void symbols_child_main(void);

#endif
