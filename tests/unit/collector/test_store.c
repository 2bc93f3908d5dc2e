/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h as its callers know it: commits, reads, partitions, artifacts. Opening is in
 * test_store_open.c, damage and full disks in test_store_{damage,full}.c, threads in _thread.c.
 */
#include "tests/unit/collector/store_kit.h"

/* ---- commits ---- */

TEST(put_is_read_back_also_after_reopening)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "hosts", "web-1", "one"), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "hosts", "web-2", ""), 0);
    CHECK_EQ_STR(kit_get(&kit, "hosts", "web-1"), "one");
    CHECK_EQ_STR(kit_get(&kit, "hosts", "web-2"), "");
    CHECK_EQ_STR(kit_get(&kit, "hosts", "web-3"), "ERR_NOTFOUND");
    CHECK_EQ_STR(kit_get(&kit, "host", "web-1"), "ERR_NOTFOUND");
    kit_reopen(&kit);
    CHECK_EQ_STR(kit_get(&kit, "hosts", "web-1"), "one");
    CHECK_EQ_INT(kit_put_one(&kit, "hosts", "web-1", "another, longer one"), 0);
    kit_reopen(&kit);
    CHECK_EQ_STR(kit_get(&kit, "hosts", "web-1"), "another, longer one");
    kit_close(&kit);
}

TEST(callbacks_come_in_the_order_of_the_calls)
{
    enum { COUNT = 500 };
    static struct result results[COUNT];
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    unsigned before = kit_order;
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        text_format(key, sizeof key, "%d", i % 7);
        struct store_op op = kit_put(key, "x");
        const uint8_t piece[] = "piece";
        /* Every fifth call goes to the other environment. */
        if (i % 5 == 4) {
            char id[32];
            text_format(id, sizeof id, "blob/%d", i);
            REQUIRE(blob_write(kit.store, id, 0, span_of(piece, sizeof piece), kit_done,
                               &results[i]) == 0);
        } else {
            REQUIRE(kv_commit(kit.store, "p", &op, 1, kit_done, &results[i]) == 0);
        }
    }
    kit_await(&kit, &results[COUNT - 1].calls, 1);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ_INT(results[i].calls, 1);
        CHECK_EQ_INT(results[i].code, 0);
        CHECK_EQ_INT(results[i].order, before + (unsigned)i + 1);
    }
    struct store_stat stat;
    store_stat(kit.store, &stat);
    CHECK_EQ_INT(stat.queued_bytes, 0);
    CHECK(stat.commits < COUNT / 4); /* grouped */
    kit_close(&kit);
}

TEST(later_commits_see_earlier_ones_in_the_same_group)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    struct store_op first[] = {{STORE_EXPECT_ABSENT, span_str("k"), {NULL, 0}}, kit_put("k", "1")};
    struct store_op second[] = {{STORE_EXPECT, span_str("k"), span_str("1")}, kit_put("k", "2")};
    struct result results[3] = {{0, 0, "", 0}};
    REQUIRE(kv_commit(kit.store, "p", first, 2, kit_done, &results[0]) == 0);
    REQUIRE(kv_commit(kit.store, "p", second, 2, kit_done, &results[1]) == 0);
    REQUIRE(kv_commit(kit.store, "p", first, 2, kit_done, &results[2]) == 0);
    kit_await(&kit, &results[2].calls, 1);
    CHECK_EQ_INT(results[0].code, 0);
    CHECK_EQ_INT(results[1].code, 0);
    CHECK_EQ_INT(results[2].code, ERR_CONFLICT);
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "2");
    kit_close(&kit);
}

TEST(a_conflict_changes_nothing_and_concerns_nobody_else)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "a", "old"), 0);
    struct store_op bad[] = {kit_put("a", "new"),
                             kit_put("b", "new"),
                             {STORE_DELETE, span_str("a"), {NULL, 0}},
                             {STORE_EXPECT, span_str("a"), span_str("other")}};
    struct store_op good = kit_put("c", "good");
    struct result results[3] = {{0, 0, "", 0}};
    REQUIRE(kv_commit(kit.store, "p", &good, 1, kit_done, &results[0]) == 0);
    REQUIRE(kv_commit(kit.store, "p", bad, 4, kit_done, &results[1]) == 0);
    good = kit_put("d", "good");
    REQUIRE(kv_commit(kit.store, "p", &good, 1, kit_done, &results[2]) == 0);
    kit_await(&kit, &results[2].calls, 1);
    CHECK_EQ_INT(results[0].code, 0);
    CHECK_EQ_INT(results[1].code, ERR_CONFLICT);
    CHECK_EQ_STR(results[1].text, "a row of 'p' was changed by someone else");
    CHECK_EQ_INT(results[2].code, 0);
    CHECK_EQ_STR(kit_scan(&kit, "p", "", "", 10), "a=old c=good d=good ");
    struct store_op present = {STORE_EXPECT_ABSENT, span_str("a"), {NULL, 0}};
    CHECK_EQ_INT(kit_commit(&kit, "p", &present, 1, NULL), ERR_CONFLICT);
    struct store_op gone[] = {{STORE_EXPECT, span_str("a"), span_str("old")},
                              {STORE_DELETE, span_str("a"), {NULL, 0}},
                              {STORE_DELETE, span_str("never"), {NULL, 0}}};
    CHECK_EQ_INT(kit_commit(&kit, "p", gone, 3, NULL), 0);
    CHECK_EQ_STR(kit_get(&kit, "p", "a"), "ERR_NOTFOUND");
    kit_close(&kit);
}

TEST(limits_are_refused_at_once)
{
    static uint8_t big[STORE_VALUE_MAX + 1];
    static struct store_op many[1001];
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    struct store_op op = {STORE_PUT, span_str("k"), span_of(big, sizeof big)};
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), ERR_LIMIT);
    op.value.size_bytes--;
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), 0);
    op = (struct store_op){STORE_PUT, span_of(big, 254), span_str("v")};
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), ERR_LIMIT);
    op.key.size_bytes--;
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), 0);
    CHECK_EQ_INT(kit_commit(&kit, "", &op, 1, NULL), ERR_LIMIT);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 0, NULL), ERR_LIMIT);
    for (int i = 0; i < 1001; i++)
        many[i] = kit_put("k", "v");
    CHECK_EQ_INT(kit_commit(&kit, "p", many, 1001, NULL), ERR_LIMIT);
    CHECK_EQ_INT(kit_commit(&kit, "p", many, 1000, NULL), 0);
    CHECK_EQ_INT(kit_commit(&kit, "p", many, 1000, NULL), 0);
    kit_close(&kit);
}

TEST(queue_is_bounded)
{
    static uint8_t value[32 * 1024];
    static struct result results[64];
    struct kit kit;
    kit_init(&kit, NULL);
    kit.settings.queue_bytes = 1024 * 1024;
    kit_create(&kit);
    struct store_op op = {STORE_PUT, span_str("k"), span_of(value, sizeof value)};
    int accepted = 0, e = 0;
    while (accepted < 64 &&
           (e = kv_commit(kit.store, "p", &op, 1, kit_done, &results[accepted])) == 0)
        accepted++;
    CHECK_EQ_INT(e, ERR_BUSY);
    CHECK(accepted >= 30 && accepted < 32);
    struct store_stat stat;
    store_stat(kit.store, &stat);
    CHECK(stat.queued_bytes <= 1024 * 1024);
    kit_await(&kit, &results[accepted - 1].calls, 1);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), 0);
    kit_close(&kit);
}

TEST(close_commits_and_calls_back)
{
    enum { COUNT = 300 };
    static struct result results[COUNT + 1];
    struct kit kit;
    kit_init(&kit, NULL);
    kit.settings.group_us = 1000000;
    kit_create(&kit);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        text_format(key, sizeof key, "%03d", i);
        struct store_op op = kit_put(key, "x");
        REQUIRE(kv_commit(kit.store, "p", &op, 1, kit_done, &results[i]) == 0);
    }
    REQUIRE(part_drop(kit.store, "p", kit_done, &results[COUNT]) == 0);
    struct store_op op = kit_put("last", "x");
    REQUIRE(kv_commit(kit.store, "p", &op, 1, NULL, NULL) == 0);
    kit_close(&kit);
    for (int i = 0; i <= COUNT; i++)
        CHECK(results[i].calls == 1 && results[i].code == 0);
    kit_open(&kit);
    CHECK_EQ_STR(kit_scan(&kit, "p", "", "", 10), "last=x ");
    kit_close(&kit);
    store_close(NULL);
}

static struct kit *kit_of_callback;
static int again_error;

static void commit_again(void *context, const struct failure *why)
{
    struct store_op op = kit_put("again", "x");
    kit_done(context, why);
    again_error = kv_commit(kit_of_callback->store, "p", &op, 1, NULL, NULL);
}

TEST(a_commit_from_a_callback_of_close_is_refused)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    kit_init(&kit, NULL);
    kit_create(&kit);
    kit_of_callback = &kit;
    struct store_op op = kit_put("first", "x");
    REQUIRE(kv_commit(kit.store, "p", &op, 1, commit_again, &result) == 0);
    kit_close(&kit);
    CHECK_EQ_INT(result.calls, 1);
    CHECK_EQ_INT(again_error, ERR_CLOSED);
}

/* ---- scans and partitions ---- */

TEST(scan_keeps_to_partition_from_prefix_and_limit)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    static const char *const keys[] = {"b2", "a1", "b", "b1", "c", "a"};
    for (size_t i = 0; i < 6; i++)
        CHECK_EQ_INT(kit_put_one(&kit, "part", keys[i], "v"), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "par", "z", "v"), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "part2", "b", "v"), 0);
    CHECK_EQ_STR(kit_scan(&kit, "part", "", "", 100), "a=v a1=v b=v b1=v b2=v c=v ");
    CHECK_EQ_STR(kit_scan(&kit, "part", "", "b", 100), "b=v b1=v b2=v ");
    CHECK_EQ_STR(kit_scan(&kit, "part", "b1", "b", 100), "b1=v b2=v ");
    CHECK_EQ_STR(kit_scan(&kit, "part", "a1x", "b", 100), "b=v b1=v b2=v ");
    CHECK_EQ_STR(kit_scan(&kit, "part", "b1", "", 2), "b1=v b2=v ");
    CHECK_EQ_STR(kit_scan(&kit, "part", "d", "", 100), "");
    CHECK_EQ_STR(kit_scan(&kit, "part", "c", "b", 100), "");
    CHECK_EQ_STR(kit_scan(&kit, "part", "", "", 0), "");
    CHECK_EQ_STR(kit_scan(&kit, "nothing", "", "", 100), "");
    struct rows rows = {.stop_after = 2};
    struct span none = span_of(NULL, 0);
    CHECK_EQ_INT(kv_scan(kit.store, "part", none, none, SIZE_MAX, kit_row, &rows), 0);
    CHECK_EQ_STR(rows.text, "a=v a1=v ");
    kit_close(&kit);
}

static int slow_row(void *context, struct span key, struct span value)
{
    (void)key;
    (void)value;
    int *count = context;
    nanosleep(&(struct timespec){0, 30000000}, NULL);
    return ++*count < 0;
}

TEST(scan_stops_after_100_ms)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    struct store_op ops[50];
    char keys[50][8];
    for (int i = 0; i < 50; i++) {
        text_format(keys[i], sizeof keys[i], "%d", i);
        ops[i] = kit_put(keys[i], "v");
    }
    CHECK_EQ_INT(kit_commit(&kit, "p", ops, 50, NULL), 0);
    int count = 0;
    struct span none = span_of(NULL, 0);
    CHECK_EQ_INT(kv_scan(kit.store, "p", none, none, SIZE_MAX, slow_row, &count), 0);
    CHECK(count >= 1 && count <= 4);
    kit_close(&kit);
}

static int get_in_row(void *context, struct span key, struct span value)
{
    (void)value;
    struct kit *kit = context;
    char name[16];
    text_copy_span(name, sizeof name, key);
    CHECK_EQ_STR(kit_get(kit, "values", name), "inner");
    CHECK_EQ_STR(kit_scan(kit, "values", "", "", 1), "x=inner ");
    return 0;
}

TEST(reads_nest)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "names", "x", "outer"), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "names", "y", "outer"), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "values", "x", "inner"), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "values", "y", "inner"), 0);
    struct span none = span_of(NULL, 0);
    CHECK_EQ_INT(kv_scan(kit.store, "names", none, none, 10, get_in_row, &kit), 0);
    CHECK_EQ_INT(kit_put_one(&kit, "values", "x", "new"), 0);
    CHECK_EQ_STR(kit_get(&kit, "values", "x"), "new");
    kit_close(&kit);
}

static char listed[512];
static int listed_limit;

static int list_one(void *context, const char *partition)
{
    size_t at = strlen(listed);
    text_format(listed + at, sizeof listed - at, "%s ", partition);
    int *count = context;
    return ++*count == listed_limit;
}

static const char *list_parts(struct kit *kit, const char *prefix, int limit)
{
    int count = 0;
    listed[0] = '\0';
    listed_limit = limit;
    CHECK_EQ_INT(part_list(kit->store, prefix, list_one, &count), 0);
    return listed;
}

TEST(partitions_are_listed_once_in_order)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    static const char *const parts[] = {"inc/B", "inc/A", "inc/A2", "in", "inc/", "ind", "hosts"};
    for (size_t i = 0; i < 7; i++) {
        for (int k = 0; k < 20; k++) {
            char key[8];
            text_format(key, sizeof key, "%d", k);
            struct store_op op = kit_put(key, "v");
            REQUIRE(kv_commit(kit.store, parts[i], &op, 1, NULL, NULL) == 0);
        }
    }
    CHECK_EQ_INT(kit_put_one(&kit, "zzz", "k", "v"), 0);
    CHECK_EQ_STR(list_parts(&kit, "inc/", 0), "inc/ inc/A inc/A2 inc/B ");
    CHECK_EQ_STR(list_parts(&kit, "", 0), "hosts in inc/ inc/A inc/A2 inc/B ind zzz ");
    CHECK_EQ_STR(list_parts(&kit, "in", 3), "in inc/ inc/A ");
    CHECK_EQ_STR(list_parts(&kit, "nothing", 0), "");
    kit_close(&kit);
}

TEST(drop_takes_one_partition_and_what_comes_later_stays)
{
    enum { COUNT = 1000 };
    struct kit kit;
    static struct store_op ops[COUNT];
    static char keys[COUNT][8];
    kit_init(&kit, NULL);
    kit_create(&kit);
    for (int i = 0; i < COUNT; i++) {
        text_format(keys[i], sizeof keys[i], "%04d", i);
        ops[i] = kit_put(keys[i], "v");
    }
    CHECK_EQ_INT(kit_commit(&kit, "ctr/1", ops, COUNT, NULL), 0);
    CHECK_EQ_INT(kit_commit(&kit, "ctr/10", ops, 3, NULL), 0);
    CHECK_EQ_INT(kit_commit(&kit, "ctr/0", ops, 3, NULL), 0);
    struct result results[4] = {{0, 0, "", 0}};
    struct store_op later = kit_put("later", "v"), other = kit_put("other", "v");
    REQUIRE(part_drop(kit.store, "ctr/1", kit_done, &results[0]) == 0);
    REQUIRE(kv_commit(kit.store, "ctr/10", &other, 1, kit_done, &results[1]) == 0);
    REQUIRE(kv_commit(kit.store, "ctr/1", &later, 1, kit_done, &results[2]) == 0);
    REQUIRE(kv_commit(kit.store, "ctr/0", &other, 1, kit_done, &results[3]) == 0);
    kit_await(&kit, &results[3].calls, 1);
    for (int i = 0; i < 4; i++)
        CHECK(results[i].calls == 1 && results[i].code == 0);
    /* Another partition's commit does not wait for the drop, its own does; commits keep their
     * order. */
    CHECK(results[1].order < results[0].order);
    CHECK(results[0].order < results[2].order);
    CHECK(results[2].order < results[3].order);
    CHECK_EQ_STR(kit_scan(&kit, "ctr/1", "", "", 10), "later=v ");
    CHECK_EQ_STR(kit_scan(&kit, "ctr/10", "", "", 10), "0000=v 0001=v 0002=v other=v ");
    CHECK_EQ_STR(kit_scan(&kit, "ctr/0", "", "", 10), "0000=v 0001=v 0002=v other=v ");
    struct result absent = {0, 0, "", 0};
    REQUIRE(part_drop(kit.store, "nothing", kit_done, &absent) == 0);
    kit_await(&kit, &absent.calls, 1);
    CHECK_EQ_INT(absent.code, 0);
    kit_close(&kit);
}

/* ---- artifacts ---- */

static uint8_t piece_bytes[STORE_PIECE_SIZE];

static struct span piece(uint32_t no, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        piece_bytes[i] = (uint8_t)(i * 7 + no * 131 + i / 251);
    return span_of(piece_bytes, size_bytes);
}

static int write_piece(struct kit *kit, const char *id, uint32_t no, size_t size_bytes)
{
    struct result result = {0, 0, "", 0};
    int e = blob_write(kit->store, id, no, piece(no, size_bytes), kit_done, &result);
    if (e < 0)
        return e;
    kit_await(kit, &result.calls, 1);
    return result.code;
}

static int seal(struct kit *kit, const char *id, uint8_t hash, uint64_t size_bytes)
{
    struct result result = {0, 0, "", 0};
    uint8_t sha256[32];
    memset(sha256, hash, sizeof sha256);
    int e = blob_seal(kit->store, id, sha256, size_bytes, kit_done, &result);
    if (e < 0)
        return e;
    kit_await(kit, &result.calls, 1);
    return result.code;
}

struct expected {
    uint32_t no;
    size_t size_bytes;
    int err;
};

static void got_piece(void *context, int err, struct span value)
{
    struct expected *x = context;
    CHECK_EQ_INT(err, x->err);
    if (x->err)
        return;
    CHECK_EQ_INT(value.size_bytes, x->size_bytes);
    CHECK_EQ_MEM(value.data, piece(x->no, x->size_bytes).data, x->size_bytes);
}

static void check_piece(struct kit *kit, const char *id, uint32_t no, size_t size_bytes, int err)
{
    struct expected x = {no, size_bytes, err};
    blob_read(kit->store, id, no, got_piece, &x);
}

TEST(artifact_round_trip_resumed_after_reopening)
{
    struct kit kit;
    struct blob_state state;
    const char *id = "INC-261123-K7F2Q/web-1/3";
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(blob_state(kit.store, id, &state), ERR_NOTFOUND);
    check_piece(&kit, id, 0, 0, ERR_NOTFOUND);
    for (uint32_t i = 0; i < 5; i++)
        CHECK_EQ_INT(write_piece(&kit, id, i, STORE_PIECE_SIZE), 0);
    CHECK_EQ_INT(write_piece(&kit, id, 6, STORE_PIECE_SIZE), ERR_CONFLICT);
    kit_reopen(&kit);
    CHECK_EQ_INT(blob_state(kit.store, id, &state), 0);
    CHECK(state.pieces == 5 && !state.sealed && state.size_bytes == 5 * STORE_PIECE_SIZE);
    CHECK_EQ_INT(write_piece(&kit, id, 4, STORE_PIECE_SIZE), 0); /* the answer was lost */
    CHECK_EQ_INT(write_piece(&kit, id, 5, 1000), 0);
    CHECK_EQ_INT(write_piece(&kit, id, 6, 10), ERR_CONFLICT); /* behind a short one */
    CHECK_EQ_INT(write_piece(&kit, id, 2, 10), ERR_CONFLICT); /* short in the middle */
    CHECK_EQ_INT(seal(&kit, id, 7, 5 * STORE_PIECE_SIZE + 999), ERR_CONFLICT);
    CHECK_EQ_INT(seal(&kit, id, 7, 5 * STORE_PIECE_SIZE + 1000), 0);
    CHECK_EQ_INT(seal(&kit, id, 7, 5 * STORE_PIECE_SIZE + 1000), 0);
    CHECK_EQ_INT(seal(&kit, id, 8, 5 * STORE_PIECE_SIZE + 1000), ERR_CONFLICT);
    CHECK_EQ_INT(write_piece(&kit, id, 5, 1000), 0);
    CHECK_EQ_INT(write_piece(&kit, id, 5, 999), ERR_CONFLICT);
    CHECK_EQ_INT(write_piece(&kit, id, 6, 1000), ERR_CONFLICT);
    kit_reopen(&kit);
    CHECK_EQ_INT(blob_state(kit.store, id, &state), 0);
    CHECK(state.pieces == 6 && state.sealed && state.size_bytes == 5 * STORE_PIECE_SIZE + 1000);
    CHECK_EQ_INT(state.sha256[31], 7);
    for (uint32_t i = 0; i < 5; i++)
        check_piece(&kit, id, i, STORE_PIECE_SIZE, 0);
    check_piece(&kit, id, 5, 1000, 0);
    check_piece(&kit, id, 6, 0, ERR_NOTFOUND);
    kit_close(&kit);
}

TEST(artifacts_of_nothing_and_of_too_much)
{
    struct kit kit;
    struct blob_state state;
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(write_piece(&kit, "x", 0, 0), ERR_LIMIT);
    struct span big = span_of(piece_bytes, STORE_PIECE_SIZE + 1);
    CHECK_EQ_INT(blob_write(kit.store, "x", 0, big, NULL, NULL), ERR_LIMIT);
    CHECK_EQ_INT(seal(&kit, "x", 1, 1), ERR_CONFLICT);
    CHECK_EQ_INT(blob_state(kit.store, "x", &state), ERR_NOTFOUND);
    CHECK_EQ_INT(seal(&kit, "x", 1, 0), 0);
    CHECK_EQ_INT(blob_state(kit.store, "x", &state), 0);
    CHECK(state.sealed && state.pieces == 0);
    kit_close(&kit);
}

TEST(deleted_artifacts_leave_room_for_others)
{
    enum { PIECES = 100, ROUNDS = 4 };
    struct kit kit;
    struct blob_state state;
    struct stat file = {.st_size = 0};
    long long sizes[ROUNDS];
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(write_piece(&kit, "keep", 0, 77), 0);
    for (int round = 0; round < ROUNDS; round++) {
        static struct result results[PIECES];
        memset(results, 0, sizeof results);
        for (uint32_t i = 0; i < PIECES; i++)
            REQUIRE(blob_write(kit.store, "a/b/1", i, piece(i, STORE_PIECE_SIZE), kit_done,
                               &results[i]) == 0);
        kit_await(&kit, &results[PIECES - 1].calls, 1);
        CHECK_EQ_INT(results[PIECES - 1].code, 0);
        struct result deleted = {0, 0, "", 0};
        REQUIRE(blob_delete(kit.store, "a/b/1", kit_done, &deleted) == 0);
        kit_await(&kit, &deleted.calls, 1);
        CHECK_EQ_INT(deleted.code, 0);
        CHECK_EQ_INT(blob_state(kit.store, "a/b/1", &state), ERR_NOTFOUND);
        REQUIRE(stat(kit_file(&kit, "pieces/data.mdb"), &file) == 0);
        sizes[round] = file.st_size;
    }
    /* The first round made the file as large as it ever gets, but for a handful of pages. */
    CHECK(sizes[ROUNDS - 1] <= sizes[0] + sizes[0] / 20);
    struct store_stat stat;
    store_stat(kit.store, &stat);
    CHECK(stat.pieces_used_bytes < 256 * 1024);
    check_piece(&kit, "keep", 0, 77, 0);
    kit_close(&kit);
}
