/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: how they are written, when they tell, and what real listeners do with them. */
#include "agent/watch_probe.h"

#include <signal.h>
#include <sys/wait.h>

#include "agent/probe_rules.h"
#include "tests/unit/agent/watch_kit.h"

#define VICTIM VICTIMS_DIR "/watched"

static const char *const followed[] = {NULL};
static struct watch_kit k;

TEST(probes_as_they_are_written)
{
    struct probe_rule r;
    struct failure f = {0, ""};
    REQUIRE(probe_rule_parse("tcp:127.0.0.1:6379", &r, &f) == 0);
    CHECK_EQ_INT(r.kind, PROBE_TCP);
    CHECK_EQ_STR(r.host, "127.0.0.1");
    CHECK_EQ_INT(r.port, 6379);
    CHECK_EQ_INT(r.every_us, 5000000);
    CHECK_EQ_INT(r.timeout_us, 2000000);
    CHECK_EQ_INT(r.failures, 3);
    REQUIRE(probe_rule_parse(" tcp:[::1]:80 send=PING every=1s  timeout=300ms failures=2", &r,
                             &f) == 0);
    CHECK_EQ_STR(r.name, "tcp:[::1]:80");
    CHECK_EQ_STR(r.host, "::1");
    CHECK_EQ_STR(r.send, "PING");
    CHECK_EQ_INT(r.every_us, 1000000);
    CHECK_EQ_INT(r.failures, 2);
    REQUIRE(probe_rule_parse("http://10.0.0.1/health?a=1", &r, &f) == 0);
    CHECK_EQ_INT(r.kind, PROBE_HTTP);
    CHECK_EQ_INT(r.port, 80);
    CHECK_EQ_STR(r.path, "/health?a=1");
    REQUIRE(probe_rule_parse("http://[::1]:8080", &r, &f) == 0);
    CHECK_EQ_STR(r.path, "/");
    REQUIRE(probe_rule_parse("unit-watchdog:nginx.service", &r, &f) == 0);
    CHECK_EQ_STR(r.unit, "nginx.service");
    CHECK_EQ_INT(r.every_us, 30000000);
}

TEST(probes_that_cannot_be_meant)
{
    static const char *const wrong[] = {"",
                                        "tcp:",
                                        "tcp:127.0.0.1",
                                        "tcp:localhost:1",
                                        "tcp:127.0.0.1:0",
                                        "tcp:127.0.0.1:65536",
                                        "http://a b",
                                        "http://127.0.0.1:x/",
                                        "udp:127.0.0.1:1",
                                        "tcp:127.0.0.1:1 every=5",
                                        "tcp:127.0.0.1:1 every=1us",
                                        "tcp:127.0.0.1:1 failures=0",
                                        "http://127.0.0.1 send=x",
                                        "unit-watchdog:-a",
                                        "unit-watchdog:",
                                        "unit-watchdog:a/b",
                                        "tcp:127.0.0.1:1 what=1"};
    struct probe_rule r = {.port = 7};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct failure f = {0, ""};
        CHECK_EQ_INT(probe_rule_parse(wrong[i], &r, &f), ERR_INVALID);
        CHECK(f.text[0] != '\0');
    }
    CHECK_EQ_INT(r.port, 7);
}

TEST(a_hang_is_told_once_and_its_end_once)
{
    const struct probe_rule r = {.failures = 3};
    struct probe_state s = {0};
    CHECK_EQ_INT(probe_feed(&s, &r, true, 1), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, false, 2), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, false, 3), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, true, 4), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, false, 5), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, false, 6), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, false, 7), PROBE_HUNG);
    CHECK_EQ_INT(s.first_mono_us, 5);
    CHECK_EQ_INT(probe_feed(&s, &r, false, 8), PROBE_SAME);
    CHECK_EQ_INT(probe_feed(&s, &r, true, 9), PROBE_RECOVERED);
    CHECK_EQ_INT(s.first_mono_us, 5);
    CHECK_EQ_INT(probe_feed(&s, &r, true, 10), PROBE_SAME);
}

TEST(status_lines)
{
    CHECK_EQ_INT(probe_http_status("HTTP/1.1 200 OK\r\n", 17), 200);
    CHECK_EQ_INT(probe_http_status("HTTP/1.0 503", 12), 503);
    CHECK_EQ_INT(probe_http_status("HTTP/1.1 20", 11), 0);
    CHECK_EQ_INT(probe_http_status("HTT", 3), 0);
    CHECK_EQ_INT(probe_http_status("SSH-2.0-x", 9), ERR_CORRUPT);
    CHECK_EQ_INT(probe_http_status("HTTP/1.1 999 ", 13), ERR_CORRUPT);
    CHECK_EQ_INT(probe_http_status("HTTP/1.1 2x0 ", 13), ERR_CORRUPT);
}

TEST(watchdogs_as_systemctl_shows_them)
{
    struct probe_watchdog w;
    REQUIRE(probe_watchdog_parse("WatchdogUSec=2min 30s\nWatchdogTimestampMonotonic=123456789\n"
                                 "MainPID=812\nActiveState=active\n",
                                 &w) == 0);
    CHECK_EQ_INT(w.limit_us, 150000000);
    CHECK_EQ_INT(w.fed_mono_us, 123456789);
    CHECK_EQ_INT(w.pid, 812);
    CHECK_EQ_INT(probe_watchdog_parse("WatchdogUSec=0\nActiveState=active\n"
                                      "WatchdogTimestampMonotonic=0\n",
                                      &w),
                 ERR_NOTFOUND);
    CHECK_EQ_INT(probe_watchdog_parse("WatchdogUSec=infinity\nActiveState=active\n"
                                      "WatchdogTimestampMonotonic=5\n",
                                      &w),
                 ERR_NOTFOUND);
    CHECK_EQ_INT(probe_watchdog_parse("WatchdogUSec=30s\nActiveState=inactive\n"
                                      "WatchdogTimestampMonotonic=5\n",
                                      &w),
                 ERR_NOTFOUND);
}

/* ---- against real listeners ---- */

static pid_t run_victim(const char *port, const char *word, const char *number)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        execl(VICTIM, "watched", "listen", port, word, number, (char *)NULL);
        _exit(127);
    }
    kit_await_listener(atoi(port));
    return pid;
}

static void end_victim(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static void open_probe_for(const char *probe, const char *timeout)
{
    struct failure f = {0, ""};
    watch_kit_open(&k, followed);
    snprintf(k.settings.probe, sizeof k.settings.probe, "%s every=200ms timeout=%s", probe,
             timeout);
    REQUIRE(watch_probe_open(&k.source, &k.context, &f) == 0 && k.source);
}

static void open_probe(const char *probe)
{
    open_probe_for(probe, "300ms");
}

/* Of one that is well, however little of the machine it gets. */
static void open_probe_of_fine(const char *probe)
{
    open_probe_for(probe, "30s");
}

static void close_probe(void)
{
    watch_probe_close(k.source);
    watch_kit_close(&k);
}

TEST(one_that_accepts_and_one_that_does_not)
{
    const trawl_v1_Exception *e = &kit_message.body.exception;
    pid_t fine = run_victim("17392", "serve", "0");
    open_probe_of_fine("tcp:127.0.0.1:17392");
    CHECK(!kit_wait(&k, KIT_EXCEPTION, "", 0, 2000));
    close_probe();
    pid_t deaf = run_victim("17393", "deaf", "0");
    open_probe("tcp:127.0.0.1:17393");
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "tcp no-answer", 0, KIT_CERTAIN_MS));
    CHECK_EQ_INT(e->source, trawl_v1_ExceptionSource_HANG);
    CHECK_EQ_INT(e->pid, deaf);
    CHECK(e->start_ticks > 0);
    CHECK_EQ_STR(e->process, "watched");
    CHECK(strstr(e->message, "its process does not accept the connection") != NULL);
    CHECK(!kit_wait(&k, KIT_EXCEPTION, "", 1, 1500)); /* once */
    close_probe();
    end_victim(deaf);
    end_victim(fine);
}

TEST(one_that_sleeps_and_wakes)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl(VICTIM, "watched", "listen", "17394", "sleep", "5000", "serve", (char *)NULL);
        _exit(127);
    }
    kit_await_listener(17394);
    open_probe("tcp:127.0.0.1:17394 send=PING");
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "it does not answer", 0, KIT_CERTAIN_MS));
    REQUIRE(kit_wait(&k, KIT_EVENT, "tcp:127.0.0.1:17394 answers again after", 0, KIT_CERTAIN_MS));
    close_probe();
    end_victim(pid);
}

TEST(http_that_answers_and_that_says_it_cannot)
{
    pid_t fine = run_victim("17395", "http", "404"), bad = run_victim("17396", "http", "503");
    open_probe_of_fine("http://127.0.0.1:17395/x");
    CHECK(!kit_wait(&k, KIT_EXCEPTION, "", 0, 1500));
    close_probe();
    open_probe_of_fine("http://127.0.0.1:17396/");
    CHECK(kit_wait(&k, KIT_EXCEPTION, "http 503", 0, KIT_CERTAIN_MS));
    close_probe();
    end_victim(fine);
    end_victim(bad);
}

TEST(nobody_listens)
{
    open_probe("tcp:127.0.0.1:17397");
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "tcp refused", 0, KIT_CERTAIN_MS));
    CHECK_EQ_INT(kit_message.body.exception.pid, 0);
    CHECK(kit_message.body.exception.missing[0] != '\0');
    close_probe();
}

TEST(a_unit_without_systemd_is_no_failure)
{
    open_probe("unit-watchdog:nginx.service");
    CHECK(!kit_wait(&k, KIT_EXCEPTION, "", 0, 1000));
    close_probe();
}

TEST(rules_that_cannot_be_read_are_refused)
{
    struct failure f = {0, ""};
    watch_kit_open(&k, followed);
    snprintf(k.settings.probe, sizeof k.settings.probe, "tcp:127.0.0.1:1,nonsense");
    CHECK_EQ_INT(watch_probe_open(&k.source, &k.context, &f), ERR_INVALID);
    CHECK(strstr(f.text, "nonsense") != NULL);
    watch_kit_close(&k);
}
