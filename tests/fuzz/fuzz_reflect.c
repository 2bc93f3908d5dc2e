/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes as requests to reflection and health: an answer, or ERR_INVALID or ERR_LIMIT;
 * nothing else. */
#include <assert.h>

#include "proto/health.h"
#include "proto/reflect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf reply;
    buf_init(&reply, 64 * 1024);
    int r = reflect_answer(span_of(data, size), &reply, NULL);
    assert(r == 0 || ((r == ERR_INVALID || r == ERR_LIMIT) && reply.size_bytes == 0));
    buf_clear(&reply);
    r = health_answer(span_of(data, size), true, &reply, NULL);
    assert(r == 0 || r == ERR_INVALID || r == ERR_NOTFOUND);
    r = health_watch_answer(span_of(data, size), false, &reply, NULL);
    assert(r == 0 || r == ERR_INVALID);
    buf_done(&reply);
    return 0;
}
