/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet brake: while it is on, no capture begins anywhere, whoever asked for it. Stored in
 * partition "brake" (keys.h). Invariant: agents are told of a change only when it is committed, and
 * told again each time they come. Loop thread; asked by dispatch and the Operations.
 */
#ifndef TRAWL_COLLECTOR_BRAKE_H
#define TRAWL_COLLECTOR_BRAKE_H

#include <stdbool.h>

#include "collector/roster.h"
#include "collector/store.h"
#include "proto/codec.h"

struct brake;
struct collector;

/* Reads what was stored. ERR_CORRUPT names what to do: whether the fleet is frozen is not known. */
int brake_open(struct brake **out, struct collector *c, struct failure *f);
void brake_close(struct brake *brake);

bool brake_is_on(const struct brake *brake);
/* Fills `f` with the sentence that a capture is refused with while it is on. ERR_REFUSED. */
int brake_refuse(const struct brake *brake, struct failure *f);
/* As it is, with how many hosts there are, are here, and obey. */
void brake_view(const struct brake *brake, trawl_v1_Brake *out);

/*
 * Sets it, commits, tells every agent that is here, then `done`. Setting it to what it is already
 * changes nothing but who said so last, and why. ERR_BUSY: the store takes nothing now, or another
 * change is on its way.
 */
int brake_set(struct brake *brake, const trawl_v1_BrakeRequest *request, const char *who,
              store_done_fn done, void *context, struct failure *f);

/* Somebody who waits until every agent that is here obeys; embed. */
struct brake_waiter {
    struct list link;
    uint64_t until_mono_us;
    void (*done)(struct brake_waiter *waiter); /* all do, or BRAKE_WAIT_US have passed */
};
#define BRAKE_WAIT_US (5 * UINT64_C(1000000))
/* `done` may be called before it returns. */
void brake_wait(struct brake *brake, struct brake_waiter *waiter);
void brake_unwait(struct brake_waiter *waiter);
/* Once a second. */
void brake_tick(struct brake *brake);

/* An agent was welcomed; an agent says what it goes by. */
void brake_host_here(struct brake *brake, struct host *host);
void brake_obeyed(struct brake *brake, struct host *host, const trawl_v1_BrakeObeyed *obeyed);

#endif
