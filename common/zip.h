/* SPDX-License-Identifier: Apache-2.0 */
/* zstd in one call each. The only includer of zstd.h. Pure. */
#ifndef TRAWL_COMMON_ZIP_H
#define TRAWL_COMMON_ZIP_H

#include "common/buf.h"

/* Appends the compressed form of `in` to `out`. level 1..19. ERR_LIMIT, ERR_NOMEM. */
int zip_pack(struct span in, int level, struct buf *out);
/* Appends the plain form; refuses (ERR_LIMIT) when it would pass out's limit, ERR_CORRUPT. */
int zip_unpack(struct span in, struct buf *out);

#endif
