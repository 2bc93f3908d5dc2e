/* SPDX-License-Identifier: Apache-2.0 */
/* Operations.Show and Operations.Watch: an incident as it is, and as it changes. */
#ifndef TRAWL_COLLECTOR_OPS_SHOW_H
#define TRAWL_COLLECTOR_OPS_SHOW_H

#include "collector/serve.h"

int show_message(struct call *call, struct span request, struct failure *f);
int watch_message(struct call *call, struct span request, struct failure *f);
void watch_ended(struct call *call);

#endif
