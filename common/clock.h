/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time, injected: whoever needs it holds a `struct clock *`, so that tests can move it. The
 * monotonic clock never jumps and counts suspend (CLOCK_BOOTTIME where there is one); the wall
 * clock is UTC and may jump.
 */
#ifndef TRAWL_COMMON_CLOCK_H
#define TRAWL_COMMON_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t (*mono_us)(struct clock *clock);
    int64_t (*wall_us)(struct clock *clock);
};

/* The machine's clock. Never NULL, never freed. */
struct clock *clock_system(void);

/* A clock that stands still until told. Embed and pass &fake.clock. */
struct clock_fake {
    struct clock clock;
    uint64_t now_mono_us;
    int64_t now_wall_us;
};
void clock_fake_init(struct clock_fake *fake, uint64_t mono_us, int64_t wall_us);
void clock_fake_advance(struct clock_fake *fake, uint64_t us);

#endif
