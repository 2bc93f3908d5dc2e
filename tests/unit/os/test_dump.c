/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole dumps of a victim whose memory is known, read back by the rules of elf(5): what must be in
 * is, what must not be is not, and the victim is left as it was. What gdb and lldb make of them is
 * in tests/e2e/32_cores, what may go wrong in test_dump_trouble.c.
 */
#include "tests/unit/os/core_reader.h"

static void check_kind(capture_fn kind, bool live,
                       void (*check)(const struct file *file, const struct places *places))
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.live = live;
    CHECK_EQ_INT(capture(kind, &take, &file, &result, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK_EQ_INT(file.begun, 1);
    CHECK_EQ_INT(result.threads, 4);
    CHECK_EQ_INT(result.threads_missed, 0);
    CHECK(result.paused && result.pause_us > 0 && result.expected_us > 0);
    CHECK_EQ_INT(result.top_count, 0);
    CHECK(strstr(result.missing, "excludes from dumps") != NULL);
    printf("      %llu KiB, pause %llu us, expected %llu us\n",
           (unsigned long long)file.bytes >> 10, (unsigned long long)result.pause_us,
           (unsigned long long)result.expected_us);
    if (file.begun)
        check(&file, &places);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(a_core_from_a_snapshot_has_all_memory)
{
    check_kind(os_core_capture, false, check_core);
}

TEST(a_live_core_has_all_memory)
{
    check_kind(os_core_capture, true, check_core);
}

static void check_mini(const struct file *file, const struct places *places)
{
    char bytes[32];
    pid_t first = 0;
    check_shape(file);
    CHECK_EQ_INT(count_threads(file, &first), 4);
    CHECK_EQ_INT(first, file->pid);
    CHECK(file->bytes < 4 << 20);
    CHECK_TEXT(file, places->changed, "changed data");
    CHECK_EQ_INT(look(file, places->not_dumped, bytes, 8), NOWHERE);
    /* What was not copied is nowhere: it must not read as zeros. */
    CHECK_EQ_INT(look(file, places->bulk + (3 << 20), bytes, 8), NOWHERE);
}

TEST(a_mini_has_what_pointers_lead_to)
{
    check_kind(os_mini_capture, false, check_mini);
}

TEST_LIMIT(a_mini_of_a_thousand_threads, 60)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    pid_t first = 0;
    start_memory(&v, "1", "999", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.pause_max_us = 15000000; /* a thousand wait for a processor of a busy machine */
    REQUIRE(capture(os_mini_capture, &take, &file, &result, &f) == 0);
    CHECK_EQ_INT(result.threads + result.threads_missed, 1000);
    CHECK_EQ_INT(count_threads(&file, &first), result.threads);
    CHECK(file.bytes <= OS_MINI_BYTES_MAX);
    printf("      %llu KiB, pause %llu us, expected %llu us\n",
           (unsigned long long)file.bytes >> 10, (unsigned long long)result.pause_us,
           (unsigned long long)result.expected_us);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}
