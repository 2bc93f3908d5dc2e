/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incidents, targets, artifacts and events as table rows, lines and JSON. Pure. Used by the
 * commands about captures, and by bundle.c for the manifest.
 */
#ifndef TRAWL_CLI_RENDER_INCIDENT_H
#define TRAWL_CLI_RENDER_INCIDENT_H

#include "cli/jsonl.h"
#include "cli/render.h"
#include "proto/codec.h"

#define RENDER_STATE_COUNT 11 /* values of trawl_v1_State */

const char *render_state(trawl_v1_State state); /* "queued", "sent", ... */
bool render_state_is_final(trawl_v1_State state);
/* "K7F2Q" of "INC-261123-K7F2Q": what people type. In `id`. */
const char *render_short_id(const char *id);

const struct render_column *render_incident_columns(bool wide, size_t *count);
void render_incident_row(struct render_table *t, const trawl_v1_Incident *incident, bool wide,
                         int64_t now_us);
const struct render_column *render_event_columns(size_t *count);
void render_event_row(struct render_table *t, const trawl_v1_Event *event, int64_t now_us);

/* "  web-07   refused   pause would be 84 ms, limit 50 ms" */
int render_target_line(struct buf *out, const trawl_v1_Target *target, size_t host_width,
                       bool color);
/* "38 done, 1 refused, 1 queued" in the order of the states. `counts` has RENDER_STATE_COUNT. */
int render_counts(struct buf *out, const uint32_t *counts);

/* Members into an open object. */
void render_incident_members(struct jsonl *j, const trawl_v1_Incident *incident);
void render_target_members(struct jsonl *j, const trawl_v1_Target *target);
void render_artifact_members(struct jsonl *j, const trawl_v1_Artifact *artifact);

/* One line each; a part has "type": incident, target, artifact, stack, event, line or end. */
int render_incident_json(struct buf *out, const trawl_v1_Incident *incident);
int render_event_json(struct buf *out, const trawl_v1_Event *event);
int render_target_json(struct buf *out, const trawl_v1_Target *target);
int render_part_json(struct buf *out, const trawl_v1_IncidentPart *part);

#endif
