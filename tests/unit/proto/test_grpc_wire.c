/* SPDX-License-Identifier: Apache-2.0 */
/* Values as gRPC writes them in header fields: timeouts, percent-encoded texts, content types. */
#include "proto/grpc_internal.h"

#include <string.h>

#include "tests/check.h"

static uint64_t timeout_us(const char *text)
{
    uint64_t us = 12345678901;
    return grpc_timeout_parse(span_str(text), &us) ? us : UINT64_MAX;
}

TEST(timeouts_are_read_in_all_units)
{
    CHECK_EQ_INT(timeout_us("1H"), 3600000000);
    CHECK_EQ_INT(timeout_us("2M"), 120000000);
    CHECK_EQ_INT(timeout_us("3S"), 3000000);
    CHECK_EQ_INT(timeout_us("4m"), 4000);
    CHECK_EQ_INT(timeout_us("5u"), 5);
    CHECK_EQ_INT(timeout_us("1n"), 1);
    CHECK_EQ_INT(timeout_us("2001n"), 3);
    CHECK_EQ_INT(timeout_us("0S"), 0);
    CHECK_EQ_INT(timeout_us("99999999H"), 359999996400000000);
    static const char *const bad[] = {"",    "S",   "1",   "1s",         "-1S",  "+1S",
                                      " 1S", "1 S", "1SS", "123456789S", "1.5S", "0x1S"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(timeout_us(bad[i]) == UINT64_MAX);
}

TEST(timeouts_are_written_so_that_they_come_back)
{
    static const uint64_t values[] = {1,         1000,        99999999,      100000000,
                                      100000001, 99999999999, 3600000000001, UINT64_C(1) << 56,
                                      UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[GRPC_TIMEOUT_SIZE];
        grpc_timeout_format(values[i], text);
        uint64_t back = timeout_us(text);
        CHECK(strlen(text) <= 9);
        CHECK(back >= values[i] || values[i] == UINT64_MAX);
        CHECK(values[i] >= 100000000 || back == values[i]);
    }
}

TEST(messages_are_percent_encoded)
{
    char wire[GRPC_ENCODED_BYTES];
    struct buf back;
    const char *text = " 100% \xc3\xa4\n\x7f ";
    size_t n = grpc_message_encode(span_str(text), wire);
    CHECK_EQ_INT(n, strlen("%20100%25 %C3%A4%0A%7F%20"));
    CHECK_EQ_MEM(wire, "%20100%25 %C3%A4%0A%7F%20", n);
    buf_init(&back, GRPC_TEXT_BYTES);
    grpc_message_decode(span_of(wire, n), &back);
    CHECK_EQ_STR(buf_str(&back), text);
    grpc_message_decode(span_str("%zz %2 %00 %"), &back);
    CHECK_EQ_STR(buf_str(&back), "%zz %2 %00 %");
    buf_done(&back);
}

TEST(content_types_are_judged)
{
    CHECK(grpc_content_type_ok(span_str("application/grpc")));
    CHECK(grpc_content_type_ok(span_str("application/grpc+proto")));
    CHECK(grpc_content_type_ok(span_str("application/grpc;charset=utf-8")));
    CHECK(!grpc_content_type_ok(span_str("application/grpc+json")));
    CHECK(!grpc_content_type_ok(span_str("application/grpcx")));
    CHECK(!grpc_content_type_ok(span_str("application/json")));
    CHECK(!grpc_content_type_ok(span_str("")));
}
