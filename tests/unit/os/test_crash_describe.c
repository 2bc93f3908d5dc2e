/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of a crash of which little is known: whatever could not be read, the head stays, and
 * what is missing is said. Frames against gdb are in tests/e2e/71_crash_frames.
 */
#include "agent/os/linux/crash_describe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "tests/check.h"

struct taken {
    char endings[64];
    struct buf text;
    int fail_at, writes; /* the write that fails; 0: none */
};

static int begin(void *context, const char *ending, struct failure *f)
{
    struct taken *t = context;
    (void)f;
    text_format(t->endings + strlen(t->endings), sizeof t->endings - strlen(t->endings), "%s ",
                ending);
    return 0;
}

static int keep(void *context, struct span bytes, struct failure *f)
{
    struct taken *t = context;
    if (++t->writes == t->fail_at)
        return fail(f, ERR_CLOSED, "nobody reads");
    return buf_append_span(&t->text, bytes);
}

/* A process of which only the kernel's arguments are known. */
static struct os_crash *empty_crash(void)
{
    struct os_crash *c = calloc(1, sizeof *c);
    REQUIRE(c);
    c->arguments = (struct os_crash_arguments){.pid = 7, .tid = 7, .signal = SIGSEGV};
    c->wall_us = 1000000;
    text_copy(c->name, sizeof c->name, "shop");
    text_copy(c->missing, sizeof c->missing, "its memory: no permission");
    maps_init(&c->dump.maps);
    return c;
}

static void free_crash(struct os_crash *c)
{
    maps_done(&c->dump.maps);
    free(c->dump.stop.threads);
    free(c->threads);
    free(c);
}

static int describe(struct os_crash *c, struct taken *t, struct os_exception *e,
                    struct os_result *result, struct failure *f)
{
    struct os_output out = {begin, keep, t};
    buf_init(&t->text, 1 << 20);
    text_copy(e->type, sizeof e->type, "SIGSEGV");
    text_copy(e->message, sizeof e->message, "SIGSEGV: address not mapped");
    text_copy(e->process, sizeof e->process, "sh\x1bop");
    e->signal = SIGSEGV;
    e->signal_code = SEGV_MAPERR;
    e->frame_count = 1;
    text_copy(e->frames[0].module, sizeof e->frames[0].module, "shop");
    return os_crash_describe(c, &out, e, result, f);
}

TEST(the_head_stays_when_nothing_was_read)
{
    struct os_crash *c = empty_crash();
    struct os_exception *e = calloc(1, sizeof *e);
    struct os_result *result = calloc(1, sizeof *result);
    struct taken t = {.fail_at = 0};
    struct failure f = {0, ""};
    REQUIRE(e && result);
    CHECK_EQ_INT(describe(c, &t, e, result, &f), 0);
    CHECK_EQ_STR(t.endings, "txt json ");
    CHECK_EQ_STR(e->missing, "its memory: no permission");
    CHECK_EQ_INT(e->frame_count, 1);
    CHECK_EQ_STR(e->frames[0].module, "shop");
    CHECK(strstr(buf_str(&t.text), "code SEGV_MAPERR (1)") != NULL);
    CHECK(strstr(buf_str(&t.text), "\"missing\":\"its memory: no permission\"") != NULL);
    CHECK(strchr(buf_str(&t.text), '\x1b') == NULL);
    buf_done(&t.text);
    free_crash(c);
    free(e);
    free(result);
}

TEST(an_output_that_fails_ends_it)
{
    for (int at = 1; at <= 2; at++) {
        struct os_crash *c = empty_crash();
        struct os_exception *e = calloc(1, sizeof *e);
        struct os_result *result = calloc(1, sizeof *result);
        struct taken t = {.fail_at = at};
        struct failure f = {0, ""};
        REQUIRE(e && result);
        CHECK_EQ_INT(describe(c, &t, e, result, &f), ERR_CLOSED);
        CHECK_EQ_STR(f.text, "nobody reads");
        buf_done(&t.text);
        free_crash(c);
        free(e);
        free(result);
    }
}

static const char map_text[] = "00400000-00401000 r-xp 00000000 08:01 9 /usr/bin/shop\n"
                               "7f0000000000-7f0000001000 ---p 00000000 00:00 0 \n"
                               "7f0000001000-7f0000011000 rw-p 00000000 00:00 0 \n"
                               "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]\n";

static void check_where(struct os_crash *c, uint64_t address, const char *wanted)
{
    char where[CRASH_WHERE_SIZE];
    crash_put_where(c, address, where, sizeof where);
    CHECK_EQ_STR(where, wanted);
}

TEST(an_address_is_told_in_words)
{
    struct os_crash *c = empty_crash();
    struct failure f;
    REQUIRE(maps_parse(&c->dump.maps, span_str(map_text), &f) == 0);
    check_where(c, 0, ""); /* no memory, no maps: nothing is said */
    c->has_memory = true;
    c->threads = calloc(1, sizeof *c->threads);
    REQUIRE(c->threads);
    check_where(c, 0, "in no mapping: a null pointer");
    check_where(c, 0x18, "in no mapping: a null pointer");
    check_where(c, 0x500000, "in no mapping");
    check_where(c, UINT64_C(1) << 50, "no address that a process can have");
    check_where(c, 0x400010, "in /usr/bin/shop, r-xp, file+0x10");
    check_where(c, 0x7f0000000800, "in memory of no file, ---p, start+0x800");
    c->dump.stop.count = 1;
    c->threads[0].stack_start = 0x7f0000001080;
    c->threads[0].stack_bytes = 512;
    check_where(c, 0x7f0000000800, "in the guard page of the stack: it has overflowed");
    c->threads[0].stack_start = 0x7ffc00000010;
    check_where(c, 0x7ffbfffffff0, "16 bytes below the stack: it has overflowed");
    c->dump.stop.count = 0;
    free_crash(c);
}

TEST(memory_is_read_over_the_ends_of_pages_and_never_beside_them)
{
    struct os_crash *c = empty_crash();
    struct failure f;
    uint8_t mine[3 * SEGMENTS_PAGE], out[64];
    uint64_t at = ((uint64_t)(uintptr_t)mine + SEGMENTS_PAGE - 1) & ~(uint64_t)(SEGMENTS_PAGE - 1);
    memset(mine, 7, sizeof mine);
    REQUIRE(copies_init(&c->dump.copies, 2, &f) == 0);
    REQUIRE(copies_want(&c->dump.copies, at) && copies_want(&c->dump.copies, at + SEGMENTS_PAGE));
    REQUIRE(copies_fetch(&c->dump.copies, getpid(), NULL) == 0);
    CHECK(crash_read_copy(c, at + SEGMENTS_PAGE - 32, out, sizeof out));
    CHECK(out[0] == 7 && out[63] == 7);
    CHECK(!crash_read_copy(c, at + 2 * SEGMENTS_PAGE - 32, out, sizeof out));
    CHECK(!crash_read_copy(c, at - 32, out, sizeof out));
    CHECK(!crash_read_copy(c, UINT64_MAX - 8, out, sizeof out));
    copies_done(&c->dump.copies);
    free_crash(c);
}
