/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of kernel functions, from /proc/kallsyms where it may be read. Called by profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_KERNEL_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_KERNEL_H

#include "agent/os/linux/profile_set.h"

/* Names all places of the kernel, by "NAME_[k]", else by "[kernel]". `root`: "" or a recorded tree.
 * *named is how many of the *all have a name. ERR_LIMIT, ERR_NOMEM. */
int profile_kernel_name(struct profile_set *set, const char *root, size_t *named, size_t *all);

#endif
