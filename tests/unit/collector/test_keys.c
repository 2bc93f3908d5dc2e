/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Partitions and keys against tests/golden/keys.txt, "name value" a line: a difference is a new
 * data format version, not a new golden file.
 */
#include "collector/keys.h"

#include <stdio.h>
#include <string.h>

#include "common/text.h"
#include "tests/check.h"

static const uint8_t state_id[16] = {0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7,
                                     0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF};
#define TIME_US INT64_C(1795442525123456) /* 2026-11-23T14:02:05.123456Z */

static char made[4096];

static void add(const char *name, const char *value)
{
    size_t at = strlen(made);
    REQUIRE(text_format(made + at, sizeof made - at, "%s %s\n", name, value) == 0);
}

static void add_key(const char *name, struct key key)
{
    char hex[2 * KEYS_KEY_SIZE + 1];
    text_put_hex(key.bytes, key.size_bytes, hex);
    add(name, hex);
}

TEST(keys_are_what_they_were)
{
    char part[KEYS_PARTITION_SIZE];
    keys_host_part(part, "web-1");
    add("host_part", part);
    keys_counter_part(part, 7, TIME_US);
    add("counter_part", part);
    keys_counter_part(part, 7, -1);
    add("counter_part_before_1970", part);
    keys_event_part(part, 15, TIME_US);
    add("event_part", part);
    keys_incident_part(part, "INC-261123-K7F2Q");
    add("incident_part", part);
    keys_blob(part, "INC-261123-K7F2Q", "web-1", 4294967295);
    add("blob", part);
    add_key("text", keys_text("seq"));
    add_key("descriptor", keys_descriptor(0x0102030405060708, 0x090A0B0C));
    add_key("sample", keys_sample(TIME_US, 0x1122334455667788, state_id, "web-1"));
    add_key("sample_before_1970", keys_sample(-1, 0, state_id, "web-1"));
    add_key("time", keys_time(TIME_US));
    add_key("incident", keys_incident(TIME_US, "INC-261123-K7F2Q"));
    add_key("target", keys_target("web-1"));
    add_key("artifact", keys_artifact("web-1", 258));
    add_key("capture", keys_capture(258));
    add_key("target_of_capture", keys_target_of("web-1", 258));
    add_key("group", keys_group('g', "G-7F2QK"));
    add_key("group_signature", keys_group_bytes('s', state_id));
    add_key("group_host", keys_group_host("G-7F2QK", "web-1"));
    add_key("group_hosts", keys_group_host("G-7F2QK", ""));
    add_key("group_sample", keys_group_sample("G-7F2QK", 2));
    add_key("group_told", keys_group_told(TIME_US, state_id));
    add_key("firing", keys_firing(state_id));
    keys_symbols_part(part, span_of(state_id, sizeof state_id), 0x0102030405060708);
    add("symbols_part", part);
    add_key("symbol_file", keys_symbol_file(span_of(state_id, sizeof state_id)));
    add_key("symbol_page", keys_symbol_page(258));
    static char golden[4096];
    FILE *file = fopen(TESTS_DIR "/golden/keys.txt", "r");
    REQUIRE(file != NULL);
    golden[fread(golden, 1, sizeof golden - 1, file)] = '\0';
    fclose(file);
    CHECK_EQ_STR(made, golden);
}

TEST(shards_are_what_they_were_and_spread)
{
    /* FNV-1a 32 of "" is its offset basis, of "a" 0xe40c292c, of "foobar" 0xbf9cf968. */
    CHECK_EQ_INT(keys_shard(""), 0x811c9dc5 % KEYS_SHARDS);
    CHECK_EQ_INT(keys_shard("a"), 0xe40c292c % KEYS_SHARDS);
    CHECK_EQ_INT(keys_shard("foobar"), 0xbf9cf968 % KEYS_SHARDS);
    int counts[KEYS_SHARDS] = {0};
    for (int i = 0; i < 1600; i++) {
        char host[32];
        text_format(host, sizeof host, "web-%04d.example", i);
        REQUIRE(keys_shard(host) < KEYS_SHARDS);
        counts[keys_shard(host)]++;
    }
    for (int i = 0; i < KEYS_SHARDS; i++)
        CHECK(counts[i] > 50 && counts[i] < 150);
}

static int compare(struct key a, struct key b)
{
    size_t least = a.size_bytes < b.size_bytes ? a.size_bytes : b.size_bytes;
    int order = memcmp(a.bytes, b.bytes, least);
    return order ? order : (a.size_bytes > b.size_bytes) - (a.size_bytes < b.size_bytes);
}

TEST(keys_sort_by_time_then_number)
{
    static const int64_t times[] = {INT64_MIN, -1, 0, 1, 255, 256, TIME_US, INT64_MAX};
    for (size_t i = 0; i + 1 < sizeof times / sizeof times[0]; i++) {
        CHECK(compare(keys_time(times[i]), keys_time(times[i + 1])) < 0);
        CHECK(compare(keys_sample(times[i], UINT64_MAX, state_id, "z"),
                      keys_sample(times[i + 1], 0, state_id, "a")) < 0);
        /* keys_time is the first possible sample of its time, and behind all of the one before. */
        CHECK(compare(keys_time(times[i]), keys_sample(times[i], 0, (const uint8_t[16]){0}, "")) <
              0);
        CHECK(compare(keys_sample(times[i], UINT64_MAX, state_id, "z"), keys_time(times[i + 1])) <
              0);
        CHECK(compare(keys_incident(times[i], "z"), keys_incident(times[i + 1], "a")) < 0);
    }
    CHECK(compare(keys_artifact("web", 256), keys_artifact("web-1", 0)) < 0);
    CHECK(compare(keys_artifact("web", 255), keys_artifact("web", 256)) < 0);
    CHECK(compare(keys_capture(255), keys_capture(256)) < 0);
    CHECK(compare(keys_descriptor(1, UINT32_MAX), keys_descriptor(2, 0)) < 0);
    char early[KEYS_PARTITION_SIZE], late[KEYS_PARTITION_SIZE];
    keys_counter_part(early, 3, INT64_C(3599999999));
    keys_counter_part(late, 3, INT64_C(3600000000));
    CHECK(strcmp(early, late) < 0);
    keys_event_part(early, 3, INT64_C(999) * 86400000000);
    keys_event_part(late, 3, INT64_C(1000) * 86400000000);
    CHECK(strcmp(early, late) < 0);
}

TEST(a_sample_key_is_taken_apart_again)
{
    static const int64_t times[] = {INT64_MIN, -1, 0, TIME_US, INT64_MAX};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct key key = keys_sample(times[i], 77 + i, state_id, "db.example");
        int64_t host_us = 5;
        uint64_t seq = 5;
        struct span host = span_of(NULL, 0);
        CHECK_EQ_INT(keys_sample_parse(key_span(&key), &host_us, &seq, &host), 0);
        CHECK_EQ_INT(host_us, times[i]);
        CHECK_EQ_INT(seq, 77 + i);
        CHECK(span_equal(host, span_str("db.example")));
    }
    struct key key = keys_sample(1, 2, state_id, "");
    int64_t host_us = 5;
    uint64_t seq = 5;
    struct span host = span_of(NULL, 0);
    for (size_t size = 0; size <= key.size_bytes; size++)
        CHECK_EQ_INT(keys_sample_parse(span_of(key.bytes, size), &host_us, &seq, &host),
                     ERR_CORRUPT);
    CHECK(host_us == 5 && seq == 5 && !host.data);
}

TEST(what_is_too_long_is_cut_never_overrun)
{
    char host[300], part[KEYS_PARTITION_SIZE];
    memset(host, 'x', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    CHECK_EQ_INT(keys_sample(1, 2, state_id, host).size_bytes, KEYS_KEY_SIZE);
    CHECK_EQ_INT(keys_artifact(host, 1).size_bytes, KEYS_KEY_SIZE);
    CHECK_EQ_INT(keys_text(host).size_bytes, KEYS_KEY_SIZE);
    keys_host_part(part, host);
    CHECK_EQ_INT(strlen(part), KEYS_PARTITION_SIZE - 1);
    keys_blob(part, host, host, 1);
    CHECK_EQ_INT(strlen(part), KEYS_PARTITION_SIZE - 1);
}
