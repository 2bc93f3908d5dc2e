/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gives way in the crash handler's spool, with made files of chosen ages; and what is wanted
 * is given once. Of the rule that first evidence stays there is a control: with the ages the other
 * way round the same look finds it gone.
 */
#include "tests/unit/common/scratch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/crash_spool.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define PIECE 65536u
#define MINUTE_S 60
#define HOUR_S 3600

static struct crash_spool spool;
static uint8_t filling[PIECE];

static void begin(uint64_t size_bytes)
{
    char path[SCRATCH_PATH_SIZE];
    struct failure f = {0};
    REQUIRE(crash_spool_make(&spool, scratch("crash", path), &f) == 0);
    spool.size_bytes = size_bytes;
    atexit(scratch_done);
}

static void id_of(unsigned number, uint8_t id[16])
{
    memset(id, 0, 16);
    id[0] = (uint8_t)number;
    id[1] = (uint8_t)(number >> 8);
    id[15] = 1;
}

static void set_age(const char *name, int64_t age_s)
{
    int64_t at_s = port_wall_us() / 1000000 - age_s;
    struct timespec times[2] = {{.tv_sec = at_s}, {.tv_sec = at_s}};
    REQUIRE(utimensat(spool.fd, name, times, 0) == 0);
}

static void put(unsigned number, const char *ending, struct span data, int64_t age_s)
{
    char name[CRASH_NAME_SIZE];
    uint8_t id[16];
    id_of(number, id);
    crash_spool_name(id, ending, name);
    REQUIRE(crash_spool_put(&spool, name, data, NULL) == 0);
    set_age(name, age_s);
}

static bool has(unsigned number, const char *ending)
{
    uint8_t id[16];
    id_of(number, id);
    return crash_spool_has(&spool, id, ending);
}

/* What is told of it, without evidence. */
static void tell(unsigned number, const char *process, uint64_t place, int64_t age_s,
                 const char *ending)
{
    static trawl_v1_Exception e;
    struct buf data;
    memset(&e, 0, sizeof e);
    e.id.size = 16;
    id_of(number, e.id.bytes);
    e.source = trawl_v1_ExceptionSource_CRASH;
    e.count = 1;
    e.wall_us = e.last_us = port_wall_us() - age_s * 1000000;
    text_copy(e.type, sizeof e.type, "SIGSEGV");
    text_copy(e.process, sizeof e.process, process);
    e.frames_count = 1;
    text_copy(e.frames[0].module, sizeof e.frames[0].module, process);
    e.frames[0].offset = place;
    buf_init(&data, trawl_v1_Exception_size);
    REQUIRE(codec_put_exception(&data, &e) == 0);
    put(number, ending, buf_span(&data), age_s);
    buf_done(&data);
}

/* One crash whose evidence is PIECE long. */
static void crash(unsigned number, const char *process, uint64_t place, int64_t age_s)
{
    tell(number, process, place, age_s, "told");
    put(number, "core.zst", span_of(filling, PIECE), age_s);
}

/* ---- first evidence stays ---- */

#define LOOP 12

/* A loop of 12, of another program's first and a third's second place; then room for one more of
 * the loop. Whether the first of each is there still. */
static bool firsts_stay(bool the_other_way_round)
{
    const int64_t way = the_other_way_round ? -1 : 1, middle = HOUR_S;
    begin(10 * PIECE);
    for (unsigned i = 0; i < LOOP; i++)
        crash(i, "loop", 1, middle + way * (int64_t)(LOOP - i) * MINUTE_S);
    crash(100, "quiet", 2, 60);
    crash(101, "loop", 9, 30);
    REQUIRE(crash_spool_room(&spool, "loop", PIECE) == 0);
    unsigned left = 0;
    for (unsigned i = 0; i < LOOP; i++)
        left += has(i, "core.zst");
    CHECK(left >= 1 && left < LOOP - 2);
    CHECK(has(100, "core.zst"));
    CHECK(has(101, "core.zst"));
    CHECK(has(LOOP - 1, "told")); /* what was told stays */
    return has(0, "core.zst");
}

TEST(first_evidence_does_not_give_way_to_later_evidence)
{
    CHECK(firsts_stay(false));
}

TEST(the_look_for_first_evidence_would_find_it_gone)
{
    CHECK(!firsts_stay(true));
}

TEST(a_loop_that_goes_on_drives_nobody_out)
{
    begin(8 * PIECE);
    crash(1, "quiet", 1, 3 * HOUR_S);
    crash(2, "loop", 2, 2 * HOUR_S);
    crash(3, "quiet", 3, HOUR_S);
    for (unsigned i = 10; i < 60; i++) {
        REQUIRE(crash_spool_room(&spool, "loop", PIECE) == 0);
        crash(i, "loop", 2, 1000 - i);
    }
    CHECK(has(1, "core.zst") && has(2, "core.zst") && has(3, "core.zst"));
    unsigned left = 0;
    for (unsigned i = 10; i < 60; i++)
        left += has(i, "core.zst");
    CHECK(left >= 1 && left <= 4);
}

/* ---- who may have room, and who not ---- */

TEST(only_firsts_leave_no_room_but_for_a_program_without_any)
{
    begin(8 * PIECE);
    for (unsigned i = 0; i < 6; i++)
        crash(i, "many", 50 + i, 300 - i);
    crash(20, "one", 1, 400);
    CHECK_EQ_INT(crash_spool_room(&spool, "one", PIECE), ERR_FULL);
    CHECK_EQ_INT(crash_spool_room(&spool, "many", PIECE), ERR_FULL);
    for (unsigned i = 0; i < 6; i++)
        CHECK(has(i, "core.zst"));
    CHECK_EQ_INT(crash_spool_room(&spool, "new", PIECE), 0);
    CHECK(!has(5, "core.zst"));
    CHECK(has(0, "core.zst") && has(20, "core.zst"));
}

TEST(a_program_gives_up_its_own_that_was_told_long_ago)
{
    begin(5 * PIECE);
    for (unsigned i = 0; i < 4; i++)
        crash(i, "many", 50 + i, 2 * HOUR_S - i);
    CHECK_EQ_INT(crash_spool_room(&spool, "many", PIECE), 0);
    CHECK(has(0, "core.zst"));
    CHECK(!has(1, "core.zst"));
}

TEST(more_than_there_may_be_is_refused)
{
    begin(2 * PIECE);
    CHECK_EQ_INT(crash_spool_room(&spool, "any", 3 * PIECE), ERR_FULL);
    CHECK_EQ_INT(crash_spool_room(&spool, "any", PIECE), 0);
}

TEST(their_number_is_limited)
{
    begin(UINT64_C(1) << 30);
    for (unsigned i = 0; i < CRASH_HELD_MAX + 40; i++) {
        tell(i, "loop", 1, 5000 - i, "told");
        put(i, "txt", span_str("x"), 5000 - i);
    }
    REQUIRE(crash_spool_room(&spool, "loop", PIECE) == 0);
    unsigned left = 0;
    for (unsigned i = 0; i < CRASH_HELD_MAX + 40; i++)
        left += has(i, "txt");
    CHECK_EQ_INT(left, CRASH_HELD_MAX - 1);
    CHECK(has(0, "txt"));
}

/* ---- whole cores ---- */

TEST(a_whole_core_is_counted_by_itself)
{
    begin(6 * PIECE);
    crash(1, "loop", 1, 500);
    crash(2, "loop", 1, 400);
    for (unsigned i = 0; i < 8; i++) {
        char name[CRASH_NAME_SIZE];
        uint8_t id[16];
        id_of(2, id);
        crash_spool_name(id, "full.zst", name);
        int fd = openat(spool.fd, name, O_WRONLY | O_CREAT | O_APPEND, 0600);
        REQUIRE(fd >= 0 && write(fd, filling, PIECE) == (ssize_t)PIECE);
        close(fd);
    }
    CHECK_EQ_INT(crash_spool_room(&spool, "other", PIECE), 0);
    CHECK(has(1, "core.zst") && has(2, "core.zst"));
    /* Its own small evidence may give way, it does not. */
    CHECK_EQ_INT(crash_spool_room(&spool, "other", 4 * PIECE), 0);
    CHECK(!has(2, "core.zst"));
    CHECK(has(2, "full.zst"));
    /* Neither young nor untold ones give way to another whole core. */
    CHECK_EQ_INT(crash_spool_room_whole(&spool, PIECE), ERR_FULL);
    CHECK_EQ_INT(crash_spool_room_whole(&spool, 9 * PIECE), 0);
    CHECK(has(2, "full.zst"));
    put(2, "full.zst", span_of(filling, PIECE), HOUR_S);
    CHECK_EQ_INT(crash_spool_room_whole(&spool, 0), 0);
    CHECK(!has(2, "full.zst"));
}

/* ---- age ---- */

TEST(what_is_old_and_told_goes)
{
    begin(UINT64_C(1) << 30);
    crash(1, "old", 1, 25 * HOUR_S);
    crash(2, "young", 1, 23 * HOUR_S);
    tell(3, "waits", 1, 25 * HOUR_S, "pb");
    put(3, "txt", span_str("x"), 25 * HOUR_S);
    put(4, "txt", span_str("nobody's"), 25 * HOUR_S);
    put(5, "begun", span_str(""), 25 * HOUR_S);
    put(6, "txt.tmp", span_str("half"), 25 * HOUR_S);
    crash_spool_tidy(&spool);
    CHECK(!has(1, "core.zst") && !has(1, "told"));
    CHECK(has(2, "core.zst") && has(2, "told"));
    CHECK(has(3, "pb") && has(3, "txt"));
    CHECK(!has(4, "txt"));
    CHECK(has(5, "begun"));
    CHECK(!has(6, "txt.tmp"));
}

TEST(what_is_not_whole_is_no_evidence)
{
    struct crash_spool_file files[CRASH_FILES_MAX_LISTED];
    size_t count = 0;
    uint8_t id[16];
    begin(UINT64_C(1) << 30);
    id_of(7, id);
    put(7, "full.zst.tmp", span_str("half"), 0);
    put(7, "txt.tmp", span_str("half"), 0);
    CHECK_EQ_INT(crashes_find(spool.path, id, files, CRASH_FILES_MAX_LISTED, &count), ERR_NOTFOUND);
    put(7, "txt", span_str("whole"), 0);
    CHECK_EQ_INT(crashes_find(spool.path, id, files, CRASH_FILES_MAX_LISTED, &count), 0);
    CHECK_EQ_INT(count, 1);
    crash_spool_drop_begun(&spool, id);
    CHECK(!has(7, "full.zst.tmp") && !has(7, "txt.tmp") && has(7, "txt"));
    crash_spool_drop(&spool, id);
    CHECK(!has(7, "txt"));
}

/* ---- what is wanted is given once ---- */

static bool give(const char *group, int64_t asked_us, uint32_t left, uint64_t site, unsigned number)
{
    struct crash_given given = {.asked_us = asked_us, .left = left, .site = site};
    text_copy(given.group, sizeof given.group, group);
    id_of(number, given.id);
    return crash_table_give(&spool, &given);
}

TEST(a_place_gives_what_is_wanted_as_often_as_it_was_asked)
{
    begin(PIECE);
    CHECK(!give("G-1", 1, 0, 5, 1)); /* nothing is wanted */
    CHECK(give("G-1", 1, 1, 5, 1));
    CHECK(!give("G-1", 1, 1, 5, 2)); /* not heard yet */
    CHECK(give("G-1", 1, 1, 6, 3));  /* at another place */
    CHECK(give("G-2", 1, 1, 5, 4));  /* for another group */
    CHECK(give("G-1", 2, 1, 5, 5));  /* asked anew */
    CHECK(!give("G-1", 2, 1, 5, 6));
    uint8_t id[16];
    id_of(5, id);
    crash_table_give_back(&spool, id); /* it could not */
    CHECK(give("G-1", 2, 1, 5, 7));
    CHECK(!give("G-1", 2, 1, 5, 8));
}

TEST(of_three_that_are_wanted_three_are_given)
{
    begin(PIECE);
    CHECK(give("G-1", 1, 3, 5, 1));
    CHECK(give("G-1", 1, 3, 5, 2)); /* the first was not counted yet */
    CHECK(give("G-1", 1, 1, 5, 3)); /* both were */
    CHECK(!give("G-1", 1, 1, 5, 4));
    CHECK(!give("G-1", 1, 3, 5, 5));
}

TEST(many_places_together_give_a_few_at_most)
{
    begin(PIECE);
    unsigned given = 0;
    for (unsigned i = 0; i < 40; i++)
        given += give("G-1", 1, 1, 100 + i, i);
    CHECK_EQ_INT(given, 1 + CRASH_GIVEN_SPARE);
}

/* ---- what had no room is tried again ---- */

static bool claim(int64_t now_us)
{
    uint64_t site;
    bool whole = false;
    REQUIRE(crash_table_claim(&spool, 1, 2, now_us, &whole, &site) == 0);
    if (!whole)
        CHECK_EQ_INT(site, 2);
    return whole;
}

TEST(a_site_without_room_is_tried_again_after_a_while)
{
    const int64_t second = 1000000, now = 1000 * second;
    begin(PIECE);
    for (int i = 0; i < 2 * CRASH_SITE_WHOLE; i++) {
        int64_t at = now + i * (CRASH_RETRY_S + 1) * second;
        CHECK(claim(at));
        crash_table_unclaim(&spool, 2, at);
        CHECK(!claim(at + second)); /* a loop is not looked at each time */
    }
    int64_t then = now + HOUR_S / 2 * second;
    for (int i = 0; i < CRASH_SITE_WHOLE; i++)
        CHECK(claim(then));
    CHECK(!claim(then));
}

/* ---- markers ---- */

TEST(a_marker_is_there_whole_or_not_at_all)
{
    uint8_t id[16];
    struct buf got;
    int fd = -1, other = -1;
    struct stat st;
    begin(PIECE);
    id_of(1, id);
    spool.uid = geteuid() == 0 ? 12345 : geteuid();
    spool.gid = geteuid() == 0 ? 12346 : getegid();
    REQUIRE(crash_spool_begin(&spool, id, span_str("who"), &fd, NULL) == 0);
    CHECK(has(1, "begun"));
    CHECK(!has(1, "begun.tmp"));
    REQUIRE(fstat(fd, &st) == 0);
    CHECK_EQ_INT(st.st_uid, spool.uid);
    CHECK_EQ_INT(st.st_gid, spool.gid);
    CHECK_EQ_INT(crash_spool_begin(&spool, id, span_str("else"), &other, NULL), ERR_EXISTS);
    char name[CRASH_NAME_SIZE];
    crash_spool_name(id, "begun", name);
    CHECK(!crash_spool_is_orphan(&spool, name, 0)); /* it is locked */
    buf_init(&got, 64);
    CHECK_EQ_INT(crash_spool_get(&spool, name, &got), 0);
    CHECK_EQ_STR(buf_str(&got), "who");
    buf_done(&got);
    close(fd);
    CHECK(crash_spool_is_orphan(&spool, name, 0));
}
