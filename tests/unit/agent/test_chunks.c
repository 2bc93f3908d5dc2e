/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes through a worker's pipe: cut at every byte, and everything that a worker which was
 * taken over might write.
 */
#include "agent/capture_chunks.h"

#include <stdio.h>
#include <string.h>

#include "common/text.h"
#include "tests/check.h"

struct got {
    char text[256];
    int refuse; /* this many events are fine */
};

static int note(struct got *got, const char *text, size_t size_bytes)
{
    size_t used = strlen(got->text);
    snprintf(got->text + used, sizeof got->text - used, "%.*s", (int)size_bytes, text);
    return got->refuse-- == 0 ? ERR_FULL : 0;
}

static int on_file(void *context, const struct broker_file *file, struct failure *f)
{
    char text[64];
    (void)f;
    snprintf(text, sizeof text, "[%s:%s]", file->ending, file->encoding);
    return note(context, text, strlen(text));
}

static int on_data(void *context, struct span bytes, struct failure *f)
{
    (void)f;
    return note(context, (const char *)bytes.data, bytes.size_bytes);
}

static const struct capture_chunks_events events = {on_file, on_data};

static void put(struct buf *b, uint32_t type, const void *data, uint32_t size)
{
    struct broker_chunk chunk = {BROKER_MAGIC, type, size};
    REQUIRE(buf_append(b, &chunk, sizeof chunk) == 0 && buf_append(b, data, size) == 0);
}

static void put_file(struct buf *b, const char *ending, const char *encoding)
{
    struct broker_file file = {{0}, {0}};
    memcpy(file.ending, ending, strnlen(ending, sizeof file.ending));
    memcpy(file.encoding, encoding, strnlen(encoding, sizeof file.encoding));
    put(b, BROKER_CHUNK_FILE, &file, sizeof file);
}

static int feed(struct buf *b, struct got *got, struct failure *f)
{
    struct capture_chunks chunks = {0};
    int e = capture_chunks_feed(&chunks, buf_span(b), &events, got, f);
    return e ? e : capture_chunks_end(&chunks, f);
}

static int feed_and_clear(struct buf *b)
{
    struct got got = {.refuse = -1};
    struct failure f = {0};
    int e = feed(b, &got, &f);
    CHECK(!e || f.text[0]);
    buf_clear(b);
    return e;
}

TEST(files_come_out_however_they_are_cut)
{
    struct buf b;
    buf_init(&b, 1000);
    put_file(&b, "txt", "");
    put(&b, BROKER_CHUNK_DATA, "one", 3);
    put(&b, BROKER_CHUNK_DATA, "two", 3);
    put_file(&b, "pb.gz", "");
    put_file(&b, "core", "zstd");
    put(&b, BROKER_CHUNK_DATA, "three", 5);
    for (size_t cut = 1; cut <= b.size_bytes; cut++) {
        struct capture_chunks chunks = {0};
        struct got got = {.refuse = -1};
        struct failure f = {0};
        for (size_t at = 0; at < b.size_bytes; at += cut) {
            size_t some = b.size_bytes - at < cut ? b.size_bytes - at : cut;
            REQUIRE(capture_chunks_feed(&chunks, span_of(b.data + at, some), &events, &got, &f) ==
                    0);
        }
        CHECK_EQ_INT(capture_chunks_end(&chunks, &f), 0);
        CHECK_EQ_STR(got.text, "[txt:]onetwo[pb.gz:][core:zstd]three");
    }
    buf_done(&b);
}

TEST(an_end_in_the_middle_is_noticed_at_every_byte)
{
    struct buf b;
    buf_init(&b, 1000);
    put_file(&b, "txt", "");
    size_t file = b.size_bytes;
    put(&b, BROKER_CHUNK_DATA, "one", 3);
    for (size_t cut = 0; cut <= b.size_bytes; cut++) {
        struct capture_chunks chunks = {0};
        struct got got = {.refuse = -1};
        struct failure f = {0};
        REQUIRE(capture_chunks_feed(&chunks, span_of(b.data, cut), &events, &got, &f) == 0);
        bool is_whole = cut == 0 || cut == file || cut == b.size_bytes;
        CHECK_EQ_INT(capture_chunks_end(&chunks, &f), is_whole ? 0 : ERR_PROTOCOL);
    }
    buf_done(&b);
}

TEST(what_no_worker_writes_is_refused)
{
    static char large[BROKER_CHUNK_MAX + 1];
    static const char *const endings[] = {
        "",    ".txt", "txt.", "a..b",  "../../x", "TXT",
        "a/b", "a b",  "a\n",  "a\x80", "-",       "0123456789abcdef" /* not terminated */};
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        put_file(&b, endings[i], "");
        CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    }
    put_file(&b, "0123456789abcde", ""); /* the longest */
    CHECK_EQ_INT(feed_and_clear(&b), 0);
    put_file(&b, "txt", "gzip");
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    put_file(&b, "txt", "zstdzstdzstdzstd");
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    put(&b, BROKER_CHUNK_DATA, "before any file", 15);
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    put_file(&b, "txt", "");
    put(&b, BROKER_CHUNK_DATA, "", 0);
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    put_file(&b, "txt", "");
    put(&b, 3, "x", 1);
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    put(&b, BROKER_CHUNK_FILE, "short", 5);
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    put_file(&b, "txt", "");
    put(&b, BROKER_CHUNK_DATA, large, BROKER_CHUNK_MAX);
    CHECK_EQ_INT(feed_and_clear(&b), 0);
    put_file(&b, "txt", "");
    put(&b, BROKER_CHUNK_DATA, large, BROKER_CHUNK_MAX + 1);
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    REQUIRE(buf_append(&b, large, sizeof(struct broker_chunk)) == 0);
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    buf_done(&b);
}

TEST(files_are_few_and_have_names_of_their_own)
{
    struct buf b;
    char ending[8];
    buf_init(&b, 10000);
    put_file(&b, "txt", "");
    put_file(&b, "txt", "");
    CHECK_EQ_INT(feed_and_clear(&b), ERR_PROTOCOL);
    for (int count = BROKER_FILES_MAX; count <= BROKER_FILES_MAX + 1; count++) {
        for (int i = 0; i < count; i++) {
            snprintf(ending, sizeof ending, "e%d", i);
            put_file(&b, ending, "");
        }
        CHECK_EQ_INT(feed_and_clear(&b), count > BROKER_FILES_MAX ? ERR_PROTOCOL : 0);
    }
    buf_done(&b);
}

TEST(what_an_event_says_ends_the_feeding)
{
    struct buf b;
    buf_init(&b, 1000);
    put_file(&b, "txt", "");
    put(&b, BROKER_CHUNK_DATA, "one", 3);
    put(&b, BROKER_CHUNK_DATA, "two", 3);
    for (int fine = 0; fine < 3; fine++) {
        struct got got = {.refuse = fine};
        struct failure f = {0};
        CHECK_EQ_INT(feed(&b, &got, &f), ERR_FULL);
        CHECK_EQ_INT(strlen(got.text), strlen("[txt:]") + 3 * (size_t)fine);
    }
    buf_done(&b);
}
