/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of partitions and keys (keys.h). Pure. Invariant: the bytes made here never change for
 * a data format version (tests/unit/collector/test_keys.c holds them), and of two keys of one kind
 * the earlier time sorts first. Names come from certificates and have at most 63 characters; a
 * longer one is cut, so that it finds nothing. Called by whoever reads or writes the store.
 */
#include "collector/keys.h"

#include <string.h>

#include "common/text.h"

#define HOUR_US INT64_C(3600000000)
#define DAY_US (24 * HOUR_US)
#define SAMPLE_HEAD_SIZE 32 /* time, sequence number, state ID; the host's name follows */
#define SYMBOLS_ID_MAX 20   /* bytes of a build-id */
#define SIGN_BIT (UINT64_C(1) << 63)

struct span key_span(const struct key *key)
{
    return span_of(key->bytes, key->size_bytes);
}

/* ---- partitions ---- */

uint32_t keys_shard(const char *host)
{
    uint32_t hash = UINT32_C(2166136261);
    for (; *host; host++)
        hash = (hash ^ (uint8_t)*host) * UINT32_C(16777619);
    return hash % KEYS_SHARDS;
}

void keys_host_part(char out[KEYS_PARTITION_SIZE], const char *host)
{
    text_format(out, KEYS_PARTITION_SIZE, "host/%s", host);
}

/* Of one width, so that partitions sort by time; what is before 1970 goes to the first one. */
static void put_time_part(char *out, const char *kind, uint32_t shard, int64_t number)
{
    text_format(out, KEYS_PARTITION_SIZE, "%s/%02u/%010lld", kind, (unsigned)shard,
                (long long)(number > 0 ? number : 0));
}

void keys_counter_part(char out[KEYS_PARTITION_SIZE], uint32_t shard, int64_t host_us)
{
    put_time_part(out, "ctr", shard, host_us / HOUR_US);
}

void keys_event_part(char out[KEYS_PARTITION_SIZE], uint32_t shard, int64_t host_us)
{
    put_time_part(out, "evt", shard, host_us / DAY_US);
}

void keys_incident_part(char out[KEYS_PARTITION_SIZE], const char *incident)
{
    text_format(out, KEYS_PARTITION_SIZE, "inc/%s", incident);
}

void keys_symbols_part(char out[KEYS_PARTITION_SIZE], struct span build_id, uint64_t generation)
{
    char hex[2 * SYMBOLS_ID_MAX + 1];
    size_t size = build_id.size_bytes < SYMBOLS_ID_MAX ? build_id.size_bytes : SYMBOLS_ID_MAX;
    text_put_hex(build_id.data, size, hex);
    text_format(out, KEYS_PARTITION_SIZE, KEYS_SYMBOLS_PARTS "%s/%016llx", hex,
                (unsigned long long)generation);
}

/* ---- keys ---- */

static void put(struct key *key, const void *data, size_t size_bytes)
{
    size_t room = sizeof key->bytes - key->size_bytes;
    size_t size = size_bytes < room ? size_bytes : room;
    memcpy(key->bytes + key->size_bytes, data, size);
    key->size_bytes += size;
}

static void put_text(struct key *key, const char *text)
{
    put(key, text, strlen(text));
}

static void put_u64(struct key *key, uint64_t value)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    put(key, bytes, sizeof bytes);
}

static void put_u32(struct key *key, uint32_t value)
{
    uint8_t bytes[4];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
    put(key, bytes, sizeof bytes);
}

/* With the sign bit turned over, times before 1970 (a clock far off) sort before all others. */
static void put_time(struct key *key, int64_t us)
{
    put_u64(key, (uint64_t)us ^ SIGN_BIT);
}

static uint64_t get_u64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

struct key keys_text(const char *text)
{
    struct key key = {.size_bytes = 0};
    put_text(&key, text);
    return key;
}

struct key keys_descriptor(uint64_t epoch, uint32_t id)
{
    struct key key = keys_text("d");
    put_u64(&key, epoch);
    put_u32(&key, id);
    return key;
}

struct key keys_sample(int64_t host_us, uint64_t seq, const uint8_t state_id[16], const char *host)
{
    struct key key = keys_time(host_us);
    put_u64(&key, seq);
    put(&key, state_id, 16);
    put_text(&key, host);
    return key;
}

struct key keys_time(int64_t host_us)
{
    struct key key = {.size_bytes = 0};
    put_time(&key, host_us);
    return key;
}

int keys_sample_parse(struct span key, int64_t *host_us, uint64_t *seq, struct span *host)
{
    if (key.size_bytes <= SAMPLE_HEAD_SIZE)
        return ERR_CORRUPT;
    *host_us = (int64_t)(get_u64(key.data) ^ SIGN_BIT);
    *seq = get_u64(key.data + 8);
    *host = span_of(key.data + SAMPLE_HEAD_SIZE, key.size_bytes - SAMPLE_HEAD_SIZE);
    return 0;
}

struct key keys_incident(int64_t created_us, const char *id)
{
    struct key key = keys_time(created_us);
    put_text(&key, id);
    return key;
}

struct key keys_target(const char *host)
{
    struct key key = keys_text("t");
    put_text(&key, host);
    return key;
}

struct key keys_target_of(const char *host, uint32_t capture)
{
    struct key key = keys_target(host);
    put(&key, "", 1);
    put_u32(&key, capture);
    return key;
}

struct key keys_artifact(const char *host, uint32_t no)
{
    struct key key = keys_text("a");
    put_text(&key, host);
    put(&key, "", 1); /* so that the artifacts of "web" end before those of "web-1" begin */
    put_u32(&key, no);
    return key;
}

struct key keys_capture(uint32_t no)
{
    struct key key = keys_text("c");
    put_u32(&key, no);
    return key;
}

/* ---- groups ---- */

static struct key keys_kind(char kind)
{
    struct key key = {.size_bytes = 0};
    put(&key, &kind, 1);
    return key;
}

struct key keys_group(char kind, const char *id)
{
    struct key key = keys_kind(kind);
    put_text(&key, id);
    return key;
}

struct key keys_group_bytes(char kind, const uint8_t bytes[16])
{
    struct key key = keys_kind(kind);
    put(&key, bytes, 16);
    return key;
}

struct key keys_firing(const uint8_t firing[16])
{
    return keys_group_bytes('f', firing);
}

struct key keys_group_host(const char *id, const char *host)
{
    struct key key = keys_group('h', id);
    put(&key, "", 1);
    put_text(&key, host);
    return key;
}

struct key keys_group_sample(const char *id, uint32_t slot)
{
    struct key key = keys_group('o', id);
    put(&key, "", 1);
    put_u32(&key, slot);
    return key;
}

struct key keys_group_told(int64_t at_us, const uint8_t exception[16])
{
    struct key key = keys_kind('e');
    put_time(&key, at_us);
    put(&key, exception, 16);
    return key;
}

struct key keys_symbol_file(struct span build_id)
{
    struct key key = keys_text("b");
    put(&key, build_id.data, build_id.size_bytes);
    return key;
}

struct key keys_symbol_page(uint32_t no)
{
    struct key key = {.size_bytes = 0};
    put_u32(&key, no);
    return key;
}

void keys_blob(char out[KEYS_PARTITION_SIZE], const char *incident, const char *host, uint32_t no)
{
    text_format(out, KEYS_PARTITION_SIZE, "%s/%s/%u", incident, host, (unsigned)no);
}
