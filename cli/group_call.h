/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Naming groups: any unique part of an ID, in any case. Invariant: what cannot be a part of an ID
 * is refused before anybody is asked. Used by the commands about groups and exceptions.
 */
#ifndef TRAWL_CLI_GROUP_CALL_H
#define TRAWL_CLI_GROUP_CALL_H

#include "cli/cli.h"
#include "proto/codec.h"

/* ERR_INVALID unless `text` can be a group's ID or a part of one; copies it in capitals. */
int group_check_id(const char *text, char *out, size_t size_bytes, struct failure *f);
/* After ERR_NOTFOUND: says which groups there are and which is nearest. Returns r otherwise. */
int group_explain(struct cli *cli, const char *group, int r, struct failure *f);
/* ShowGroup, Resolve: one call for the group of that name, explained when there is none. */
int group_call(struct cli *cli, enum method_id method, const char *group, client_reply_fn reply,
               void *owner, struct failure *f);

#endif
