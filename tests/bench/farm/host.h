/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated host: the agent's real uplink, uplink session, link, uploads, order acceptance,
 * journal and verdicts; its rings and its worker are stood in for by stand_in.c.
 */
#ifndef TRAWL_BENCH_FARM_HOST_H
#define TRAWL_BENCH_FARM_HOST_H

#include "agent/uplink.h"
#include "common/list.h"
#include "farm.h"
#include "fleet.h"

struct host {
    struct hosts *all;
    unsigned number;
    char name[FLEET_NAME_SIZE];
    struct state state;
    struct identity identity;
    struct spool *spool;
    struct events *events;
    struct capture *capture;
    struct uplink *uplink;
    bool is_welcome; /* at least once */
    unsigned received, runs, twice;
    uint64_t last_run;
    /* What was asked of the broker. */
    uv_timer_t broker_timer;
    struct broker_request request;
    broker_done_fn request_done;
    void *request_context;
};

struct hosts {
    struct farm *farm;
    struct host *list;
    unsigned count, welcome, closed;
    uint64_t asked_us;       /* when the order was asked for */
    struct figures delivery; /* from then to its receipt */
    uint64_t last_receipt_us;
    struct uplink_profile profile;
    struct policy policy;
};

/* All of them, not connected. Ends the program on a failure. */
void hosts_open(struct hosts *hosts, struct farm *farm);
void hosts_start(struct hosts *hosts);
/* Once a second, as the agent does. */
void hosts_tick(struct hosts *hosts);
/* Every ten seconds: each host's counters. */
void hosts_push_blocks(struct hosts *hosts);
/* Runs the loop until all are gone. */
void hosts_close(struct hosts *hosts);
/* Orders that are still known to a host, on disk or in memory. */
unsigned hosts_orders_left(const struct hosts *hosts);

/* For stand_in.c. */
void host_welcomed(struct host *host);
void host_received(struct host *host);
void host_ran(struct host *host, uint64_t order);
/* Every host's spool, by itself. */
struct spool *stand_in_spool(struct host *host);
void stand_in_spool_close(struct spool *spool);
void stand_in_push_block(struct spool *spool, int64_t wall_us);
/* Counters of a host as they might be: made once, the same for all. */
void stand_in_make_block(void);

#endif
