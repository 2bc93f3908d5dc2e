/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON written a value at a time: commas and levels, every type, bytes that are no text, and a
 * buffer that becomes full at every possible place.
 */
#include "agent/os/linux/json_text.h"

#include <string.h>

#include "tests/check.h"

#define ROOM 4096

static void write_document(struct json_text *j)
{
    static const uint8_t bytes[] = {0, 1, 0xab, 0xff};
    json_text_object(j, NULL);
    json_text_str(j, "name", "a\"b\\c\n");
    json_text_str(j, "none", NULL);
    json_text_u64(j, "most", UINT64_MAX);
    json_text_i64(j, "least", INT64_MIN);
    json_text_array(j, "list");
    json_text_bool(j, NULL, true);
    json_text_bool(j, NULL, false);
    json_text_null(j, NULL);
    json_text_object(j, NULL);
    json_text_end(j);
    json_text_array(j, NULL);
    json_text_end(j);
    json_text_end(j);
    json_text_hex(j, "id", bytes, sizeof bytes);
    json_text_hex(j, "no_id", NULL, 0);
    json_text_address(j, "pc", 0x7fffdeadbeef);
    json_text_end(j);
}

static const char document[] =
    "{\"name\":\"a\\\"b\\\\c\\n\",\"none\":null,\"most\":18446744073709551615,"
    "\"least\":-9223372036854775808,\"list\":[true,false,null,{},[]],\"id\":\"0001abff\","
    "\"no_id\":\"\",\"pc\":\"0x7fffdeadbeef\"}";

TEST(a_document_is_valid_json)
{
    struct buf out;
    struct json_text j;
    buf_init(&out, ROOM);
    json_text_init(&j, &out);
    write_document(&j);
    CHECK_EQ_INT(j.rc, 0);
    CHECK_EQ_INT(j.depth, 0);
    CHECK_EQ_STR(buf_str(&out), document);
    buf_done(&out);
}

/* However little room there is, what was written is the beginning of the document. */
TEST(a_full_buffer_is_an_error_that_stays)
{
    for (size_t limit = 1; limit < sizeof document - 1; limit++) {
        struct buf out;
        struct json_text j;
        buf_init(&out, limit);
        json_text_init(&j, &out);
        write_document(&j);
        CHECK_EQ_INT(j.rc, ERR_LIMIT);
        CHECK(out.size_bytes <= limit);
        CHECK(memcmp(out.data ? (const char *)out.data : "", document, out.size_bytes) == 0);
        buf_done(&out);
    }
}

TEST(bytes_that_are_no_text_become_valid_text)
{
    static const char bytes[] = "x\xff\xc0\x80\xed\xa0\x80y\x1b[31m\0z";
    struct buf out;
    struct json_text j;
    buf_init(&out, ROOM);
    json_text_init(&j, &out);
    json_text_span(&j, NULL, span_of(bytes, sizeof bytes - 1));
    CHECK_EQ_INT(j.rc, 0);
    const char *text = buf_str(&out);
    CHECK(strstr(text, "\"x\xef\xbf\xbd") == text);
    CHECK(strstr(text, "y\\u001b[31m\\u0000z\"") != NULL);
    CHECK(strchr(text, '\xff') == NULL && strchr(text, '\x1b') == NULL);
    buf_done(&out);
}

TEST(a_long_row_of_bytes_is_written_whole)
{
    uint8_t bytes[200];
    struct buf out;
    struct json_text j;
    memset(bytes, 0x5a, sizeof bytes);
    buf_init(&out, ROOM);
    json_text_init(&j, &out);
    json_text_hex(&j, NULL, bytes, sizeof bytes);
    CHECK_EQ_INT(out.size_bytes, 402);
    CHECK(strspn(buf_str(&out) + 1, "5a") == 400);
    buf_done(&out);
}

/* A member that does not fit is taken back, and the document still ends well. */
TEST(a_member_can_be_taken_back)
{
    enum { END_BYTES = 1 }; /* what ends the array must fit still */
    struct buf out;
    struct json_text j;
    buf_init(&out, 24);
    json_text_init(&j, &out);
    json_text_array(&j, NULL);
    for (int i = 0; i < 3; i++) {
        struct json_text_mark mark = json_text_mark(&j);
        json_text_object(&j, NULL);
        json_text_str(&j, "k", i == 1 ? "far too long to fit" : "v");
        json_text_end(&j);
        if (j.rc || out.limit_bytes - out.size_bytes < END_BYTES)
            json_text_undo(&j, &mark);
    }
    json_text_end(&j);
    CHECK_EQ_INT(j.rc, 0);
    CHECK_EQ_STR(buf_str(&out), "[{\"k\":\"v\"},{\"k\":\"v\"}]");
    buf_done(&out);
}
