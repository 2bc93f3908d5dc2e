/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gRPC health checking protocol: stock probes ask whether the server, or one service of it,
 * serves. Every service of ours serves or none does. Called by the collector. Pure. Specification:
 * github.com/grpc/grpc/blob/master/doc/health-checking.md, proto/health.proto.
 */
#ifndef TRAWL_PROTO_HEALTH_H
#define TRAWL_PROTO_HEALTH_H

#include "common/buf.h"

/*
 * Check: appends the HealthCheckResponse to one HealthCheckRequest. ERR_INVALID: `request` is no
 * such message; ERR_NOTFOUND: no such service (the call's status is NOT_FOUND); ERR_LIMIT,
 * ERR_NOMEM.
 */
int health_answer(struct span request, bool serving, struct buf *reply, struct failure *f);
/* Watch: as health_answer(), but an unknown service is answered with SERVICE_UNKNOWN; the stream
 * goes on, and the same is sent again with another `serving` when that changes. */
int health_watch_answer(struct span request, bool serving, struct buf *reply, struct failure *f);

#endif
