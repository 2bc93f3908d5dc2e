/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fleet that was enrolled already: one CA and one key and certificate a host, made once by the
 * product's own code and kept in the cache; of every run a data directory of its own with that CA
 * and with the hosts in its roster.
 */
#ifndef TRAWL_BENCH_FARM_FLEET_H
#define TRAWL_BENCH_FARM_FLEET_H

#include "agent/state.h"
#include "farm.h"

#define FLEET_NAME_SIZE 16

void fleet_host_name(unsigned number, char out[FLEET_NAME_SIZE]);
/* Makes what is missing in the cache, then farm->directory/data. Ends the program on a failure. */
void fleet_make(struct farm *farm);
/* Key, certificate and CA of a host; identity_done() when it is no longer wanted. */
void fleet_identity(const struct farm *farm, unsigned number, struct identity *out);
/* An admin's, from the data directory. */
void fleet_admin(const struct farm *farm, struct identity *out);
/* Takes a directory away with all that is in it. */
void fleet_remove(const char *directory);

#endif
