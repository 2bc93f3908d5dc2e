/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any registers and any stack as those of a thread that failed, in a process that has this
 * program's own files: whatever is made of them ends, and stays within what was copied. The first
 * 16 bytes choose where it stood, the next ones are registers, the rest is its stack; words of it
 * are led into code and onto the stack, so that frames are easily found.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/crash_describe.h"

#define STACK_MAX 8192
#define STACK_START UINT64_C(0x10000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct maps maps;
static uint8_t stack[STACK_MAX];
static uint64_t code_start, code_bytes;

static int begin(void *context, const char *ending, struct failure *f)
{
    (void)context;
    (void)ending;
    (void)f;
    return 0;
}

static int add(void *context, struct span bytes, struct failure *f)
{
    (void)f;
    *(size_t *)context += bytes.size_bytes;
    return 0;
}

/* The C library: a file that is everywhere, with rules for unwinding. */
static void find_code(void)
{
    struct failure f;
    maps_init(&maps);
    int rc = maps_read(&maps, (uint32_t)getpid(), &f);
    assert(rc == 0);
    for (size_t i = 0; i < maps.count; i++) {
        const struct map *map = &maps.list[i];
        if (map->executable && strstr(maps_path(&maps, map), "libc.so")) {
            code_start = map->start;
            code_bytes = map->end - map->start;
        }
    }
    assert(code_bytes > 0);
}

/* Words that begin so are addresses: 1 in code, 2 on the stack. */
static uint64_t lead(uint64_t word)
{
    if (word >> 56 == 1)
        return code_start + word % code_bytes;
    return word >> 56 == 2 ? STACK_START + word % STACK_MAX : word;
}

static size_t fill(uint8_t *out, size_t most, const uint8_t *data, size_t size)
{
    size_t bytes = (size < most ? size : most) & ~(size_t)7;
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word;
        memcpy(&word, data + at, sizeof word);
        word = lead(word);
        memcpy(out + at, &word, sizeof word);
    }
    return bytes;
}

static void check(const struct os_exception *e, const struct os_result *result)
{
    assert(e->frame_count <= OS_EXCEPTION_FRAMES);
    assert(memchr(e->message, 0, sizeof e->message) && memchr(e->missing, 0, sizeof e->missing));
    assert(memchr(result->missing, 0, sizeof result->missing));
    for (uint32_t i = 0; i < e->frame_count; i++) {
        assert(memchr(e->frames[i].function, 0, sizeof e->frames[i].function));
        assert(memchr(e->frames[i].module, 0, sizeof e->frames[i].module));
        assert(e->frames[i].build_id_bytes <= OS_BUILD_ID_SIZE);
    }
}

static void describe(struct os_crash *crash)
{
    static struct os_exception e;
    static struct os_result result;
    struct failure f = {0, ""};
    size_t written = 0;
    struct os_output out = {begin, add, &written};
    memset(&e, 0, sizeof e);
    e.signal = (uint32_t)crash->notes.info.si_signo;
    e.fault_address = (uint64_t)(uintptr_t)crash->notes.info.si_addr;
    e.has_fault_address = true;
    int rc = unwind_open(&crash->unwind, getpid(), &maps, &f);
    assert(rc == 0);
    unwind_set_lines(crash->unwind, false);
    rc = os_crash_describe(crash, &out, &e, &result, &f);
    assert(rc == 0 && written > 0);
    check(&e, &result);
    unwind_close(crash->unwind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct stop_thread threads[1];
    static struct thread_state states[1];
    static struct crash_thread copies[1];
    if (size < 16 + sizeof threads[0].regs)
        return 0;
    if (code_bytes == 0)
        find_code();
    struct os_crash *crash = calloc(1, sizeof *crash);
    assert(crash);
    threads[0] = (struct stop_thread){.tid = 1, .state = STOP_HELD};
    fill((uint8_t *)&threads[0].regs, sizeof threads[0].regs, data + 16, size - 16);
    uint64_t place = (uint64_t)data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16;
    threads[0].regs.rip = code_start + place % code_bytes;
    threads[0].regs.rsp = STACK_START + (data[3] & ~7u);
    if (data[4] & 1)
        threads[0].regs.rip = 0;
    data += 16 + sizeof threads[0].regs;
    size -= 16 + sizeof threads[0].regs;
    copies[0] = (struct crash_thread){.tid = 1, .stack = stack, .stack_start = STACK_START};
    copies[0].stack_bytes = fill(stack, sizeof stack, data, size);
    crash->threads = copies;
    crash->has_memory = true;
    crash->dump.maps = maps;
    crash->dump.stop = (struct stop){.threads = threads, .count = 1, .capacity = 1};
    crash->dump.stop.process.pid = 1;
    crash->dump.states.list = states;
    crash->notes.has_info = true;
    crash->notes.info.si_signo = SIGSEGV;
    crash->notes.info.si_code = size ? (int)(int8_t)data[0] : 0;
    describe(crash);
    free(crash);
    return 0;
}
