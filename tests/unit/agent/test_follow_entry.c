/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of units out of entries of the journal, written as its documentation has them; and
 * entries of which the end is not there yet.
 */
#include <string.h>

#include "agent/follow_private.h"
#include "common/port.h"
#include "tests/check.h"

static struct os_exception told[16];
static size_t count, records;

static void take_all(struct span s)
{
    struct os_unit_results *results = NULL;
    struct follow_entry entry = {.pid = 0};
    bool is_whole;
    REQUIRE(os_unit_results_open(&results) == 0);
    while (follow_entry_take(&s, &entry, &is_whole) == 0) {
        if (!is_whole)
            continue;
        records++;
        if (os_unit_result_feed(results, &entry.unit_record, &told[count % 16]))
            count++;
        entry = (struct follow_entry){.pid = 0};
    }
    CHECK_EQ_INT(s.size_bytes, 0);
    os_unit_results_close(results);
}

static void check_all(void)
{
    CHECK_EQ_INT(records, 9);
    REQUIRE(count == 4);
    CHECK_EQ_INT(told[0].source, OS_UNIT_RESULT);
    CHECK_EQ_STR(told[0].type, "watchdog");
    CHECK_EQ_STR(told[0].unit, "app.service");
    CHECK_EQ_INT(told[0].signal, 6);
    CHECK_EQ_INT(told[0].wall_us, 1800000000001000);
    CHECK(strstr(told[0].message, "its main process: dumped, signal 6") != NULL);
    CHECK_EQ_STR(told[1].type, "exit-code");
    CHECK_EQ_STR(told[1].tags[0].key, "exit_code");
    CHECK_EQ_STR(told[1].tags[0].value, "3");
    CHECK_EQ_STR(told[1].tags[1].key, "restarts");
    CHECK_EQ_STR(told[1].tags[1].value, "1");
    CHECK(strstr(told[1].message, "Failed with result 'exit-code'") != NULL);
    CHECK_EQ_STR(told[2].type, "start-limit-hit");
    CHECK_EQ_INT(told[2].signal, 0);
    CHECK(strstr(told[2].message, "main process") == NULL); /* that was the failure before */
    CHECK_EQ_STR(told[3].unit, "mine.service");
    CHECK_EQ_STR(told[3].type, "oom-kill");
}

TEST(results_of_units)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    REQUIRE(port_read_file(TESTS_DIR "/fixtures/journal/units.export", &b, NULL) == 0);
    take_all(buf_span(&b));
    check_all();
    buf_done(&b);
}

TEST(what_is_not_whole_is_left_and_what_is_too_long_refused)
{
    static const char text[] = "MESSAGE=one=two\n_PID=4000000000\n_COMM\n\x03\0\0\0\0\0\0\0abc\n\n";
    static const char huge[] = "MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff";
    const size_t size_bytes = sizeof text - 1;
    bool is_whole = false;
    for (size_t cut = 0; cut <= size_bytes; cut++) {
        struct follow_entry entry = {.pid = 0};
        struct span s = span_of(text, cut);
        int e;
        do
            e = follow_entry_take(&s, &entry, &is_whole);
        while (e == 0 && !is_whole);
        CHECK_EQ_INT(e, cut < size_bytes ? ERR_AGAIN : 0);
        if (cut < size_bytes)
            continue;
        CHECK(span_equal(entry.message, span_str("one=two")));
        CHECK_EQ_STR(entry.comm, "abc");
        CHECK_EQ_INT(entry.pid, 0); /* no process has such a number */
    }
    struct follow_entry entry = {.pid = 0};
    struct span s = span_of(huge, sizeof huge - 1);
    CHECK_EQ_INT(follow_entry_take(&s, &entry, &is_whole), ERR_CORRUPT);
}
