/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a profile without a process: records of perf events, tables, names of the kernel,
 * folded lines.
 */
#include "agent/os/linux/profile_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/perf_record.h"
#include "agent/os/linux/profile_kernel.h"
#include "agent/os/linux/profile_lines.h"
#include "agent/os/linux/profile_perf.h"
#include "tests/check.h"

#define PID 77
#define TID 78

/* ---- records ---- */

static struct buf record;

static void begin_record(uint32_t type, uint16_t misc)
{
    struct perf_event_header header = {.type = type, .misc = misc};
    buf_init(&record, PERF_RECORD_BYTES_MAX);
    REQUIRE(buf_append(&record, &header, sizeof header) == 0);
}

static void put32(uint32_t value)
{
    REQUIRE(buf_append_u32(&record, value) == 0);
}

static void put64(uint64_t value)
{
    REQUIRE(buf_append_u64(&record, value) == 0);
}

static struct span end_record(void)
{
    uint16_t size = (uint16_t)record.size_bytes;
    memcpy(record.data + offsetof(struct perf_event_header, size), &size, sizeof size);
    return buf_span(&record);
}

/* A sample in the kernel, with `filled` of 64 bytes of stack. */
static struct span make_sample(uint64_t abi, uint64_t filled)
{
    begin_record(PERF_RECORD_SAMPLE, PERF_RECORD_MISC_KERNEL);
    put64(0xffffffff81000010);
    put32(PID);
    put32(TID);
    put64(5000);
    put64(5);
    put64((uint64_t)PERF_CONTEXT_KERNEL);
    put64(0xffffffff81000010);
    put64(0xffffffff81000020);
    put64((uint64_t)PERF_CONTEXT_USER);
    put64(0x401000);
    put64(abi);
    for (uint64_t i = 0; abi && i < 17; i++)
        put64(0x100 + i);
    put64(64);
    for (uint64_t i = 0; i < 8; i++)
        put64(i);
    put64(filled);
    return end_record();
}

TEST(a_sample_is_read)
{
    struct perf_record r;
    REQUIRE(perf_record_parse(make_sample(2, 40), &r) == 0);
    CHECK_EQ_INT(r.type, PERF_RECORD_SAMPLE);
    CHECK_EQ_INT(r.pid, PID);
    CHECK_EQ_INT(r.sample.tid, TID);
    CHECK_EQ_INT(r.sample.time_ns, 5000);
    CHECK_EQ_INT(r.sample.kernel_count, 2);
    CHECK_EQ_INT(r.sample.kernel[1], 0xffffffff81000020);
    CHECK(r.sample.has_user);
    CHECK_EQ_INT(r.sample.regs.rsp, 0x107);
    CHECK_EQ_INT(r.sample.regs.rip, 0x108);
    CHECK_EQ_INT(r.sample.regs.r15, 0x110);
    CHECK_EQ_INT(r.sample.stack.size_bytes, 40);
    buf_done(&record);
}

TEST(a_sample_without_registers_has_no_stack)
{
    struct perf_record r;
    REQUIRE(perf_record_parse(make_sample(0, 40), &r) == 0);
    CHECK(!r.sample.has_user);
    CHECK_EQ_INT(r.sample.stack.size_bytes, 0);
    buf_done(&record);
    /* A 32-bit program: its registers mean something else. */
    REQUIRE(perf_record_parse(make_sample(1, 40), &r) == 0);
    CHECK(!r.sample.has_user);
    CHECK_EQ_INT(r.sample.stack.size_bytes, 0);
    buf_done(&record);
}

TEST(a_sample_that_claims_more_than_it_has_is_refused)
{
    struct perf_record r;
    struct span whole = make_sample(2, 65);
    CHECK_EQ_INT(perf_record_parse(whole, &r), ERR_CORRUPT);
    buf_done(&record);
    whole = make_sample(2, 64);
    for (size_t cut = 0; cut < whole.size_bytes; cut++) {
        uint8_t *copy = malloc(cut + 1); /* so that a byte too many is noticed */
        uint16_t size = (uint16_t)cut;
        REQUIRE(copy != NULL);
        memcpy(copy, whole.data, cut);
        if (cut >= sizeof(struct perf_event_header))
            memcpy(copy + offsetof(struct perf_event_header, size), &size, sizeof size);
        CHECK_EQ_INT(perf_record_parse(span_of(copy, cut), &r), ERR_CORRUPT);
        free(copy);
    }
    CHECK_EQ_INT(perf_record_parse(whole, &r), 0);
    buf_done(&record);
}

TEST(other_records_are_read)
{
    struct perf_record r;
    begin_record(PERF_RECORD_LOST, 0);
    put64(1);
    put64(12);
    REQUIRE(perf_record_parse(end_record(), &r) == 0);
    CHECK_EQ_INT(r.lost, 12);
    buf_done(&record);

    begin_record(PERF_RECORD_COMM, PERF_RECORD_MISC_COMM_EXEC);
    put32(PID);
    put32(TID);
    REQUIRE(buf_append(&record, "name\0\0\0", 8) == 0);
    REQUIRE(perf_record_parse(end_record(), &r) == 0);
    CHECK_EQ_STR(r.name, "name");
    CHECK(r.exec);
    buf_done(&record);

    begin_record(PERF_RECORD_MMAP2, 0);
    put32(PID);
    put32(TID);
    put64(0x7000);
    put64(0x1000);
    for (uint64_t i = 0; i < 4; i++)
        put64(i + 5);
    put32(PROT_READ | PROT_EXEC);
    put32(0);
    REQUIRE(perf_record_parse(end_record(), &r) == 0);
    CHECK(r.executable);
    CHECK_EQ_INT(r.inode, 7);
    CHECK_EQ_INT(r.start, 0x7000);
    CHECK_EQ_INT(r.end, 0x8000);
    buf_done(&record);
}

/* ---- from records to stacks ---- */

TEST(only_samples_of_the_process_count)
{
    struct profile_set set;
    struct profile_code code = {.set = &set};
    struct profile_perf perf = {.pid = PID, .set = &set, .code = &code, .period_ns = 10};
    profile_set_init(&set);
    CHECK_EQ_INT(profile_perf_record(&perf, make_sample(2, 40)), 0);
    buf_done(&record);
    CHECK_EQ_INT(profile_perf_record(&perf, make_sample(2, 48)), 0);
    CHECK_EQ_INT(set.stack_count, 1);
    CHECK_EQ_INT(set.stacks[0].samples, 2);
    CHECK_EQ_INT(set.stacks[0].cpu_ns, 20);
    perf.pid = PID + 1;
    CHECK_EQ_INT(profile_perf_record(&perf, buf_span(&record)), 0);
    perf.pid = PID;
    perf.begin_ns = 5001;
    CHECK_EQ_INT(profile_perf_record(&perf, buf_span(&record)), 0);
    CHECK_EQ_INT(perf.samples, 2);
    record.data[offsetof(struct perf_event_header, size)]++;
    CHECK_EQ_INT(profile_perf_record(&perf, buf_span(&record)), 0);
    CHECK_EQ_INT(perf.damaged, 1);
    buf_done(&record);
    profile_set_done(&set);
}

/* ---- tables ---- */

TEST(what_is_equal_is_kept_once)
{
    struct profile_set set;
    uint32_t a, b, c, t, s1, s2, s3;
    profile_set_init(&set);
    CHECK_EQ_INT(profile_location(&set, PROFILE_EXACT, 0x10, &a), 0);
    CHECK_EQ_INT(profile_location(&set, PROFILE_RETURN, 0x10, &b), 0);
    CHECK(a != b);
    CHECK_EQ_INT(profile_thread(&set, 5, "five", &t), 0);
    const uint32_t up[] = {a, b}, down[] = {b, a};
    CHECK_EQ_INT(profile_stack(&set, t, up, 2, &s1), 0);
    CHECK_EQ_INT(profile_stack(&set, t, down, 2, &s2), 0);
    CHECK_EQ_INT(profile_stack(&set, t, up, 2, &s3), 0);
    CHECK(s1 == s3 && s1 != s2);
    CHECK_EQ_INT(set.stack_count, 2);
    /* The same address in another memory map is another place. */
    profile_next_era(&set);
    CHECK_EQ_INT(profile_location(&set, PROFILE_EXACT, 0x10, &c), 0);
    CHECK(c != a);
    profile_set_done(&set);
}

TEST(the_tables_have_limits)
{
    struct profile_set set;
    uint32_t number, thread, place;
    int e = 0;
    profile_set_init(&set);
    REQUIRE(profile_thread(&set, 1, "one", &thread) == 0);
    for (uint32_t i = 0; i <= PROFILE_STACKS_MAX && !e; i++) {
        REQUIRE(profile_location(&set, PROFILE_EXACT, i, &place) == 0);
        e = profile_stack(&set, thread, &place, 1, &number);
    }
    CHECK_EQ_INT(e, ERR_LIMIT);
    CHECK_EQ_INT(set.stack_count, PROFILE_STACKS_MAX);
    for (uint32_t i = 0; i < PROFILE_STACKS_MAX; i += 1001) {
        REQUIRE(profile_location(&set, PROFILE_EXACT, i, &place) == 0);
        REQUIRE(profile_stack(&set, thread, &place, 1, &number) == 0);
        CHECK_EQ_INT(number, i);
    }
    profile_set_done(&set);
}

/* ---- the kernel ---- */

TEST(kernel_functions_get_the_nearest_name)
{
    struct profile_set set;
    char root[] = "/tmp/trawl-kallsyms-XXXXXX", path[128];
    uint32_t known, inside, before, far;
    size_t named, all;
    const struct profile_frame *frame;
    REQUIRE(mkdtemp(root) != NULL);
    snprintf(path, sizeof path, "%s/proc", root);
    REQUIRE(mkdir(path, 0700) == 0);
    snprintf(path, sizeof path, "%s/proc/kallsyms", root);
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    fputs("ffffffff81000100 T second\nffffffff81000000 T first\nffffffff81000080 d data\n"
          "ffffffffa0000000 t module_code\t[module]\nbroken\n",
          file);
    fclose(file);
    profile_set_init(&set);
    REQUIRE(profile_location(&set, PROFILE_KERNEL, 0xffffffff81000100, &known) == 0);
    REQUIRE(profile_location(&set, PROFILE_KERNEL, 0xffffffff810000ff, &inside) == 0);
    REQUIRE(profile_location(&set, PROFILE_KERNEL, 0xffffffff80ffffff, &before) == 0);
    REQUIRE(profile_location(&set, PROFILE_KERNEL, 0xffffffff9fffffff, &far) == 0);
    CHECK_EQ_INT(profile_kernel_name(&set, root, &named, &all), 0);
    CHECK_EQ_INT(all, 4);
    CHECK_EQ_INT(named, 2);
    profile_frames_of(&set, known, &frame);
    CHECK_EQ_STR(profile_text_of(&set, frame->function), "second_[k]");
    profile_frames_of(&set, inside, &frame);
    CHECK_EQ_STR(profile_text_of(&set, frame->function), "first_[k]");
    profile_frames_of(&set, before, &frame);
    CHECK_EQ_STR(profile_text_of(&set, frame->function), "[kernel]");
    profile_frames_of(&set, far, &frame);
    CHECK_EQ_STR(profile_text_of(&set, frame->function), "[kernel]");
    profile_set_done(&set);
    unlink(path);
    snprintf(path, sizeof path, "%s/proc", root);
    rmdir(path);
    rmdir(root);
}

/* ---- folded lines ---- */

static uint32_t named_place(struct profile_set *set, uint64_t pc, const char *name)
{
    struct profile_frame frame = {0, 0, 0};
    uint32_t place;
    REQUIRE(profile_location(set, PROFILE_EXACT, pc, &place) == 0);
    REQUIRE(profile_text(set, name, &frame.function) == 0);
    if (set->locations[place].count == 0)
        REQUIRE(profile_name(set, place, &frame, 1) == 0);
    return place;
}

static void add_samples(struct profile_set *set, pid_t tid, const char *comm, uint32_t inner,
                        uint32_t outer, uint64_t samples)
{
    const uint32_t places[] = {inner, outer};
    uint32_t thread, stack;
    REQUIRE(profile_thread(set, tid, comm, &thread) == 0);
    REQUIRE(profile_stack(set, thread, places, 2, &stack) == 0);
    set->stacks[stack].samples += samples;
}

TEST(folded_lines_are_heaviest_first_and_cannot_be_broken)
{
    struct profile_set set;
    struct profile_lines lines;
    struct buf out;
    size_t left_out = 9;
    profile_set_init(&set);
    uint32_t root = named_place(&set, 1, "main"), evil = named_place(&set, 2, "a;b\n\x1b[31m 7"),
             leaf = named_place(&set, 3, "leaf"), twin = named_place(&set, 4, "leaf");
    add_samples(&set, 1, "prog", leaf, root, 3);
    add_samples(&set, 2, "prog", twin, root, 4);
    add_samples(&set, 3, "pool;1", evil, root, 20);
    add_samples(&set, 4, "prog", evil, root, 0);
    REQUIRE(profile_lines_make(&lines, &set, "prog", PROFILE_SAMPLES) == 0);
    CHECK_EQ_INT(lines.total, 27);
    buf_init(&out, 4096);
    CHECK_EQ_INT(profile_lines_folded(&lines, &out, &left_out), 0);
    CHECK_EQ_INT(left_out, 0);
    CHECK_EQ_STR(buf_str(&out), "prog;pool:1;main;a:b\\x0a\\x1b[31m 7 20\nprog;main;leaf 7\n");
    buf_done(&out);
    buf_init(&out, 20);
    CHECK_EQ_INT(profile_lines_folded(&lines, &out, &left_out), 0);
    CHECK_EQ_INT(left_out, 1);
    CHECK_EQ_STR(buf_str(&out), "prog;main;leaf 7\n");
    buf_done(&out);
    profile_lines_done(&lines);
    profile_set_done(&set);
}
