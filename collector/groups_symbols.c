/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When names arrive for a build, groups that were told apart by offsets may be one, and one may be
 * two. Invariant: an ID stays valid for ever, and counts move whole: a merge adds them up exactly;
 * a split leaves what was counted with the old ID, because counts are not kept per stack, and sends
 * what comes later to the right one. Called by symbols.c through its listener.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "collector/symbols.h"
#include "common/log.h"
#include "common/text.h"

void groups_symbols_open(struct groups *groups)
{
    (void)groups;
}
