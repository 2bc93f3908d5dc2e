/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the farm share: the run, its options, its directory. main.c says what is done.
 */
#ifndef TRAWL_BENCH_FARM_FARM_H
#define TRAWL_BENCH_FARM_FARM_H

#include <uv.h>

#include "common/buf.h"
#include "figures.h"

#define FARM_PATH 400
#define FARM_ADDRESS "127.0.0.1"

struct farm_options {
    unsigned hosts;
    unsigned rounds; /* orders to all of them */
    unsigned artifact_bytes;
    unsigned work_ms;      /* how long a host takes to gather it */
    unsigned max_parallel; /* of an order; 0: as many as there are hosts */
    unsigned idle_s;
    unsigned limit_s; /* for an order to end */
    bool check;       /* only whether all is right: fewer figures, no waiting */
    bool keep;
    const char *cache; /* keys and certificates, made once */
    const char *bin;   /* trawl-collector and trawl */
};

struct farm {
    struct farm_options options;
    uv_loop_t *loop;
    char directory[FARM_PATH]; /* of this run: the collector's data and log */
    char state[FARM_PATH];     /* of the hosts: in memory where that is possible */
    uint16_t port;
    unsigned failures; /* of what was checked */
};

/* Runs the loop until `is_true`; false when it is not by then. */
typedef bool (*farm_until_fn)(void *context);
bool farm_wait(struct farm *farm, farm_until_fn is_true, void *context, unsigned limit_s);
void farm_wait_ms(struct farm *farm, unsigned ms);
/* Prints and counts what is wrong. */
void farm_wrong(struct farm *farm, const char *format, ...) TRAWL_PRINTF(2, 3);
_Noreturn void farm_die(const char *format, ...) TRAWL_PRINTF(1, 2);

#endif
