/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: which one is meant, what makes one unfit, and that taking one in leaves all of it or
 * nothing.
 */
#include "tests/unit/common/scratch.h"

#include "cli/context.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/port.h"
#include "tests/unit/common/fleet.h"

static const struct context_env HOME_ENV = {.home = "/nobody"};

static void write_text(const char *directory, const char *name, struct span text, bool is_private)
{
    char path[SCRATCH_PATH_SIZE * 2];
    struct failure f = {0};
    text_format(path, sizeof path, "%s/%s", directory, name);
    REQUIRE(port_write_file(path, text, is_private, &f) == 0);
}

/* A whole context directory of an sre called alice. */
static void make_context(const char *directory, const char *conf)
{
    struct fleet fleet;
    struct member alice;
    struct failure f = {0};
    fleet_init(&fleet, "f1");
    fleet_member(&fleet, &alice, "sre", "alice");
    REQUIRE(port_make_dirs(directory, &f) == 0);
    write_text(directory, "context.conf", span_str(conf), false);
    write_text(directory, "ca.crt", buf_span(&fleet.cert), false);
    write_text(directory, "cert.crt", buf_span(&alice.cert), false);
    write_text(directory, "key.pem", buf_span(&alice.key), true);
    member_done(&alice);
    fleet_done(&fleet);
}

static int load(const char *directory, struct failure *f)
{
    struct context c;
    int r = context_load(&c, directory, 0, f);
    context_done(&c);
    return r;
}

TEST(the_option_then_the_environment_then_the_current_one)
{
    char out[CONTEXT_PATH_SIZE], home[SCRATCH_PATH_SIZE];
    struct failure f = {0};
    struct context_env env = HOME_ENV;
    CHECK_EQ_INT(context_find(&env, "prod", out, sizeof out, &f), 0);
    CHECK_EQ_STR(out, "/nobody/.config/trawl/prod");
    CHECK_EQ_INT(context_find(&env, "./prod", out, sizeof out, &f), 0);
    CHECK_EQ_STR(out, "./prod");
    CHECK_EQ_INT(context_find(&env, "", out, sizeof out, &f), 0);
    CHECK_EQ_STR(out, "/nobody/.config/trawl/default");
    env.trawl_context = "staging";
    CHECK_EQ_INT(context_find(&env, NULL, out, sizeof out, &f), 0);
    CHECK_EQ_STR(out, "/nobody/.config/trawl/staging");
    env.trawl_context = "/etc/trawl/ctx";
    CHECK_EQ_INT(context_find(&env, NULL, out, sizeof out, &f), 0);
    CHECK_EQ_STR(out, "/etc/trawl/ctx");
    CHECK_EQ_INT(context_find(&env, "prod", out, sizeof out, &f), 0);
    CHECK_EQ_STR(out, "/nobody/.config/trawl/prod");
    env.trawl_context = "";
    env.xdg_config_home = scratch("config", home);
    text_format(out, sizeof out, "%s/trawl", home);
    REQUIRE(port_make_dirs(out, &f) == 0);
    write_text(out, "current", span_str("blue\n"), false);
    CHECK_EQ_INT(context_find(&env, NULL, out, sizeof out, &f), 0);
    CHECK(strstr(out, "/config/trawl/blue") != NULL);
}

TEST(a_name_that_is_none_is_refused)
{
    char out[CONTEXT_PATH_SIZE];
    struct failure f = {0};
    struct context_env nobody = {.home = NULL};
    CHECK_EQ_INT(context_find(&HOME_ENV, "..", out, sizeof out, &f), ERR_INVALID);
    CHECK_EQ_INT(context_find(&HOME_ENV, "a b", out, sizeof out, &f), ERR_INVALID);
    CHECK_EQ_INT(context_find(&nobody, "prod", out, sizeof out, &f), ERR_NOTFOUND);
    CHECK_EQ_INT(context_find(&nobody, "./prod", out, sizeof out, &f), 0);
}

TEST(addresses_with_and_without_a_port)
{
    char host[CONTEXT_HOST_SIZE];
    uint16_t port = 0;
    struct failure f = {0};
    CHECK_EQ_INT(context_address("c.example", host, sizeof host, &port, &f), 0);
    CHECK_EQ_STR(host, "c.example");
    CHECK_EQ_INT(port, 7443);
    CHECK_EQ_INT(context_address("10.0.0.1:8443", host, sizeof host, &port, &f), 0);
    CHECK_EQ_STR(host, "10.0.0.1");
    CHECK_EQ_INT(port, 8443);
    CHECK_EQ_INT(context_address("[::1]:9", host, sizeof host, &port, &f), 0);
    CHECK_EQ_STR(host, "::1");
    CHECK_EQ_INT(port, 9);
    CHECK_EQ_INT(context_address("fe80::1", host, sizeof host, &port, &f), 0);
    CHECK_EQ_STR(host, "fe80::1");
    CHECK_EQ_INT(port, 7443);
    static const char *const bad[] = {"",       ":7443", "h:",     "h:0",   "h:65536", "h:x",
                                      "[::1]x", "[::1",  "[::1]:", "h h:1", "u@h",     "h/x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ_INT(context_address(bad[i], host, sizeof host, &port, &f), ERR_INVALID);
        CHECK_EQ_STR(host, "fe80::1");
    }
}

TEST(an_address_is_written_as_it_is_read)
{
    struct context c = {.host = "::1", .port = 9};
    char out[CONTEXT_ADDRESS_SIZE];
    context_put_address(&c, out);
    CHECK_EQ_STR(out, "[::1]:9");
    c = (struct context){.host = "c.example", .port = 7443};
    context_put_address(&c, out);
    CHECK_EQ_STR(out, "c.example");
}

TEST(a_whole_context_is_loaded)
{
    char directory[SCRATCH_PATH_SIZE];
    struct context c;
    struct failure f = {0};
    make_context(scratch("whole", directory), "collector = c.example:8443\n");
    CHECK_EQ_INT(context_load(&c, directory, fleet_now(), &f), 0);
    CHECK_EQ_STR(c.host, "c.example");
    CHECK_EQ_INT(c.port, 8443);
    CHECK_EQ_STR(c.identity.role, "sre");
    CHECK_EQ_STR(c.identity.name, "alice");
    CHECK(c.key_pem.size_bytes > 100);
    context_done(&c);
    CHECK_EQ_INT(context_load(&c, directory, fleet_now() + 2 * FLEET_DAY_S, &f), ERR_EXPIRED);
    CHECK(strstr(f.text, "expired") && strstr(f.text, "issue"));
    context_done(&c);
}

TEST(what_is_missing_or_wrong_in_a_context_is_named)
{
    char directory[SCRATCH_PATH_SIZE], path[SCRATCH_PATH_SIZE + 16];
    struct failure f = {0};
    CHECK_EQ_INT(load(scratch("none", directory), &f), ERR_NOTFOUND);
    CHECK(strstr(f.text, "none") && strstr(f.text, "trawl context add"));
    make_context(scratch("part", directory), "collector = c.example\n");
    text_format(path, sizeof path, "%s/ca.crt", directory);
    REQUIRE(unlink(path) == 0);
    CHECK_EQ_INT(load(directory, &f), ERR_NOTFOUND);
    CHECK(strstr(f.text, "ca.crt") != NULL);
    write_text(directory, "context.conf", span_str("# nothing\n"), false);
    CHECK_EQ_INT(load(directory, &f), ERR_INVALID);
    CHECK(strstr(f.text, "collector = HOST:PORT") != NULL);
    write_text(directory, "context.conf", span_str("collectr = x\n"), false);
    CHECK_EQ_INT(load(directory, &f), ERR_INVALID);
    CHECK(strstr(f.text, "context.conf:1") && strstr(f.text, "did you mean"));
    write_text(directory, "context.conf", span_str("collector = a b\n"), false);
    CHECK_EQ_INT(load(directory, &f), ERR_INVALID);
}

TEST(a_key_that_others_can_read_is_refused)
{
    char directory[SCRATCH_PATH_SIZE], path[SCRATCH_PATH_SIZE + 16];
    struct failure f = {0};
    make_context(scratch("open", directory), "collector = c.example\n");
    text_format(path, sizeof path, "%s/key.pem", directory);
    REQUIRE(chmod(path, 0644) == 0);
    CHECK_EQ_INT(load(directory, &f), ERR_UNSAFE_KEY);
    CHECK(strstr(f.text, "key.pem") && strstr(f.text, "chmod"));
}

static int collect(void *owner, const char *name)
{
    struct buf *names = owner;
    return buf_printf(names, "%s ", name);
}

TEST(contexts_are_taken_in_listed_and_chosen)
{
    char from[SCRATCH_PATH_SIZE], home[SCRATCH_PATH_SIZE], path[SCRATCH_PATH_SIZE + 32], name[64];
    struct failure f = {0};
    struct buf names;
    struct stat st;
    make_context(scratch("from", from), "collector = c.example\n");
    scratch("home", home);
    buf_init(&names, 1024);
    CHECK_EQ_INT(context_each(home, collect, &names, &f), 0);
    CHECK_EQ_STR(buf_str(&names), "");
    CHECK_EQ_INT(context_add(home, "prod", from, &f), 0);
    CHECK_EQ_INT(context_current(home, name, sizeof name, &f), 0);
    CHECK_EQ_STR(name, "prod");
    text_format(path, sizeof path, "%s/prod/key.pem", home);
    REQUIRE(stat(path, &st) == 0);
    CHECK_EQ_INT(st.st_mode & 0777, 0600);
    CHECK_EQ_INT(context_add(home, "prod", from, &f), ERR_EXISTS);
    CHECK_EQ_INT(context_add(home, "a/b", from, &f), ERR_INVALID);
    CHECK_EQ_INT(context_add(home, "blue", from, &f), 0);
    CHECK_EQ_INT(context_current(home, name, sizeof name, &f), 0);
    CHECK_EQ_STR(name, "prod");
    CHECK_EQ_INT(context_use(home, "blue", &f), 0);
    CHECK_EQ_INT(context_current(home, name, sizeof name, &f), 0);
    CHECK_EQ_STR(name, "blue");
    CHECK_EQ_INT(context_use(home, "green", &f), ERR_NOTFOUND);
    CHECK(strstr(f.text, "blue, prod") != NULL);
    CHECK_EQ_INT(context_each(home, collect, &names, &f), 0);
    CHECK_EQ_STR(buf_str(&names), "blue prod ");
    buf_done(&names);
}

TEST(a_context_that_is_not_whole_leaves_nothing_behind)
{
    char from[SCRATCH_PATH_SIZE], home[SCRATCH_PATH_SIZE], path[SCRATCH_PATH_SIZE + 16];
    struct failure f = {0};
    make_context(scratch("torn", from), "collector = c.example\n");
    text_format(path, sizeof path, "%s/cert.crt", from);
    REQUIRE(unlink(path) == 0);
    CHECK_EQ_INT(context_add(scratch("empty-home", home), "x", from, &f), ERR_NOTFOUND);
    text_format(path, sizeof path, "%s/x", home);
    CHECK(!port_exists(path));
    text_format(path, sizeof path, "%s/x.new", home);
    CHECK(!port_exists(path));
}
