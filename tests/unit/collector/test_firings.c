/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is ordered for a rule that fired: what the rule names and not what the event says, the
 * minute before however late it is heard of, and the same request however often it is made.
 */
#include "collector/firings_order.h"

#include <string.h>

#include "collector/rules_check.h"
#include "common/text.h"
#include "tests/check.h"

#define NOW INT64_C(1795442520000000)
#define MINUTE INT64_C(60000000)

static struct rule_set *parse(const char *text)
{
    struct rule_set *set = NULL;
    struct failure f;
    REQUIRE(rule_parse(span_str(text), NULL, &set, &f) == 0);
    return set;
}

static trawl_v1_Event firing(int64_t at_us)
{
    trawl_v1_Event e = {.type = trawl_v1_EventType_RULE_FIRED, .wall_us = at_us + 5, .skew_us = 5};
    text_copy(e.host, sizeof e.host, "web-1");
    text_copy(e.process, sizeof e.process, "nginx");
    e.pid = 77;
    e.firing.size = 16;
    memset(e.firing.bytes, 9, 16);
    return e;
}

static trawl_v1_CaptureRequest made(const char *rule, int64_t at_us)
{
    trawl_v1_CaptureRequest r;
    trawl_v1_Event e = firing(at_us);
    struct rule_set *set = parse(rule);
    firing_request(&e, &set->rules[0], "INC-1", NOW, &r);
    rule_set_close(set);
    return r;
}

TEST(the_rule_says_what_is_captured)
{
    trawl_v1_CaptureRequest r = made(
        "rule r on * when cpu.busy > 9% then capture profile,stacks of redis-* limit 1/h", NOW);
    CHECK_EQ_STR(r.selector, "web-1");
    CHECK_EQ_STR(r.into, "INC-1");
    CHECK_EQ_INT(r.what_count, 2);
    CHECK_EQ_STR(r.what[0], "profile");
    CHECK_EQ_STR(r.process.name, "redis-*");
    CHECK_EQ_INT(r.process.pid, 0);
    CHECK_EQ_INT(r.for_us, 10000000);
    CHECK_EQ_INT(r.last_us, MINUTE);
    CHECK(r.pause_max_us > 0 && r.expire_us > 0);
}

TEST(without_a_name_it_is_the_process_of_which_it_was_true)
{
    trawl_v1_CaptureRequest r =
        made("rule r on * when process.rss of nginx > 1G then capture stacks limit 1/h", NOW);
    CHECK(r.has_process && r.process.pid == 77 && !r.process.name[0]);
    CHECK_EQ_INT(r.for_us, 0);
    /* One that crashed is gone: whoever is in its place. */
    r = made("rule r on * when exception crash of nginx then capture stacks limit 1/h", NOW);
    CHECK(r.has_process && r.process.pid == 0);
    CHECK_EQ_STR(r.process.name, "nginx");
}

TEST(what_is_heard_late_reaches_back)
{
    static const char rule[] = "rule r on * when cpu.busy > 9% then capture counters limit 1/h";
    CHECK_EQ_INT(made(rule, NOW - 30 * MINUTE).last_us, 31 * MINUTE);
    CHECK_EQ_INT(made(rule, NOW - 5000 * MINUTE).last_us, 1440 * MINUTE);
    CHECK_EQ_INT(made(rule, NOW + 3 * MINUTE).last_us, MINUTE); /* a clock that runs ahead */
}

TEST(a_peers_request_is_its_own_and_always_the_same)
{
    trawl_v1_Event e = firing(NOW);
    struct host one = {.revoked = false}, two = {.revoked = false};
    static trawl_v1_CaptureRequest a, again, b;
    text_copy(one.record.name, sizeof one.record.name, "web-2");
    text_copy(two.record.name, sizeof two.record.name, "web-3");
    firing_peer_request(&e, &one, "INC-1", NOW, &a);
    firing_peer_request(&e, &one, "INC-1", NOW + MINUTE, &again);
    firing_peer_request(&e, &two, "INC-1", NOW, &b);
    CHECK_EQ_STR(a.selector, "web-2");
    CHECK_EQ_MEM(a.request_id.bytes, again.request_id.bytes, 16);
    CHECK(memcmp(a.request_id.bytes, b.request_id.bytes, 16) != 0);
    CHECK(memcmp(a.request_id.bytes, e.firing.bytes, 16) != 0);
    CHECK(!a.has_process && a.what_count == 3);
}

static int check_of(const char *text, struct failure *f)
{
    struct rule_set *set = parse(text);
    f->text[0] = '\0';
    int e = rules_check(set, f);
    rule_set_close(set);
    return e;
}

TEST(what_agents_do_not_tell_is_refused_with_its_line)
{
    struct failure f;
    CHECK_EQ_INT(check_of("rule a on * when cpu.busy > 9% and exception crash\n"
                          "and process x not running then capture logs limit 1/h",
                          &f),
                 0);
    static const char *const refused[] = {"process x threads in zombie > 1",
                                          "log /var/log/x has \"y\"", "hang tcp:127.0.0.1:80",
                                          "hang loop of node"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char text[256];
        text_format(text, sizeof text, "\nrule a on *\nwhen %s then capture logs limit 1/h",
                    refused[i]);
        CHECK_EQ_INT(check_of(text, &f), ERR_INVALID);
        CHECK(strncmp(f.text, "line 3: ", 8) == 0);
    }
}
