/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is ordered for a firing: at its own host what the rule names, at peers what they saw.
 * Private to firings.c and firings_order.c.
 */
#ifndef TRAWL_COLLECTOR_FIRINGS_ORDER_H
#define TRAWL_COLLECTOR_FIRINGS_ORDER_H

#include "collector/incident.h"
#include "collector/roster.h"
#include "rule/language.h"

#define FIRING_PEERS_MAX 8 /* hosts */

/* The event's time in collector time. */
int64_t firing_at_us(const trawl_v1_Event *event);
/* Of the host that it fired on; `into`: an incident to join, or "". */
void firing_request(const trawl_v1_Event *event, const struct rule *rule, const char *into,
                    int64_t now_us, trawl_v1_CaptureRequest *out);
/* Of a peer: counters, events and logs of the same minute. */
void firing_peer_request(const trawl_v1_Event *event, const struct host *peer, const char *into,
                         int64_t now_us, trawl_v1_CaptureRequest *out);
/* Hosts that are here, with the same values of all labels that the rule names. Returns how many. */
size_t firing_peers(struct roster *roster, const struct host *host, const struct rule *rule,
                    struct host *out[FIRING_PEERS_MAX]);

#endif
