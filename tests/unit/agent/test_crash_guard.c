/* SPDX-License-Identifier: Apache-2.0 */
/* That nobody listens where crashes go is told, once, and only when it is so. */
#include "agent/crash_guard.h"

#include "tests/unit/agent/watch_kit.h"
#include "tests/unit/os/tree.h"

#define PATTERN "/proc/sys/kernel/core_pattern"
#define UNIX "/proc/net/unix"
#define HEAD "Num       RefCount Protocol Flags    Type St Inode Path\n"
#define LISTENS HEAD "0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/crash.sock\n"
#define TYPE "crash-listener"

static const char *const followed[] = {NULL};
static struct watch_kit k;
static void *guard;

static void begin(const char *pattern, const char *sockets)
{
    struct failure f = {0};
    watch_kit_open(&k, followed);
    REQUIRE(text_format(k.settings.root, sizeof k.settings.root, "%s/root", k.directory) == 0);
    text_copy(k.settings.crash_socket, sizeof k.settings.crash_socket, "/run/crash.sock");
    tree_write(k.settings.root, PATTERN, pattern);
    tree_write(k.settings.root, UNIX, sockets);
    REQUIRE(crash_guard_open(&guard, &k.context, &f) == 0);
}

static void seconds(int count)
{
    while (count-- > 0)
        crash_guard_second(guard);
    watcher_tick(k.watcher);
}

static bool was_told(int times)
{
    return kit_find(&k, KIT_EXCEPTION, TYPE, times - 1) &&
           !kit_find(&k, KIT_EXCEPTION, TYPE, times);
}

static void end(void)
{
    static const char *const names[] = {
        PATTERN, "/proc/sys/kernel", "/proc/sys", UNIX, "/proc/net", "/proc", ""};
    char path[TREE_PATH];
    crash_guard_close(guard);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        tree_path(path, k.settings.root, names[i]);
        (void)remove(path);
    }
    watch_kit_close(&k);
}

TEST(a_listener_that_is_gone_is_told_once_each_time)
{
    begin("@@/run/crash.sock\n", LISTENS);
    seconds(60);
    CHECK(!kit_find(&k, KIT_EXCEPTION, TYPE, 0));
    tree_write(k.settings.root, UNIX, HEAD);
    seconds(CRASH_GUARD_EVERY_S); /* it may start anew */
    CHECK(!kit_find(&k, KIT_EXCEPTION, TYPE, 0));
    seconds(120);
    CHECK(was_told(1));
    CHECK(strstr(kit_message.body.exception.message, "/run/crash.sock") != NULL);
    tree_write(k.settings.root, UNIX, LISTENS);
    seconds(20);
    tree_write(k.settings.root, UNIX, HEAD);
    seconds(60);
    CHECK(was_told(2));
    end();
}

TEST(a_listener_that_only_starts_anew_is_not_told)
{
    begin("@/run/crash.sock\n", LISTENS);
    for (int i = 0; i < 10; i++) {
        tree_write(k.settings.root, UNIX, HEAD);
        seconds(CRASH_GUARD_EVERY_S);
        tree_write(k.settings.root, UNIX, LISTENS);
        seconds(CRASH_GUARD_EVERY_S);
    }
    CHECK(!kit_find(&k, KIT_EXCEPTION, TYPE, 0));
    end();
}

TEST(where_crashes_go_elsewhere_nobody_is_missed)
{
    static const char *const patterns[] = {"core\n", "|/usr/bin/x %P\n", "@@/run/other.sock\n", ""};
    begin("core\n", HEAD);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        tree_write(k.settings.root, PATTERN, patterns[i]);
        seconds(30);
    }
    CHECK(!kit_find(&k, KIT_EXCEPTION, TYPE, 0));
    end();
}
