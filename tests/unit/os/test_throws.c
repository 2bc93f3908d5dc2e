/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of throws needs no process: the cut-off, counting by type and place, names, and that the
 * files add up. The rest is in tests/e2e/74_throws.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/demangle.h"
#include "agent/os/linux/throws_program.h"
#include "agent/os/linux/throws_rate.h"
#include "agent/os/linux/throws_set.h"
#include "agent/os/linux/throws_write.h"
#include "tests/check.h"

#define SECOND UINT64_C(1000000)

TEST(rare_throws_are_never_cut_off)
{
    struct throws_rate r = {0};
    uint64_t all = 0;
    throws_rate_armed(&r, 1, 0, true);
    for (uint64_t now = 1; now < 20 * SECOND; now += 10000, all += 4) /* 400 a second */
        CHECK_EQ_INT(throws_rate_act(&r, now, all), THROWS_STAY);
    CHECK_EQ_INT(r.cuts, 0);
    CHECK_EQ_INT(throws_rate_off_us(&r, 20 * SECOND), 0);
}

TEST(a_storm_is_cut_off_at_once_and_peeked_at)
{
    struct throws_rate r = {0};
    uint64_t now = SECOND, all = 0;
    throws_rate_armed(&r, now, all, true);
    CHECK_EQ_INT(throws_rate_act(&r, now + 1000, THROWS_WINDOW_MAX), THROWS_STAY);
    all = THROWS_WINDOW_MAX + 1;
    CHECK_EQ_INT(throws_rate_act(&r, now + 1001, all), THROWS_DISARM);
    CHECK_EQ_INT(r.cuts, 1);
    throws_rate_disarmed(&r, now += 1001);
    CHECK(throws_rate_is_calm(&r, all));
    CHECK_EQ_INT(throws_rate_act(&r, now + THROWS_REST_US - 1, all), THROWS_STAY);
    CHECK_EQ_INT(throws_rate_act(&r, now + THROWS_REST_US, all), THROWS_ARM);
    throws_rate_armed(&r, now += THROWS_REST_US, all, false);
    CHECK_EQ_INT(throws_rate_off_us(&r, now), THROWS_REST_US);
    CHECK(!throws_rate_is_calm(&r, all));
    /* The whole peek is waited for, then judged. */
    CHECK_EQ_INT(throws_rate_act(&r, now + THROWS_PEEK_US - 1, all + 500), THROWS_STAY);
    CHECK_EQ_INT(throws_rate_act(&r, now + THROWS_PEEK_US, all + 500), THROWS_DISARM);
    throws_rate_disarmed(&r, now += THROWS_PEEK_US);
    throws_rate_armed(&r, now += THROWS_REST_US, all, false);
    CHECK_EQ_INT(throws_rate_act(&r, now + THROWS_PEEK_US, all + THROWS_PEEK_MAX), THROWS_STAY);
    CHECK(r.armed && !r.peeking);
    CHECK_EQ_INT(throws_rate_off_us(&r, now + SECOND), 2 * THROWS_REST_US);
}

TEST(counts_add_up_whatever_comes)
{
    struct throws_set set;
    bool fresh;
    throws_set_init(&set);
    for (uint64_t i = 0; i < 5000; i++) {
        struct throws_group *g = throws_set_count(&set, i % 2, i % 1500, i + 1, 7, &fresh);
        CHECK_EQ_INT(fresh, g && g->count == 1);
    }
    CHECK_EQ_INT(throws_set_total(&set), 5000);
    CHECK_EQ_INT(set.count, THROWS_GROUPS_MAX);
    CHECK(set.others > 0);
    throws_set_done(&set);
}

TEST(three_are_looked_at_and_then_one_a_second)
{
    struct throws_set set;
    bool fresh;
    unsigned looked = 0;
    throws_set_init(&set);
    for (uint64_t ns = 1; ns < 10 * THROWS_SECOND_NS; ns += THROWS_SECOND_NS / 100)
        looked += throws_set_look(throws_set_count(&set, 1, 1, ns, 1, &fresh), ns);
    CHECK_EQ_INT(looked, 3 + 9);
    throws_set_done(&set);
}

static void add_sample(struct throws_group *group, uint64_t key, int wanted)
{
    struct os_frame frames[2] = {{.function = "_Z12parse_numberPKc", .file = "a.cc", .line = 3},
                                 {.module = "libx.so", .offset = 0x10 + key}};
    struct throws_sample sample = {.key = key, .frames = frames, .frame_count = 2, .tid = 9};
    CHECK_EQ_INT(throws_set_sample(group, &sample), wanted);
}

TEST(equal_stacks_are_kept_once_and_files_add_up)
{
    struct throws_set set;
    struct throws_about about = {
        .process = "a;b", .pid = 3, .took_us = SECOND, .all = 12, .missing = ""};
    struct throws_group *group = NULL;
    struct buf out;
    bool fresh;
    throws_set_init(&set);
    for (uint64_t i = 0; i < 11; i++)
        group = throws_set_count(&set, 1, 1, i + 1, 9, &fresh);
    snprintf(group->name, sizeof group->name, "std::runtime_error");
    for (uint64_t i = 0; i < 2 * THROWS_SAMPLES_MAX; i++)
        add_sample(group, i % THROWS_SAMPLES_MAX, 0);
    add_sample(group, 99, ERR_LIMIT);
    CHECK_EQ_INT(group->sample_count, THROWS_SAMPLES_MAX);
    CHECK_EQ_INT(group->samples[0].seen, 2);
    buf_init(&out, 1 << 20);
    REQUIRE(throws_write_folded(&set, &about, &out) == 0);
    unsigned total = 0, lines = 0;
    for (char *line = strtok((char *)(uintptr_t)buf_str(&out), "\n"); line;
         line = strtok(NULL, "\n"), lines++) {
        CHECK(strncmp(line, "a:b;libx.so+0x", 14) == 0);
        CHECK(strstr(line, ";parse_number(char const*) (a.cc:3);throw std::runtime_error ") !=
              NULL);
        total += (unsigned)strtoul(strrchr(line, ' ') + 1, NULL, 10);
    }
    CHECK_EQ_INT(total, 11);
    buf_clear(&out);
    CHECK(throws_write_text(&set, &about, &out) == 0);
    CHECK(strstr(buf_str(&out), "std::runtime_error, parse_number(char const*) (a.cc:3)") != NULL);
    buf_clear(&out);
    CHECK(throws_write_json(&set, &about, &out) == 0);
    buf_done(&out);
    throws_set_done(&set);
}

static void check_type(const char *mangled, const char *wanted)
{
    char out[256];
    demangle_type(mangled, out, sizeof out);
    CHECK_EQ_STR(out, wanted);
}

TEST(names_are_those_that_people_write)
{
    char out[64], longest[3000];
    check_type("St13runtime_error", "std::runtime_error");
    check_type("*N12_GLOBAL__N_13bugE", "(anonymous namespace)::bug");
    check_type("i", "int");
    check_type("PKc", "char const*");
    check_type("N3app7timeoutIiEE", "app::timeout<int>");
    check_type("no such name", "no such name");
    check_type("", "");
    demangle_symbol("_ZN3app5queryEi", out, sizeof out);
    CHECK_EQ_STR(out, "app::query(int)");
    demangle_symbol("main", out, sizeof out);
    CHECK_EQ_STR(out, "main");
    demangle_symbol("_ZN3app5queryEi", out, 8);
    CHECK_EQ_STR(out, "app::qu");
    memset(longest, 'i', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    demangle_type(longest, out, sizeof out);
    CHECK_EQ_INT(strlen(out), sizeof out - 1);
}

/* Each substitution doubles what was there: 60 of them stand for 2^60 bytes. */
TEST(a_name_that_stands_for_gigabytes_ends)
{
    char name[512] = "3fooI", out[64];
    size_t used = strlen(name);
    used += (size_t)snprintf(name + used, sizeof name - used, "FvS_S_E");
    for (int i = 0; i < 40; i++)
        used += (size_t)snprintf(name + used, sizeof name - used, "FvS%c_S%c_E",
                                 i < 10 ? '0' + i : 'A' + i - 10, i < 10 ? '0' + i : 'A' + i - 10);
    snprintf(name + used, sizeof name - used, "E");
    demangle_type(name, out, sizeof out);
    CHECK(strlen(out) < sizeof out);
}

TEST(the_program_fits)
{
    struct bpf_insn program[THROWS_PROGRAM_MAX];
    CHECK(throws_program(program, 3, 4) < THROWS_PROGRAM_MAX);
}
