/* SPDX-License-Identifier: Apache-2.0 */
/* The table, and the rules between kinds and options. See kinds.h. */
#include "proto/kinds.h"

#include <string.h>

#include "common/text.h"

struct kind {
    const char *name;
    bool by_default; /* memory (mini, core) never: only when it is named */
    bool stops;      /* the process stands still for it */
    bool falls_back; /* another kind follows it in the order of --fallback */
};

static const struct kind table[] = {
    {"triage", true, false, false},   {"stacks", true, true, true},
    {"stacks0", false, false, true},  {"profile", false, false, false},
    {"mini", false, true, true},      {"core", false, true, true},
    {"counters", true, false, false}, {"events", true, false, false},
    {"logs", true, false, false},     {"net", false, false, false},
    {"throws", false, false, false},  {"crash", false, false, false},
};
#define COUNT (sizeof table / sizeof table[0])

const char *const KINDS[] = {"triage", "stacks", "stacks0", "profile", "mini",  "core", "counters",
                             "events", "logs",   "net",     "throws",  "crash", NULL};

static const struct kind *find(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

struct asked {
    bool core;
    const char *looks;      /* the kind that looks on for a while; NULL: none */
    bool stops, falls_back; /* some kind does */
};

static int look_at_kinds(const trawl_v1_CaptureRequest *r, struct asked *out, struct failure *f)
{
    for (pb_size_t i = 0; i < r->what_count; i++) {
        const struct kind *kind = find(r->what[i]);
        if (!kind)
            return fail(f, ERR_INVALID, "unknown kind '%s': " KINDS_WORDS " exist", r->what[i]);
        if (strcmp(kind->name, "crash") == 0 && r->exception.size == 0)
            return fail(f, ERR_INVALID,
                        "'crash' is gathered by itself when a process crashes: trawl groups shows "
                        "what there is, trawl want asks the next crash for more");
        out->core |= strcmp(kind->name, "core") == 0;
        if (strcmp(kind->name, "profile") == 0 || strcmp(kind->name, "throws") == 0)
            out->looks = kind->name;
        out->stops |= kind->stops;
        out->falls_back |= kind->falls_back;
    }
    return 0;
}

static void take_defaults(trawl_v1_CaptureRequest *r)
{
    for (size_t i = 0; r->what_count < COUNT && i < COUNT; i++)
        if (table[i].by_default)
            text_copy(r->what[r->what_count++], sizeof r->what[0], table[i].name);
}

static int check_pause(const trawl_v1_CaptureRequest *r, struct failure *f)
{
    char asked[32];
    text_put_duration(r->pause_max_us, asked, sizeof asked);
    if (r->pause_max_us > KINDS_PAUSE_LONGEST_US)
        return fail(f, ERR_INVALID,
                    "a process may stand still for 30 s at most, not %s: lower --pause-max", asked);
    if (r->pause_max_us > KINDS_PAUSE_HARD_US && !r->allow_pause)
        return fail(f, ERR_INVALID,
                    "processes could stand still for %s: more than 250 ms needs --allow-pause, or "
                    "lower --pause-max",
                    asked);
    return 0;
}

static int check_options(const trawl_v1_CaptureRequest *r, const struct asked *asked,
                         struct failure *f)
{
    if (r->live && !asked->core)
        return fail(f, ERR_INVALID, "--live is about cores: add core to --what, or leave it out");
    if (r->live && r->allow_pause)
        return fail(f, ERR_INVALID,
                    "--live reads the process while it runs, --allow-pause holds it: give one of "
                    "them");
    if (r->allow_pause && !asked->stops)
        return fail(f, ERR_INVALID,
                    "--allow-pause changes nothing: of the kinds asked for none stops a process "
                    "(stacks, mini and core do)");
    if (r->fallback && !asked->falls_back)
        return fail(f, ERR_INVALID,
                    "--fallback changes nothing: only core, mini, stacks and stacks0 have a lesser "
                    "kind");
    if (r->for_us > KINDS_FOR_MAX_US)
        return fail(f, ERR_INVALID, "a capture observes for 10 minutes at most: lower --for");
    if (asked->looks && r->for_us > KINDS_FOR_PROFILE_US)
        return fail(f, ERR_INVALID, "%s 60 s at most: lower --for, or leave %s out of --what",
                    strcmp(asked->looks, "profile") == 0 ? "a profile takes" : "throws take",
                    asked->looks);
    return 0;
}

int kinds_complete(trawl_v1_CaptureRequest *r, struct failure *f)
{
    struct asked asked = {.core = false};
    if (!r->what_count)
        take_defaults(r);
    if (!r->pause_max_us)
        r->pause_max_us = KINDS_PAUSE_DEFAULT_US;
    int e = look_at_kinds(r, &asked, f);
    if (!e)
        e = check_pause(r, f);
    if (!e)
        e = check_options(r, &asked, f);
    if (!e && asked.looks && !r->for_us)
        r->for_us = KINDS_FOR_DEFAULT_US;
    return e;
}
