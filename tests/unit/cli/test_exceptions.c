/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and groups: as tables, as a page and as JSON (golden), with hostile texts among them;
 * what is told once; whole commands against a collector in a thread.
 */
#include "tests/unit/cli/fake_collector.h"

#include "cli/render_exception.h"
#include "cli/render_group.h"
#include "cli/seen.h"

#include "tests/unit/cli/golden.h"

#define NOW INT64_C(1795442525000000) /* 2026-11-23T14:02:05Z */
#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)

static struct fake_collector fake;

static void add_frame(trawl_v1_Exception *e, const char *function, const char *module,
                      uint64_t offset, const char *file, uint32_t line)
{
    trawl_v1_Frame *f = &e->frames[e->frames_count++];
    text_copy(f->function, sizeof f->function, function);
    text_copy(f->module, sizeof f->module, module);
    text_copy(f->file, sizeof f->file, file);
    f->offset = offset;
    f->line = line;
    if (module[0]) {
        f->build_id.size = 20;
        memset(f->build_id.bytes, 0xab, 20);
    }
}

static trawl_v1_Exception make_crash(void)
{
    trawl_v1_Exception e = {
        .seq = 7,
        .id = {.size = 16, .bytes = {1, 2, 3}},
        .source = trawl_v1_ExceptionSource_CRASH,
        .type = "SIGSEGV",
        .message = "address not mapped",
        .language = "c",
        .wall_us = NOW - 10 * SECOND,
        .last_us = NOW - 10 * SECOND,
        .count = 1,
        .process = "redis-server",
        .pid = 77,
        .tid = 79,
        .thread = "bio_close_file",
        .start_ticks = 4711,
        .uid = 999,
        .executable = "/usr/bin/redis-server",
        .build_id = {.size = 20, .bytes = {0x3f, 0x2a, 0x9c, 0x11, 0xd0, 0xe4, 0x55}},
        .unit = "redis.service",
        .signal = 11,
        .signal_code = 1,
        .fault_address = 0x10,
        .has_fault_address = true,
        .frames_left_out = 3,
        .tags_count = 2,
        .tags = {{"container", "a1b2"}, {"fault", "read"}},
        .missing = "registers of 2 threads",
        .saved_count = 1,
        .saved = {"crash"},
        .host = "web-01",
        .skew_us = 250,
        .skew_error_us = 90,
        .group = "G-7F2QK",
        .incident = "INC-261123-K7F2Q",
    };
    add_frame(&e, "raise", "libc.so.6", 0x3c4f5, "", 0);
    add_frame(&e, "debugCommand", "redis-server", 0x1f3a0, "src/debug.c", 486);
    add_frame(&e, "", "redis-server", 0x22220, "", 0);
    return e;
}

static trawl_v1_Exception make_trace(void)
{
    trawl_v1_Exception e = {
        .seq = 9,
        .id = {.size = 16, .bytes = {4}},
        .source = trawl_v1_ExceptionSource_LOG_TRACE,
        .type = "ValueError\033[2J",
        .message = "bad \xe2\x80\xae 'x'\nsecond line",
        .language = "python",
        .wall_us = NOW - 2 * DAY,
        .count = 12345,
        .process = "app",
        .uid = UINT32_MAX,
        .cut_off = true,
        .by_site = true,
        .host = "db-01",
    };
    add_frame(&e, "loads", "", 0, "/usr/lib/python3.11/json/__init__.py", 346);
    add_frame(&e, "handle", "", 0, "/srv/app/views.py", 17);
    return e;
}

/* Nothing but what has to be there. */
static trawl_v1_Exception make_bare(void)
{
    trawl_v1_Exception e = {.source = trawl_v1_ExceptionSource_OOM_KILL,
                            .type = "oom-kill",
                            .wall_us = NOW,
                            .pid = 5,
                            .uid = UINT32_MAX,
                            .unit = "batch.slice",
                            .host = "db-02"};
    return e;
}

TEST(exceptions_as_tables_pages_and_lines)
{
    trawl_v1_Exception list[3] = {make_crash(), make_trace(), make_bare()};
    trawl_v1_Group group = {.frames_count = 1};
    struct buf out;
    buf_init(&out, GOLDEN_LIMIT);
    group.frames[0] = list[0].frames[1];
    for (int wide = 0; wide < 2; wide++) {
        struct render_table t;
        size_t count;
        const struct render_column *columns = render_exception_columns(wide, &count);
        CHECK(count <= RENDER_EXCEPTION_COLUMNS);
        render_table_init(&t, columns, count);
        for (int i = 0; i < 3; i++)
            render_exception_row(&t, &list[i], wide, NOW);
        CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
        render_table_done(&t);
    }
    for (int i = 0; i < 3; i++)
        CHECK_EQ_INT(render_exception_page(&out, &list[i], &group, NOW, false), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ_INT(render_exception_json(&out, &list[i]), 0);
    CHECK(strchr(buf_str(&out), '\033') == NULL);
    golden_check("exceptions", buf_str(&out));
    buf_done(&out);
}

TEST(rows_that_come_one_by_one_stand_below_each_other)
{
    trawl_v1_Exception list[3] = {make_crash(), make_trace(), make_bare()};
    struct render_table t;
    struct buf out;
    size_t count, widths[RENDER_EXCEPTION_COLUMNS];
    const struct render_column *columns = render_exception_columns(false, &count);
    buf_init(&out, GOLDEN_LIMIT);
    render_table_init(&t, columns, count);
    render_exception_widths(false, widths);
    for (int i = 0; i < 3; i++) {
        render_table_clear(&t);
        render_exception_row(&t, &list[i], false, NOW);
        CHECK_EQ_INT(render_table_put_more(&t, widths, i == 0, false, &out), 0);
    }
    golden_check("exceptions_followed", buf_str(&out));
    render_table_done(&t);
    buf_done(&out);
}

TEST(the_place_is_the_first_frame_of_the_application)
{
    trawl_v1_Exception e = make_crash();
    char text[RENDER_FRAME_SIZE];
    CHECK(render_frame_of_application(e.frames, 0) == NULL);
    CHECK(render_frame_of_application(e.frames, 1) == &e.frames[0]);
    CHECK(render_frame_of_application(e.frames, 3) == &e.frames[1]);
    e = make_trace();
    CHECK(render_frame_of_application(e.frames, 2) == &e.frames[1]);
    trawl_v1_Frame java = {.function = "java.util.HashMap.get", .file = "HashMap.java"};
    trawl_v1_Frame ours = {.function = "com.shop.Cart.add", .file = "Cart.java"};
    trawl_v1_Frame both[2] = {java, ours};
    CHECK(render_frame_of_application(both, 2) == &both[1]);
    trawl_v1_Frame nothing = {.line = 3};
    render_frame_short(&nothing, text);
    CHECK_EQ_STR(text, "");
    render_frame_long(&nothing, text);
    CHECK_EQ_STR(text, "??");
    CHECK(!render_frame_equal(&java, &ours) && render_frame_equal(&ours, &ours));
    memset(java.function, 'x', sizeof java.function - 1);
    memset(java.module, 'y', sizeof java.module - 1);
    memset(java.file, 'z', sizeof java.file - 1);
    java.offset = UINT64_MAX;
    java.line = UINT32_MAX;
    render_frame_long(&java, text);
    CHECK(strstr(text, "z:4294967295") != NULL);
}

/* ---- groups ---- */

static trawl_v1_Group make_group(void)
{
    trawl_v1_Exception e = make_crash();
    trawl_v1_Group g = {
        .id = "G-7F2QK",
        .signature = {.size = 16, .bytes = {9, 8}},
        .state = trawl_v1_GroupState_GROUP_NEW,
        .spreading = true,
        .source = trawl_v1_ExceptionSource_CRASH,
        .type = "SIGSEGV",
        .template = "address not mapped",
        .language = "c",
        .process = "redis-server",
        .frames_count = 1,
        .count = 12,
        .first_us = NOW - 3 * DAY,
        .last_us = NOW - 10 * SECOND,
        .hosts = 2,
        .versions_count = 2,
        .versions = {{.build_id = {.size = 20, .bytes = {0x3f, 0x2a}},
                      .count = 11,
                      .first_us = NOW - DAY,
                      .last_us = NOW},
                     {.count = 1, .first_us = NOW - 3 * DAY, .last_us = NOW - 3 * DAY}},
        .samples = 3,
        .evidence = 1,
        .incidents_count = 2,
        .incidents = {"INC-261123-K7F2Q", "INC-261120-AAAAA"},
        .want_count = 2,
        .want = {"core", "profile"},
        .want_left = 2,
        .want_by = "sre/alice",
        .per_hour = 4,
        .note = "no more evidence in this hour: 5 of 5 were gathered",
    };
    g.frames[0] = e.frames[1];
    return g;
}

static trawl_v1_Group make_odd_group(void)
{
    trawl_v1_Group g = {.id = "G-BBBBB",
                        .state = trawl_v1_GroupState_GROUP_RESOLVED,
                        .source = trawl_v1_ExceptionSource_LOG_TRACE,
                        .type = "\033]0;x\007",
                        .count = 1,
                        .hosts = 1,
                        .first_us = NOW - DAY,
                        .last_us = NOW - DAY,
                        .resolved_us = NOW - SECOND,
                        .resolved_by = "sre/bob",
                        .merged_into = "G-7F2QK",
                        .split_from = "G-CCCCC"};
    return g;
}

TEST(groups_as_tables_and_lines)
{
    trawl_v1_Group list[2] = {make_group(), make_odd_group()};
    struct buf out;
    buf_init(&out, GOLDEN_LIMIT);
    for (int wide = 0; wide < 2; wide++) {
        struct render_table t;
        size_t count;
        const struct render_column *columns = render_group_columns(wide, &count);
        render_table_init(&t, columns, count);
        for (int i = 0; i < 2; i++)
            render_group_row(&t, &list[i], wide, NOW);
        CHECK_EQ_INT(render_table_put(&t, false, &out), 0);
        render_table_done(&t);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ_INT(render_group_wanted(&out, &list[i]), 0);
        CHECK_EQ_INT(render_group_resolved(&out, &list[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        CHECK_EQ_INT(render_group_json(&out, &list[i]), 0);
    CHECK(strchr(buf_str(&out), '\033') == NULL);
    CHECK_EQ_STR(render_group_state((trawl_v1_GroupState)99), "unknown");
    golden_check("groups", buf_str(&out));
    buf_done(&out);
}

static void add_parts(struct render_group *g, struct buf *json)
{
    static trawl_v1_GroupPart part;
    part.which_body = trawl_v1_GroupPart_group_tag;
    part.body.group = make_group();
    CHECK_EQ_INT(render_group_part(g, &part), 0);
    CHECK_EQ_INT(render_group_part_json(json, &part), 0);
    for (int i = 0; i < 2; i++) {
        part.which_body = trawl_v1_GroupPart_host_tag;
        part.body.host = (trawl_v1_GroupHost){.count = i ? 2 : 10, .first_us = NOW, .last_us = NOW};
        text_copy(part.body.host.host, sizeof part.body.host.host, i ? "web-02" : "web-01");
        CHECK_EQ_INT(render_group_part(g, &part), 0);
        CHECK_EQ_INT(render_group_part_json(json, &part), 0);
    }
    for (int i = 0; i < 2; i++) {
        part.which_body = trawl_v1_GroupPart_sample_tag;
        part.body.sample = i ? make_trace() : make_crash();
        CHECK_EQ_INT(render_group_part(g, &part), 0);
    }
    CHECK_EQ_INT(render_group_part_json(json, &part), 0);
    part.which_body = trawl_v1_GroupPart_line_tag;
    text_copy(part.body.line, sizeof part.body.line, "a line");
    CHECK_EQ_INT(render_group_part(g, &part), 0);
    CHECK_EQ_INT(render_group_part_json(json, &part), 0);
}

TEST(the_page_of_a_group)
{
    struct render_group g = {.hosts = NULL}, odd = {.hosts = NULL};
    struct buf out, json;
    buf_init(&out, GOLDEN_LIMIT);
    buf_init(&json, GOLDEN_LIMIT);
    add_parts(&g, &json);
    odd.group = make_odd_group();
    CHECK_EQ_INT(render_group_page(&out, &g, NOW, false), 0);
    CHECK_EQ_INT(render_group_page(&out, &odd, NOW, false), 0);
    CHECK_EQ_INT(buf_append_str(&out, buf_str(&json)), 0);
    golden_check("group", buf_str(&out));
    render_group_done(&g);
    render_group_done(&odd);
    buf_done(&out);
    buf_done(&json);
}

TEST(a_page_keeps_so_many_hosts_and_samples)
{
    struct render_group g = {.hosts = NULL};
    static trawl_v1_GroupPart part;
    struct buf out;
    for (int i = 0; i < RENDER_GROUP_HOSTS + 5; i++) {
        part.which_body = trawl_v1_GroupPart_host_tag;
        part.body.host = (trawl_v1_GroupHost){.host = "web-01", .count = 1};
        CHECK_EQ_INT(render_group_part(&g, &part), 0);
    }
    for (int i = 0; i < RENDER_GROUP_SAMPLES + 5; i++) {
        part.which_body = trawl_v1_GroupPart_sample_tag;
        part.body.sample = make_bare();
        CHECK_EQ_INT(render_group_part(&g, &part), 0);
    }
    CHECK_EQ_INT(g.host_count, RENDER_GROUP_HOSTS);
    CHECK_EQ_INT(g.hosts_left_out, 5);
    CHECK_EQ_INT(g.sample_count, RENDER_GROUP_SAMPLES);
    CHECK_EQ_INT(g.samples_left_out, 5);
    g.group.hosts = RENDER_GROUP_HOSTS + 5;
    buf_init(&out, GOLDEN_LIMIT);
    CHECK_EQ_INT(render_group_page(&out, &g, NOW, false), 0);
    CHECK(strstr(buf_str(&out), ", and 1019 more") != NULL);
    buf_done(&out);
    render_group_done(&g);
}

/* ---- what was told already ---- */

static trawl_v1_Exception numbered(uint64_t number)
{
    trawl_v1_Exception e = {.host = "web-01", .wall_us = NOW + (int64_t)number};
    e.id.size = 16;
    memcpy(e.id.bytes, &number, sizeof number);
    return e;
}

TEST(nothing_is_told_twice)
{
    struct seen seen;
    REQUIRE(seen_init(&seen, NOW) == 0);
    trawl_v1_Exception e = make_crash(), other = make_crash(), bare = make_bare();
    CHECK(seen_add(&seen, &e) && !seen_add(&seen, &e));
    text_copy(other.host, sizeof other.host, "web-02");
    CHECK(seen_add(&seen, &other) && !seen_add(&seen, &other));
    CHECK(seen_add(&seen, &bare) && !seen_add(&seen, &bare));
    bare.seq++;
    CHECK(seen_add(&seen, &bare));
    seen_done(&seen);
}

TEST(what_is_forgotten_is_not_asked_again)
{
    struct seen seen;
    REQUIRE(seen_init(&seen, NOW) == 0);
    for (uint64_t i = 0; i < 5 * (uint64_t)SEEN_KEPT; i++) {
        trawl_v1_Exception e = numbered(i);
        CHECK(seen_add(&seen, &e));
    }
    CHECK_EQ_INT(seen.from_us, NOW + 3 * SEEN_KEPT);
    for (uint64_t i = 3 * (uint64_t)SEEN_KEPT; i < 5 * (uint64_t)SEEN_KEPT; i++) {
        trawl_v1_Exception e = numbered(i);
        CHECK(!seen_add(&seen, &e));
    }
    seen_done(&seen);
}

/* ---- whole commands ---- */

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        count++;
    return count;
}

static void script(size_t exceptions)
{
    fake_usual(&fake.script);
    for (size_t i = 0; i < exceptions; i++) {
        trawl_v1_Exception *e = &fake.script.exceptions[i];
        *e = make_crash();
        e->id.bytes[0] = (uint8_t)i;
        e->wall_us = port_wall_us() - (int64_t)i * SECOND;
        e->pid = 100 + (uint32_t)i;
    }
    fake.script.exception_count = exceptions;
    fake.script.groups[0] = make_odd_group();
    fake.script.groups[1] = make_group();
    fake.script.group_count = 2;
    fake_start(&fake);
}

TEST(exceptions_are_listed_oldest_first)
{
    script(3);
    atomic_store(&fake.script.exception_calls, 2);
    struct fake_run_result r = FAKE_TRAWL(&fake, "exceptions", "--last", "1d");
    CHECK_EQ_INT(r.status, 0);
    CHECK(strncmp(r.out, "TIME ", 5) == 0);
    CHECK_EQ_INT(count_of(r.out, "debugCommand (debug.c:486)"), 3);
    REQUIRE(strstr(r.out, "[102]") && strstr(r.out, "[100]"));
    CHECK(strstr(r.out, "[102]") < strstr(r.out, "[100]"));
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "exceptions", "-o", "json");
    CHECK_EQ_INT(count_of(r.out, "\n"), 3);
    CHECK_EQ_INT(count_of(r.out, "\"offset\":\"0x1f3a0\""), 3);
    fake_run_done(&r);
    fake.script.exception_count = 0;
    r = FAKE_TRAWL(&fake, "exceptions");
    CHECK_EQ_STR(r.out, "");
    CHECK(strstr(r.err, "no exception in this time") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

/* List: 1; stream: 2, and the connection ends; list: 3; stream: 4, and Ctrl-C. */
TEST(following_goes_on_after_a_lost_connection_and_tells_nothing_twice)
{
    script(4);
    struct fake_run_result r = FAKE_TRAWL(&fake, "exceptions", "-f", "-o", "json");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(count_of(r.out, "\"pid\":100"), 1);
    CHECK_EQ_INT(count_of(r.out, "\"pid\":101"), 1);
    CHECK_EQ_INT(count_of(r.out, "\"pid\":102"), 1);
    CHECK_EQ_INT(count_of(r.err, "trawl: lost the collector ("), 1);
    CHECK_EQ_INT(count_of(r.err, "trawl: the collector is back\n"), 1);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(following_shows_its_titles_once)
{
    script(4);
    struct fake_run_result r = FAKE_TRAWL(&fake, "exceptions", "--follow");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(count_of(r.out, "PROCESS"), 1);
    CHECK(count_of(r.out, "redis-server[") >= 3);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(following_a_collector_that_refuses_ends_at_once)
{
    script(4);
    atomic_store(&fake.script.refuse, ERR_DENIED);
    struct fake_run_result r = FAKE_TRAWL(&fake, "exceptions", "--follow");
    CHECK_EQ_INT(r.status, err_exit_code(ERR_DENIED));
    CHECK_EQ_STR(r.err, "trawl: the script says no\n");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "exceptions", "--follow", "--collector", "localhost:1");
    CHECK_EQ_INT(r.status, 21);
    CHECK_EQ_INT(count_of(r.err, "\n"), 1);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(groups_are_listed_newest_first)
{
    script(1);
    struct fake_run_result r = FAKE_TRAWL(&fake, "groups", "--resolved");
    CHECK_EQ_INT(r.status, 0);
    REQUIRE(strstr(r.out, "G-7F2QK") && strstr(r.out, "G-BBBBB"));
    CHECK(strstr(r.out, "G-7F2QK") < strstr(r.out, "G-BBBBB"));
    fake_run_done(&r);
    fake.script.group_count = 0;
    r = FAKE_TRAWL(&fake, "groups");
    CHECK_EQ_STR(r.out, "");
    CHECK(strstr(r.err, "no group in this time that is not resolved") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_group_is_found_by_a_part_of_its_id)
{
    script(2);
    struct fake_run_result r = FAKE_TRAWL(&fake, "group", "7f2");
    CHECK_EQ_INT(r.status, 0);
    CHECK(strncmp(r.out, "G-7F2QK  SIGSEGV in debugCommand (debug.c:486)   new, spreading\n", 64) ==
          0);
    CHECK_EQ_INT(count_of(r.out, "newest sample: "), 1);
    CHECK_EQ_INT(count_of(r.out, "other samples:\n"), 1);
    CHECK_EQ_INT(count_of(r.out, "\n* #1 "), 1);
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "group", "7F2QK", "-o", "json");
    CHECK_EQ_INT(count_of(r.out, "\"part\":\"group\""), 1);
    CHECK_EQ_INT(count_of(r.out, "\"part\":\"sample\""), 2);
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "group", "7F2QJ");
    CHECK_EQ_INT(r.status, 1);
    CHECK(strstr(r.err, "unknown group '7F2QJ'; did you mean '7F2QK'? (known: 7F2QK, BBBBB)") !=
          NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_group_is_asked_for_more_and_resolved)
{
    script(1);
    struct fake_run_result r =
        FAKE_TRAWL(&fake, "want", "g-7f2qk", "--what", "core,profile", "-n", "2");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_STR(r.out, "G-7F2QK  the next 2 give core, profile as well\n");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "resolve", "BBB");
    CHECK_EQ_STR(r.out, "G-BBBBB  resolved; seen again it is told as regressed\n");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "want", "BBB", "-n", "0");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_STR(r.out, "G-BBBBB  nothing more is wanted of it\n");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "want", "ZZZ", "--what", "core");
    CHECK_EQ_INT(r.status, 1);
    CHECK(strstr(r.err, "unknown group 'ZZZ' (known: 7F2QK, BBBBB)") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
    CHECK_EQ_INT(fake.script.wanted.count, 1);
    CHECK_EQ_INT(fake.script.wanted.what_count, 1);
}

TEST(an_incident_that_opened_by_itself_leads_to_its_group)
{
    script(0);
    text_copy(fake.script.incident.group, sizeof fake.script.incident.group, "G-7F2QK");
    struct fake_run_result r = FAKE_TRAWL(&fake, "show", "K7F2Q");
    CHECK_EQ_INT(r.status, 0);
    CHECK(strstr(r.out, "group G-7F2QK       trawl group 7F2QK\n") != NULL);
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "show", "K7F2Q", "-o", "json");
    CHECK(strstr(r.out, "\"group\":\"G-7F2QK\"") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}
