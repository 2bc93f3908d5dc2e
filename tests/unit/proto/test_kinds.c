/* SPDX-License-Identifier: Apache-2.0 */
/* What a request for a capture may ask: defaults, and a sentence for everything that cannot be
 * meant. */
#include "proto/kinds.h"

#include <string.h>

#include "common/text.h"
#include "tests/check.h"

static void name(trawl_v1_CaptureRequest *r, const char *list)
{
    struct span rest = span_str(list), word;
    while (text_take_until(&rest, ',', &word) == 0)
        text_copy_span(r->what[r->what_count++], sizeof r->what[0], word);
}

TEST(the_words_are_the_table)
{
    char words[256] = "";
    for (size_t i = 0; KINDS[i]; i++) {
        trawl_v1_CaptureRequest r = {.what_count = 0};
        struct failure f;
        name(&r, KINDS[i]);
        if (strcmp(KINDS[i], "crash") == 0)
            r.exception.size = sizeof r.exception.bytes;
        CHECK_EQ_INT(kinds_complete(&r, &f), 0);
        text_format(words + strlen(words), sizeof words - strlen(words), "%s%s", i ? " " : "",
                    KINDS[i]);
    }
    CHECK_EQ_STR(words, KINDS_WORDS);
}

TEST(a_crash_cannot_be_asked_for)
{
    trawl_v1_CaptureRequest r = {.what_count = 0};
    struct failure f;
    name(&r, "events,crash");
    CHECK_EQ_INT(kinds_complete(&r, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "'crash' is gathered by itself when a process crashes: trawl groups shows "
                         "what there is, trawl want asks the next crash for more");
    r.exception.size = sizeof r.exception.bytes; /* the collector's own, of an exception */
    CHECK_EQ_INT(kinds_complete(&r, &f), 0);
}

TEST(nothing_asked_is_the_default_and_never_memory)
{
    static const char *const wanted[] = {"triage", "stacks", "counters", "events", "logs"};
    trawl_v1_CaptureRequest r = {.what_count = 0};
    struct failure f;
    CHECK_EQ_INT(kinds_complete(&r, &f), 0);
    REQUIRE(r.what_count == 5);
    for (size_t i = 0; i < 5; i++)
        CHECK_EQ_STR(r.what[i], wanted[i]);
    CHECK_EQ_INT(r.pause_max_us, 50000);
    CHECK_EQ_INT(r.for_us, 0);
}

TEST(a_profile_takes_ten_seconds_unless_it_is_said)
{
    trawl_v1_CaptureRequest r = {.what_count = 0};
    struct failure f;
    name(&r, "profile");
    CHECK_EQ_INT(kinds_complete(&r, &f), 0);
    CHECK_EQ_INT(r.for_us, 10000000);
    r.for_us = 5;
    CHECK_EQ_INT(kinds_complete(&r, &f), 0);
    CHECK_EQ_INT(r.for_us, 5);
}

struct refusal {
    const char *what;
    trawl_v1_CaptureRequest request;
    const char *says; /* NULL: it is accepted */
};

TEST(what_cannot_be_meant_is_refused_with_the_option_that_changes_it)
{
    static const struct refusal cases[] = {
        {"stack", {.canary = 0}, "unknown kind 'stack': triage stacks"},
        {"stacks", {.pause_max_us = 250000}, NULL},
        {"stacks", {.pause_max_us = 250001}, "more than 250 ms needs --allow-pause"},
        {"stacks", {.pause_max_us = 250001, .allow_pause = true}, NULL},
        {"core", {.pause_max_us = 30000000, .allow_pause = true}, NULL},
        {"core", {.pause_max_us = 30000001, .allow_pause = true}, "30 s at most"},
        {"triage,net", {.allow_pause = true}, "none stops a process"},
        {"core", {.live = true}, NULL},
        {"mini", {.live = true}, "--live is about cores"},
        {"core", {.live = true, .allow_pause = true}, "give one of them"},
        {"core", {.fallback = true}, NULL},
        {"stacks0", {.fallback = true}, NULL},
        {"triage,logs", {.fallback = true}, "--fallback changes nothing"},
        {"profile", {.for_us = 60000000}, NULL},
        {"profile", {.for_us = 60000001}, "a profile takes 60 s at most"},
        {"logs", {.for_us = 600000000}, NULL},
        {"logs", {.for_us = 600000001}, "10 minutes at most"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trawl_v1_CaptureRequest r = cases[i].request;
        struct failure f = {.text = ""};
        name(&r, cases[i].what);
        int e = kinds_complete(&r, &f);
        CHECK_EQ_INT(e, cases[i].says ? ERR_INVALID : 0);
        if (!cases[i].says)
            continue;
        if (!strstr(f.text, cases[i].says))
            CHECK_EQ_STR(f.text, cases[i].says);
    }
}
