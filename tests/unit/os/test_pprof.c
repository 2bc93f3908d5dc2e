/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The profile.proto writer, read back by a small reader of the wire format: every id that is
 * referred to is there, values and texts are right. That stock readers open it is shown by
 * tests/e2e/33_profile.py.
 */
#include "agent/os/linux/pprof.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "agent/os/linux/gzip.h"
#include "tests/check.h"

#define BYTES_MAX (4u << 20)
#define TEXTS_MAX 64

/* One field: a number, or bytes. */
struct field {
    uint32_t number;
    uint64_t value;
    struct span bytes;
};

static bool next(struct span *s, struct field *out)
{
    uint64_t key, length;
    if (s->size_bytes == 0)
        return false;
    REQUIRE(span_take_varint(s, &key) == 0);
    *out = (struct field){.number = (uint32_t)(key >> 3)};
    if ((key & 7) == 0) {
        REQUIRE(span_take_varint(s, &out->value) == 0);
    } else {
        REQUIRE((key & 7) == 2);
        REQUIRE(span_take_varint(s, &length) == 0);
        REQUIRE(span_take(s, (size_t)length, &out->bytes) == 0);
    }
    return true;
}

/* The n-th field of that number: its bytes. */
static struct span bytes_of(struct span message, uint32_t number, size_t n)
{
    struct field field;
    while (next(&message, &field))
        if (field.number == number && n-- == 0)
            return field.bytes;
    return span_of(NULL, 0);
}

static uint64_t value_of(struct span message, uint32_t number)
{
    struct field field;
    uint64_t value = 0;
    while (next(&message, &field))
        if (field.number == number)
            value = field.value;
    return value;
}

static size_t count_of(struct span message, uint32_t number)
{
    struct field field;
    size_t count = 0;
    while (next(&message, &field))
        count += field.number == number;
    return count;
}

static bool text_is(struct span profile, uint64_t text, const char *wanted)
{
    return span_equal(bytes_of(profile, 6, (size_t)text), span_str(wanted));
}

/* main at a return address in a module, which inlined `small`; above it a leaf. */
static void make(struct profile_set *set)
{
    uint32_t places[2], thread, stack, text, module;
    struct profile_frame frames[2] = {{0, 0, 7}, {0, 0, 20}};
    struct profile_module code = {.start = 0x1000, .end = 0x9000};
    profile_set_init(set);
    REQUIRE(profile_text(set, "/opt/app", &code.path) == 0);
    REQUIRE(profile_text(set, "abcd", &code.build_id) == 0);
    REQUIRE(profile_module(set, &code, &module) == 0);
    REQUIRE(profile_words(set, "leaf", &places[0]) == 0);
    REQUIRE(profile_location(set, PROFILE_RETURN, 0x2001, &places[1]) == 0);
    REQUIRE(profile_text(set, "small", &frames[0].function) == 0);
    REQUIRE(profile_text(set, "app.c", &frames[0].file) == 0);
    REQUIRE(profile_text(set, "main", &frames[1].function) == 0);
    frames[1].file = frames[0].file;
    REQUIRE(profile_name(set, places[1], frames, 2) == 0);
    set->locations[places[1]].module = module + 1;
    REQUIRE(profile_thread(set, 42, "pool\xff", &thread) == 0);
    REQUIRE(profile_stack(set, thread, places, 2, &stack) == 0);
    set->stacks[stack].samples = 3;
    set->stacks[stack].cpu_ns = 30303030;
    REQUIRE(profile_stack(set, thread, places, 1, &stack) == 0);
    set->stacks[stack].off_ns = UINT64_C(5000000000);
    REQUIRE(profile_stack(set, thread, places + 1, 1, &text) == 0); /* weighs nothing */
}

static const struct pprof_head head = {.wall_us = 1795442525123000,
                                       .duration_ns = 1000000000,
                                       .period_ns = 10101010,
                                       .comment = "nothing much"};

TEST(a_profile_is_written_as_its_schema_says)
{
    struct profile_set set;
    struct buf out;
    make(&set);
    buf_init(&out, BYTES_MAX);
    REQUIRE(pprof_put(&set, &head, &out) == 0);
    struct span p = buf_span(&out);
    CHECK_EQ_INT(count_of(p, 1), 3);
    CHECK(text_is(p, value_of(bytes_of(p, 1, 0), 1), "samples"));
    CHECK(text_is(p, value_of(bytes_of(p, 1, 1), 1), "cpu"));
    CHECK(text_is(p, value_of(bytes_of(p, 1, 2), 1), "off"));
    CHECK(text_is(p, value_of(bytes_of(p, 1, 2), 2), "nanoseconds"));
    CHECK(text_is(p, value_of(p, 14), "cpu"));
    CHECK(text_is(p, value_of(p, 13), "nothing much"));
    CHECK_EQ_INT(value_of(p, 9), INT64_C(1795442525123000000));
    CHECK_EQ_INT(value_of(p, 10), 1000000000);
    CHECK_EQ_INT(value_of(p, 12), 10101010);
    CHECK(text_is(p, 0, ""));
    CHECK_EQ_INT(count_of(p, 2), 2);
    buf_done(&out);
    profile_set_done(&set);
}

TEST(a_sample_has_its_stack_values_and_thread)
{
    struct profile_set set;
    struct buf out;
    uint64_t number;
    make(&set);
    buf_init(&out, BYTES_MAX);
    REQUIRE(pprof_put(&set, &head, &out) == 0);
    struct span p = buf_span(&out), sample = bytes_of(p, 2, 0);
    struct span values = bytes_of(sample, 2, 0), places = bytes_of(sample, 1, 0);
    CHECK_EQ_INT(span_take_varint(&values, &number), 0);
    CHECK_EQ_INT(number, 3);
    CHECK_EQ_INT(span_take_varint(&values, &number), 0);
    CHECK_EQ_INT(number, 30303030);
    CHECK_EQ_INT(span_take_varint(&values, &number), 0);
    CHECK_EQ_INT(number, 0);
    CHECK_EQ_INT(values.size_bytes, 0);
    CHECK_EQ_INT(span_take_varint(&places, &number), 0);
    CHECK_EQ_INT(number, 1);
    CHECK_EQ_INT(span_take_varint(&places, &number), 0);
    CHECK_EQ_INT(number, 2);
    CHECK(text_is(p, value_of(bytes_of(sample, 3, 0), 1), "thread"));
    CHECK(text_is(p, value_of(bytes_of(sample, 3, 0), 2), "pool?"));
    CHECK(text_is(p, value_of(bytes_of(sample, 3, 1), 1), "tid"));
    CHECK_EQ_INT(value_of(bytes_of(sample, 3, 1), 3), 42);
    buf_done(&out);
    profile_set_done(&set);
}

TEST(a_place_has_its_module_address_and_lines)
{
    struct profile_set set;
    struct buf out;
    make(&set);
    buf_init(&out, BYTES_MAX);
    REQUIRE(pprof_put(&set, &head, &out) == 0);
    struct span p = buf_span(&out), mapping = bytes_of(p, 3, 0), place = bytes_of(p, 4, 1);
    CHECK_EQ_INT(value_of(mapping, 1), 1);
    CHECK_EQ_INT(value_of(mapping, 2), 0x1000);
    CHECK_EQ_INT(value_of(mapping, 3), 0x9000);
    CHECK(text_is(p, value_of(mapping, 5), "/opt/app"));
    CHECK(text_is(p, value_of(mapping, 6), "abcd"));
    CHECK_EQ_INT(value_of(mapping, 7), 1);
    CHECK_EQ_INT(value_of(place, 1), 2);
    CHECK_EQ_INT(value_of(place, 2), 1);
    CHECK_EQ_INT(value_of(place, 3), 0x2000);
    CHECK_EQ_INT(count_of(place, 4), 2);
    /* Innermost first, each a function that is there. */
    static const char *const names[] = {"small", "main"};
    for (size_t i = 0; i < 2; i++) {
        struct span line = bytes_of(place, 4, i), rest = p;
        struct field field;
        size_t found = 0;
        while (next(&rest, &field)) {
            if (field.number == 5 && value_of(field.bytes, 1) == value_of(line, 1)) {
                found++;
                CHECK(text_is(p, value_of(field.bytes, 2), names[i]));
                CHECK(text_is(p, value_of(field.bytes, 4), "app.c"));
            }
        }
        CHECK_EQ_INT(found, 1);
        CHECK_EQ_INT(value_of(line, 2), i ? 20 : 7);
    }
    buf_done(&out);
    profile_set_done(&set);
}

TEST(a_profile_that_does_not_fit_is_an_error)
{
    struct profile_set set;
    struct buf out;
    make(&set);
    for (size_t limit = 1; limit < 200; limit += 13) {
        buf_init(&out, limit);
        CHECK_EQ_INT(pprof_put(&set, &head, &out), ERR_LIMIT);
        buf_done(&out);
    }
    profile_set_done(&set);
}

/* ---- gzip ---- */

static void check_round_trip(size_t size_bytes)
{
    struct buf packed;
    uint8_t *plain = malloc(size_bytes + 1), *back = malloc(size_bytes + 1);
    REQUIRE(plain && back);
    for (size_t i = 0; i < size_bytes; i++)
        plain[i] = (uint8_t)(i * i >> 7);
    buf_init(&packed, BYTES_MAX);
    REQUIRE(gzip_put(span_of(plain, size_bytes), &packed) == 0);
    z_stream z;
    memset(&z, 0, sizeof z);
    REQUIRE(inflateInit2(&z, 15 + 16) == Z_OK);
    z.next_in = packed.data;
    z.avail_in = (uInt)packed.size_bytes;
    z.next_out = back;
    z.avail_out = (uInt)size_bytes + 1;
    CHECK_EQ_INT(inflate(&z, Z_FINISH), Z_STREAM_END);
    CHECK_EQ_INT(z.total_out, size_bytes);
    CHECK_EQ_MEM(back, plain, size_bytes);
    inflateEnd(&z);
    buf_done(&packed);
    free(plain);
    free(back);
}

TEST(what_was_packed_comes_back)
{
    check_round_trip(0);
    check_round_trip(1);
    check_round_trip(3000000);
}

TEST(what_does_not_fit_leaves_nothing)
{
    static uint8_t noise[4096];
    struct buf packed;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * 2654435761u >> 11);
    buf_init(&packed, 100);
    REQUIRE(buf_append_str(&packed, "before") == 0);
    CHECK_EQ_INT(gzip_put(span_of(noise, sizeof noise), &packed), ERR_LIMIT);
    CHECK_EQ_STR(buf_str(&packed), "before");
    buf_done(&packed);
}
