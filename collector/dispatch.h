/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends the orders of open captures to hosts that are here, within waves (canary first) and the
 * limit on how many run at once. Invariant: a target's order number is committed before the order
 * is sent, and an order that a host has accepted is never sent under another number. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_DISPATCH_H
#define TRAWL_COLLECTOR_DISPATCH_H

#include "collector/incident.h"

struct dispatch;
int dispatch_open(struct dispatch **out, struct collector *c, struct failure *f);
void dispatch_close(struct dispatch *dispatch);

/* A host announced itself: what was sent but not accepted is sent again, what waits is sent. */
void dispatch_host_here(struct dispatch *dispatch, struct host *host);
void dispatch_host_gone(struct dispatch *dispatch, struct host *host);
/* Sends whatever may be sent now for this capture; called after every change of a target. */
void dispatch_pump(struct dispatch *dispatch, struct capture *capture);
/* Tells the host to stop an order. */
void dispatch_cancel(struct dispatch *dispatch, const struct target *target, const char *reason);

#endif
