/* SPDX-License-Identifier: Apache-2.0 */
/* What is masked in messages, what counts as the same content, which source knows better. */
#include <string.h>

#include "agent/watcher.h"
#include "agent/watcher_private.h"
#include "tests/check.h"

static void check_mask(const char *message, const char *wanted)
{
    char out[256];
    watcher_mask(message, out, sizeof out);
    CHECK_EQ_STR(out, wanted);
}

TEST(numbers_ids_addresses_and_quoted_texts_are_masked)
{
    check_mask("cart 8123 of 'alice' cannot be read", "cart <n> of <s> cannot be read");
    check_mask("invalid literal for int() with base 10: '12x'",
               "invalid literal for int() with base <n>: <s>");
    check_mask("index out of range [5] with length 2", "index out of range [<n>] with length <n>");
    check_mask("SEGV on unknown address 0x000000000008", "SEGV on unknown address <a>");
    check_mask("order 123e4567-e89b-12d3-a456-426614174000 is gone", "order <id> is gone");
    check_mask("commit 4786df9e7fba4db7571778d6ac8f7e76aa9411a0", "commit <x>");
    check_mask("row 1234567 and row 123456789", "row <n> and row <n>");
    check_mask("connect 10.0.0.17:5432: refused after 1,234.5 ms",
               "connect <n>: refused after <n> ms");
    check_mask("can't open file: it's not there", "can't open file: it's not there");
    check_mask("Cannot invoke \"String.length()\" because \"<local3>\" is null",
               "Cannot invoke <s> because <s> is null");
    check_mask("", "");
}

TEST(messages_that_differ_only_in_what_changes_have_one_template)
{
    char a[256], b[256];
    watcher_mask("user 'bob' has 17 carts at 0x7ffc12", a, sizeof a);
    watcher_mask("user 'mallory' has 4 carts at 0x55aa00", b, sizeof b);
    CHECK_EQ_STR(a, b);
    watcher_mask("user 'bob' has no carts", b, sizeof b);
    CHECK(strcmp(a, b) != 0);
}

TEST(a_mask_fits_whatever_the_message)
{
    char message[600], out[32];
    memset(message, 'x', sizeof message);
    message[sizeof message - 1] = '\0';
    watcher_mask(message, out, sizeof out);
    CHECK(strlen(out) < sizeof out);
    memset(message, '7', sizeof message - 1);
    watcher_mask(message, out, sizeof out);
    CHECK_EQ_STR(out, "<n>");
    memset(message, '\'', sizeof message - 1);
    watcher_mask(message, out, sizeof out);
    CHECK(strlen(out) < sizeof out);
}

static uint64_t content(struct os_exception *e)
{
    static trawl_v1_Exception filled;
    watcher_fill(&filled, e, 1000000, 1000000);
    return watcher_content(&filled);
}

TEST(content_is_what_went_wrong_and_not_who_or_when)
{
    static struct os_exception a, b;
    a = (struct os_exception){.source = OS_LOG_TRACE, .type = "ValueError", .message = "cart 17"};
    a.frame_count = 1;
    memcpy(a.frames[0].function, "total", 6);
    b = a;
    b.pid = 99;
    b.tid = 3;
    b.wall_us = 5;
    memcpy(b.message, "cart 18", 8);
    CHECK(content(&a) == content(&b));
    b.frames[0].line = 4;
    CHECK(content(&a) != content(&b));
    b = a;
    memcpy(b.type, "KeyError", 9);
    CHECK(content(&a) != content(&b));
}

TEST(what_cannot_be_printed_is_made_safe)
{
    static struct os_exception e;
    static trawl_v1_Exception filled;
    e = (struct os_exception){.source = OS_LOG_TRACE, .type = "x\033[31m", .message = "a\xff z"};
    watcher_fill(&filled, &e, 1, 1);
    CHECK(strchr(filled.type, '\033') == NULL);
    CHECK(strchr(filled.message, '\xff') == NULL);
    CHECK_EQ_INT(filled.count, 1);
    CHECK_EQ_INT(filled.id.size, 16);
}

TEST(a_crash_knows_better_than_the_last_words)
{
    CHECK(watcher_rank(OS_CRASH) > watcher_rank(OS_OOM_KILL));
    CHECK(watcher_rank(OS_OOM_KILL) > watcher_rank(OS_FAULT_LINE));
    CHECK(watcher_rank(OS_FAULT_LINE) > watcher_rank(OS_LOG_TRACE));
    CHECK(watcher_rank(OS_LOG_TRACE) > watcher_rank(OS_PROCESS_EXIT));
    CHECK(watcher_rank(OS_PROCESS_EXIT) > watcher_rank(OS_UNIT_RESULT));
    CHECK_EQ_INT(watcher_rank(OS_HANG), 0);
}
