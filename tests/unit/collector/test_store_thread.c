/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's two threads against each other, for the thread sanitizer: reads, scans, drops,
 * failures and closing while the writer is at work. What is checked is also true without a
 * sanitizer: every callback once, every read a state that was committed.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "tests/unit/collector/store_kit.h"

static atomic_int fail_sync;

int fdatasync(int fd)
{
    int left = atomic_load(&fail_sync);
    if (left > 0 && atomic_compare_exchange_strong(&fail_sync, &left, left - 1)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

struct count {
    int done, failed;
};

static void counted(void *context, const struct failure *why)
{
    struct count *count = context;
    count->done++;
    count->failed += why->code != 0;
}

/* Both rows of a commit carry the same number. */
struct pair {
    char values[2][16];
    int rows;
};

static int pair_row(void *context, struct span key, struct span value)
{
    struct pair *pair = context;
    (void)key;
    CHECK_EQ_INT(text_copy_span(pair->values[pair->rows % 2], 16, value), 0);
    pair->rows++;
    return 0;
}

static void check_pair(struct kit *kit)
{
    struct pair pair = {.rows = 0};
    struct span none = span_of(NULL, 0);
    CHECK_EQ_INT(kv_scan(kit->store, "pair", none, none, 10, pair_row, &pair), 0);
    CHECK(pair.rows == 0 || pair.rows == 2);
    CHECK_EQ_STR(pair.values[0], pair.values[1]);
}

TEST_LIMIT(reads_see_whole_commits_while_writes_go_on, 60)
{
    struct kit kit;
    struct count count = {0, 0};
    static uint8_t piece[STORE_PIECE_SIZE];
    kit_init(&kit, NULL);
    kit.settings.group_us = 200;
    kit_create(&kit);
    int calls = 0;
    for (int i = 0; i < 2000; i++) {
        char number[16];
        text_format(number, sizeof number, "%d", i);
        struct store_op ops[] = {kit_put("a", number), kit_put("b", number)};
        REQUIRE(kv_commit(kit.store, "pair", ops, 2, counted, &count) == 0);
        calls++;
        if (i % 10 == 0) {
            REQUIRE(blob_write(kit.store, "id", (uint32_t)i / 10, span_of(piece, sizeof piece),
                               counted, &count) == 0);
            calls++;
        }
        if (i % 100 == 99) {
            REQUIRE(part_drop(kit.store, "other", counted, &count) == 0);
            REQUIRE(kv_commit(kit.store, "other", ops, 2, counted, &count) == 0);
            calls += 2;
        }
        if (i % 50 == 0)
            store_poll(kit.store);
        check_pair(&kit);
        struct blob_state state;
        if (blob_state(kit.store, "id", &state) == 0)
            CHECK_EQ_INT(state.size_bytes, (uint64_t)state.pieces * STORE_PIECE_SIZE);
        struct store_stat stat;
        store_stat(kit.store, &stat);
    }
    kit_await(&kit, &count.done, calls);
    CHECK_EQ_INT(count.failed, 0);
    CHECK_EQ_STR(kit_get(&kit, "pair", "a"), "1999");
    kit_close(&kit);
    CHECK_EQ_INT(count.done, calls);
}

TEST_LIMIT(failing_writes_are_mended_while_reads_go_on, 60)
{
    struct kit kit;
    struct count count = {0, 0};
    kit_init(&kit, NULL);
    kit.settings.group_us = 100;
    kit_create(&kit);
    for (int i = 0; i < 400; i++) {
        char number[16];
        text_format(number, sizeof number, "%d", i);
        struct store_op ops[] = {kit_put("a", number), kit_put("b", number)};
        REQUIRE(kv_commit(kit.store, "pair", ops, 2, counted, &count) == 0);
        if (i % 40 == 20)
            atomic_store(&fail_sync, 1);
        if (i % 4 == 0)
            kit_await(&kit, &count.done, i / 2);
        /* Between a failure and the next call the store may have nothing to give, never half. */
        struct pair pair = {.rows = 0};
        struct span none = span_of(NULL, 0);
        int r = kv_scan(kit.store, "pair", none, none, 10, pair_row, &pair);
        CHECK(r == 0 || r == ERR_IO);
        CHECK_EQ_STR(pair.values[0], pair.values[1]);
    }
    kit_await(&kit, &count.done, 400);
    CHECK(count.failed > 0 && count.failed < 400);
    atomic_store(&fail_sync, 0);
    store_poll(kit.store);
    CHECK_EQ_INT(kit_put_one(&kit, "pair", "a", "last"), 0);
    kit_close(&kit);
}

TEST_LIMIT(closing_under_load_calls_back_everything_once, 60)
{
    for (int round = 0; round < 20; round++) {
        struct kit kit;
        struct count count = {0, 0};
        kit_init(&kit, NULL);
        kit.settings.group_us = (uint32_t)(round * 100);
        kit_create(&kit);
        for (int i = 0; i < round * 20; i++) {
            struct store_op op = kit_put("k", "v");
            REQUIRE(kv_commit(kit.store, "p", &op, 1, counted, &count) == 0);
        }
        kit_close(&kit);
        CHECK_EQ_INT(count.done, round * 20);
        CHECK_EQ_INT(count.failed, 0);
        kit_remove(kit_last);
    }
}
