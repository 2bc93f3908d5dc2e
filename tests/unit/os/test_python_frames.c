/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Python's frames: line tables of every known version (made by the interpreters themselves), and
 * chains in made-up memory that point wrong.
 */
#include "agent/os/linux/python_frames.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

struct table {
    int minor;
    const char *hex; /* co_linetable, co_lnotab before 3.10 */
    struct {
        uint32_t instruction;
        int line;
    } expected[6];
};

/*
 * def f(n):          # line 1
 *     a = n + 1
 *     time.sleep(
 *         a)
 *     return a
 */
static const struct table tables[] = {
    {8, "00010801040102ff0402", {{0, 2}, {8, 3}, {12, 4}, {14, 3}, {18, 5}}},
    {9, "00010801040102ff0402", {{0, 2}, {8, 3}, {12, 4}, {14, 3}, {18, 5}}},
    {10, "08010401020104ff0402", {{0, 2}, {8, 3}, {12, 4}, {14, 3}, {18, 5}}},
    {11,
     "8000d80809884189058041dd0408874a824ad80809f10301050bf40001050bf00001050be00b0c8048",
     {{0, 1}, {2, 2}, {4, 2}, {62, 3}, {64, 5}, {66, 5}}},
    {12,
     "8000d80809884189058041dc0408874a814ad80809f40301050be00b0c8048",
     {{0, 1}, {2, 2}, {12, 3}, {42, 4}, {44, 3}, {54, 5}}},
};

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t count = strlen(hex) / 2;
    for (size_t i = 0; i < count; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(two, NULL, 16);
    }
    return count;
}

TEST(a_line_is_found_in_the_table_of_each_version)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        uint8_t bytes[256];
        size_t count = from_hex(tables[i].hex, bytes);
        for (size_t k = 0; k < 6 && tables[i].expected[k].line; k++)
            CHECK_EQ_INT(python_line(tables[i].minor, span_of(bytes, count), 1,
                                     tables[i].expected[k].instruction),
                         tables[i].expected[k].line);
    }
}

TEST(an_empty_table_has_no_line)
{
    CHECK_EQ_INT(python_line(10, span_str(""), 7, 0), 0);
    CHECK_EQ_INT(python_line(11, span_str(""), 7, 0), 0);
    CHECK_EQ_INT(python_line(11, span_str("\x7f\x7f"), 7, 0), 0);
}

/* ---- made-up memory, as of 3.11 ---- */

#define BASE 0x10000
#define WORDS 512

static uint64_t memory[WORDS];

static bool read_memory(void *context, uint64_t address, void *out, size_t size_bytes)
{
    (void)context;
    if (address < BASE || address - BASE > sizeof memory ||
        sizeof memory - (address - BASE) < size_bytes)
        return false;
    memcpy(out, (const uint8_t *)memory + (address - BASE), size_bytes);
    return true;
}

static void put(uint64_t address, uint64_t value)
{
    memory[(address - BASE) / 8] = value;
}

#define RUNTIME BASE
#define INTERPRETER (BASE + 0x100)
#define THREAD (BASE + 0x200)
#define CFRAME (BASE + 0x300)
#define FRAME(n) (BASE + 0x400 + 0x80 * (uint64_t)(n))
#define CODE (BASE + 0xc00)

static struct python_thread threads[2];
static struct python_frame frames[2 * PYTHON_FRAMES_MAX];

/* One thread with two functions, the outer one being the first that its native call runs. */
static struct python make(void)
{
    memset(memory, 0, sizeof memory);
    put(RUNTIME + 40, INTERPRETER);
    put(INTERPRETER + 16, THREAD);
    put(THREAD + 16, INTERPRETER);
    put(THREAD + 56, CFRAME);
    put(THREAD + 152, 0x7777);
    put(THREAD + 160, 42);
    put(CFRAME + 8, FRAME(0));
    for (int i = 0; i < 2; i++) {
        put(FRAME(i) + 32, CODE);
        put(FRAME(i) + 48, i == 0 ? FRAME(1) : 0);
        put(FRAME(i) + 56, CODE + 184 + 10);
        put(FRAME(i) + 64, i == 1 ? UINT64_C(1) << 32 : 0);
    }
    return (struct python){.minor = 11,
                           .runtime = RUNTIME,
                           .read = read_memory,
                           .threads = threads,
                           .thread_capacity = 2,
                           .frames = frames,
                           .frame_capacity = 2 * PYTHON_FRAMES_MAX};
}

TEST(a_chain_is_followed)
{
    struct python p = make();
    python_copy_all(&p, UINT64_MAX);
    REQUIRE(p.thread_count == 1);
    struct python_thread *thread = python_find(&p, 0x7777, 0);
    CHECK(thread == &threads[0]);
    CHECK(python_find(&p, 0, 42) == thread);
    CHECK(python_find(&p, 0, 43) == NULL);
    CHECK(python_find(&p, 0, 0) == NULL);
    CHECK_EQ_INT(thread->count, 2);
    CHECK(!thread->cut);
    CHECK_EQ_INT(frames[0].instruction, 10);
    CHECK(!frames[0].entry);
    CHECK(frames[1].entry);
    CHECK(p.missing == NULL);
}

TEST(what_does_not_point_back_is_not_believed)
{
    struct python p = make();
    put(THREAD + 16, INTERPRETER + 8);
    python_copy_all(&p, UINT64_MAX);
    CHECK_EQ_INT(p.thread_count, 0);
    CHECK(p.missing != NULL);
    p = make();
    put(RUNTIME + 40, 8);
    python_copy_all(&p, UINT64_MAX);
    CHECK(p.missing != NULL);
}

TEST(a_chain_without_an_end_has_one)
{
    struct python p = make();
    put(FRAME(1) + 48, FRAME(0));
    python_copy_all(&p, UINT64_MAX);
    CHECK_EQ_INT(threads[0].count, PYTHON_FRAMES_MAX);
    CHECK(threads[0].cut);
    p = make();
    put(THREAD + 8, THREAD);
    python_copy_all(&p, UINT64_MAX);
    CHECK_EQ_INT(p.thread_count, 2);
    p = make();
    put(FRAME(1) + 48, 0xdeadbeef00);
    python_copy_all(&p, UINT64_MAX);
    CHECK_EQ_INT(threads[0].count, 2);
    CHECK(threads[0].cut);
}

TEST(a_copy_without_time_is_cut)
{
    struct python p = make();
    python_copy_all(&p, 0);
    CHECK_EQ_INT(p.thread_count, 1);
    CHECK_EQ_INT(threads[0].count, 0);
    CHECK(threads[0].cut);
}

/* A text of each width, and objects of the wrong type. */
TEST(a_name_is_read_as_what_it_is)
{
    struct python p = make();
    struct python_name name;
    p.code_type = 0x9001;
    p.text_type = 0x9002;
    p.bytes_type = 0x9003;
    put(CODE + 8, 0x9001);
    put(CODE + 112, BASE + 0xe00);
    put(CODE + 128, BASE + 0xe80);
    put(BASE + 0xe00 + 8, 0x9002);
    put(BASE + 0xe00 + 16, 4);
    put(BASE + 0xe00 + 32, 1u << 2 | 1u << 5 | 1u << 6);
    memcpy((uint8_t *)memory + 0xe00 + 48, "a.py", 4);
    put(BASE + 0xe80 + 8, 0x9002);
    put(BASE + 0xe80 + 16, 2);
    put(BASE + 0xe80 + 32, 2u << 2 | 1u << 5);
    put(BASE + 0xe80 + 72, 0xd80020acu);
    CHECK(python_name(&p, CODE, 10, &name));
    CHECK_EQ_STR(name.file, "a.py");
    CHECK_EQ_STR(name.function, "\xe2\x82\xac?");
    CHECK_EQ_INT(name.line, 0);
    p.text_type = 0x9005;
    CHECK(!python_name(&p, CODE, 10, &name));
    p.text_type = 0x9002;
    p.code_type = 0x9005;
    CHECK(!python_name(&p, CODE, 10, &name));
    CHECK(!python_name(&p, 0, 10, &name));
}
