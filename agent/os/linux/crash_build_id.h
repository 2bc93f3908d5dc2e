/* SPDX-License-Identifier: Apache-2.0 */
/* The note of a build-id in a page from another process. Called by crash_build_id.c and its test.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_BUILD_ID_H
#define TRAWL_AGENT_OS_LINUX_CRASH_BUILD_ID_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

/* The build-id (NT_GNU_BUILD_ID, elf(5)) of an ELF file whose first bytes these are, cut to `most`;
 * 0: there is none in these bytes. Whatever the bytes are, only they are read. */
size_t crash_find_build_id(struct span page, uint8_t *out, size_t most);

#endif
