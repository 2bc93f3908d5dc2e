/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a capture: when there is nothing more to wait for, which exit status that is, and what
 * is shown (golden).
 */
#include "cli/follow.h"

#include <string.h>

#include "tests/unit/cli/golden.h"

#define NOW INT64_C(1795442525000000) /* 2026-11-23T14:02:05Z */
#define MINUTE INT64_C(60000000)

static trawl_v1_IncidentPart target_part(const char *host, trawl_v1_State state, const char *reason,
                                         uint32_t capture)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_target_tag};
    trawl_v1_Target *t = &part.body.target;
    text_copy(t->host, sizeof t->host, host);
    text_copy(t->reason, sizeof t->reason, reason);
    t->state = state;
    t->capture = capture;
    return part;
}

static bool feed(struct follow *f, const char *host, trawl_v1_State state, const char *reason)
{
    trawl_v1_IncidentPart part = target_part(host, state, reason, 1);
    const struct follow_target *changed;
    CHECK_EQ_INT(follow_part(f, &part, &changed), 0);
    return changed != NULL;
}

static void host_is(struct follow *f, const char *name, trawl_v1_HostState state, int64_t seen_us)
{
    trawl_v1_Host host = {.state = state, .last_seen_us = seen_us};
    text_copy(host.name, sizeof host.name, name);
    follow_host(f, &host);
}

TEST(it_is_complete_when_every_expected_host_has_ended)
{
    struct follow f;
    follow_init(&f, 2);
    CHECK(!follow_is_complete(&f));
    CHECK(feed(&f, "a", trawl_v1_State_DONE, ""));
    CHECK(!follow_is_complete(&f));
    CHECK(!feed(&f, "a", trawl_v1_State_DONE, ""));
    CHECK(feed(&f, "b", trawl_v1_State_RUNNING, ""));
    CHECK(!follow_is_complete(&f));
    CHECK(feed(&f, "b", trawl_v1_State_DONE, ""));
    CHECK(follow_is_complete(&f));
    CHECK_EQ_INT(follow_exit_code(&f), 0);
    follow_done(&f);
}

TEST(exit_codes)
{
    struct follow f;
    follow_init(&f, 2);
    CHECK_EQ_INT(follow_exit_code(&f), 3);
    feed(&f, "a", trawl_v1_State_REFUSED, "");
    feed(&f, "b", trawl_v1_State_FAILED, "");
    CHECK_EQ_INT(follow_exit_code(&f), 1);
    feed(&f, "b", trawl_v1_State_PARTIAL, "");
    CHECK_EQ_INT(follow_exit_code(&f), 3);
    feed(&f, "b", trawl_v1_State_QUEUED, "");
    CHECK_EQ_INT(follow_exit_code(&f), 3);
    follow_done(&f);
}

TEST(only_the_newest_capture_of_an_incident_counts)
{
    struct follow f;
    const struct follow_target *changed;
    follow_init(&f, 1);
    trawl_v1_IncidentPart old = target_part("a", trawl_v1_State_FAILED, "", 1);
    trawl_v1_IncidentPart new = target_part("b", trawl_v1_State_DONE, "", 2);
    CHECK_EQ_INT(follow_part(&f, &old, &changed), 0);
    CHECK_EQ_INT(follow_part(&f, &new, &changed), 0);
    CHECK_EQ_INT(follow_part(&f, &old, &changed), 0);
    CHECK(changed == NULL);
    CHECK_EQ_INT(f.count, 1);
    CHECK_EQ_STR(f.targets[0].record.host, "b");
    CHECK_EQ_INT(follow_exit_code(&f), 0);
    follow_done(&f);
}

TEST(queued_orders_of_offline_hosts_are_not_waited_for)
{
    struct follow f;
    follow_init(&f, 2);
    feed(&f, "a", trawl_v1_State_DONE, "");
    CHECK(!follow_waits_for_offline(&f, NOW));
    feed(&f, "b", trawl_v1_State_QUEUED, "host is offline");
    CHECK(!follow_waits_for_offline(&f, NOW));
    host_is(&f, "b", trawl_v1_HostState_STALE, NOW - MINUTE);
    CHECK(!follow_waits_for_offline(&f, NOW));
    host_is(&f, "b", trawl_v1_HostState_OFFLINE, NOW - MINUTE);
    CHECK(follow_waits_for_offline(&f, NOW));
    CHECK_EQ_INT(follow_exit_code(&f), 3);
    host_is(&f, "b", trawl_v1_HostState_ONLINE, NOW);
    CHECK(!follow_waits_for_offline(&f, NOW));
    follow_done(&f);
}

TEST(a_host_that_vanished_with_its_order_is_given_time_to_return)
{
    struct follow f;
    follow_init(&f, 1);
    feed(&f, "a", trawl_v1_State_RUNNING, "");
    host_is(&f, "a", trawl_v1_HostState_OFFLINE, NOW - 5 * MINUTE / 60);
    CHECK(!follow_waits_for_offline(&f, NOW));
    CHECK(follow_waits_for_offline(&f, NOW + 2 * MINUTE));
    follow_done(&f);
}

TEST(open_hosts_are_asked_for_by_name_while_they_fit)
{
    struct follow f;
    char out[64], host[16];
    follow_init(&f, 0);
    feed(&f, "a", trawl_v1_State_QUEUED, "");
    feed(&f, "b", trawl_v1_State_DONE, "");
    feed(&f, "c", trawl_v1_State_SENT, "");
    follow_open_hosts(&f, out, sizeof out);
    CHECK_EQ_STR(out, "a,c");
    for (int i = 0; i < 100; i++) {
        text_format(host, sizeof host, "host-%d", i);
        feed(&f, host, trawl_v1_State_QUEUED, "");
    }
    follow_open_hosts(&f, out, sizeof out);
    CHECK_EQ_STR(out, "*");
    follow_done(&f);
}

TEST(how_a_capture_looks)
{
    struct follow f;
    struct buf out;
    uint32_t counts[RENDER_STATE_COUNT];
    buf_init(&out, GOLDEN_LIMIT);
    follow_init(&f, 6);
    f.incident.expires_us = NOW + 60 * MINUTE;
    CHECK_EQ_INT(follow_progress(&f, 100000, 80, &out), 0);
    buf_append_str(&out, "\n");
    feed(&f, "web-07", trawl_v1_State_REFUSED, "pause would be 84 ms, limit 50 ms");
    feed(&f, "web-31", trawl_v1_State_QUEUED, "host is offline");
    feed(&f, "web-02", trawl_v1_State_DONE, "");
    feed(&f, "web-03", trawl_v1_State_GONE, "process\033[2J ended");
    feed(&f, "web-04", trawl_v1_State_RUNNING, "");
    feed(&f, "a-host-with-a-long-name", trawl_v1_State_QUEUED, "waits for its turn");
    f.targets[2].record.longest_pause_us = 600;
    host_is(&f, "web-31", trawl_v1_HostState_OFFLINE, NOW - 4 * MINUTE);
    host_is(&f, "web-04", trawl_v1_HostState_OFFLINE, NOW - 2 * MINUTE);
    follow_sort(&f);
    CHECK_EQ_INT(follow_progress(&f, 2100000, 100, &out), 0);
    buf_append_str(&out, "\n");
    CHECK_EQ_INT(follow_lines(&f, NOW, false, &out), 0);
    follow_counts(&f, counts);
    CHECK_EQ_INT(render_counts(&out, counts), 0);
    buf_append_str(&out, "\n");
    memset(counts, 0, sizeof counts);
    CHECK_EQ_INT(render_counts(&out, counts), 0);
    buf_append_str(&out, "\n");
    golden_check("capture", buf_str(&out));
    buf_done(&out);
    follow_done(&f);
}
