/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store when it cannot write: limits, a full map, failing system calls (made to fail by
 * defining them here), a small disk that is full. Every refusal says why, deletes pass, and it
 * heals when the cause is gone.
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
    CHECK_EQ_INT(kit_write_piece(&kit, 0, "x"), 0);
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
    while (kit_write_piece(&kit, count, "x") == 0)
        count++;
    CHECK(count > 200);
    CHECK_EQ_INT(kit_write_piece(&kit, count, "x"), ERR_FULL);
    CHECK_EQ_STR(kit_get(&kit, "p", "before"), "v");
    CHECK_EQ_INT(kit_read_piece(&kit, count - 1), 0);
    REQUIRE(blob_delete(kit.store, "id", kit_done, &result) == 0);
    kit_await(&kit, &result.calls, 1);
    CHECK_EQ_INT(result.code, 0);
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQ_INT(kit_write_piece(&kit, i, "x"), 0);
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQ_INT(kit_read_piece(&kit, i), 0);
    kit_close(&kit);
}

TEST_LIMIT(a_disk_filled_by_others_heals_when_there_is_room, 60)
{
    struct kit kit;
    struct result result = {0, 0, "", 0};
    char others[300];
    kit_init(&kit, mount_small("80m"));
    kit_create(&kit);
    kit_grow(&kit, 1000);
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
