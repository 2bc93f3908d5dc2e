/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `trawl show` and report.txt say of an incident. Pure: records in, lines of text out. The
 * first screen answers: what happened, where, what the processes were doing, what is missing.
 */
#ifndef TRAWL_COLLECTOR_REPORT_H
#define TRAWL_COLLECTOR_REPORT_H

#include "common/buf.h"
#include "proto/codec.h"

struct report_input {
    const trawl_v1_Incident *incident;
    const trawl_v1_Target *targets; /* by host name */
    size_t target_count;
    const trawl_v1_Artifact *artifacts; /* by host name and number */
    size_t artifact_count;
    const trawl_v1_Event *events; /* by time, collector time */
    size_t event_count;
    int64_t now_us;
    const trawl_v1_Group *group;       /* of an incident that an exception opened; NULL: none */
    const trawl_v1_Exception *samples; /* of the group, newest first */
    size_t sample_count;
};

/* Equal stacks of all hosts counted together, most threads first. Returns how many were filled. */
size_t report_stacks(const struct report_input *in, trawl_v1_StackGroup *out, size_t max);
/* Appends the report. ERR_LIMIT when it passes out's limit. */
int report_text(const struct report_input *in, struct buf *out);

#endif
