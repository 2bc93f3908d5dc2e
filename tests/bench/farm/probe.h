/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the collector takes to answer the smallest question (grpc.health.v1.Health/Check), asked
 * every 5 ms over one connection by a thread that does nothing else.
 */
#ifndef TRAWL_BENCH_FARM_PROBE_H
#define TRAWL_BENCH_FARM_PROBE_H

#include "common/tls.h"
#include "farm.h"

struct probe;

struct probe *probe_start(const struct farm *farm, struct tls_config *tls);
/* What was measured since the last call, moved into *out. */
void probe_take(struct probe *probe, struct figures *out);
void probe_stop(struct probe *probe);

#endif
