/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The owner's word, the settings' addresses, the shape of a join token, the rate and the back-off.
 */
#include "agent/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/budget.h"
#include "agent/join.h"
#include "agent/settings.h"
#include "agent/uplink.h"
#include "tests/check.h"

static char path[64];

static void write_policy(const char *text, mode_t mode)
{
    snprintf(path, sizeof path, "/tmp/trawl-policy-XXXXXX");
    int fd = mkstemp(path);
    REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    REQUIRE(fchmod(fd, mode) == 0);
    close(fd);
}

TEST(no_file_means_the_defaults)
{
    struct policy p;
    struct failure f = {0};
    CHECK_EQ_INT(policy_load(&p, "/nonexistent/policy.conf", &f), 0);
    CHECK_EQ_INT(policy_allows_kind(&p, "stacks", &f), 0);
    CHECK_EQ_INT(policy_allows_process(&p, "redis-server", &f), 0);
    CHECK_EQ_INT(policy_pause_max_us(&p, 50000), 50000);
    CHECK_EQ_INT(policy_pause_max_us(&p, 5000000), 1000000);
}

TEST(the_file_limits)
{
    struct policy p;
    struct failure f = {0};
    write_policy("kinds = triage, logs\nprocesses = redis*,nginx\nnever = redis-secret\n"
                 "pause-max = 10ms\n",
                 0644);
    REQUIRE(policy_load(&p, path, &f) == 0);
    CHECK_EQ_INT(policy_allows_kind(&p, "logs", &f), 0);
    CHECK_EQ_INT(policy_allows_kind(&p, "stacks", &f), ERR_REFUSED);
    CHECK_EQ_STR(f.text, "this host's policy does not allow kind 'stacks'");
    CHECK_EQ_INT(policy_allows_process(&p, "redis-server", &f), 0);
    CHECK_EQ_INT(policy_allows_process(&p, "redis-secret", &f), ERR_REFUSED);
    CHECK_EQ_INT(policy_allows_process(&p, "postgres", &f), ERR_REFUSED);
    CHECK_EQ_INT(policy_pause_max_us(&p, 50000), 10000);
    unlink(path);
}

static void allows_nothing(const char *text, mode_t mode, const char *why)
{
    struct policy p;
    struct failure f = {0};
    write_policy(text, mode);
    CHECK_EQ_INT(policy_load(&p, path, &f), ERR_REFUSED);
    CHECK(strstr(f.text, why) != NULL);
    CHECK_EQ_INT(policy_allows_kind(&p, "triage", &f), ERR_REFUSED);
    unlink(path);
}

TEST(a_file_that_is_unsafe_or_wrong_allows_nothing)
{
    allows_nothing("capture = yes\n", 0666, "can be changed by others than root");
    allows_nothing("kindz = stacks\n", 0644, "kindz");
    allows_nothing("pause-max = soon\n", 0644, "pause-max");
    allows_nothing("capture = no\nrubbish\n", 0644, "cannot be understood");
}

TEST(captures_are_counted_by_the_hour)
{
    struct policy p;
    struct failure f = {0};
    struct policy_hour *hour = calloc(1, sizeof *hour);
    REQUIRE(hour != NULL);
    policy_defaults(&p);
    p.captures_per_hour = 2;
    CHECK_EQ_INT(policy_hour_take(hour, &p, 1, 1000, &f), 0);
    CHECK_EQ_INT(policy_hour_take(hour, &p, 1, 2000, &f), 0); /* the same order */
    CHECK_EQ_INT(policy_hour_take(hour, &p, 2, 3000, &f), 0);
    CHECK_EQ_INT(policy_hour_take(hour, &p, 3, 4000, &f), ERR_REFUSED);
    CHECK_EQ_STR(f.text, "this host's policy allows 2 captures an hour");
    CHECK_EQ_INT(policy_hour_take(hour, &p, 3, UINT64_C(3600001000), &f), 0);
    CHECK_EQ_INT(policy_hour_take(hour, &p, 4, UINT64_C(3600001500), &f), ERR_REFUSED);
    free(hour);
}

static void address(const char *text, const char *host, int port)
{
    char found[64] = "";
    uint16_t number = 0;
    struct failure f = {0};
    int e = settings_address(text, found, sizeof found, &number, &f);
    CHECK_EQ_INT(e, host ? 0 : ERR_INVALID);
    CHECK_EQ_STR(host ? found : "", host ? host : "");
    CHECK_EQ_INT(number, port);
}

TEST(addresses)
{
    address("c.example", "c.example", 7443);
    address("c.example:99", "c.example", 99);
    address("10.0.0.1:7443", "10.0.0.1", 7443);
    address("::1", "::1", 7443);
    address("[::1]:80", "::1", 80);
    address("[::1]", "::1", 7443);
    address("", NULL, 0);
    address("c:0", NULL, 0);
    address("c:x", NULL, 0);
    address(":99", NULL, 0);
    address("[::1]x", NULL, 0);
}

#define PRINT "4e26f04e4e712f9d56d29612fc642439a701c4ecb6d7ddb80c89a3ff5af2dea3"

static int token(const char *text, struct join_token *out)
{
    struct failure f = {0};
    int e = join_token_parse(text, out, &f);
    if (e) {
        CHECK(strstr(f.text, "PORT.FINGERPRINT.SECRET") != NULL);
        CHECK(!text[0] || strstr(f.text, text) == NULL); /* a secret is not repeated */
    }
    return e;
}

TEST(join_tokens)
{
    struct join_token t;
    CHECK_EQ_INT(token("7444." PRINT ".HADNBXY9VG2H0R5S0K4TXJN6VQ", &t), 0);
    CHECK_EQ_INT(t.port, 7444);
    CHECK_EQ_INT(t.fingerprint[0], 0x4e);
    CHECK_EQ_STR(t.secret, "HADNBXY9VG2H0R5S0K4TXJN6VQ");
    CHECK_EQ_INT(token("", &t), ERR_INVALID);
    CHECK_EQ_INT(token("7444." PRINT, &t), ERR_INVALID);
    CHECK_EQ_INT(token("7444." PRINT ".", &t), ERR_INVALID);
    CHECK_EQ_INT(token("7444." PRINT ".HADNBXY9VG2H0R5S0K4TXJN6V", &t), ERR_INVALID);
    CHECK_EQ_INT(token("0." PRINT ".HADNBXY9VG2H0R5S0K4TXJN6VQ", &t), ERR_INVALID);
    CHECK_EQ_INT(token("7444.zz." PRINT "HADNBXY9VG2H0R5S0K4TXJN6VQ", &t), ERR_INVALID);
}

TEST(the_rate_lets_a_second_through_and_then_makes_wait)
{
    struct budget_rate r;
    budget_rate_init(&r, 1000, 0);
    CHECK_EQ_INT(budget_rate_take(&r, 600, 0), 0);
    CHECK_EQ_INT(budget_rate_take(&r, 400, 0), 0);
    uint64_t wait_us = budget_rate_take(&r, 500, 0);
    CHECK(wait_us > 499000 && wait_us < 501000);
    CHECK_EQ_INT(budget_rate_take(&r, 500, wait_us + 1000), 0);
    CHECK_EQ_INT(budget_rate_take(&r, 5000, 10000000), 0); /* more than a second's worth */
    uint64_t sent = 0;
    budget_rate_init(&r, 1000000, 0);
    for (uint64_t now = 0; now < 10000000; now += 100)
        sent += budget_rate_take(&r, 1000, now) ? 0 : 1000;
    CHECK(sent >= 10000000 && sent <= 11100000);
}

TEST(the_back_off_grows_to_thirty_seconds_and_is_random)
{
    CHECK_EQ_INT(uplink_backoff_us(0, 499999), 499999);
    CHECK_EQ_INT(uplink_backoff_us(0, 500000), 0);
    CHECK_EQ_INT(uplink_backoff_us(3, 3999999), 3999999);
    CHECK_EQ_INT(uplink_backoff_us(6, 29999999), 29999999);
    CHECK_EQ_INT(uplink_backoff_us(6, 30000000), 0);
    CHECK_EQ_INT(uplink_backoff_us(1000, 29999999), 29999999);
}
