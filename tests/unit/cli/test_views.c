/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts, capabilities, top, incidents, events: as tables and as JSON (golden), with hostile texts
 * among them; and why a selector matched nothing.
 */
#include "cli/nomatch.h"
#include "cli/render_host.h"
#include "cli/render_incident.h"

#include <string.h>

#include "tests/unit/cli/golden.h"

#define NOW INT64_C(1795442525000000) /* 2026-11-23T14:02:05Z */
#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)

static void label(trawl_v1_Host *h, const char *key, const char *value)
{
    trawl_v1_Label *l = &h->labels[h->labels_count++];
    text_copy(l->key, sizeof l->key, key);
    text_copy(l->value, sizeof l->value, value);
}

static void fact(trawl_v1_Host *h, const char *key, const char *value)
{
    trawl_v1_Fact *l = &h->facts[h->facts_count++];
    text_copy(l->key, sizeof l->key, key);
    text_copy(l->value, sizeof l->value, value);
}

static trawl_v1_Host make_host(const char *name, trawl_v1_HostState state)
{
    trawl_v1_Host h = {.state = state, .version = "0.1.0", .address = "10.0.0.7:41234"};
    text_copy(h.name, sizeof h.name, name);
    return h;
}

/* Three hosts: a well one, one that says ugly things, one that was never seen. */
static void make_hosts(trawl_v1_Host hosts[3])
{
    hosts[0] = make_host("web-01", trawl_v1_HostState_ONLINE);
    hosts[0].last_seen_us = NOW - 300000;
    hosts[0].skew_known = true;
    hosts[0].skew_us = 250;
    hosts[0].skew_error_us = 90;
    hosts[0].enrolled_us = NOW - 2 * DAY;
    hosts[0].certificate_not_after_s = (NOW + 20 * DAY) / SECOND;
    label(&hosts[0], "role", "web");
    label(&hosts[0], "dc", "east");
    fact(&hosts[0], "os", "Debian GNU/Linux 12");
    fact(&hosts[0], "kernel", "6.1.0-42-amd64");
    fact(&hosts[0], "cpus", "8");
    hosts[1] = make_host("db-01", trawl_v1_HostState_OFFLINE);
    hosts[1].last_seen_us = NOW - 3 * DAY;
    hosts[1].certificate_not_after_s = (NOW - DAY) / SECOND;
    text_copy(hosts[1].version, sizeof hosts[1].version, "\033]0;x\007\xff");
    label(&hosts[1], "role", "db");
    fact(&hosts[1], "os", "x\xe2\x80\xaey\n\"z\"");
    hosts[2] = make_host("new-01", trawl_v1_HostState_HOST_UNKNOWN);
    hosts[2].version[0] = hosts[2].address[0] = '\0';
}

TEST(hosts_as_tables_and_lines)
{
    trawl_v1_Host hosts[3];
    struct buf out;
    make_hosts(hosts);
    buf_init(&out, GOLDEN_LIMIT);
    for (int wide = 0; wide < 2; wide++) {
        struct render_table t;
        size_t count;
        const struct render_column *columns = render_host_columns(wide, &count);
        render_table_init(&t, columns, count);
        for (int i = 0; i < 3; i++)
            render_host_row(&t, &hosts[i], wide, NOW);
        CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
        render_table_done(&t);
    }
    for (int i = 0; i < 3; i++)
        CHECK_EQ_INT(render_host_json(&out, &hosts[i]), 0);
    CHECK(strchr(buf_str(&out), '\033') == NULL);
    golden_check("hosts", buf_str(&out));
    buf_done(&out);
}

TEST(capabilities_as_table_and_lines)
{
    trawl_v1_Capability caps[2] = {
        {.host = "web-01", .name = "stacks", .available = true},
        {.host = "web-01", .name = "core", .reason = "no CAP_SYS_PTRACE: run as root"}};
    struct render_table t;
    struct buf out;
    size_t count;
    const struct render_column *columns = render_capability_columns(&count);
    buf_init(&out, GOLDEN_LIMIT);
    render_table_init(&t, columns, count);
    for (int i = 0; i < 2; i++)
        render_capability_row(&t, &caps[i]);
    CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ_INT(render_capability_json(&out, &caps[i]), 0);
    golden_check("caps", buf_str(&out));
    render_table_done(&t);
    buf_done(&out);
}

TEST(what_top_could_not_read_is_a_gap)
{
    trawl_v1_TopRow rows[3] = {{.round = 1,
                                .host = "web-01",
                                .cpu_permille = 1985,
                                .memory_bytes = 1u << 30,
                                .load_milli = 1234,
                                .cores = 2,
                                .at_us = NOW},
                               {.round = 1,
                                .host = "web-01",
                                .process = "redis-server",
                                .pid = 77,
                                .cpu_permille = 5,
                                .memory_bytes = 4096,
                                .threads = 5,
                                .missing = "read: permission denied, write"},
                               {.round = 1,
                                .host = "web-02",
                                .process = "x",
                                .pid = 1,
                                .missing = "cpu_permille, memory_bytes, threads, readable"}};
    struct render_table t;
    struct buf out;
    size_t count;
    const struct render_column *columns = render_top_columns(&count);
    buf_init(&out, GOLDEN_LIMIT);
    render_table_init(&t, columns, count);
    for (int i = 0; i < 3; i++)
        render_top_row(&t, &rows[i]);
    CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ_INT(render_top_json(&out, &rows[i]), 0);
    CHECK(render_top_lacks(&rows[1], "read") && render_top_lacks(&rows[1], "write"));
    CHECK(!render_top_lacks(&rows[1], "cpu") && !render_top_lacks(&rows[2], "read"));
    golden_check("top", buf_str(&out));
    render_table_done(&t);
    buf_done(&out);
}

/* ---- incidents ---- */

static trawl_v1_Incident make_incident(void)
{
    trawl_v1_Incident i = {
        .id = "INC-261123-K7F2Q",
        .cause = "capture by sre/alice",
        .note = "checkout hangs\n",
        .created_us = NOW - 60 * SECOND,
        .from_us = NOW - 120 * SECOND,
        .to_us = NOW - 60 * SECOND,
        .expires_us = NOW + 3600 * SECOND,
        .what_count = 2,
        .what = {"stacks", "logs"},
        .selector = "role=web",
        .has_process = true,
        .process = {.name = "redis-server"},
        .states_count = 2,
        .states = {{trawl_v1_State_DONE, 38}, {trawl_v1_State_QUEUED, 1}},
        .artifacts = 76,
        .size_bytes = 123456,
        .longest_pause_us = 600,
        .processes = 41,
        .pause_max_us = 50000,
        .max_parallel = 20,
        .last_us = 60000000,
    };
    return i;
}

TEST(incidents_and_events_as_tables_and_lines)
{
    trawl_v1_Incident incident = make_incident();
    trawl_v1_Event event = {.type = trawl_v1_EventType_PROCESS_EXITED,
                            .wall_us = NOW,
                            .process = "redis\033",
                            .pid = 77,
                            .text = "signal 9",
                            .host = "web-01"};
    struct buf out;
    struct render_table t;
    size_t count;
    buf_init(&out, GOLDEN_LIMIT);
    for (int wide = 0; wide < 2; wide++) {
        const struct render_column *columns = render_incident_columns(wide, &count);
        render_table_init(&t, columns, count);
        render_incident_row(&t, &incident, wide, NOW);
        CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
        render_table_done(&t);
    }
    const struct render_column *columns = render_event_columns(&count);
    render_table_init(&t, columns, count);
    render_event_row(&t, &event, NOW);
    event.type = (trawl_v1_EventType)99;
    event.process[0] = '\0';
    render_event_row(&t, &event, NOW + DAY);
    CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
    render_table_done(&t);
    CHECK_EQ_INT(render_incident_json(&out, &incident), 0);
    CHECK_EQ_INT(render_event_json(&out, &event), 0);
    golden_check("incidents", buf_str(&out));
    buf_done(&out);
}

TEST(every_part_is_a_line_with_its_type)
{
    static const pb_size_t tags[] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct buf out;
    buf_init(&out, GOLDEN_LIMIT);
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        trawl_v1_IncidentPart part = {.which_body = tags[i]};
        if (tags[i] == trawl_v1_IncidentPart_artifact_tag)
            part.body.artifact = (trawl_v1_Artifact){.host = "web-01",
                                                     .no = 1,
                                                     .kind = "stacks",
                                                     .wall_us = NOW + 5,
                                                     .skew_us = 5,
                                                     .stacks_count = 1,
                                                     .paused = true,
                                                     .pause_us = 600};
        CHECK_EQ_INT(render_part_json(&out, &part), 0);
    }
    golden_check("parts", buf_str(&out));
    buf_done(&out);
}

TEST(states_have_names_and_ends)
{
    CHECK_EQ_STR(render_state(trawl_v1_State_GONE), "gone");
    CHECK_EQ_STR(render_state((trawl_v1_State)99), "unknown");
    CHECK(render_state_is_final(trawl_v1_State_DONE) && render_state_is_final(trawl_v1_State_GONE));
    CHECK(!render_state_is_final(trawl_v1_State_RUNNING));
    CHECK(!render_state_is_final((trawl_v1_State)99));
    CHECK_EQ_STR(render_short_id("INC-261123-K7F2Q"), "K7F2Q");
    CHECK_EQ_STR(render_short_id("K7F2Q"), "K7F2Q");
    CHECK_EQ_STR(render_short_id("x-"), "x-");
}

/* ---- why nothing matched ---- */

static void explain(const char *selector, int code, struct buf *out)
{
    trawl_v1_Host hosts[3];
    struct nomatch n;
    struct failure f = {.code = 0};
    make_hosts(hosts);
    nomatch_init(&n, selector);
    for (int i = 0; i < 3; i++)
        nomatch_host(&n, &hosts[i]);
    CHECK_EQ_INT(nomatch_fail(&n, selector, &f), code);
    CHECK_EQ_INT(buf_printf(out, "%s: ", selector), 0);
    CHECK_EQ_INT(text_append_safe(out, span_str(f.text), false), 0);
    buf_append_str(out, "\n");
    nomatch_done(&n);
}

TEST(the_term_that_matched_nothing_is_named)
{
    struct buf out;
    struct nomatch none;
    struct failure f;
    buf_init(&out, GOLDEN_LIMIT);
    explain("role=wbe", ERR_NOTFOUND, &out);
    explain("rloe=web", ERR_INVALID, &out);
    explain("role=web,zone!=a", ERR_INVALID, &out);
    explain("web-1", ERR_NOTFOUND, &out);
    explain("app-*", ERR_NOTFOUND, &out);
    explain("role=db,dc=east", ERR_NOTFOUND, &out);
    explain("role=db,web-*", ERR_NOTFOUND, &out);
    explain("role!=web,web-01", ERR_NOTFOUND, &out);
    golden_check("nomatch", buf_str(&out));
    buf_done(&out);
    nomatch_init(&none, "a=b");
    CHECK_EQ_INT(nomatch_fail(&none, "a=b", &f), ERR_NOTFOUND);
    CHECK(strstr(f.text, "trawl enroll") != NULL);
    nomatch_done(&none);
}
