/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health answers, encoded by hand: one string in, one number out. Invariant: a service is known
 * exactly when reflection lists it. Called by the collector. Pure.
 */
#include "proto/health.h"

#include "proto/field.h"
#include "proto/reflect.h"

/* HealthCheckResponse.ServingStatus of proto/health.proto. */
enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

#define REQUEST_SERVICE 1
#define REPLY_STATUS 1

/* The service asked for; empty for the whole server. */
static int read_request(struct span request, struct span *service, struct failure *f)
{
    struct span rest = request;
    struct field field;
    int r;
    while ((r = field_take(&rest, &field)) == 0)
        ;
    if (r != ERR_NOTFOUND)
        return fail(f, ERR_INVALID, "malformed health request");
    *service = field_bytes(request, REQUEST_SERVICE);
    return 0;
}

static int put_status(struct buf *reply, uint64_t status, struct failure *f)
{
    int r = field_put_u64(reply, REPLY_STATUS, status);
    return r < 0 ? fail(f, r, "cannot answer a health request: %s", err_text(r)) : 0;
}

int health_answer(struct span request, bool serving, struct buf *reply, struct failure *f)
{
    struct span service = {0};
    int r = read_request(request, &service, f);
    if (r < 0)
        return r;
    if (service.size_bytes > 0 && !reflect_has_service(service))
        return fail(f, ERR_NOTFOUND, "unknown service");
    return put_status(reply, serving ? SERVING : NOT_SERVING, f);
}

int health_watch_answer(struct span request, bool serving, struct buf *reply, struct failure *f)
{
    struct span service = {0};
    int r = read_request(request, &service, f);
    if (r < 0)
        return r;
    if (service.size_bytes > 0 && !reflect_has_service(service))
        return put_status(reply, SERVICE_UNKNOWN, f);
    return put_status(reply, serving ? SERVING : NOT_SERVING, f);
}
