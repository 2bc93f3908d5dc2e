/* SPDX-License-Identifier: Apache-2.0 */
/* Operations.Fetch: one artifact out, from any piece on. Handler functions for serve.c's tables. */
#ifndef TRAWL_COLLECTOR_FETCH_H
#define TRAWL_COLLECTOR_FETCH_H

#include "collector/serve.h"

int fetch_message(struct call *call, struct span request, struct failure *f);
void fetch_more(struct call *call);
void fetch_ended(struct call *call);

#endif
