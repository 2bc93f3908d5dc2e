/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an exception: what a handler left in its spool, and what an agent sends. What can be
 * decoded gets a signature: the same each time, of so many frames at most, all texts terminated,
 * whatever the names say.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "collector/group.h"
#include "common/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t size_bytes)
{
    assert(memchr(text, '\0', size_bytes) != NULL);
}

/* Names every second frame, by what the frame itself says. */
static int find(void *context, const trawl_v1_Frame *frame, char out[GROUP_FUNCTION_SIZE])
{
    (void)context;
    if (frame->offset % 2)
        return ERR_NOTFOUND;
    text_copy(out, GROUP_FUNCTION_SIZE, frame->function);
    return 0;
}

static void check_signature(const trawl_v1_Exception *e, const struct group_names *names)
{
    static struct group_signature first, second;
    memset(&first, 0, sizeof first);
    memset(&second, 0xff, sizeof second);
    group_signature(e, names, &first);
    group_signature(e, names, &second);
    assert(memcmp(first.bytes, second.bytes, sizeof first.bytes) == 0);
    assert(first.frame_count <= GROUP_FRAMES && first.frame_count == second.frame_count);
    assert((first.made_of == GROUP_OF_MESSAGE) == (first.frame_count == 0));
    for (size_t i = 0; i < first.frame_count; i++) {
        check_text(first.frames[i].function, sizeof first.frames[i].function);
        check_text(first.frames[i].module, sizeof first.frames[i].module);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static trawl_v1_Exception e;
    static struct group_signature rest;
    const struct group_names names = {find, NULL};
    if (codec_get_exception(&e, span_of(data, size), NULL))
        return 0;
    check_signature(&e, NULL);
    check_signature(&e, &names);
    group_signature_rest(&e, "web-1", &rest);
    for (pb_size_t i = 0; i < e.frames_count; i++)
        (void)group_skips(e.language, &e.frames[i], e.frames[i].function);
    return 0;
}
