/* SPDX-License-Identifier: Apache-2.0 */
/* Making the table; what is done with it stands in crash_spool.h. Called by crash_spool.c. */
#ifndef TRAWL_AGENT_CRASH_TABLE_H
#define TRAWL_AGENT_CRASH_TABLE_H

#include "common/err.h"

/* In an open directory, where it is missing or too short. ERR_FULL, ERR_DENIED. */
int crash_table_make(int directory, struct failure *f);

#endif
