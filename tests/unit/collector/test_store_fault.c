/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store when something is wrong: bytes turned over, files cut off, limits and disks full,
 * writes that fail. Nothing wrong is ever served, every refusal names the file, and it heals when
 * the cause is gone. System calls are made to fail by defining them here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/unit/collector/store_kit.h"

/* ---- system calls that fail when told ---- */

static atomic_int fail_sync;  /* how many fdatasync(2) give EIO */
static atomic_int fail_meta;  /* how many writes of LMDB's header give EIO */
static atomic_int fail_space; /* how many other writes give ENOSPC */

static int takes(atomic_int *budget)
{
    int left = atomic_load(budget);
    while (left > 0 && !atomic_compare_exchange_weak(budget, &left, left - 1))
        ;
    return left > 0;
}

int fdatasync(int fd)
{
    if (takes(&fail_sync)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at)
{
    int fault = at < 8192 ? (takes(&fail_meta) ? EIO : 0) : (takes(&fail_space) ? ENOSPC : 0);
    if (fault) {
        errno = fault;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (takes(&fail_space)) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_writev, fd, parts, count);
}

/* ---- damage ---- */

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

static int piece_err;
static void got_piece(void *context, int err, struct span value)
{
    (void)context;
    (void)value;
    piece_err = err;
}

static int read_piece(struct kit *kit, uint32_t no)
{
    blob_read(kit->store, "id", no, got_piece, NULL);
    return piece_err;
}

static int write_piece(struct kit *kit, uint32_t no, const char *text)
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

TEST(a_flipped_piece_is_damaged_and_can_be_sent_again)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(write_piece(&kit, 0, "piece-zero"), 0);
    CHECK_EQ_INT(write_piece(&kit, 1, "piece-one"), 0);
    kit_reopen(&kit);
    CHECK_EQ_INT(read_piece(&kit, 0), 0);
    kit_close(&kit);
    CHECK_EQ_INT(kit_flip(kit_file(&kit, "pieces/data.mdb"), "piece-zero", 1), 1);
    kit_open(&kit);
    CHECK_EQ_INT(read_piece(&kit, 0), ERR_CORRUPT);
    CHECK_EQ_INT(read_piece(&kit, 1), 0);
    CHECK_EQ_INT(damaged_count(&kit), 1);
    CHECK_EQ_INT(write_piece(&kit, 0, "piece-zero"), 0);
    CHECK_EQ_INT(read_piece(&kit, 0), 0);
    kit_close(&kit);
}

/* Many rows, so that the tree has branches; returns the size of the file. */
static long long grow(struct kit *kit, int rows)
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

TEST(a_cut_file_is_refused_with_its_name)
{
    struct kit kit;
    struct failure f;
    kit_init(&kit, NULL);
    kit_create(&kit);
    long long size = grow(&kit, 1000);
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
    long long size = grow(&kit, 100);
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
    REQUIRE(syscall(SYS_pwrite64, fd, bytes, size, at) == (long)size);
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
    long long size = grow(&kit, 1000);
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
    grow(&kit, 1000);
    break_root(&kit);
    CHECK_EQ_STR(kit_get(&kit, "grown", "00001"), "ERR_CORRUPT");
    CHECK_EQ_STR(kit_get(&kit, "grown", "00001"), "ERR_CORRUPT");
    CHECK_EQ_STR(scan_damaged(&kit, &damaged), "");
    CHECK_EQ_INT(damaged, ERR_CORRUPT);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, &result), ERR_CORRUPT);
    CHECK(strstr(result.text, "/records/data.mdb' is damaged: ") != NULL);
    CHECK_EQ_INT(write_piece(&kit, 0, "the other file is fine"), 0);
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
    grow(&kit, 1000);
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
    long long size = grow(&kit, 300);
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

/* ---- limits ---- */

TEST(above_the_high_water_mark_only_deletes_pass)
{
    static uint8_t value[8000];
    struct kit kit;
    struct result result = {0, 0, "", 0};
    char key[16];
    kit_init(&kit, NULL);
    kit.settings.records_max_bytes = KIT_MIB;
    kit_create(&kit);
    int count = 0, e = 0;
    struct store_op op = {STORE_PUT, {NULL, 0}, span_of(value, sizeof value)};
    while (e == 0 && count < 1000) {
        text_format(key, sizeof key, "%d", count++);
        op.key = span_str(key);
        e = kit_commit(&kit, "p", &op, 1, &result);
    }
    CHECK_EQ_INT(e, ERR_FULL);
    CHECK(count > 60 && count < 130);
    CHECK(strstr(result.text, "/records': its limit is 1.0 MiB") != NULL);
    struct store_stat stat;
    store_stat(kit.store, &stat);
    CHECK(stat.records_used_bytes <= KIT_MIB && stat.records_used_bytes > KIT_MIB * 9 / 10);
    CHECK_EQ_INT(stat.refused_full, 1);
    /* Pieces have their own limit, and a delete is never refused. */
    CHECK_EQ_INT(write_piece(&kit, 0, "x"), 0);
    for (int i = 0; i < 20; i++) {
        text_format(key, sizeof key, "%d", i);
        struct store_op gone = {STORE_DELETE, span_str(key), {NULL, 0}};
        CHECK_EQ_INT(kit_commit(&kit, "p", &gone, 1, NULL), 0);
    }
    op.key = span_str("again");
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), 0);
    kit_close(&kit);
}

struct held {
    struct kit *kit;
    int full, others;
};

/* While this snapshot is held, no page is free again: the map fills up. */
static int churn_in_row(void *context, struct span key, struct span value)
{
    static uint8_t bytes[60000];
    struct held *held = context;
    (void)key;
    (void)value;
    for (int i = 0; i < 400; i++) {
        struct store_op op = {STORE_PUT, span_str("churn"), span_of(bytes, sizeof bytes)};
        int e = kit_commit(held->kit, "p", &op, 1, NULL);
        if (e == ERR_FULL)
            held->full++;
        else if (e != 0)
            held->others++;
    }
    return 1;
}

TEST(a_full_map_is_an_error_and_heals)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit.settings.records_max_bytes = KIT_MIB;
    kit.settings.group_us = 0;
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "a", "v"), 0);
    struct held held = {&kit, 0, 0};
    struct span none = span_of(NULL, 0);
    CHECK_EQ_INT(kv_scan(kit.store, "p", none, none, 1, churn_in_row, &held), 0);
    CHECK(held.full > 10);
    CHECK_EQ_INT(held.others, 0);
    CHECK_EQ_STR(kit_get(&kit, "p", "a"), "v");
    for (int i = 0; i < 20; i++)
        CHECK_EQ_INT(kit_put_one(&kit, "p", "b", "v"), 0);
    kit_close(&kit);
}

/* ---- writes that fail ---- */

TEST(a_failed_sync_is_an_error_and_heals)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    struct store_op op = kit_put("k", "2");
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "1"), 0);
    atomic_store(&fail_sync, 1);
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, &result), ERR_IO);
    CHECK(strstr(result.text, "/records/data.mdb'") != NULL);
    CHECK_EQ_INT(atomic_load(&fail_sync), 0);
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "1");
    CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), 0);
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "2");
    kit_reopen(&kit);
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "2");
    kit_close(&kit);
}

TEST(a_failed_header_is_an_error_and_heals)
{
    struct kit kit;
    struct store_op op = kit_put("k", "2");
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "1"), 0);
    for (int i = 0; i < 3; i++) {
        atomic_store(&fail_meta, 1);
        CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), ERR_IO);
        CHECK_EQ_INT(atomic_load(&fail_meta), 0);
        CHECK_EQ_STR(kit_get(&kit, "p", "k"), i == 0 ? "1" : "2");
        CHECK_EQ_INT(kit_commit(&kit, "p", &op, 1, NULL), 0);
    }
    kit_reopen(&kit);
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "2");
    kit_close(&kit);
}

TEST(close_with_a_failing_disk_ends_and_calls_back)
{
    struct kit kit;
    struct result results[20] = {{0, 0, "", 0}};
    kit_init(&kit, NULL);
    kit_create(&kit);
    atomic_store(&fail_sync, 1000);
    for (int i = 0; i < 20; i++) {
        struct store_op op = kit_put("k", "v");
        REQUIRE(kv_commit(kit.store, "p", &op, 1, kit_done, &results[i]) == 0);
    }
    kit_close(&kit);
    for (int i = 0; i < 20; i++)
        CHECK(results[i].calls == 1 && results[i].code == ERR_IO);
}

TEST(no_space_while_writing_heals_by_the_ballast)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    struct store_op put = kit_put("k", "2"), gone = {STORE_DELETE, span_str("k"), {NULL, 0}};
    kit_init(&kit, NULL);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "1"), 0);
    CHECK(access(kit_file(&kit, "ballast"), F_OK) == 0);
    atomic_store(&fail_space, 1);
    CHECK_EQ_INT(kit_commit(&kit, "p", &put, 1, &result), ERR_FULL);
    CHECK(strstr(result.text, "no space left on the disk of '") != NULL);
    CHECK(access(kit_file(&kit, "ballast"), F_OK) != 0);
    CHECK_EQ_INT(kit_commit(&kit, "p", &put, 1, NULL), ERR_FULL); /* too early to look again */
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "1");
    CHECK_EQ_INT(kit_commit(&kit, "p", &gone, 1, NULL), 0);
    for (int i = 0; i < 40 && kit_put_one(&kit, "p", "k", "3") != 0; i++)
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    CHECK_EQ_STR(kit_get(&kit, "p", "k"), "3");
    CHECK(access(kit_file(&kit, "ballast"), F_OK) == 0);
    kit_close(&kit);
}

/* ---- a small disk ---- */

static char mounted[128];

static void unmount(void)
{
    umount2(mounted, MNT_DETACH);
    rmdir(mounted);
}

static const char *mount_small(const char *size)
{
    char options[64];
    text_format(mounted, sizeof mounted, "/tmp/trawl-disk-XXXXXX");
    REQUIRE(mkdtemp(mounted) != NULL);
    text_format(options, sizeof options, "size=%s", size);
    if (mount("tmpfs", mounted, "tmpfs", 0, options) < 0) {
        rmdir(mounted);
        SKIP(geteuid() ? "a small disk can only be mounted as root" : "mounting tmpfs is refused");
    }
    atexit(unmount);
    return mounted;
}

/* A file of other people, as large as the disk lets it be but for `leave` bytes. */
static void fill_disk(const char *path, long long leave)
{
    static uint8_t bytes[65536];
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    long long size = 0;
    ssize_t n;
    while ((n = write(fd, bytes, sizeof bytes)) > 0)
        size += n;
    while ((n = write(fd, bytes, 4096)) > 0)
        size += n;
    if (leave)
        REQUIRE(ftruncate(fd, size > leave ? size - leave : 0) == 0);
    close(fd);
}

TEST_LIMIT(a_disk_filled_by_artifacts_heals_by_deleting, 60)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    kit_init(&kit, mount_small("40m"));
    kit.settings.pieces_max_bytes = 1024 * KIT_MIB;
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "before", "v"), 0);
    uint32_t count = 0;
    while (write_piece(&kit, count, "x") == 0)
        count++;
    CHECK(count > 200);
    CHECK_EQ_INT(write_piece(&kit, count, "x"), ERR_FULL);
    CHECK_EQ_STR(kit_get(&kit, "p", "before"), "v");
    CHECK_EQ_INT(read_piece(&kit, count - 1), 0);
    REQUIRE(blob_delete(kit.store, "id", kit_done, &result) == 0);
    kit_await(&kit, &result.calls, 1);
    CHECK_EQ_INT(result.code, 0);
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQ_INT(write_piece(&kit, i, "x"), 0);
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQ_INT(read_piece(&kit, i), 0);
    kit_close(&kit);
}

TEST_LIMIT(a_disk_filled_by_others_heals_when_there_is_room, 60)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    char others[300];
    kit_init(&kit, mount_small("80m"));
    kit_create(&kit);
    grow(&kit, 1000);
    text_format(others, sizeof others, "%s/others", mounted);
    fill_disk(others, 0);
    int full = 0;
    char key[16];
    for (int i = 0; i < 300 && full < 5; i++) {
        text_format(key, sizeof key, "%d", i);
        int e = kit_put_one(&kit, "more", key, "v");
        CHECK(e == 0 || e == ERR_FULL);
        full += e == ERR_FULL;
    }
    CHECK_EQ_INT(full, 5);
    kit_reopen(&kit); /* no crash loop: it opens, reads and deletes on the full disk */
    CHECK(strcmp(kit_get(&kit, "grown", "00999"), "ERR_CORRUPT") != 0);
    REQUIRE(part_drop(kit.store, "grown", kit_done, &result) == 0);
    kit_await(&kit, &result.calls, 1);
    CHECK_EQ_INT(result.code, 0);
    CHECK_EQ_STR(kit_scan(&kit, "grown", "", "", 10), "");
    REQUIRE(unlink(others) == 0);
    int e = ERR_FULL;
    for (int i = 0; i < 40 && e != 0; i++) {
        e = kit_put_one(&kit, "more", "again", "v");
        if (e)
            nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    CHECK_EQ_INT(e, 0);
    kit_close(&kit);
}

TEST(create_on_a_full_disk_leaves_nothing_behind)
{
    struct kit kit;
    struct failure f;
    char others[300];
    kit_init(&kit, mount_small("20m"));
    text_format(others, sizeof others, "%s/others", mounted);
    /* Room for nothing, for the ballast only, for some of the rest. */
    static const long long rooms[] = {
        0, 4096, 65536, 16 * 1024 * 1024, 16 * 1024 * 1024 + 8192, 16 * 1024 * 1024 + 20480};
    int full = 0;
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        fill_disk(others, rooms[i]);
        int e = store_create(kit.directory, "test", &f);
        CHECK_EQ_INT(e, ERR_FULL);
        full += e == ERR_FULL;
        CHECK(access(kit.directory, F_OK) != 0);
        REQUIRE(unlink(others) == 0);
    }
    CHECK_EQ_INT(full, 6);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "v"), 0);
    kit_close(&kit);
}
