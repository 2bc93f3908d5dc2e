/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers of Operations share. */
#ifndef TRAWL_COLLECTOR_OPS_H
#define TRAWL_COLLECTOR_OPS_H

#include "collector/roster.h"
#include "collector/select.h"
#include "collector/serve.h"

/* Calls `each` for the hosts that the selector names ("" all). Non-zero stops and is returned.
 * ERR_INVALID (selector), ERR_NOTFOUND (it names none). */
typedef int (*ops_host_fn)(void *context, struct host *host, const trawl_v1_Host *view);
int ops_each_host(struct call *call, const char *selector, ops_host_fn each, void *context,
                  struct failure *f);

/* Operations.Top (ops_top.c). */
int top_message(struct call *call, struct span request, struct failure *f);
void top_ended(struct call *call);

#endif
