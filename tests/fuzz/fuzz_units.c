/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a journal in export format: fields stay terminated, results are of a unit. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/unit_result.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_record(void *context, const struct os_unit_record *r)
{
    struct os_exception e;
    assert(memchr(r->unit, 0, sizeof r->unit) && memchr(r->message, 0, sizeof r->message));
    if (os_unit_result_feed(context, r, &e))
        assert(e.unit[0] && e.type[0] && e.tag_count <= OS_EXCEPTION_TAGS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct os_unit_results *results = NULL;
    struct os_unit_stream *stream = NULL;
    if (os_unit_results_open(&results) == 0 &&
        os_unit_stream_open(&stream, on_record, results) == 0)
        os_unit_stream_feed(stream, span_of(data, size));
    os_unit_stream_close(stream);
    os_unit_results_close(results);
    return 0;
}
