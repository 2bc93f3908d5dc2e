/* SPDX-License-Identifier: Apache-2.0 */
/* What the rest of the collector knows of uploads; the calls themselves are handlers of serve.c. */
#ifndef TRAWL_COLLECTOR_UPLOAD_H
#define TRAWL_COLLECTOR_UPLOAD_H

#include "collector/collector.h"

/* Deletes what the host sent for this incident and nobody can fetch: artifacts that are not sealed,
 * or not recorded. Called when the host's order is over. */
void upload_forget(struct collector *c, const char *incident, const char *host);
/* The same for all incidents, of orders that ended while the collector was down. At start-up. */
void upload_forget_all(struct collector *c);

/* Whether the artifact has its record: 0, ERR_NOTFOUND, or ERR_CORRUPT for a damaged one. */
int upload_find_record(struct collector *c, const char *incident, const char *host, uint32_t no);

#endif
