/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC server reflection, so that generic tools find our services without our .proto files. It
 * answers from the descriptors that were compiled in. Versions v1 and v1alpha differ in the package
 * name only, so one function answers both. Called by the collector. Pure. Specification:
 * github.com/grpc/grpc/blob/master/doc/server-reflection.md, proto/reflection.proto.
 */
#ifndef TRAWL_PROTO_REFLECT_H
#define TRAWL_PROTO_REFLECT_H

#include "common/buf.h"

/*
 * Appends the ServerReflectionResponse to one ServerReflectionRequest. What is not found is an
 * answer too (error_response NOT_FOUND), so the stream goes on. ERR_INVALID: `request` is no such
 * message; ERR_LIMIT: the reply passes the limit of `reply` (64 KiB are enough). On failure nothing
 * was appended.
 */
int reflect_answer(struct span request, struct buf *reply, struct failure *f);

/* Whether a service ("trawl.v1.Operations") is described. */
bool reflect_has_service(struct span name);
/* Calls `each` for every service; stops at and returns a non-zero result. `name` is borrowed. */
int reflect_each_service(int (*each)(void *context, struct span name), void *context);

#endif
