/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store on damaged files: bits turned over, pages zeroed, files cut off. Nothing wrong is ever
 * served, what is whole is, every refusal names the file, nothing aborts.
 */
#include <fcntl.h>

#include "tests/unit/collector/store_kit.h"

static uint64_t damaged_count(struct kit *kit)
{
    struct store_stat stat;
    store_stat(kit->store, &stat);
    return stat.damaged;
}

static void fill(struct kit *kit)
{
    static const char *const keys[] = {"k10", "k20", "k30"};
    static const char *const values[] = {"value-of-ten", "value-of-twenty", "value-of-thirty"};
    for (int i = 0; i < 3; i++)
        CHECK_EQ_INT(kit_put_one(kit, "p", keys[i], values[i]), 0);
}

/* Rows of "p", and how many damaged ones were passed over. */
static const char *scan_damaged(struct kit *kit, int *damaged)
{
    static struct rows rows;
    rows = (struct rows){.count = 0};
    struct span none = span_of(NULL, 0);
    *damaged = kv_scan(kit->store, "p", none, none, 100, kit_row, &rows);
    return rows.text;
}

TEST(without_damage_everything_is_served)
{
    struct kit kit;
    int damaged;
    kit_init(&kit, NULL);
    kit_create(&kit);
    fill(&kit);
    kit_reopen(&kit);
    CHECK_EQ_STR(kit_get(&kit, "p", "k20"), "value-of-twenty");
    CHECK_EQ_STR(scan_damaged(&kit, &damaged),
                 "k10=value-of-ten k20=value-of-twenty k30=value-of-thirty ");
    CHECK_EQ_INT(damaged, 0);
    CHECK_EQ_INT(damaged_count(&kit), 0);
    kit_close(&kit);
}

TEST(a_flipped_value_is_damaged_and_others_are_served)
{
    struct kit kit;
    int damaged;
    kit_init(&kit, NULL);
    kit_create(&kit);
    fill(&kit);
    kit_close(&kit);
    CHECK(kit_flip(kit_file(&kit, "records/data.mdb"), "value-of-twenty", 3) >= 1);
    kit_open(&kit);
    CHECK_EQ_STR(kit_get(&kit, "p", "k10"), "value-of-ten");
    CHECK_EQ_STR(kit_get(&kit, "p", "k20"), "ERR_CORRUPT");
    CHECK_EQ_STR(kit_get(&kit, "p", "k15"), "ERR_NOTFOUND");
    CHECK_EQ_INT(damaged_count(&kit), 1);
    CHECK_EQ_STR(scan_damaged(&kit, &damaged), "k10=value-of-ten k30=value-of-thirty ");
    CHECK_EQ_INT(damaged, 1);
    CHECK_EQ_INT(damaged_count(&kit), 2);
    struct store_op expect = {STORE_EXPECT, span_str("k20"), span_str("value-of-twenty")};
    CHECK_EQ_INT(kit_commit(&kit, "p", &expect, 1, NULL), ERR_CORRUPT);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k20", "new"), 0); /* writing it anew heals */
    CHECK_EQ_STR(kit_get(&kit, "p", "k20"), "new");
    kit_close(&kit);
}

TEST(a_flipped_key_hides_nothing)
{
    struct kit kit;
    int damaged;
    kit_init(&kit, NULL);
    kit_create(&kit);
    fill(&kit);
    kit_close(&kit);
    /* k20 becomes k24, k30 becomes k34 at the end: still in order. */
    CHECK(kit_flip(kit_file(&kit, "records/data.mdb"), "k20", 2) >= 1);
    CHECK(kit_flip(kit_file(&kit, "records/data.mdb"), "k30", 2) >= 1);
    kit_open(&kit);
    CHECK_EQ_STR(kit_get(&kit, "p", "k10"), "value-of-ten");
    CHECK_EQ_STR(kit_get(&kit, "p", "k20"), "ERR_CORRUPT");
    CHECK_EQ_STR(kit_get(&kit, "p", "k24"), "ERR_CORRUPT");
    CHECK_EQ_STR(kit_get(&kit, "p", "k30"), "ERR_CORRUPT");
    CHECK_EQ_STR(kit_get(&kit, "p", "k99"), "ERR_CORRUPT"); /* may be what k34 was */
    CHECK_EQ_STR(kit_get(&kit, "p", "a"), "ERR_NOTFOUND");
    CHECK_EQ_STR(scan_damaged(&kit, &damaged), "k10=value-of-ten ");
    CHECK_EQ_INT(damaged, 2);
    struct store_op absent = {STORE_EXPECT_ABSENT, span_str("k20"), {NULL, 0}};
    CHECK_EQ_INT(kit_commit(&kit, "p", &absent, 1, NULL), ERR_CORRUPT);
    kit_close(&kit);
}

TEST(a_flipped_piece_is_damaged_and_can_be_sent_again)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_write_piece(&kit, 0, "piece-zero"), 0);
    CHECK_EQ_INT(kit_write_piece(&kit, 1, "piece-one"), 0);
    kit_reopen(&kit);
    CHECK_EQ_INT(kit_read_piece(&kit, 0), 0);
    kit_close(&kit);
    CHECK_EQ_INT(kit_flip(kit_file(&kit, "pieces/data.mdb"), "piece-zero", 1), 1);
    kit_open(&kit);
    CHECK_EQ_INT(kit_read_piece(&kit, 0), ERR_CORRUPT);
    CHECK_EQ_INT(kit_read_piece(&kit, 1), 0);
    CHECK_EQ_INT(damaged_count(&kit), 1);
    CHECK_EQ_INT(kit_write_piece(&kit, 0, "piece-zero"), 0);
    CHECK_EQ_INT(kit_read_piece(&kit, 0), 0);
    kit_close(&kit);
}

TEST(a_cut_file_is_refused_with_its_name)
{
    struct kit kit;
    struct failure f;
    kit_init(&kit, NULL);
    kit_create(&kit);
    long long size = kit_grow(&kit, 1000);
    kit_close(&kit);
    for (long long left = size - 4096; left >= 0; left -= left > 8192 ? 65536 : 1000) {
        char expected[600];
        REQUIRE(truncate(kit_file(&kit, "records/data.mdb"), left) == 0);
        REQUIRE(store_open(&kit.store, &kit.settings, &f) == ERR_CORRUPT);
        text_format(expected, sizeof expected, "'%s/records/data.mdb' is cut off: %lld bytes",
                    kit.directory, left);
        CHECK(strncmp(f.text, expected, strlen(expected)) == 0);
        CHECK(strstr(f.text, "restore it from a backup or move it away to start empty") != NULL);
    }
    REQUIRE(unlink(kit_file(&kit, "records/data.mdb")) == 0);
    kit_open(&kit); /* moved away: starts empty */
    CHECK_EQ_STR(kit_get(&kit, "grown", "00000"), "ERR_NOTFOUND");
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "v"), 0);
    kit_close(&kit);
}

TEST(a_tail_that_is_not_referred_to_does_not_matter)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    long long size = kit_grow(&kit, 100);
    kit_close(&kit);
    /* A write that failed half-way leaves this. */
    REQUIRE(truncate(kit_file(&kit, "records/data.mdb"), size + 5000) == 0);
    kit_open(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "v"), 0);
    kit_close(&kit);
}

static void write_at(struct kit *kit, long long at, const void *bytes, size_t size)
{
    int fd = open(kit_file(kit, "records/data.mdb"), O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(pwrite(fd, bytes, size, at) == (ssize_t)size);
    close(fd);
}

static void read_at(struct kit *kit, long long at, void *bytes, size_t size)
{
    int fd = open(kit_file(kit, "records/data.mdb"), O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(pread(fd, bytes, size, at) == (ssize_t)size);
    close(fd);
}

TEST(a_zeroed_page_is_refused_with_its_name)
{
    struct kit kit;
    struct failure f;
    static uint8_t zeros[4096], page[4096];
    kit_init(&kit, NULL);
    kit_create(&kit);
    long long size = kit_grow(&kit, 1000);
    kit_close(&kit);
    int refused = 0, opened = 0;
    for (long long at = 0; at < size; at += 4096) {
        read_at(&kit, at, page, sizeof page);
        write_at(&kit, at, zeros, sizeof zeros);
        if (store_open(&kit.store, &kit.settings, &f) == 0) {
            opened++; /* a free page */
            kit_close(&kit);
        } else {
            refused++;
            CHECK_EQ_INT(f.code, ERR_CORRUPT);
            CHECK(strstr(f.text, "/records/data.mdb' is damaged: ") != NULL);
        }
        write_at(&kit, at, page, sizeof page);
    }
    CHECK(refused > 100);
    CHECK(opened < 10);
    kit_open(&kit); /* all put back: it is whole again */
    kit_close(&kit);
}

/* The root, a branch page, says it has one key: LMDB 0.9 asserts on it. */
static void break_root(struct kit *kit)
{
    uint8_t meta[2][152];
    uint64_t txn[2], root;
    read_at(kit, 0, meta[0], sizeof meta[0]);
    read_at(kit, 4096, meta[1], sizeof meta[1]);
    memcpy(&txn[0], meta[0] + 144, 8);
    memcpy(&txn[1], meta[1] + 144, 8);
    memcpy(&root, meta[txn[0] < txn[1]] + 16 + 72 + 40, 8);
    uint16_t flags, lower = 18;
    read_at(kit, (long long)root * 4096 + 10, &flags, 2);
    REQUIRE(flags == 1);
    write_at(kit, (long long)root * 4096 + 12, &lower, 2);
}

TEST(an_assert_of_lmdb_in_a_read_is_an_error)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    struct store_op op = kit_put("k", "v");
    int damaged;
    kit_init(&kit, NULL);
    kit_create(&kit);
    kit_grow(&kit, 1000);
    break_root(&kit);
    CHECK_EQ_STR(kit_get(&kit, "grown", "00001"), "ERR_CORRUPT");
    CHECK_EQ_STR(kit_get(&kit, "grown", "00001"), "ERR_CORRUPT");
    CHECK_EQ_STR(scan_damaged(&kit, &damaged), "");
    CHECK_EQ_INT(damaged, ERR_CORRUPT);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, &result), ERR_CORRUPT);
    CHECK(strstr(result.text, "/records/data.mdb' is damaged: ") != NULL);
    CHECK_EQ_INT(kit_write_piece(&kit, 0, "the other file is fine"), 0);
    kit_close(&kit);
    struct failure f;
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_CORRUPT);
}

TEST(an_assert_of_lmdb_in_a_write_is_an_error)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    struct store_op op = kit_put("k", "v");
    kit_init(&kit, NULL);
    kit_create(&kit);
    kit_grow(&kit, 1000);
    break_root(&kit);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, &result), ERR_CORRUPT);
    CHECK(strstr(result.text, "/records/data.mdb' is damaged: ") != NULL);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, &result), ERR_CORRUPT);
    CHECK_EQ_STR(kit_get(&kit, "grown", "00001"), "ERR_CORRUPT");
    kit_close(&kit);
}

/* ---- bits turned over anywhere ---- */

static unsigned random_state = 12345;
static unsigned next_random(unsigned below)
{
    random_state = random_state * 1103515245 + 12345;
    return (random_state >> 8) % below;
}

struct truth {
    int wrong, corrupt;
};

static void got_truth(void *context, int err, struct span value)
{
    struct truth *truth = context;
    bool right = err == 0 && value.size_bytes == 400 && value.data[0] == 0 && value.data[399] == 0;
    if (err == ERR_CORRUPT)
        truth->corrupt++;
    else if (!right)
        truth->wrong++;
}

/* Every row is either right or said to be damaged; never wrong, never absent. */
static void read_all(struct kit *kit, struct truth *truth)
{
    char key[16];
    for (int i = 0; i < 300; i++) {
        text_format(key, sizeof key, "%05d", i);
        kv_get(kit->store, "grown", span_str(key), got_truth, truth);
    }
}

TEST_LIMIT(a_bit_turned_over_anywhere_is_never_served, 120)
{
    struct kit kit;
    struct failure f;
    struct truth truth = {0, 0};
    int refused = 0, opened = 0;
    kit_init(&kit, NULL);
    kit_create(&kit);
    long long size = kit_grow(&kit, 300);
    kit_close(&kit);
    for (int round = 0; round < 400; round++) {
        long long at = next_random(round % 4 ? (unsigned)size : 8192 + 300);
        uint8_t before, after;
        read_at(&kit, at, &before, 1);
        after = (uint8_t)(before ^ 1u << next_random(8));
        write_at(&kit, at, &after, 1);
        if (store_open(&kit.store, &kit.settings, &f) == 0) {
            opened++;
            read_all(&kit, &truth);
            kit_close(&kit);
        } else {
            CHECK(f.code == ERR_CORRUPT || f.code == ERR_VERSION);
            refused++;
        }
        write_at(&kit, at, &before, 1);
    }
    CHECK_EQ_INT(truth.wrong, 0);
    CHECK(refused > 5 && opened > 50);
    CHECK(truth.corrupt > 50); /* the control: there was something to find */
}
