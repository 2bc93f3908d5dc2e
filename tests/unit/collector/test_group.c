/* SPDX-License-Identifier: Apache-2.0 */
/* Decisions about one more exception of a group: what changes, what is gathered, what limits do. */
#include "collector/group.h"

#include <string.h>

#include "common/text.h"
#include "tests/check.h"

#define SECOND_US INT64_C(1000000)
#define MINUTE_US (60 * SECOND_US)
#define START_US (INT64_C(1795442525) * SECOND_US)

static const struct group_limits limits = {.evidence = 3,
                                           .evidence_host_hour = 20,
                                           .evidence_fleet_hour = 200,
                                           .incidents_hour = 10,
                                           .groups_host_hour = 10,
                                           .window_us = 10 * MINUTE_US,
                                           .spread_hosts = 3,
                                           .spread_us = 10 * MINUTE_US};

static trawl_v1_Group group;
static struct group_state state;
static struct group_quota host_quota, fleet_quota;
static trawl_v1_Exception e;
static int64_t now_us;

static void set(char *out, size_t size, const char *text)
{
    REQUIRE(text_copy(out, size, text) == 0);
}
#define SET(member, text) set(member, sizeof(member), text)

static void begin(void)
{
    static struct group_signature signature;
    memset(&e, 0, sizeof e);
    e.source = trawl_v1_ExceptionSource_CRASH;
    SET(e.type, "SIGSEGV");
    SET(e.process, "shop");
    SET(e.host, "web-1");
    SET(e.saved[0], "crash");
    e.saved_count = 1;
    e.count = 1;
    now_us = START_US;
    e.wall_us = e.last_us = now_us;
    host_quota = fleet_quota = (struct group_quota){0};
    group_begin(&group, &state, "G-00001", &signature, &e, &limits);
}

static struct group_change last_change;

/* One more at now_us, on e.host. */
static struct group_decision one(bool first_on_host, bool important)
{
    struct group_decision d;
    struct group_occurrence o = {&e, e.count, now_us, first_on_host, important};
    e.wall_us = e.last_us = now_us;
    group_quota_at(&host_quota, now_us);
    group_quota_at(&fleet_quota, now_us);
    last_change = group_count(&group, &state, &limits, &o);
    group_decide(&group, &state, &limits, &o, &last_change, &host_quota, &fleet_quota, &d);
    if (d.opens) { /* as it is once the incident is there */
        group.incidents_count = 1;
        SET(group.incidents[0], "INC-1");
    }
    return d;
}

TEST(the_first_one_is_new_opens_an_incident_and_gathers)
{
    begin();
    struct group_decision d = one(true, false);
    CHECK(last_change.is_new && !last_change.regressed && !last_change.spreads);
    CHECK(d.sample && d.evidence && d.opens && !d.wanted);
    CHECK_EQ_STR(d.because, "new");
    REQUIRE(d.kinds.count == 1);
    CHECK_EQ_STR(d.kinds.list[0], "crash");
    CHECK_EQ_INT(group.count, 1);
    CHECK_EQ_INT(group.state, trawl_v1_GroupState_GROUP_NEW);
}

TEST(the_first_three_gather_and_later_ones_only_count)
{
    begin();
    int gathered = 0, sampled = 0;
    for (int i = 0; i < 10; i++) {
        struct group_decision d = one(i == 0, false);
        gathered += d.evidence;
        sampled += d.sample;
        CHECK_EQ_INT(d.opens, i == 0);
        now_us += 11 * MINUTE_US; /* each in a window of its own */
    }
    CHECK_EQ_INT(gathered, 3);
    CHECK_EQ_INT(sampled, 3);
    CHECK_EQ_INT(group.count, 10);
    CHECK_EQ_INT(group.evidence, 3);
}

TEST(the_same_content_of_a_host_gathers_once_in_the_window_another_does)
{
    begin();
    CHECK(one(true, false).evidence);
    now_us += SECOND_US;
    CHECK(!one(false, false).evidence);
    SET(e.template, "other words");
    CHECK(one(false, false).evidence);
    SET(e.host, "web-2");
    CHECK(one(true, false).evidence);
    CHECK_EQ_INT(state.evidence_left, 0);
}

TEST(many_at_once_and_what_nobody_looked_at_gather_nothing)
{
    begin();
    e.count = 5;
    CHECK(!one(true, false).evidence);
    e.count = 1;
    e.by_site = true;
    CHECK(!one(false, false).evidence);
    e.by_site = false;
    struct group_decision d = one(false, false);
    CHECK(d.evidence && d.opens);
    CHECK_EQ_INT(group.count, 7);
}

TEST(resolved_is_regressed_by_what_happens_after_and_by_new_builds)
{
    begin();
    e.build_id.size = 20;
    one(true, false);
    now_us += MINUTE_US;
    group.state = trawl_v1_GroupState_GROUP_RESOLVED;
    group.resolved_us = now_us;
    SET(group.resolved_by, "sre/bob");
    now_us -= SECOND_US; /* told late */
    one(false, false);
    CHECK(!last_change.regressed);
    CHECK_EQ_INT(group.state, trawl_v1_GroupState_GROUP_RESOLVED);
    e.build_id.bytes[0] = 7;
    struct group_decision d = one(false, false);
    CHECK(last_change.regressed && d.evidence && d.sample);
    CHECK(strstr(group.note, "sre/bob") && strstr(group.note, "build"));
    CHECK_EQ_INT(group.state, trawl_v1_GroupState_GROUP_REGRESSED);
    one(false, false);
    CHECK(!last_change.regressed); /* once */
    e.build_id.bytes[0] = 8;
    one(false, false);
    CHECK(last_change.regressed); /* and in yet another build */
    group.state = trawl_v1_GroupState_GROUP_RESOLVED;
    group.resolved_us = now_us;
    now_us += SECOND_US;
    one(false, false);
    CHECK(last_change.regressed);
}

TEST(it_spreads_with_the_third_host_in_time_once_and_stops)
{
    begin();
    one(true, false);
    now_us += MINUTE_US;
    SET(e.host, "web-2");
    one(true, false);
    CHECK(!group.spreading);
    now_us += MINUTE_US;
    SET(e.host, "web-3");
    one(true, false);
    CHECK(last_change.spreads && group.spreading);
    SET(e.host, "web-4");
    one(true, false);
    CHECK(!last_change.spreads && group.spreading);
    CHECK_EQ_INT(group.hosts, 4);
    group_view(&group, &state, &limits, now_us + 11 * MINUTE_US);
    CHECK(!group.spreading);
    /* Slowly: never three within ten minutes. */
    begin();
    for (int i = 0; i < 8; i++) {
        one(true, false);
        CHECK(!last_change.spreads);
        now_us += 6 * MINUTE_US;
    }
}

TEST(an_important_one_opens_again_after_the_window_a_usual_one_does_not)
{
    begin();
    for (int i = 0; i < 3; i++, now_us += 11 * MINUTE_US)
        one(i == 0, false);
    CHECK(!one(false, false).evidence);
    struct group_decision d = one(false, true);
    CHECK(d.evidence && d.opens);
    CHECK_EQ_STR(d.because, "important");
    SET(e.template, "other words");
    d = one(false, true);
    CHECK(d.evidence && !d.opens); /* within its window it joins */
}

TEST(limits_stop_evidence_and_are_said_until_the_hour_is_over)
{
    begin();
    host_quota.hour = (uint64_t)(now_us / (60 * MINUTE_US));
    host_quota.evidence = limits.evidence_host_hour;
    struct group_decision d = one(true, false);
    CHECK(!d.evidence && !d.opens && d.sample);
    CHECK(strstr(group.note, "evidence-host-hour") != NULL);
    now_us += 61 * MINUTE_US;
    d = one(false, false);
    CHECK(d.evidence && d.opens);
    CHECK_EQ_STR(group.note, "");
    begin();
    fleet_quota.hour = (uint64_t)(now_us / (60 * MINUTE_US));
    fleet_quota.evidence = limits.evidence_fleet_hour;
    CHECK(!one(true, false).evidence);
    CHECK(strstr(group.note, "evidence-fleet-hour") != NULL);
    begin();
    fleet_quota.hour = (uint64_t)(now_us / (60 * MINUTE_US));
    fleet_quota.incidents = limits.incidents_hour;
    CHECK(!one(true, false).evidence);
    CHECK(strstr(group.note, "incidents-hour") != NULL);
    CHECK_EQ_INT(fleet_quota.evidence, 0);
}

static void want(const char *kind, uint32_t count)
{
    group.want_count = 1;
    SET(group.want[0], kind);
    group.want_left = count;
}

TEST(a_wish_goes_beyond_limits_counts_down_and_waits_for_who_can)
{
    begin();
    one(true, false);
    want("core", 2);
    struct group_decision d = one(false, false);
    CHECK(!d.wanted);
    CHECK_EQ_INT(group.want_left, 2);
    SET(e.saved[1], "core");
    e.saved_count = 2;
    host_quota.evidence = limits.evidence_host_hour;
    d = one(false, false);
    CHECK(d.wanted && d.evidence && d.sample && !d.opens);
    CHECK_EQ_INT(d.kinds.count, 2);
    CHECK_EQ_INT(group_kinds_mask(&d.more), 1u << 5);
    CHECK_EQ_INT(group.want_left, 1);
    CHECK(one(false, false).wanted);
    CHECK(!one(false, false).wanted);
    CHECK_EQ_INT(group.want_left, 0);
}

TEST(kinds_fit_what_is_left_of_the_process)
{
    struct group_kinds kinds;
    begin();
    e.saved_count = 0;
    group_kinds_first(&e, &kinds);
    CHECK_EQ_INT(kinds.count, 1);
    CHECK_EQ_STR(kinds.list[0], "events");
    SET(e.unit, "shop.service");
    group_kinds_first(&e, &kinds);
    CHECK_EQ_INT(kinds.count, 2);
    e.source = trawl_v1_ExceptionSource_HANG;
    e.pid = 7;
    group_kinds_first(&e, &kinds);
    CHECK_EQ_INT(kinds.count, 3);
    CHECK_EQ_STR(kinds.list[0], "triage");
    want("crash", 1); /* of a process that lives there is none */
    group_kinds_wanted(&group, &e, &kinds);
    CHECK_EQ_INT(kinds.count, 0);
    want("core", 1);
    group_kinds_wanted(&group, &e, &kinds);
    CHECK_EQ_INT(kinds.count, 1);
    struct group_kinds back;
    group_kinds_of(group_kinds_mask(&kinds), &back);
    CHECK_EQ_STR(back.list[0], "core");
}

TEST(samples_are_bounded_whatever_happens)
{
    begin();
    for (int i = 0; i < 200; i++) {
        if (i % 10 == 0) {
            group.state = trawl_v1_GroupState_GROUP_RESOLVED;
            group.resolved_us = now_us - 1;
        }
        one(i == 0, false);
        now_us += SECOND_US;
    }
    CHECK_EQ_INT(group.samples, GROUP_SAMPLES_MAX);
    CHECK_EQ_INT(state.samples_put, 1 + 20 * GROUP_SAMPLES_FIRST);
    CHECK_EQ_INT(group.count, 200);
}

TEST(the_rate_is_of_the_hour_before_the_last)
{
    begin();
    for (int i = 0; i < 90; i++, now_us += MINUTE_US)
        one(i == 0, false);
    CHECK_EQ_INT(group_per_hour(&state), 60);
    now_us += 600 * MINUTE_US;
    e.count = 5;
    one(false, false);
    CHECK_EQ_INT(group_per_hour(&state), 5);
    now_us -= 300 * MINUTE_US; /* told late: counted, not of this hour */
    one(false, false);
    CHECK_EQ_INT(group_per_hour(&state), 5);
    CHECK_EQ_INT(group.count, 100);
}

TEST(builds_are_counted_and_the_oldest_goes)
{
    begin();
    e.build_id.size = 20;
    for (uint8_t i = 0; i < 12; i++, now_us += SECOND_US) {
        e.build_id.bytes[0] = i;
        one(i == 0, false);
        one(false, false);
    }
    CHECK_EQ_INT(group.versions_count, 8);
    for (pb_size_t i = 0; i < group.versions_count; i++) {
        CHECK(group.versions[i].build_id.bytes[0] >= 4);
        CHECK_EQ_INT(group.versions[i].count, 2);
    }
}

TEST(counts_do_not_wrap)
{
    begin();
    one(true, false);
    group.count = UINT64_MAX - 1;
    e.count = GROUP_COUNT_MAX;
    one(false, false);
    CHECK(group.count == UINT64_MAX);
}

TEST(state_and_quota_come_back_as_they_were_and_half_of_them_does_not)
{
    begin();
    one(true, false);
    struct buf row;
    buf_init(&row, 4096);
    struct group_state back;
    memset(&back, 0xAA, sizeof back);
    REQUIRE(group_state_put(&state, &row) == 0);
    REQUIRE(group_state_get(&back, buf_span(&row)) == 0);
    CHECK_EQ_INT(back.evidence_left, state.evidence_left);
    CHECK_EQ_INT(back.incident_us, state.incident_us);
    CHECK_EQ_INT(back.minute, state.minute);
    CHECK_EQ_MEM(back.minutes, state.minutes, sizeof state.minutes);
    CHECK_EQ_MEM(back.arrivals, state.arrivals, sizeof state.arrivals);
    CHECK(back.gathered[0].content == state.gathered[0].content);
    for (size_t size = 0; size < row.size_bytes; size += 7)
        CHECK_EQ_INT(group_state_get(&back, span_of(row.data, size)), ERR_CORRUPT);
    buf_clear(&row);
    struct group_quota quota = {9, 1, 2, 3}, again = {0};
    REQUIRE(group_quota_put(&quota, &row) == 0);
    REQUIRE(group_quota_get(&again, buf_span(&row)) == 0);
    CHECK_EQ_INT(again.hour, 9);
    CHECK_EQ_INT(again.evidence, 1);
    CHECK_EQ_INT(again.incidents, 2);
    CHECK_EQ_INT(again.groups, 3);
    CHECK_EQ_INT(group_quota_get(&again, span_of(row.data, 5)), ERR_CORRUPT);
    buf_done(&row);
}
