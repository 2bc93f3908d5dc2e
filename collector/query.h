/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading back stored counters and events for a window of collector time. Loop thread; bounded by
 * the number of rows the callers take.
 */
#ifndef TRAWL_COLLECTOR_QUERY_H
#define TRAWL_COLLECTOR_QUERY_H

#include "collector/collector.h"
#include "collector/roster.h"

struct query_counters {
    const char *const *names; /* globs */
    size_t name_count;
    const char *instance; /* glob; "" any */
    int64_t from_us, to_us;
};
/* Calls `each` with runs of samples of every matching series of the host. Non-zero stops. */
typedef int (*query_samples_fn)(void *context, const trawl_v1_Samples *samples);
int query_counters(struct collector *c, const struct host *host, const struct query_counters *q,
                   query_samples_fn each, void *context, struct failure *f);

/* The series this host has descriptors for (each once by name, instance and pid). */
typedef int (*query_descriptor_fn)(void *context, const trawl_v1_Descriptor *descriptor);
int query_descriptors(struct collector *c, const struct host *host, query_descriptor_fn each,
                      void *context, struct failure *f);

/* Events of the host in the window, ascending, times turned into collector time. */
typedef int (*query_event_fn)(void *context, const trawl_v1_Event *event);
int query_events(struct collector *c, const struct host *host, int64_t from_us, int64_t to_us,
                 query_event_fn each, void *context, struct failure *f);

#endif
