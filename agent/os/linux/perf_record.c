/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the records of a perf ring (perf_event_open(2), "MMAP layout"). Invariant: nothing is
 * read behind the record's own length. Called by profile_perf.c.
 */
#include "agent/os/linux/perf_record.h"

#include <string.h>
#include <sys/mman.h>

#include "common/text.h"

#define ABI_64 2 /* PERF_SAMPLE_REGS_ABI_64 */
#define REGS_COUNT 17
/* Above this an entry of a call chain is no address but says what follows (PERF_CONTEXT_*). */
#define CONTEXT_MARK ((uint64_t)PERF_CONTEXT_MAX)

static int take_ids(struct span *s, pid_t *first, pid_t *second)
{
    uint32_t a, b;
    if (span_take_u32(s, &a) || span_take_u32(s, &b))
        return ERR_CORRUPT;
    *first = (pid_t)a;
    *second = (pid_t)b;
    return 0;
}

/* Addresses of the kernel; those of the program come from its stack. */
static int take_chain(struct span *s, struct perf_sample *out)
{
    uint64_t count, address;
    bool kernel = false;
    if (span_take_u64(s, &count) || count > s->size_bytes / sizeof address)
        return ERR_CORRUPT;
    for (uint64_t i = 0; i < count; i++) {
        if (span_take_u64(s, &address))
            return ERR_CORRUPT;
        if (address >= CONTEXT_MARK)
            kernel = address == (uint64_t)PERF_CONTEXT_KERNEL;
        else if (kernel && out->kernel_count < PERF_KERNEL_FRAMES_MAX)
            out->kernel[out->kernel_count++] = address;
    }
    return 0;
}

/* In the order of PERF_REGS_WANTED's bits. */
static int take_registers(struct span *s, struct perf_sample *out)
{
    uint64_t abi, r[REGS_COUNT];
    if (span_take_u64(s, &abi))
        return ERR_CORRUPT;
    if (abi == 0)
        return 0;
    for (size_t i = 0; i < REGS_COUNT; i++)
        if (span_take_u64(s, &r[i]))
            return ERR_CORRUPT;
    if (abi != ABI_64)
        return 0;
    out->has_user = true;
    out->regs = (struct user_regs_struct){.rax = r[0],
                                          .rbx = r[1],
                                          .rcx = r[2],
                                          .rdx = r[3],
                                          .rsi = r[4],
                                          .rdi = r[5],
                                          .rbp = r[6],
                                          .rsp = r[7],
                                          .rip = r[8],
                                          .r8 = r[9],
                                          .r9 = r[10],
                                          .r10 = r[11],
                                          .r11 = r[12],
                                          .r12 = r[13],
                                          .r13 = r[14],
                                          .r14 = r[15],
                                          .r15 = r[16]};
    return 0;
}

/* Its room has a fixed length; how much of it was filled stands behind. */
static int take_stack(struct span *s, struct perf_sample *out)
{
    uint64_t room, filled;
    struct span data;
    if (span_take_u64(s, &room))
        return ERR_CORRUPT;
    if (room == 0)
        return 0;
    if (room > s->size_bytes || span_take(s, (size_t)room, &data) || span_take_u64(s, &filled) ||
        filled > room)
        return ERR_CORRUPT;
    if (out->has_user)
        out->stack = span_of(data.data, (size_t)filled);
    return 0;
}

static int take_sample(struct span *s, struct perf_record *out)
{
    struct perf_sample *sample = &out->sample;
    if (span_take_u64(s, &sample->ip) || take_ids(s, &sample->pid, &sample->tid) ||
        span_take_u64(s, &sample->time_ns) || take_chain(s, sample) || take_registers(s, sample) ||
        take_stack(s, sample))
        return ERR_CORRUPT;
    out->pid = sample->pid;
    out->tid = sample->tid;
    return 0;
}

static int take_lost(struct span *s, struct perf_record *out)
{
    uint64_t id;
    return span_take_u64(s, &id) || span_take_u64(s, &out->lost) ? ERR_CORRUPT : 0;
}

static int take_comm(struct span *s, uint16_t misc, struct perf_record *out)
{
    if (take_ids(s, &out->pid, &out->tid))
        return ERR_CORRUPT;
    const uint8_t *end = memchr(s->data, 0, s->size_bytes);
    if (!end)
        return ERR_CORRUPT;
    text_copy_span(out->name, sizeof out->name, span_of(s->data, (size_t)(end - s->data)));
    out->exec = (misc & PERF_RECORD_MISC_COMM_EXEC) != 0;
    return 0;
}

static int take_fork(struct span *s, struct perf_record *out)
{
    pid_t parent;
    return take_ids(s, &out->pid, &parent) || take_ids(s, &out->tid, &out->parent_tid) ? ERR_CORRUPT
                                                                                       : 0;
}

/* pid, tid, addr, len, pgoff, maj, min, ino, ino_generation, prot, flags, filename. */
static int take_mmap(struct span *s, struct perf_record *out)
{
    uint64_t length, rest[4];
    uint32_t protection;
    if (take_ids(s, &out->pid, &out->tid) || span_take_u64(s, &out->start) ||
        span_take_u64(s, &length))
        return ERR_CORRUPT;
    for (int i = 0; i < 4; i++)
        if (span_take_u64(s, &rest[i]))
            return ERR_CORRUPT;
    out->inode = rest[2];
    if (span_take_u32(s, &protection) || length > UINT64_MAX - out->start)
        return ERR_CORRUPT;
    out->end = out->start + length;
    out->executable = (protection & PROT_EXEC) != 0;
    return 0;
}

int perf_record_parse(struct span bytes, struct perf_record *out)
{
    struct perf_event_header header;
    memset(out, 0, sizeof *out);
    if (bytes.size_bytes < sizeof header)
        return ERR_CORRUPT;
    memcpy(&header, bytes.data, sizeof header);
    if (header.size != bytes.size_bytes)
        return ERR_CORRUPT;
    struct span s = span_of(bytes.data + sizeof header, bytes.size_bytes - sizeof header);
    out->type = header.type;
    switch (header.type) {
    case PERF_RECORD_SAMPLE:
        return take_sample(&s, out);
    case PERF_RECORD_LOST:
        return take_lost(&s, out);
    case PERF_RECORD_COMM:
        return take_comm(&s, header.misc, out);
    case PERF_RECORD_FORK:
        return take_fork(&s, out);
    case PERF_RECORD_MMAP2:
        return take_mmap(&s, out);
    default:
        return 0;
    }
}
