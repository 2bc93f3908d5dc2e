/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A person's call: a connection of its own, one request, replies, the end; as the command line does
 * it. Invariant: `done` comes once, last. Used by main.c, and by probe.c on a loop of its own.
 */
#ifndef TRAWL_BENCH_FARM_ASK_H
#define TRAWL_BENCH_FARM_ASK_H

#include "agent/link.h"
#include "farm.h"
#include "proto/methods.h"

struct ask {
    uv_loop_t *loop;
    struct tls_config *tls;
    uint16_t port;
    enum method_id method;
    struct buf request;
    void (*reply)(void *context, struct span message); /* may be NULL */
    void *context;
    /* Filled in. */
    bool is_done;
    struct failure why; /* code 0: it went well */
    size_t replies;
    struct link *link;
};

/* Takes ask->request. Runs until `is_done`; the link goes by itself. */
void ask_start(struct ask *ask);
/* Starts it and waits on the farm's loop. False: it failed, which is counted and told. */
bool ask_wait(struct farm *farm, struct ask *ask, unsigned limit_s);

#endif
