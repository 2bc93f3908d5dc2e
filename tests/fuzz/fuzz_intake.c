/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of applications, and names of types: any bytes, no harm; what was read is well-formed.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/intake_json.h"
#include "agent/os/linux/demangle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct os_exception e;
    struct failure f;
    char name[600], out[64];
    if (intake_parse(span_of(data, size), &e, &f) == 0) {
        assert(e.type[0] && e.frame_count <= OS_EXCEPTION_FRAMES);
        assert(e.tag_count <= OS_EXCEPTION_TAGS && strlen(e.message) < sizeof e.message);
        for (uint32_t i = 0; i < e.frame_count; i++)
            assert(memchr(e.frames[i].function, 0, sizeof e.frames[i].function));
    } else {
        assert(f.text[0]);
    }
    size_t length = size < sizeof name - 1 ? size : sizeof name - 1;
    memcpy(name, data, length);
    name[length] = '\0';
    demangle_type(name, out, sizeof out);
    assert(memchr(out, 0, sizeof out));
    return 0;
}
