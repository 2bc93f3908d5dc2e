/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of incident*.c share: records in the store, memory, look-ups. Private to them. */
#ifndef TRAWL_COLLECTOR_INCIDENT_STORE_H
#define TRAWL_COLLECTOR_INCIDENT_STORE_H

#include "collector/incident.h"

/* Loads every incident, and captures with their targets of those that have not finished. */
int incident_store_load(struct incidents *incidents, struct failure *f);
int incident_store_put(struct incidents *incidents, const struct incident *incident,
                       store_done_fn done, void *context);
/* The capture and all its targets, in commits of at most 500 rows; `done` after the last. */
int incident_store_put_capture(struct incidents *incidents, struct capture *capture,
                               store_done_fn done, void *context);
int incident_store_put_target(struct incidents *incidents, const struct target *target,
                              store_done_fn done, void *context);
int incident_store_put_artifact(struct incidents *incidents, const trawl_v1_Artifact *artifact,
                                store_done_fn done, void *context);
/* Counts states, artifacts, pauses from the stored rows into incident->record. All rows are read:
 * at the start, and where they may differ from what was counted. */
int incident_store_summarise(struct incidents *incidents, struct incident *incident);
/* incident_tally.c: what was committed counts from now on. */
void target_sum(struct target *target);
void incident_count_state(trawl_v1_Incident *sum, trawl_v1_State state, int by); /* 1 or -1 */
void incident_sum_artifact(struct incident *incident, uint64_t size_bytes);

int64_t incidents_now_us(struct incidents *incidents);
struct list *incident_bucket(struct incidents *incidents, const char *id);
/* A capture goes when its last target is final and stored; its incident finishes with the last one.
 */
void incident_settle(struct incidents *incidents, struct capture *capture);
/* Stores that it has finished, tells watchers. */
void incident_finish(struct incidents *incidents, struct incident *incident);
void incident_tell(const struct incident *incident); /* watchers */
/* The host's target in an open capture that was given an order: this one, or any with 0. NULL. */
struct target *incident_target(struct incident *incident, const struct host *host, uint64_t order);

/* Memory of the parts. incident_free() needs an incident that nobody watches. */
struct incident *incident_new(struct incidents *incidents, const trawl_v1_Incident *record);
struct capture *capture_new(struct incident *incident, uint32_t no,
                            const trawl_v1_CaptureRequest *request);
struct target *target_new(struct capture *capture, struct host *host,
                          const trawl_v1_Target *record);
void capture_free(struct capture *capture);
void incident_free(struct incident *incident);

#endif
