/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as kernel messages: whatever is told is terminated, bounded and of a known source, and
 * no more is told than lines were fed.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/kernel_fault.h"
#include "agent/os/linux/procfs.h"
#include "common/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t told;

static void check(void *context, const struct os_exception *e, uint64_t last_mono_us)
{
    (void)context;
    (void)last_mono_us;
    assert(e->source == OS_OOM_KILL || e->source == OS_FAULT_LINE || e->source == OS_HUNG_TASK ||
           e->source == OS_HARDWARE_ERROR);
    assert(e->type[0] && memchr(e->type, 0, sizeof e->type));
    assert(memchr(e->message, 0, sizeof e->message));
    assert(memchr(e->process, 0, sizeof e->process));
    assert(memchr(e->missing, 0, sizeof e->missing));
    assert(e->frame_count <= OS_EXCEPTION_FRAMES && e->tag_count <= OS_EXCEPTION_TAGS);
    for (uint32_t i = 0; i < e->frame_count; i++)
        assert(memchr(e->frames[i].module, 0, sizeof e->frames[i].module) &&
               memchr(e->frames[i].function, 0, sizeof e->frames[i].function));
    told += e->count ? e->count : 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct os_kernel_fault *f = NULL;
    struct span rest = span_of(data, size), line;
    struct proc_kernel_message m;
    char text[2048];
    uint64_t lines = 0;
    told = 0;
    if (os_kernel_fault_open(&f, check, NULL))
        return 0;
    while (text_take_until(&rest, '\n', &line) == 0) {
        bool is_record = proc_parse_kernel_message(line, &m) == 0;
        (void)text_copy_span(text, sizeof text, is_record ? m.text : line);
        os_kernel_fault_feed(f, is_record ? m.priority : 3, is_record ? m.time_us : lines, text);
        lines++;
    }
    os_kernel_fault_flush(f, UINT64_MAX);
    os_kernel_fault_close(f);
    assert(told <= lines);
    return 0;
}
