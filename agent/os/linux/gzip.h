/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a gzip member (RFC 1952), for formats of others that ask for it. The only home of zlib.
 * Called by profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_GZIP_H
#define TRAWL_AGENT_OS_LINUX_GZIP_H

#include "common/buf.h"

/* Appends `bytes`, compressed, to `out`. ERR_NOMEM; ERR_LIMIT: does not fit into out's limit. */
int gzip_put(struct span bytes, struct buf *out);

#endif
