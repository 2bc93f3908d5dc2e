/* SPDX-License-Identifier: Apache-2.0 */
/* Selectors: what each form matches, and what is refused with which words. */
#include "collector/select.h"
#include "common/text.h"
#include "tests/check.h"

#include <string.h>

static trawl_v1_Host host_web(void)
{
    trawl_v1_Host h = {.labels_count = 2, .facts_count = 1};
    text_copy(h.name, sizeof(h.name), "web-07");
    text_copy(h.labels[0].key, sizeof(h.labels[0].key), "role");
    text_copy(h.labels[0].value, sizeof(h.labels[0].value), "web");
    text_copy(h.labels[1].key, sizeof(h.labels[1].key), "region");
    text_copy(h.labels[1].value, sizeof(h.labels[1].value), "eu-west");
    text_copy(h.facts[0].key, sizeof(h.facts[0].key), "os");
    text_copy(h.facts[0].value, sizeof(h.facts[0].value), "Debian");
    return h;
}

static bool matches(const char *text)
{
    struct select s;
    struct failure f = {0};
    trawl_v1_Host h = host_web();
    REQUIRE(select_parse(text, &s, &f) == 0);
    return select_match(&s, &h);
}

TEST(names_and_globs)
{
    CHECK(matches("*"));
    CHECK(matches("web-07"));
    CHECK(matches("web-*"));
    CHECK(matches("db-1,web-0?"));
    CHECK(!matches("web-0"));
    CHECK(!matches("db-*,cache-*"));
}

TEST(labels_and_facts)
{
    CHECK(matches("role=web"));
    CHECK(matches("role=web,region=eu-*"));
    CHECK(matches("os=Debian"));
    CHECK(!matches("role=db"));
    CHECK(!matches("role=web,region=us-*"));
    CHECK(!matches("none=web"));
}

TEST(different_also_means_absent)
{
    CHECK(matches("role!=db"));
    CHECK(matches("none!=x"));
    CHECK(!matches("role!=web"));
    CHECK(!matches("region!=eu-*"));
}

TEST(names_and_labels_must_both_hold)
{
    CHECK(matches("role=web,web-*"));
    CHECK(!matches("role=db,web-*"));
    CHECK(!matches("role=web,db-*"));
}

static void refused(const char *text, const char *words)
{
    struct select s;
    struct failure f = {0};
    CHECK_EQ_INT(select_parse(text, &s, &f), ERR_INVALID);
    CHECK(strstr(f.text, words) != NULL);
}

TEST(wrong_selectors_are_refused_in_words)
{
    refused("", "no hosts selected");
    refused("role=", "lacks a value");
    refused("=web", "lacks a key");
    refused("!=web", "lacks a key");
    refused("role!=", "lacks a value");
    refused("role=web,,x", "empty term");
    refused("role=web,", "empty term");
}

TEST(limits_are_errors)
{
    char longest[SELECT_TEXT_SIZE + 8];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    refused(longest, "longer than");
    char many[200] = "a";
    for (size_t i = 1; i < SELECT_MAX_TERMS + 1; i++) {
        many[2 * i - 1] = ',';
        many[2 * i] = 'a';
    }
    refused(many, "more than");
}
