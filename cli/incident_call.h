/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls about one incident, which people name by any unique part of its ID. Invariant: what is sent
 * fits the field. Used by the commands about incidents.
 */
#ifndef TRAWL_CLI_INCIDENT_CALL_H
#define TRAWL_CLI_INCIDENT_CALL_H

#include "cli/cli.h"
#include "proto/codec.h"

/* ERR_INVALID for what cannot be (part of) an ID: "K7F2Q", "INC-261123-K7F2Q". */
int incident_check_id(const char *text, struct failure *f);
/* Show, Watch or Cancel with the usual time limit. */
int incident_call(struct cli *cli, enum method_id method, const char *incident,
                  client_reply_fn reply, void *owner, struct failure *f);
/* The ID of the newest incident. ERR_NOTFOUND: there is none. */
int incident_newest(struct cli *cli, char *out, size_t size_bytes, struct failure *f);

#endif
