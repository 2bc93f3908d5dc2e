/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a damaged store. The input is a list of changes to the data file of a small store: a
 * control byte, then 4 bytes of offset and a byte to write, again and again; the control byte may
 * also cut the file. Whatever comes: no crash, and no row is served that was not written so. Also a
 * seed corpus of few bytes goes deep, because every change lands in a file that is otherwise right.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collector/store.h"
#include "common/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROWS 200

static char root[64], directory[80], file[128];
static uint8_t *sound;
static size_t sound_bytes;

static void no_wake(void *context)
{
    (void)context;
}

static struct store *open_store(void)
{
    struct failure f;
    struct store_settings settings = {
        .directory = directory,
        .fleet = "fuzz",
        .records_max_bytes = 1 << 20,
        .pieces_max_bytes = 1 << 20,
        .group_ops = 1000,
        .queue_bytes = 16 << 20,
        .wake = no_wake,
    };
    struct store *store = NULL;
    store_open(&store, &settings, &f);
    return store;
}

static void row(int i, char key[16], uint8_t value[700], size_t *value_bytes)
{
    text_format(key, 16, "%05d", i);
    *value_bytes = i % 50 == 49 ? 600 : (size_t)(20 + i % 300);
    memset(value, i & 0xff, 700);
}

static void put_rows(struct store *store, int step)
{
    static char keys[ROWS][16];
    static uint8_t values[ROWS][700];
    static struct store_op ops[ROWS];
    for (int i = 0; i < ROWS; i++) {
        size_t bytes;
        row(i, keys[i], values[i], &bytes);
        ops[i] = (struct store_op){STORE_PUT, span_str(keys[i]), span_of(values[i], bytes)};
    }
    for (int i = 0; i < ROWS; i += step)
        kv_commit(store, "p", ops + i, (size_t)(i + step < ROWS ? step : ROWS - i), NULL, NULL);
}

static void clean_up(void)
{
    static const char *const names[] = {"records/data.mdb", "records/lock.mdb", "pieces/data.mdb",
                                        "pieces/lock.mdb",  "trawl-store",      "lock",
                                        "ballast",          "records",          "pieces"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        text_format(path, sizeof path, "%s/%s", directory, names[i]);
        remove(path);
    }
    rmdir(directory);
    rmdir(root);
}

static void require(int holds)
{
    if (!holds)
        abort();
}

static void make_sound(void)
{
    struct failure f;
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    text_format(root, sizeof root, "%s/fuzz-store-XXXXXX", memory);
    require(mkdtemp(root) != NULL);
    text_format(directory, sizeof directory, "%s/data", root);
    text_format(file, sizeof file, "%s/records/data.mdb", directory);
    require(store_create(directory, "fuzz", &f) == 0);
    atexit(clean_up);
    struct store *store = open_store();
    require(store != NULL);
    put_rows(store, 20); /* several transactions, so that there is a list of free pages */
    store_close(store);
    store = open_store();
    put_rows(store, 50);
    store_close(store);
    FILE *in = fopen(file, "rb");
    require(in != NULL);
    sound = malloc(1 << 22);
    require(sound != NULL);
    sound_bytes = fread(sound, 1, 1 << 22, in);
    fclose(in);
}

struct expected {
    const uint8_t *value;
    size_t value_bytes;
};

/* "Not found" is not excluded: a list of changes can make a whole tree anew. */
static void got(void *context, int err, struct span value)
{
    const struct expected *x = context;
    if (err == 0)
        require(span_equal(value, span_of(x->value, x->value_bytes)));
}

static int scanned(void *context, struct span key, struct span value)
{
    (void)context;
    uint8_t expected[700];
    char name[16], text[16];
    size_t bytes;
    uint64_t i = 0;
    require(text_copy_span(text, sizeof text, key) == 0 && text_u64(text, &i) == 0 && i < ROWS);
    row((int)i, name, expected, &bytes);
    require(span_equal(value, span_of(expected, bytes)));
    return 0;
}

static int listed(void *context, const char *partition)
{
    (void)context;
    return strlen(partition) > STORE_KEY_MAX;
}

static void use(struct store *store)
{
    uint8_t value[700];
    char key[16];
    struct span none = span_of(NULL, 0);
    for (int i = 0; i < ROWS; i += 7) {
        struct expected x = {value, 0};
        row(i, key, value, &x.value_bytes);
        kv_get(store, "p", span_str(key), got, &x);
    }
    kv_scan(store, "p", none, none, SIZE_MAX, scanned, NULL);
    part_list(store, "", listed, NULL);
    put_rows(store, 100);
    part_drop(store, "p", NULL, NULL);
    struct store_op op = {STORE_PUT, span_str("after"), span_str("x")};
    kv_commit(store, "q", &op, 1, NULL, NULL);
    store_close(store);
}

/* Offsets of the first 16 KiB, where the headers are, are as likely as all others together. */
static size_t write_damaged(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(sound_bytes);
    require(bytes != NULL);
    memcpy(bytes, sound, sound_bytes);
    size_t length = sound_bytes;
    for (; size >= 6; data += 6, size -= 6) {
        uint32_t offset;
        memcpy(&offset, data + 1, sizeof offset);
        if (data[0] == 0xff)
            length = offset % (sound_bytes + 1);
        else
            bytes[offset % (data[0] & 1 ? 16384 : sound_bytes)] = data[5];
    }
    int fd = open(file, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);
    require(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
    free(bytes);
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!sound)
        make_sound();
    write_damaged(data, size);
    struct store *store = open_store();
    if (size == 0)
        require(store != NULL); /* the control: undamaged, it opens */
    if (store)
        use(store);
    return 0;
}
