/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's clock against the C library's, and the fake, which must not move by itself. */
#include "common/clock.h"

#include <time.h>

#include "tests/check.h"

TEST(the_fake_stands_still_until_told)
{
    struct clock_fake fake;
    clock_fake_init(&fake, 1000, -5);
    struct clock *clock = &fake.clock;
    CHECK_EQ_INT(clock->mono_us(clock), 1000);
    CHECK_EQ_INT(clock->wall_us(clock), -5);
    clock_fake_advance(&fake, 7);
    CHECK_EQ_INT(clock->mono_us(clock), 1007);
    CHECK_EQ_INT(clock->wall_us(clock), 2);
    fake.now_wall_us = 50;
    CHECK_EQ_INT(clock->wall_us(clock), 50);
    CHECK_EQ_INT(clock->mono_us(clock), 1007);
}

TEST(two_fakes_are_two_clocks)
{
    struct clock_fake a, b;
    clock_fake_init(&a, 1, 1);
    clock_fake_init(&b, 2, 2);
    clock_fake_advance(&a, 10);
    CHECK_EQ_INT(a.clock.mono_us(&a.clock), 11);
    CHECK_EQ_INT(b.clock.mono_us(&b.clock), 2);
}

TEST(the_system_clock_tells_utc)
{
    struct clock *clock = clock_system();
    CHECK(clock == clock_system());
    int64_t before_s = (int64_t)time(NULL);
    int64_t wall_us = clock->wall_us(clock);
    int64_t after_s = (int64_t)time(NULL);
    /* time() may lag by a tick. */
    CHECK(wall_us / 1000000 >= before_s - 1 && wall_us / 1000000 <= after_s + 1);
}

TEST(the_monotonic_clock_counts_suspend_and_never_goes_back)
{
    struct clock *clock = clock_system();
    struct timespec boot;
    REQUIRE(clock_gettime(CLOCK_BOOTTIME, &boot) == 0);
    uint64_t before = (uint64_t)boot.tv_sec * 1000000 + (uint64_t)boot.tv_nsec / 1000;
    uint64_t last = clock->mono_us(clock);
    CHECK(last >= before && last - before < 10000000);
    unsigned backwards = 0;
    for (int i = 0; i < 100000; i++) {
        uint64_t now = clock->mono_us(clock);
        backwards += now < last;
        last = now;
    }
    CHECK_EQ_INT(backwards, 0);
    CHECK(last > before);
}
