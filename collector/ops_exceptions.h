/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers of exceptions and groups share: which hosts are asked for. */
#ifndef TRAWL_COLLECTOR_OPS_EXCEPTIONS_H
#define TRAWL_COLLECTOR_OPS_EXCEPTIONS_H

#include "collector/group_report.h"
#include "collector/ops.h"

struct ops_hosts {
    char (*names)[64]; /* in order */
    size_t count, capacity;
};
/* The hosts that the selector names. ERR_INVALID, ERR_NOTFOUND. */
int ops_hosts_select(struct call *call, const char *selector, struct ops_hosts *out,
                     struct failure *f);
bool ops_hosts_have(const struct ops_hosts *hosts, const char *name);
void ops_hosts_done(struct ops_hosts *hosts);

#endif
