/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text form of identifiers against the ULID specification's own example and at its limits, and
 * the promise that texts sort like times.
 */
#include "common/id.h"

#include <ctype.h>
#include <string.h>

#include "tests/check.h"

static const uint8_t zeros[10];
static const uint8_t ones[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

/* The time part of the specification's example "01ARZ3NDEKTSV4RRFFQ69G5FAV". */
TEST(the_example_of_the_specification)
{
    static const char text[] = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    struct id id;
    REQUIRE(id_parse(text, &id) == 0);
    CHECK_EQ_INT(id_time_ms(&id), INT64_C(1469922850259));
    char again[ID_TEXT_SIZE];
    id_text(&id, again);
    CHECK_EQ_STR(again, text);
}

TEST(least_and_greatest)
{
    char text[ID_TEXT_SIZE];
    struct id least = id_make(0, zeros), greatest = id_make(INT64_MAX, ones);
    id_text(&least, text);
    CHECK_EQ_STR(text, "00000000000000000000000000");
    CHECK(id_is_zero(&least));
    id_text(&greatest, text);
    CHECK_EQ_STR(text, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    struct id again = least;
    CHECK_EQ_INT(id_parse(text, &again), 0);
    CHECK_EQ_INT(id_compare(&again, &greatest), 0);
    CHECK(!id_is_zero(&greatest));
    CHECK_EQ_INT(id_time_ms(&greatest), (INT64_C(1) << 48) - 1);
    struct id before_1970 = id_make(-1, zeros);
    CHECK(id_is_zero(&before_1970));
}

TEST(every_bit_has_its_place)
{
    for (int bit = 0; bit < 128; bit++) {
        struct id id = {{0}}, again;
        id.bytes[bit / 8] = (uint8_t)(0x80 >> bit % 8);
        char text[ID_TEXT_SIZE];
        id_text(&id, text);
        REQUIRE(id_parse(text, &again) == 0);
        CHECK_EQ_INT(id_compare(&id, &again), 0);
        CHECK(strspn(text, "0") == (size_t)(bit + 2) / 5);
    }
}

TEST(texts_sort_like_times)
{
    static const int64_t times[] = {0, 1, 31, 32, 1000, 1469922850259, 1795442525000};
    char before[ID_TEXT_SIZE] = "";
    struct id last = {{0}};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct id id = id_make(times[i], i % 2 ? zeros : ones);
        char text[ID_TEXT_SIZE];
        id_text(&id, text);
        CHECK_EQ_INT(id_time_ms(&id), times[i]);
        CHECK(strcmp(before, text) < 0);
        CHECK(id_compare(&last, &id) < 0);
        memcpy(before, text, sizeof before);
        last = id;
    }
}

TEST(small_letters_are_read)
{
    static const char text[] = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    char small[ID_TEXT_SIZE];
    for (size_t i = 0; i < sizeof small; i++)
        small[i] = (char)tolower((unsigned char)text[i]);
    struct id a, b;
    REQUIRE(id_parse(text, &a) == 0);
    CHECK_EQ_INT(id_parse(small, &b), 0);
    CHECK_EQ_INT(id_compare(&a, &b), 0);
}

TEST(anything_else_is_refused_and_leaves_out_alone)
{
    static const char *const wrong[] = {
        "",
        "0",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",    /* 25 */
        "01ARZ3NDEKTSV4RRFFQ69G5FAVV",  /* 27 */
        "81ARZ3NDEKTSV4RRFFQ69G5FAV",   /* over 128 bits */
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",   /* U */
        "I1ARZ3NDEKTSV4RRFFQ69G5FAV",   /* I */
        "01ARZ3NDEKTSV4RRFFL69G5FAV",   /* L */
        "O1ARZ3NDEKTSV4RRFFQ69G5FAV",   /* O */
        "01ARZ3NDEKTSV4RRFFQ69G5FA ",   /* blank */
        "01ARZ3NDEKTSV4RRFFQ69G5FA\xC3" /* not ASCII */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct id id = id_make(42, ones), same = id;
        CHECK_EQ_INT(id_parse(wrong[i], &id), ERR_INVALID);
        CHECK_EQ_INT(id_compare(&id, &same), 0);
    }
}

TEST(short_names_use_five_bits_a_character)
{
    static const uint8_t bytes[] = {0x00, 0x44, 0x32, 0x14, 0xC7};
    char out[10];
    memset(out, '#', sizeof out);
    id_base32(bytes, 8, out);
    CHECK_EQ_STR(out, "01234567");
    CHECK_EQ_INT(out[9], '#');
    id_base32(bytes, 0, out);
    CHECK_EQ_STR(out, "");
    id_base32(ones, 5, out);
    CHECK_EQ_STR(out, "ZZZZZ");
}
