/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's clock over port.h, and a clock for tests that stands still until told. Invariant of
 * the fake: both its times move by the same amount. Called by the programs' main functions and
 * tests.
 */
#include "common/clock.h"

#include "common/port.h"

static uint64_t system_mono_us(struct clock *clock)
{
    (void)clock;
    return port_mono_us();
}

static int64_t system_wall_us(struct clock *clock)
{
    (void)clock;
    return port_wall_us();
}

struct clock *clock_system(void)
{
    static struct clock the_clock = {system_mono_us, system_wall_us};
    return &the_clock;
}

/* `clock` is the first member of the fake, so the pointer is the same. */
static uint64_t fake_mono_us(struct clock *clock)
{
    return ((struct clock_fake *)(void *)clock)->now_mono_us;
}

static int64_t fake_wall_us(struct clock *clock)
{
    return ((struct clock_fake *)(void *)clock)->now_wall_us;
}

void clock_fake_init(struct clock_fake *fake, uint64_t mono_us, int64_t wall_us)
{
    *fake = (struct clock_fake){
        .clock = {fake_mono_us, fake_wall_us},
        .now_mono_us = mono_us,
        .now_wall_us = wall_us,
    };
}

void clock_fake_advance(struct clock_fake *fake, uint64_t us)
{
    fake->now_mono_us += us;
    fake->now_wall_us += (int64_t)us;
}
