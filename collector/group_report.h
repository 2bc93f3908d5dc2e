/* SPDX-License-Identifier: Apache-2.0 */
/* What `trawl group` says for people, and the lines of exceptions in reports. Pure: records in,
 * text out. */
#ifndef TRAWL_COLLECTOR_GROUP_REPORT_H
#define TRAWL_COLLECTOR_GROUP_REPORT_H

#include "common/buf.h"
#include "proto/codec.h"

struct group_report {
    const trawl_v1_Group *group;
    const trawl_v1_GroupHost *hosts; /* most occurrences first */
    size_t host_count;
    const trawl_v1_Exception *samples; /* newest first */
    size_t sample_count;
};
void group_report_text(const struct group_report *in, struct buf *out);

/* What reports are made of: text from a host made safe, a time. */
void report_safe(struct buf *out, const char *text);
void report_when(struct buf *out, int64_t us);

const char *group_state_name(trawl_v1_GroupState state);
/* "SIGSEGV in redis-server/1234 (G-7F2QK)": one line, cut at the size. */
void group_exception_line(const trawl_v1_Exception *e, char *out, size_t size_bytes);
/* One line for each frame, "    #0  function at file:12" or "module+0x12". */
void group_report_frames(const trawl_v1_Frame *frames, size_t count, struct buf *out);

#endif
