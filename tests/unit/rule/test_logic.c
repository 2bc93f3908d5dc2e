/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine makes of several conditions, of doubt, of clocks, and of more series than it
 * takes.
 */
#include "tests/unit/rule/rule_kit.h"

/* ---- logic ---- */

/* Values of a.a and a.b: -1 unknown, 0 false, 1 true. */
static size_t fired_with(const char *condition, int a, int b)
{
    struct kit k;
    kit_when(&k, condition);
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_series(&k, 1, "a.b", "", "1", false, 0);
    k.values[0] = a < 0 ? RULE_GAP : a;
    k.values[1] = b < 0 ? RULE_GAP : b;
    kit_seconds(&k, 1);
    size_t fired = kit_told(&k, RULE_FIRED);
    kit_close(&k);
    return fired;
}

TEST(three_valued_logic)
{
    for (int a = -1; a <= 1; a++) {
        for (int b = -1; b <= 1; b++) {
            CHECK_EQ_INT(fired_with("a.a > 0 and a.b > 0", a, b), a == 1 && b == 1);
            CHECK_EQ_INT(fired_with("a.a > 0 or a.b > 0", a, b), a == 1 || b == 1);
            CHECK_EQ_INT(fired_with("not (a.a > 0 and a.b > 0)", a, b), a == 0 || b == 0);
            CHECK_EQ_INT(fired_with("not (a.a > 0 or a.b > 0)", a, b), a == 0 && b == 0);
            CHECK_EQ_INT(fired_with("a.a > 0 and not a.b > 0", a, b), a == 1 && b == 0);
        }
    }
}

TEST(for_of_and_or_and_not)
{
    struct kit k;
    kit_when(&k, "a.a > 0 and a.b > 0 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_series(&k, 1, "a.b", "", "1", false, 0);
    k.values[1] = 0;
    kit_hold(&k, 1, 20);
    k.values[1] = 1;
    kit_hold(&k, 1, 10);
    CHECK_EQ_INT(k.count, 0); /* both together only since 9 s */
    kit_hold(&k, 1, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "a.a 1 > 0, a.b 1 > 0 for 10 s");
    kit_close(&k);

    kit_when(&k, "a.a > 0 or a.b > 0 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_series(&k, 1, "a.b", "", "1", false, 0);
    for (int i = 0; i < 40; i++) {
        k.values[0] = i / 8 % 2;
        k.values[1] = !k.values[0];
        kit_seconds(&k, 1);
    }
    CHECK_EQ_INT(k.count, 0); /* neither of them was true for 10 s */
    kit_seconds(&k, 5);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "a.b 1 > 0 for 10 s"); /* only the true side is told */
    kit_close(&k);

    kit_when(&k, "not a.a > 0 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 1, 5);
    kit_hold(&k, 0, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 0, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "a.a 0, not > 0 for 10 s");
    kit_close(&k);
}

/* ---- time ---- */

TEST(time_never_goes_back)
{
    struct kit k;
    kit_when(&k, "a.a > 10");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 5, 1);
    k.values[0] = 11;
    CHECK_EQ_INT(kit_step_after(&k, 0), ERR_INVALID);
    CHECK_EQ_INT(kit_step_after(&k, (uint64_t)-5000000), ERR_INVALID);
    CHECK_EQ_INT(k.count, 0);
    CHECK_EQ_INT(kit_step_after(&k, 6000000), 0);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

/* A machine that slept, an agent that was not run: nobody knows what was then. */
TEST(time_that_nobody_saw_does_not_count)
{
    struct kit k;
    kit_when(&k, "a.a > 10 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 6);
    REQUIRE(kit_step_after(&k, 8 * KIT_SECOND_US) == 0);
    kit_hold(&k, 11, 4);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);

    kit_when(&k, "a.a > 10 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 9);
    REQUIRE(kit_step_after(&k, 3600 * KIT_SECOND_US) == 0);
    kit_hold(&k, 11, 9);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);

    kit_when(&k, "a.a > 1000/s");
    kit_series(&k, 0, "a.a", "", "1", true, 0);
    kit_hold(&k, 0, 2);
    k.values[0] = 5000;
    REQUIRE(kit_step_after(&k, 10 * KIT_SECOND_US) == 0); /* 500 a second */
    CHECK_EQ_INT(k.count, 0);
    kit_close(&k);
}

/* ---- limits of its own ---- */

TEST(too_many_series)
{
    struct kit k;
    struct rule_status status;
    kit_when(&k, "a.a > 1G/m");
    CHECK_EQ_INT(kit_series(&k, RULE_SLOTS_MAX, "a.a", "", "1", false, 0), ERR_LIMIT);
    for (uint32_t i = 0; i < RULE_CELLS_MAX; i++)
        REQUIRE(kit_series(&k, i, "a.a", "x", "1", false, 0) == 1);
    CHECK_EQ_INT(kit_series(&k, RULE_CELLS_MAX, "a.a", "x", "1", false, 0), ERR_LIMIT);
    CHECK_EQ_INT(kit_series(&k, 5, "a.a", "y", "1", false, 0), 1); /* in the place of another */
    for (uint32_t i = 0; i < RULE_CELLS_MAX; i++)
        if (i != RULE_CELLS_MAX - 1)
            rule_engine_retire(k.engine, i);
    kit_seconds(&k, 1);
    rule_engine_status(k.engine, 0, &status);
    CHECK_EQ_STR(status.sentence, "x a.a is unknown: more than 256 series are compared over time");
    kit_close(&k);
}

/* ---- doubt ---- */

/* One that was true a moment ago may be so still: for 10 s nobody says that none is. */
TEST(doubt_lasts_ten_seconds)
{
    struct kit k;
    kit_when(&k, "not process.fds > 100");
    kit_series(&k, 0, "process.fds", "a", "1", false, 1);
    kit_series(&k, 1, "process.fds", "b", "1", false, 2);
    k.values[0] = 1;
    k.values[1] = 101;
    kit_seconds(&k, 3);
    k.values[1] = RULE_GAP;
    kit_seconds(&k, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(or_has_been_true_since_the_first_of_both)
{
    struct kit k;
    kit_when(&k, "a.a > 0 or a.b > 0 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_series(&k, 1, "a.b", "", "1", false, 0);
    k.values[1] = 0;
    kit_hold(&k, 1, 5);
    k.values[1] = 1;
    kit_seconds(&k, 6);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(nothing_is_infinitely_more_than_0)
{
    struct kit k;
    kit_when(&k, "a.a / a.b > 10%");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_series(&k, 1, "a.b", "", "1", false, 0);
    k.values[0] = 1;
    k.values[1] = 0;
    kit_seconds(&k, 5);
    CHECK_EQ_INT(k.count, 0);
    k.values[1] = 1;
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(partners_stay_together_when_another_goes)
{
    struct kit k;
    kit_when(&k, "fs.free / fs.size < 10%");
    kit_series(&k, 3, "fs.size", "/data", "bytes", false, 0);
    kit_series(&k, 2, "fs.size", "/", "bytes", false, 0);
    kit_series(&k, 0, "fs.free", "/", "bytes", false, 0);
    k.values[0] = 50;
    k.values[2] = k.values[3] = 100;
    kit_seconds(&k, 2);
    rule_engine_retire(k.engine, 3);
    k.values[2] = 1000;
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

/* ---- time that nobody saw, for all that counts time ---- */

TEST(a_rate_over_a_long_gap_is_none)
{
    struct kit k;
    kit_when(&k, "a.a > 1000/s");
    kit_series(&k, 0, "a.a", "", "1", true, 0);
    kit_hold(&k, 0, 2);
    k.values[0] = INT64_C(1) << 40;
    REQUIRE(kit_step_after(&k, 10 * KIT_SECOND_US + 1) == 0);
    CHECK_EQ_INT(k.count, 0);
    kit_rise(&k, 1001, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(sleep_does_not_end_what_fired)
{
    struct kit k;
    kit_when(&k, "a.a > 10");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 1);
    kit_hold(&k, 5, 3);
    REQUIRE(kit_step_after(&k, 600 * KIT_SECOND_US) == 0);
    kit_hold(&k, 5, 9);
    CHECK_EQ_INT(k.count, 1);
    kit_hold(&k, 5, 1);
    CHECK_EQ_INT(k.count, 2);
    kit_close(&k);
}
