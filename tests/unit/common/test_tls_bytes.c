/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an established session carries: all bytes, in order, both ways, within its limits, and
 * nothing that was damaged on the way.
 */
#include <stdlib.h>

#include "tests/unit/common/tls_pair.h"

static void pair_established(struct pair *p, const struct stage *s)
{
    pair_open(p, good_client(s), good_server(s), "localhost");
    shake(&p->client, &p->server);
    REQUIRE(p->client.result == 0 && p->server.result == 0);
}

/* Bytes that differ at every place, so that a swap or a gap is seen. */
static uint8_t *pattern(size_t size_bytes)
{
    uint8_t *bytes = malloc(size_bytes);
    REQUIRE(bytes);
    uint32_t x = 12345;
    for (size_t i = 0; i < size_bytes; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(x >> 24);
    }
    return bytes;
}

/* Sends all of `bytes` in writes of uneven sizes and network pieces of others. */
static void transfer(struct tls *from, struct tls *to, const uint8_t *bytes, size_t size_bytes)
{
    struct buf got;
    struct failure f = {0};
    size_t sent = 0;
    buf_init(&got, size_bytes + 65536);
    for (size_t round = 1; got.size_bytes < size_bytes && round < 100000; round++) {
        size_t part = round * 7919 % 70000;
        if (part > size_bytes - sent)
            part = size_bytes - sent;
        REQUIRE(tls_write(from, span_of(bytes + sent, part), &f) == 0);
        sent += part;
        for (struct span s = tls_pending(from); s.size_bytes; s = tls_pending(from)) {
            size_t piece = s.size_bytes < 5003 ? s.size_bytes : 5003;
            REQUIRE(tls_feed(to, span_of(s.data, piece)) == 0);
            tls_sent(from, piece);
            int err;
            while ((err = tls_read(to, &got, &f)) == 0) {
            }
            REQUIRE(err == ERR_AGAIN);
        }
    }
    REQUIRE(got.size_bytes == size_bytes);
    CHECK_EQ_MEM(got.data, bytes, size_bytes);
    buf_done(&got);
}

TEST(three_megabytes_each_way)
{
    enum { SIZE = 3 * 1024 * 1024 };
    struct stage s;
    struct pair p;
    uint8_t *bytes = pattern(SIZE);
    stage_init(&s);
    pair_established(&p, &s);
    transfer(p.client.tls, p.server.tls, bytes, SIZE);
    transfer(p.server.tls, p.client.tls, bytes, SIZE);
    free(bytes);
    pair_close(&p);
    stage_done(&s);
}

TEST(a_small_output_takes_a_record_in_parts)
{
    struct stage s;
    struct pair p;
    struct buf got;
    struct failure f = {0};
    uint8_t *bytes = pattern(10000);
    stage_init(&s);
    pair_established(&p, &s);
    REQUIRE(tls_write(p.client.tls, span_of(bytes, 10000), &f) == 0);
    carry(p.client.tls, p.server.tls);
    buf_init(&got, 3000);
    for (size_t at = 0; at < 10000; at += got.size_bytes) {
        buf_clear(&got);
        REQUIRE(tls_read(p.server.tls, &got, &f) == 0);
        CHECK_EQ_MEM(got.data, bytes + at, got.size_bytes);
    }
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_AGAIN);
    REQUIRE(buf_append(&got, bytes, 2000) == 0);
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_LIMIT);
    buf_done(&got);
    free(bytes);
    pair_close(&p);
    stage_done(&s);
}

TEST(limits)
{
    struct stage s;
    struct pair p;
    struct failure f = {0};
    uint8_t *bytes = pattern(256 * 1024 + 1);
    stage_init(&s);
    pair_open(&p, good_client(&s), good_server(&s), "localhost");
    CHECK_EQ_INT(tls_feed(p.server.tls, span_of(bytes, 256 * 1024 + 1)), ERR_LIMIT);
    CHECK_EQ_INT(tls_feed(p.server.tls, span_of(bytes, 256 * 1024)), 0);
    CHECK_EQ_INT(tls_feed(p.server.tls, span_of(bytes, 1)), ERR_LIMIT);
    pair_close(&p);
    pair_established(&p, &s);
    int err = 0;
    for (int i = 0; i < 64 && !err; i++)
        err = tls_write(p.client.tls, span_of(bytes, 256 * 1024), &f);
    CHECK_EQ_INT(err, ERR_LIMIT);
    CHECK(tls_pending(p.client.tls).size_bytes <= 4 * 1024 * 1024);
    free(bytes);
    pair_close(&p);
    stage_done(&s);
}

TEST(goodbye_comes_after_the_bytes)
{
    struct stage s;
    struct pair p;
    struct buf got;
    struct failure f = {0};
    stage_init(&s);
    pair_established(&p, &s);
    buf_init(&got, 65536);
    REQUIRE(tls_write(p.client.tls, span_str("last words"), &f) == 0);
    tls_goodbye(p.client.tls);
    carry(p.client.tls, p.server.tls);
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), 0);
    CHECK_EQ_STR(buf_str(&got), "last words");
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_CLOSED);
    CHECK_EQ_STR(f.text, "peer closed the connection");
    buf_done(&got);
    pair_close(&p);
    stage_done(&s);
}

TEST(a_damaged_record_is_refused_and_reported)
{
    struct stage s;
    struct pair p;
    struct buf got;
    struct failure f = {0};
    uint8_t record[256];
    stage_init(&s);
    pair_established(&p, &s);
    buf_init(&got, 65536);
    REQUIRE(tls_write(p.client.tls, span_str("pay 100 to alice"), &f) == 0);
    struct span sent = tls_pending(p.client.tls);
    REQUIRE(sent.size_bytes < sizeof record);
    memcpy(record, sent.data, sent.size_bytes);
    record[sent.size_bytes - 20] ^= 1;
    REQUIRE(tls_feed(p.server.tls, span_of(record, sent.size_bytes)) == 0);
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_PROTOCOL);
    CHECK_EQ_INT(got.size_bytes, 0);
    carry(p.server.tls, p.client.tls);
    CHECK_EQ_INT(tls_read(p.client.tls, &got, &f), ERR_PROTOCOL);
    CHECK_EQ_STR(f.text, "peer broke off (TLS alert 20)");
    buf_done(&got);
    pair_close(&p);
    stage_done(&s);
}
