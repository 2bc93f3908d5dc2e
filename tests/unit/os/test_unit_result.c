/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results of units out of journal records, written as the journal's documentation has them; whole,
 * and byte by byte.
 */
#include "agent/os/unit_result.h"

#include <string.h>

#include "common/port.h"
#include "tests/check.h"

static struct os_unit_results *results;
static struct os_exception told[16];
static size_t count, records;

static void on_record(void *context, const struct os_unit_record *record)
{
    struct os_exception e;
    (void)context;
    records++;
    if (os_unit_result_feed(results, record, &e) && count < 16)
        told[count++] = e;
}

static void play(size_t step)
{
    struct os_unit_stream *stream = NULL;
    struct buf b;
    buf_init(&b, 1 << 16);
    count = records = 0;
    REQUIRE(port_read_file(TESTS_DIR "/fixtures/journal/units.export", &b, NULL) == 0);
    REQUIRE(os_unit_results_open(&results) == 0);
    REQUIRE(os_unit_stream_open(&stream, on_record, NULL) == 0);
    for (size_t at = 0; at < b.size_bytes; at += step)
        os_unit_stream_feed(
            stream, span_of(b.data + at, b.size_bytes - at < step ? b.size_bytes - at : step));
    os_unit_stream_close(stream);
    os_unit_results_close(results);
    buf_done(&b);
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
    play(1 << 16);
    check_all();
}

TEST(a_stream_in_pieces)
{
    play(1);
    check_all();
    play(7);
    check_all();
}
