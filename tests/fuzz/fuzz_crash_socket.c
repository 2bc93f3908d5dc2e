/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a request on the crash socket, as limits and as stat of a process. */
#include <assert.h>
#include <stdint.h>

#include "agent/os/linux/crash_socket_linux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span bytes = span_of(data, size);
    struct crash_ack ack;
    uint64_t limit;
    if (crash_request_answer(bytes, &ack, NULL) == 0)
        assert(size >= CRASH_REQUEST_LEAST && ack.size == sizeof ack && ack.spare == 0 &&
               (ack.mask & CRASH_ASK_KERNEL));
    (void)crash_core_limit(bytes, &limit);
    assert(crash_stat_signal(bytes) < 128);
    return 0;
}
