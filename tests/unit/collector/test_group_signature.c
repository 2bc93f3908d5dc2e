/* SPDX-License-Identifier: Apache-2.0 */
/* Which exceptions have one signature: each row of the tables is a pair that must be one, or two.
 */
#include "collector/group.h"

#include <string.h>

#include "common/text.h"
#include "tests/check.h"

static void set(char *out, size_t size, const char *text)
{
    REQUIRE(text_copy(out, size, text) == 0);
}
#define SET(member, text) set(member, sizeof(member), text)

static trawl_v1_Exception a, b;

static void begin_one(trawl_v1_Exception *e, trawl_v1_ExceptionSource source, const char *type,
                      const char *language)
{
    memset(e, 0, sizeof *e);
    e->source = source;
    SET(e->type, type);
    SET(e->language, language);
    SET(e->process, "shop");
}

static void begin(trawl_v1_ExceptionSource source, const char *type, const char *language)
{
    begin_one(&a, source, type, language);
    begin_one(&b, source, type, language);
}

static trawl_v1_Frame *frame(trawl_v1_Exception *e, const char *function, const char *module)
{
    trawl_v1_Frame *f = &e->frames[e->frames_count++];
    SET(f->function, function);
    SET(f->module, module);
    f->offset = 0x1000u + e->frames_count;
    f->build_id.size = 20;
    return f;
}

static void line(trawl_v1_Exception *e, const char *function, const char *file, uint32_t number)
{
    trawl_v1_Frame *f = &e->frames[e->frames_count++];
    SET(f->function, function);
    SET(f->file, file);
    f->line = number;
}

static bool same(void)
{
    struct group_signature x, y;
    group_signature(&a, NULL, &x);
    group_signature(&b, NULL, &y);
    return !memcmp(x.bytes, y.bytes, sizeof x.bytes);
}

#define CRASH trawl_v1_ExceptionSource_CRASH
#define TRACE trawl_v1_ExceptionSource_LOG_TRACE

TEST(functions_make_one_of_two_builds_offsets_do_not)
{
    begin(CRASH, "SIGSEGV", "c");
    frame(&a, "parse", "shop");
    frame(&b, "parse", "shop")->offset = 0x9999;
    b.frames[0].build_id.bytes[0] = 7;
    CHECK(same());
    a.frames[0].function[0] = b.frames[0].function[0] = '\0';
    CHECK(!same());
    b.frames[0].offset = a.frames[0].offset;
    CHECK(!same()); /* the build */
    b.frames[0].build_id.bytes[0] = 0;
    CHECK(same());
}

static int find(void *context, const trawl_v1_Frame *f, char out[GROUP_FUNCTION_SIZE])
{
    ++*(int *)context;
    return f->offset == 0x1001 || f->offset == 0x9999 ? text_copy(out, GROUP_FUNCTION_SIZE, "parse")
                                                      : ERR_NOTFOUND;
}

TEST(names_that_are_looked_up_count_as_if_they_had_come)
{
    int asked = 0;
    struct group_names names = {find, &asked};
    struct group_signature x, y;
    begin(CRASH, "SIGSEGV", "c");
    frame(&a, "", "shop");
    frame(&b, "", "shop")->offset = 0x9999;
    b.frames[0].build_id.bytes[0] = 7;
    group_signature(&a, &names, &x);
    group_signature(&b, &names, &y);
    CHECK_EQ_MEM(x.bytes, y.bytes, sizeof x.bytes);
    CHECK_EQ_STR(x.frames[0].function, "parse");
    CHECK(asked > 0);
    a.frames[0].function[0] = '\0';
    SET(a.frames[0].function, "parse");
    group_signature(&a, NULL, &x);
    CHECK_EQ_MEM(x.bytes, y.bytes, sizeof x.bytes);
}

struct pair {
    const char *a, *b;
    bool same;
};

TEST(names_are_taken_without_what_differs_from_build_to_build)
{
    static const struct pair pairs[] = {
        {"sort.constprop.0", "sort", true},
        {"sort.isra.3", "sort.part.1", true},
        {"sort.cold", "sort", true},
        {"sort.llvm.123456", "sort", true},
        {"shop::f(int)", "shop::f(long)", true},
        {"shop::f(int) const", "shop::f", true},
        {"shop::f(void (*)(int))", "shop::f", true},
        {"shop::operator()", "shop::operator", false},
        {"(anonymous namespace)::f", "(anonymous namespace)::g", false},
        {"main.(*Order).price", "main.(*Item).price", false},
        {"app::price::h0123456789abcdef", "app::price::hfedcba9876543210", true},
        {"app::price::hello", "app::price::hallo", false},
        {"Shop.lambda$main$0", "Shop.lambda$main$1", true},
        {"f1", "f2", false},
        {"sort", "search", false},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        begin(CRASH, "SIGSEGV", "c");
        frame(&a, pairs[i].a, "shop");
        frame(&b, pairs[i].b, "shop");
        if (same() != pairs[i].same)
            CHECK_EQ_STR(pairs[i].a, pairs[i].b);
        CHECK(same() == pairs[i].same);
    }
}

TEST(library_and_runtime_frames_are_passed_over)
{
    static const char *const skipped[][2] = {
        {"", "libc.so.6"},
        {"", "libc-2.31.so"},
        {"", "ld-linux-x86-64.so.2"},
        {"", "libstdc++.so.6.0.30"},
        {"", "libasan.so.8"},
        {"", "[vdso]"},
        {"abort", "shop"},
        {"__assert_fail", "shop"},
        {"__pthread_kill_implementation", "shop"},
        {"std::terminate()", "shop"},
        {"_ZSt9terminatev", "shop"},
        {"_ZNSt6vectorIiSaIiEE2atEm", "shop"},
        {"__cxa_throw", "shop"},
        {"core::panicking::panic_fmt", "shop"},
        {"std::panicking::begin_panic_handler", "shop"},
        {"rust_begin_unwind", "shop"},
        {"_ZN4core9panicking5panic17h0123456789abcdefE", "shop"},
        {"runtime.sigpanic", "shop"},
        {"sigsegvHandler", "redis-server"},
        {"_serverAssert", "redis-server"},
        {"ExceptionalCondition", "postgres"},
        {"node::Abort()", "node"},
        {"<signal handler called>", "shop"},
    };
    for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++) {
        begin(CRASH, "SIGABRT", "c");
        frame(&a, skipped[i][0], skipped[i][1]);
        frame(&a, "price", "shop");
        frame(&b, "price", "shop");
        if (!same())
            CHECK_EQ_STR(skipped[i][0], skipped[i][1]);
        CHECK(same());
    }
    begin(CRASH, "SIGABRT", "c"); /* positive control */
    frame(&a, "discount", "shop");
    frame(&a, "price", "shop");
    frame(&b, "price", "shop");
    CHECK(!same());
}

TEST(languages_pass_over_their_own)
{
    static const char *const skipped[][3] = {
        {"java", "java.util.ArrayList.get", "ArrayList.java"},
        {"java", "jdk.internal.reflect.DirectMethodHandleAccessor.invoke", ""},
        {"java", "sun.reflect.NativeMethodAccessorImpl.invoke0", ""},
        {"node", "processTicksAndRejections", "node:internal/process/task_queues"},
        {"python", "run_until_complete", "/usr/lib/python3.11/asyncio/base_events.py"},
        {"python", "_bootstrap_inner", "/usr/lib/python3.11/threading.py"},
        {"python", "_call_with_frames_removed", "<frozen importlib._bootstrap>"},
        {"go", "runtime.gopanic", "/usr/lib/go/src/runtime/panic.go"},
        {"go", "panic", "/usr/lib/go/src/runtime/panic.go"},
        {"dotnet", "System.Linq.Enumerable.First", ""},
        {"ruby", "each", "<internal:array>"},
        {"php", "call", "[internal function]"},
    };
    for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++) {
        begin(TRACE, "Error", skipped[i][0]);
        line(&a, skipped[i][1], skipped[i][2], 1);
        line(&a, "price", "orders/price.x", 1);
        line(&b, "price", "orders/price.x", 1);
        if (!same())
            CHECK_EQ_STR(skipped[i][1], skipped[i][2]);
        CHECK(same());
    }
    begin(TRACE, "Error", "python"); /* an "abort" of one's own is no library */
    line(&a, "abort", "orders/price.py", 1);
    line(&a, "price", "orders/price.py", 1);
    line(&b, "price", "orders/price.py", 1);
    CHECK(!same());
}

TEST(lines_and_places_of_installation_do_not_count_functions_do)
{
    begin(TRACE, "ValueError", "python");
    line(&a, "price", "/srv/a/orders/price.py", 10);
    line(&b, "price", "/opt/v2/orders/price.py", 99);
    CHECK(same());
    SET(b.frames[0].function, "tax");
    CHECK(!same());
}

TEST(recursion_is_folded)
{
    begin(CRASH, "SIGSEGV", "c");
    for (int i = 0; i < 20; i++)
        frame(&a, i % 2 ? "odd" : "even", "shop");
    frame(&a, "main", "shop");
    for (int i = 0; i < 4; i++)
        frame(&b, i % 2 ? "odd" : "even", "shop");
    frame(&b, "main", "shop");
    CHECK(same());
}

TEST(stacks_of_system_frames_only_are_told_apart)
{
    struct group_signature s;
    begin(CRASH, "SIGABRT", "c");
    frame(&a, "", "libc.so.6")->offset = 0x100;
    frame(&b, "", "libc.so.6")->offset = 0x200;
    CHECK(!same());
    b.frames[0].offset = 0x100;
    CHECK(same());
    group_signature(&a, NULL, &s);
    CHECK_EQ_INT(s.made_of, GROUP_OF_SYSTEM);
    CHECK_EQ_INT(s.frame_count, 1);
}

TEST(without_frames_the_message_the_unit_and_the_device_count)
{
    struct group_signature s;
    begin(trawl_v1_ExceptionSource_UNIT_RESULT, "watchdog", "");
    SET(a.template, "timeout after <n> s");
    SET(b.template, "timeout after <n> s");
    SET(a.unit, "worker@1.service");
    SET(b.unit, "worker@22.service");
    CHECK(same());
    SET(b.unit, "other.service");
    CHECK(!same());
    group_signature(&a, NULL, &s);
    CHECK_EQ_INT(s.made_of, GROUP_OF_MESSAGE);
    begin(trawl_v1_ExceptionSource_HARDWARE_ERROR, "io-error", "");
    a.tags_count = b.tags_count = 1;
    SET(a.tags[0].key, "device");
    SET(b.tags[0].key, "device");
    SET(a.tags[0].value, "sda");
    SET(b.tags[0].value, "sda");
    CHECK(same());
    SET(b.tags[0].value, "sdb");
    CHECK(!same());
    begin(trawl_v1_ExceptionSource_OOM_KILL, "oom-kill", "");
    SET(b.process, "till");
    CHECK(!same());
}

TEST(code_made_at_run_time_has_no_place)
{
    begin(CRASH, "SIGSEGV", "c");
    a.frames[a.frames_count++].offset = 0x7f0000001000;
    frame(&a, "price", "shop");
    b.frames[b.frames_count++].offset = 0x7f1111101000;
    frame(&b, "price", "shop");
    CHECK(same());
}

TEST(program_source_and_type_count)
{
    begin(CRASH, "SIGSEGV", "c");
    frame(&a, "price", "shop");
    frame(&b, "price", "shop");
    CHECK(same());
    SET(b.type, "SIGBUS");
    CHECK(!same());
    SET(b.type, "SIGSEGV");
    b.source = trawl_v1_ExceptionSource_FAULT_LINE;
    CHECK(!same());
    b.source = CRASH;
    SET(a.executable, "/usr/bin/shop");
    SET(b.executable, "/opt/shop/bin/shop");
    SET(a.process, "shop: worker 1");
    SET(b.process, "shop: worker 22");
    CHECK(same());
    SET(b.executable, "/opt/shop/bin/till");
    CHECK(!same());
}

TEST(the_rest_of_a_host_is_one)
{
    struct group_signature x, y, z;
    begin(CRASH, "SIGSEGV", "c");
    SET(b.type, "SIGBUS");
    group_signature_rest(&a, "web-1", &x);
    group_signature_rest(&b, "web-1", &y);
    group_signature_rest(&a, "web-2", &z);
    CHECK_EQ_MEM(x.bytes, y.bytes, sizeof x.bytes);
    CHECK(memcmp(x.bytes, z.bytes, sizeof x.bytes) != 0);
}

/* Stored for ever: a signature that changes makes a new group of every known one. */
TEST(signatures_are_what_they_were)
{
    struct group_signature s;
    char hex[2 * GROUP_SIGNATURE_SIZE + 1];
    begin(CRASH, "SIGSEGV", "c");
    frame(&a, "raise", "libc.so.6");
    frame(&a, "price", "shop");
    frame(&a, "main", "shop");
    group_signature(&a, NULL, &s);
    text_put_hex(s.bytes, sizeof s.bytes, hex);
    CHECK_EQ_STR(hex, "6e1c7893a1b0708d8051bca9d78fb2b8");
    CHECK_EQ_INT(s.frame_count, 2);
}
