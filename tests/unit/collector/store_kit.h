/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the store share: a temporary directory, an open store whose wake is waited for
 * with a deadline, results gathered from callbacks. Included by test_store*.c only.
 */
#ifndef TESTS_UNIT_COLLECTOR_STORE_KIT_H
#define TESTS_UNIT_COLLECTOR_STORE_KIT_H

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "collector/store.h"
#include "common/text.h"
#include "tests/check.h"

#define KIT_MIB UINT64_C(1048576)

struct kit {
    char directory[256];
    struct store_settings settings;
    struct store *store;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    unsigned wakes;
};

/* What came of one call. */
struct result {
    int calls;
    int code;
    char text[FAILURE_TEXT_SIZE];
    unsigned order; /* of all callbacks: the first is 1 */
};
static unsigned kit_order;

static inline void kit_done(void *context, const struct failure *why)
{
    struct result *r = context;
    r->calls++;
    r->code = why->code;
    r->order = ++kit_order;
    text_format(r->text, sizeof r->text, "%s", why->code ? why->text : "");
}

static inline void kit_wake(void *context)
{
    struct kit *kit = context;
    pthread_mutex_lock(&kit->lock);
    kit->wakes++;
    pthread_cond_signal(&kit->woken);
    pthread_mutex_unlock(&kit->lock);
}

static inline void kit_remove(const char *path)
{
    char name[1024];
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        text_format(name, sizeof name, "%s/%s", path, entry->d_name);
        if (unlink(name) < 0)
            kit_remove(name);
    }
    if (directory)
        closedir(directory);
    rmdir(path);
}

static char kit_last[256];
static inline void kit_remove_last(void)
{
    kit_remove(kit_last);
}

/* A directory that is gone when the test ends well; `under` may be NULL. */
static inline void kit_init(struct kit *kit, const char *under)
{
    memset(kit, 0, sizeof *kit);
    const char *tmp = getenv("TMPDIR");
    text_format(kit->directory, sizeof kit->directory, "%s/trawl-store-XXXXXX",
                under ? under
                : tmp ? tmp
                      : "/tmp");
    REQUIRE(mkdtemp(kit->directory) != NULL);
    text_format(kit_last, sizeof kit_last, "%s", kit->directory);
    atexit(kit_remove_last);
    text_format(kit->directory + strlen(kit->directory), 8, "/data");
    pthread_mutex_init(&kit->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&kit->woken, &attributes);
    kit->settings = (struct store_settings){
        .directory = kit->directory,
        .fleet = "test",
        .records_max_bytes = 64 * KIT_MIB,
        .pieces_max_bytes = 64 * KIT_MIB,
        .group_us = 2000,
        .group_ops = 1000,
        .queue_bytes = 64 * KIT_MIB,
        .wake = kit_wake,
        .context = kit,
    };
}

static inline void kit_open(struct kit *kit)
{
    struct failure f = {0, ""};
    int opened = store_open(&kit->store, &kit->settings, &f);
    if (opened < 0)
        fprintf(stderr, "      store_open: %s\n", f.text);
    REQUIRE(opened == 0);
}

static inline void kit_create(struct kit *kit)
{
    struct failure f = {0, ""};
    int created = store_create(kit->directory, "test", &f);
    if (created < 0)
        fprintf(stderr, "      store_create: %s\n", f.text);
    REQUIRE(created == 0);
    kit_open(kit);
}

static inline void kit_close(struct kit *kit)
{
    store_close(kit->store);
    kit->store = NULL;
}

static inline void kit_reopen(struct kit *kit)
{
    kit_close(kit);
    kit_open(kit);
}

/* Polls until *calls has reached `wanted`; fails the test after 15 s. */
static inline void kit_await(struct kit *kit, const int *calls, int wanted)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += 15;
    int e = 0;
    for (;;) {
        pthread_mutex_lock(&kit->lock);
        unsigned seen = kit->wakes;
        pthread_mutex_unlock(&kit->lock);
        store_poll(kit->store);
        if (*calls >= wanted)
            return;
        REQUIRE(e == 0);
        pthread_mutex_lock(&kit->lock);
        while (e == 0 && seen == kit->wakes)
            e = pthread_cond_timedwait(&kit->woken, &kit->lock, &deadline);
        pthread_mutex_unlock(&kit->lock);
    }
}

static inline struct store_op kit_put(const char *key, const char *value)
{
    return (struct store_op){STORE_PUT, span_str(key), span_str(value)};
}

/* One commit, waited for; its code. */
static inline int kit_commit(struct kit *kit, const char *part, const struct store_op *ops,
                             size_t count, struct result *result)
{
    struct result own = {0, 0, "", 0};
    struct result *r = result ? result : &own;
    r->calls = 0;
    int e = kv_commit(kit->store, part, ops, count, kit_done, r);
    if (e < 0)
        return e;
    kit_await(kit, &r->calls, 1);
    return r->code;
}

static inline int kit_put_one(struct kit *kit, const char *part, const char *key, const char *value)
{
    struct store_op op = kit_put(key, value);
    return kit_commit(kit, part, &op, 1, NULL);
}

/* A value read as text; the error as text when there is none. */
struct got {
    int calls, err;
    char text[512];
    struct buf bytes;
};

static inline void kit_got(void *context, int err, struct span value)
{
    struct got *got = context;
    got->calls++;
    got->err = err;
    if (err == 0 && text_copy_span(got->text, sizeof got->text, value) == 0)
        return;
    text_format(got->text, sizeof got->text, "%s", err_name(err));
}

static inline const char *kit_get(struct kit *kit, const char *part, const char *key)
{
    static struct got got;
    got.calls = 0;
    kv_get(kit->store, part, span_str(key), kit_got, &got);
    CHECK_EQ_INT(got.calls, 1);
    return got.text;
}

/* Rows of a scan as "key=value key=value ". */
struct rows {
    char text[4096];
    int stop_after; /* 0: never */
    int count;
};

static inline int kit_row(void *context, struct span key, struct span value)
{
    struct rows *rows = context;
    size_t at = strlen(rows->text);
    text_format(rows->text + at, sizeof rows->text - at, "%.*s=%.*s ", (int)key.size_bytes,
                (const char *)key.data, (int)value.size_bytes, (const char *)value.data);
    rows->count++;
    return rows->count == rows->stop_after;
}

static inline const char *kit_scan(struct kit *kit, const char *part, const char *from,
                                   const char *prefix, size_t limit)
{
    static struct rows rows;
    rows = (struct rows){.count = 0};
    int r = kv_scan(kit->store, part, span_str(from), span_str(prefix), limit, kit_row, &rows);
    CHECK_EQ_INT(r, 0);
    return rows.text;
}

/* Turns one bit over wherever `pattern` stands in the file, `offset` bytes behind its start.
 * Returns how often. */
static inline int kit_flip(const char *path, const char *pattern, int offset)
{
    FILE *file = fopen(path, "r+b");
    REQUIRE(file != NULL);
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    size_t size = (size_t)ftell(file), length = strlen(pattern);
    char *bytes = malloc(size);
    rewind(file);
    REQUIRE(fread(bytes, 1, size, file) == size);
    int found = 0;
    for (size_t at = 0; at + length <= size; at++) {
        if (memcmp(bytes + at, pattern, length) == 0) {
            size_t place = (size_t)((long)at + offset);
            bytes[place] = (char)(bytes[place] ^ 0x04);
            found++;
            at += length;
        }
    }
    rewind(file);
    REQUIRE(fwrite(bytes, 1, size, file) == size);
    fclose(file);
    free(bytes);
    return found;
}

static inline const char *kit_file(const struct kit *kit, const char *name)
{
    static char path[512];
    text_format(path, sizeof path, "%s/%s", kit->directory, name);
    return path;
}

/* A piece of the artifact "id"; `text` stands in its middle. */
static int kit_piece_err;
static inline void kit_got_piece(void *context, int err, struct span value)
{
    (void)context;
    (void)value;
    kit_piece_err = err;
}

static inline int kit_read_piece(struct kit *kit, uint32_t no)
{
    blob_read(kit->store, "id", no, kit_got_piece, NULL);
    return kit_piece_err;
}

static inline int kit_write_piece(struct kit *kit, uint32_t no, const char *text)
{
    static uint8_t bytes[STORE_PIECE_SIZE];
    struct result result = {0, 0, "", 0};
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes + 30000, text, strlen(text));
    int e = blob_write(kit->store, "id", no, span_of(bytes, sizeof bytes), kit_done, &result);
    if (e < 0)
        return e;
    kit_await(kit, &result.calls, 1);
    return result.code;
}

/* Many rows, so that the tree has branches; returns the size of the file. */
static inline long long kit_grow(struct kit *kit, int rows)
{
    static struct store_op ops[1000];
    static char keys[1000][16];
    static uint8_t value[400];
    for (int i = 0; i < rows; i++) {
        text_format(keys[i], sizeof keys[i], "%05d", i);
        ops[i] = (struct store_op){STORE_PUT, span_str(keys[i]), span_of(value, sizeof value)};
    }
    CHECK_EQ_INT(kit_commit(kit, "grown", ops, (size_t)rows, NULL), 0);
    struct stat st = {.st_size = 0};
    REQUIRE(stat(kit_file(kit, "records/data.mdb"), &st) == 0);
    return st.st_size;
}

#endif
