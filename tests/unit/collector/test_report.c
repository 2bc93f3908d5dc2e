/* SPDX-License-Identifier: Apache-2.0 */
/* The report of an incident: what it must say, that bad news comes first, and that nothing in it
 * harms a terminal. */
#include "collector/report.h"
#include "common/text.h"
#include "tests/check.h"

#include <string.h>

static trawl_v1_Incident incident;
static trawl_v1_Target targets[3];
static trawl_v1_Artifact artifacts[6];
static trawl_v1_Event events[1];

static void put(char *out, size_t size, const char *text)
{
    REQUIRE(text_copy(out, size, text) == 0);
}
#define PUT(member, text) put(member, sizeof(member), text)

static void put_stack(trawl_v1_Artifact *a, uint8_t signature, uint32_t count, const char *frames)
{
    trawl_v1_StackGroup *g = &a->stacks[a->stacks_count++];
    g->signature.size = 16;
    memset(g->signature.bytes, signature, 16);
    g->count = count;
    PUT(g->frames, frames);
}

static struct report_input example(void)
{
    memset(&incident, 0, sizeof(incident));
    memset(targets, 0, sizeof(targets));
    memset(artifacts, 0, sizeof(artifacts));
    memset(events, 0, sizeof(events));
    PUT(incident.id, "INC-261123-K7F2Q");
    PUT(incident.cause, "capture by sre/alice");
    PUT(incident.selector, "role=web");
    PUT(incident.note, "slow \x1b[31mcheckout");
    incident.created_us = incident.to_us = 1795442400000000;
    incident.from_us = incident.created_us - 60000000;
    incident.finished = true;
    incident.what_count = 1;
    PUT(incident.what[0], "stacks");
    incident.states_count = 1;
    incident.states[0] = (trawl_v1_StateCount){trawl_v1_State_DONE, 2};
    PUT(targets[0].host, "web-1");
    PUT(targets[1].host, "web-2");
    PUT(targets[2].host, "web-3");
    targets[0].state = targets[1].state = trawl_v1_State_DONE;
    targets[2].state = trawl_v1_State_REFUSED;
    PUT(targets[2].reason, "pause would be 84 ms, limit 50 ms");
    for (int i = 0; i < 2; i++) {
        PUT(artifacts[i].host, targets[i].host);
        PUT(artifacts[i].kind, "stacks");
        PUT(artifacts[i].process, "redis-server");
        artifacts[i].pid = 9;
        PUT(artifacts[i].file, "stacks-redis-server-9.txt");
        artifacts[i].pause_us = 300;
        artifacts[i].paused = true;
        put_stack(&artifacts[i], 1, 3, "epoll_wait;aeMain;main");
    }
    put_stack(&artifacts[1], 2, 9, "futex;wait_for_work");
    PUT(artifacts[1].missing, "thread 12 did not stop");
    events[0].wall_us = incident.created_us;
    PUT(events[0].host, "web-2");
    PUT(events[0].text, "process 'redis-server' started");
    return (struct report_input){.incident = &incident,
                                 .targets = targets,
                                 .target_count = 3,
                                 .artifacts = artifacts,
                                 .artifact_count = 2,
                                 .events = events,
                                 .event_count = 1,
                                 .now_us = incident.to_us};
}

static const char *text_of(const struct report_input *in, struct buf *b)
{
    buf_init(b, 1 << 20);
    REQUIRE(report_text(in, b) == 0);
    return buf_str(b);
}

TEST(says_what_where_and_what_is_missing)
{
    struct buf b;
    struct report_input in = example();
    const char *text = text_of(&in, &b);
    CHECK(strstr(text, "INC-261123-K7F2Q  finished\n") == text);
    CHECK(strstr(text, "cause      capture by sre/alice\n") != NULL);
    CHECK(strstr(text, "pause would be 84 ms, limit 50 ms") != NULL);
    CHECK(strstr(text, "  web-2 stacks redis-server/9: thread 12 did not stop\n") != NULL);
    CHECK(strstr(text, "process 'redis-server' started") != NULL);
    CHECK(strstr(text, "pause 0.3 ms") != NULL);
    buf_done(&b);
}

TEST(what_went_wrong_stands_first)
{
    struct buf b;
    struct report_input in = example();
    const char *text = text_of(&in, &b);
    const char *hosts = strstr(text, "\nHosts\n");
    REQUIRE(hosts != NULL);
    const char *bad = strstr(hosts, "web-3"), *good = strstr(hosts, "web-1");
    CHECK(bad && good && bad < good);
    buf_done(&b);
}

TEST(stacks_of_all_hosts_are_counted_together)
{
    trawl_v1_StackGroup groups[8];
    struct report_input in = example();
    REQUIRE(report_stacks(&in, groups, 8) == 2);
    CHECK_EQ_INT(groups[0].count, 9);
    CHECK_EQ_INT(groups[0].hosts, 1);
    CHECK_EQ_INT(groups[1].count, 6);
    CHECK_EQ_INT(groups[1].hosts, 2);
    CHECK_EQ_STR(groups[1].process, "redis-server");
    CHECK_EQ_INT(report_stacks(&in, groups, 1), 1);
}

/* A taking in three forms, then the same process once more. */
static struct report_input three_forms(void)
{
    static const char *const files[] = {"stacks-redis-server-9.txt", "stacks-redis-server-9.json",
                                        "stacks-redis-server-9.folded",
                                        "stacks-redis-server-9.txt"};
    struct report_input in = example();
    trawl_v1_Artifact one = artifacts[1];
    one.pause_us = 420;
    one.expected_us = 500;
    one.size_bytes = 4096;
    for (int i = 0; i < 4; i++) {
        artifacts[i] = one;
        PUT(artifacts[i].file, files[i]);
    }
    artifacts[3].paused = false;
    artifacts[3].missing[0] = '\0';
    in.artifact_count = 4;
    return in;
}

static size_t count_of(const char *text, const char *what)
{
    size_t count = 0;
    for (; (text = strstr(text, what)); text++)
        count++;
    return count;
}

TEST(the_forms_of_one_taking_are_one_line)
{
    struct buf b;
    struct report_input in = three_forms();
    const char *text = text_of(&in, &b);
    CHECK(strstr(text, "  web-2              stacks redis-server/9            pause 0.4 ms "
                       "(expected 0.5 ms)  txt json folded  12.0 KiB\n") != NULL);
    CHECK(strstr(text, "stacks redis-server/9            no pause    txt  4.0 KiB\n") != NULL);
    CHECK_EQ_INT(count_of(text, "thread 12 did not stop"), 1);
    buf_done(&b);
}

TEST(stacks_named_by_every_form_count_once)
{
    trawl_v1_StackGroup groups[8];
    struct report_input in = three_forms();
    in.artifact_count = 3;
    REQUIRE(report_stacks(&in, groups, 8) == 2);
    CHECK_EQ_INT(groups[0].count, 9);
    CHECK_EQ_INT(groups[1].count, 3);
}

TEST(options_and_what_was_taken_instead_are_said)
{
    struct buf b;
    struct report_input in = example();
    incident.pause_max_us = 400000;
    incident.allow_pause = incident.fallback = true;
    PUT(incident.what[0], "core");
    artifacts[0].plain_bytes = UINT64_C(4) << 30;
    const char *text = text_of(&in, &b);
    CHECK(strstr(text, "allowed    a pause of 400 ms, a core that holds the process, a lesser kind "
                       "where one is refused\n") != NULL);
    CHECK_EQ_INT(count_of(text, "  instead of what was refused\n"), 2);
    CHECK(strstr(text, "(unpacked 4.0 GiB)") != NULL);
    targets[0].capture = 2;
    buf_done(&b);
    text = text_of(&in, &b);
    CHECK_EQ_INT(count_of(text, "  instead of what was refused\n"), 1);
    buf_done(&b);
}

TEST(nothing_in_it_harms_a_terminal)
{
    struct buf b;
    struct report_input in = example();
    PUT(targets[2].reason, "evil \x1b]0;title\x07 and \xe2\x80\xae bidi");
    const char *text = text_of(&in, &b);
    CHECK(strchr(text, '\x1b') == NULL);
    CHECK(strchr(text, '\x07') == NULL);
    CHECK(strstr(text, "\xe2\x80\xae") == NULL);
    CHECK(strstr(text, "evil ") != NULL);
    buf_done(&b);
}

TEST(an_incident_without_anything_is_said_as_that)
{
    struct buf b;
    struct report_input in = example();
    in.target_count = in.artifact_count = in.event_count = 0;
    const char *text = text_of(&in, &b);
    CHECK(strstr(text, "Hosts") != NULL);
    CHECK(strstr(text, "Missing") == NULL);
    CHECK(strstr(text, "Commonest") == NULL);
    buf_done(&b);
}

TEST(an_incident_of_an_exception_names_its_group_counts_and_frames)
{
    static trawl_v1_Group group;
    static trawl_v1_Exception samples[2];
    struct report_input in = example();
    struct buf b;
    PUT(group.id, "G-7F2QK");
    PUT(group.type, "SIGSEGV");
    PUT(group.process, "shop");
    group.state = trawl_v1_GroupState_GROUP_REGRESSED;
    group.count = 1234;
    group.hosts = 3;
    PUT(samples[0].message, "a later one");
    PUT(samples[1].message, "segfault at \x1b[31m0");
    samples[1].frames_count = 2;
    PUT(samples[1].frames[0].function, "price");
    PUT(samples[1].frames[0].file, "shop.c");
    samples[1].frames[0].line = 7;
    PUT(samples[1].frames[1].module, "shop");
    samples[1].frames[1].offset = 0x1234;
    in.group = &group;
    in.samples = samples;
    in.sample_count = 2;
    const char *text = text_of(&in, &b);
    CHECK(strstr(text, "Exception G-7F2QK (regressed): SIGSEGV in shop") != NULL);
    CHECK(strstr(text, "1234 on 3 hosts") != NULL);
    CHECK(strstr(text, "#0  price at shop.c:7") != NULL);
    CHECK(strstr(text, "#1  shop+0x1234") != NULL);
    CHECK(strstr(text, "a later one") == NULL && strchr(text, '\x1b') == NULL);
    buf_done(&b);
}
