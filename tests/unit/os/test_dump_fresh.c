/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings that come to be between the reading of the map and the hold: the map that is known is
 * made to lack some of a victim's mappings, as if they were younger.
 */
#include "agent/os/linux/dump_linux.h"

#include "tests/unit/os/victim.h"

#define PAGES 2048
#define FORGOTTEN_BYTES (1u << 20)

struct fresh_test {
    struct dump d;
    struct dump_fresh fresh;
};

static int want(void *context, struct stop *stop)
{
    struct fresh_test *t = context;
    dump_fresh_want(&t->d, &t->fresh, stop);
    return copies_fetch(&t->d.copies, t->d.process.pid, stop);
}

static uint64_t not_forked_of(struct victim *v)
{
    char line[256], *at = line;
    victim_ask(v, line, sizeof line);
    victim_settle(v);
    strtoul(at, &at, 16);
    strtoul(at, &at, 16);
    return strtoul(at, &at, 16);
}

/* Takes [start, end) out of the mapping that holds it. */
static void forget(struct maps *maps, uint64_t start, uint64_t end)
{
    const struct map *found = maps_find(maps, start);
    REQUIRE(found != NULL && found->end >= end);
    size_t index = (size_t)(found - maps->list);
    REQUIRE(maps->count < maps->capacity);
    memmove(&maps->list[index + 1], &maps->list[index], (maps->count - index) * sizeof *maps->list);
    maps->count++;
    maps->list[index].end = start;
    maps->list[index + 1].start = end;
    for (size_t i = index; i <= index + 1; i++) {
        if (i < maps->count && maps->list[i].start >= maps->list[i].end) {
            memmove(&maps->list[i], &maps->list[i + 1], (maps->count - i - 1) * sizeof *maps->list);
            maps->count--;
            i--;
            index--;
        }
    }
}

static void check_fresh(size_t pages, uint64_t *address, struct fresh_test *t, struct victim *v)
{
    static struct os_result result;
    static struct os_take take;
    static const struct os_output out;
    struct failure f = {0, ""};
    victim_start(v, "known", "1", "3");
    *address = not_forked_of(v);
    take = (struct os_take){.process = v->process, .pause_max_us = 1000000};
    REQUIRE(dump_open(&t->d, &take, &out, &result, &f) == 0);
    REQUIRE(copies_init(&t->d.copies, pages, &f) == 0);
    REQUIRE(dump_fresh_open(&t->fresh, v->pid) == 0);
    uint64_t start = *address - 65536;
    forget(&t->d.maps, start, start + FORGOTTEN_BYTES);
    CHECK_EQ_INT(stop_run(&t->d.stop, take.pause_max_us, want, NULL, t, &f), 0);
    dump_fresh_close(&t->fresh);
    if (t->fresh.asked == 0)
        SKIP("this kernel has no PROCMAP_QUERY");
    copies_sort(&t->d.copies);
}

static void end_fresh(struct fresh_test *t, struct victim *v)
{
    dump_close(&t->d);
    victim_check_free(v);
    victim_end(v);
}

TEST(a_mapping_that_is_not_in_the_map_is_copied)
{
    static struct fresh_test t;
    struct victim v;
    uint64_t address;
    uint8_t page[SEGMENTS_PAGE] = "";
    check_fresh(PAGES, &address, &t, &v);
    REQUIRE(t.fresh.count == 1);
    CHECK_EQ_INT(t.fresh.list[0].end - t.fresh.list[0].start, FORGOTTEN_BYTES);
    CHECK(t.fresh.list[0].start < address && t.fresh.list[0].end > address);
    copies_overlay(&t.d.copies, address & ~4095ull, page, sizeof page);
    CHECK_EQ_STR((const char *)page + address % 4096, "not forked");
    CHECK_EQ_INT(t.fresh.lost_bytes, 0);
    end_fresh(&t, &v);
}

TEST(one_that_is_too_large_is_counted)
{
    static struct fresh_test t;
    struct victim v;
    uint64_t address;
    check_fresh(FORGOTTEN_BYTES / SEGMENTS_PAGE - 1, &address, &t, &v);
    CHECK_EQ_INT(t.fresh.count, 0);
    CHECK_EQ_INT(t.fresh.lost_bytes, FORGOTTEN_BYTES);
    end_fresh(&t, &v);
}
