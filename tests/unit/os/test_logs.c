/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The logs of a process: times of many formats, the window, files of a real process (also deleted,
 * rotated, or chosen to trick us), and the journal by a stand-in for systemd's program.
 */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/os/linux/logs_linux.h"
#include "agent/os/log_follow.h"
#include "agent/os/logs.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/os/tree.h"

#define SECOND INT64_C(1000000)
#define NOON (INT64_C(1795435200) * SECOND) /* 2026-11-23 12:00:00 UTC */

static struct buf out;
static char missing[1024];
static struct failure failure;

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

/* ---- times ---- */

/* Microseconds after NOON, or -1. */
static int64_t time_of(const char *line)
{
    int64_t time_us;
    return logs_time(span_str(line), NOON + SECOND * 43200, &time_us) == 0 ? time_us - NOON : -1;
}

TEST(formats_of_times)
{
    static const struct {
        const char *line;
        int64_t after_us;
    } cases[] = {
        {"2026-11-23T12:00:01Z x", SECOND},
        {"2026-11-23T12:00:01.5Z x", SECOND + 500000},
        {"2026-11-23 12:00:01 x", SECOND},
        {"2026-11-23 12:00:01,123 INFO python", SECOND + 123000},
        {"2026-11-23 12:00:01.123 UTC [55] LOG:  postgres", SECOND + 123000},
        {"2026-11-23T13:00:01.000001+01:00 host unit[1]: journal", SECOND + 1},
        {"2026-11-23T07:30:01-0430 x", SECOND},
        {"2026/11/23 12:00:01 [error] 7#7: *1 nginx", SECOND},
        {"10.0.0.1 - - [23/Nov/2026:13:00:01 +0100] \"GET / HTTP/1.1\" 200", SECOND},
        {"1200:M 23 Nov 2026 12:00:01.123 * Ready to accept connections", SECOND + 123000},
        {"Nov 23 12:00:01 host sshd[1]: syslog", SECOND},
        {"<30>Nov 23 12:00:01 host", SECOND},
        {"[Mon Nov 23 12:00:01.000123 2026] [core:notice] apache", SECOND + 123},
        {"{\"level\":\"info\",\"msg\":\"a longer message comes first here, as it may\","
         "\"time\":\"2026-11-23T12:00:01.25Z\"}",
         SECOND + 250000},
        {"I 2026-11-23 12:00:01.123456789 nanoseconds", SECOND + 123456},
        {"12:00:01.125 [main] INFO logback", SECOND + 125000},
        {"[2026-11-23 12:00:01] in brackets", SECOND},
        {"time=2026-11-23T12:00:01Z level=info", SECOND},
        {"2026-11-23T12:00:60Z a leap second", 60 * SECOND},
    };
    set_zone("UTC");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (!check_int(time_of(cases[i].line), cases[i].after_us, cases[i].line, __FILE__,
                       __LINE__))
            continue;
}

TEST(what_is_no_time)
{
    static const char *const lines[] = {
        "",
        "plain text",
        "    2026-11-23 12:00:01 belongs to the line above",
        "\tat com.example.Main(Main.java:12)",
        "2026-13-23 12:00:01 no such month",
        "2026-11-32 12:00:01",
        "2026-11-23 24:00:01",
        "2026-11-23 12:61:01",
        "2026-11-23",
        "2026-11-23 12:00",
        "x2026-11-23 12:00:01",
        "Nox 23 12:00:01",
        "Nov 2",
        "12:00",
        "version 1.2.3-4 of 12:00:01",
        "0000-11-23 12:00:01",
    };
    set_zone("UTC");
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!check_int(time_of(lines[i]), -1, lines[i], __FILE__, __LINE__))
            continue;
    char far[400];
    memset(far, ' ', sizeof far);
    far[0] = 'x';
    snprintf(far + 300, 100, "2026-11-23T12:00:01Z");
    CHECK_EQ_INT(time_of(far), -1);
}

TEST(a_time_without_zone_is_the_hosts)
{
    set_zone("CET-1CEST,M3.5.0,M10.5.0/3");
    CHECK_EQ_INT(time_of("2026-11-23 13:00:01"), SECOND);
    CHECK_EQ_INT(time_of("2026-11-23 12:00:01Z"), SECOND);
    CHECK_EQ_INT(time_of("Nov 23 13:00:01 x"), SECOND);
    int64_t summer;
    REQUIRE(logs_time(span_str("2026-07-01 14:00:00"), NOON, &summer) == 0);
    CHECK_EQ_INT(summer, INT64_C(1782907200) * SECOND);
}

TEST(a_time_without_year_or_day_is_the_latest)
{
    int64_t new_year = INT64_C(1798761610) * SECOND, time_us; /* 2027-01-01 00:00:10 UTC */
    set_zone("UTC");
    REQUIRE(logs_time(span_str("Dec 31 23:59:59 x"), new_year, &time_us) == 0);
    CHECK_EQ_INT(time_us, new_year - 11 * SECOND);
    REQUIRE(logs_time(span_str("Jan  1 00:00:05 x"), new_year, &time_us) == 0);
    CHECK_EQ_INT(time_us, new_year - 5 * SECOND);
    REQUIRE(logs_time(span_str("23:59:59 [main] x"), new_year, &time_us) == 0);
    CHECK_EQ_INT(time_us, new_year - 11 * SECOND);
}

/* ---- the window ---- */

static const char *window_of(const char *text, size_t limit, struct logs_window *window)
{
    buf_init(&out, limit);
    *window = (struct logs_window){.from_us = NOON, .to_us = NOON + 10 * SECOND, .out = &out};
    set_zone("UTC");
    logs_window_text(window, span_str(text));
    return buf_str(&out);
}

TEST(lines_without_a_time_belong_to_the_one_above)
{
    struct logs_window window;
    CHECK_EQ_STR(window_of("unfinished\n"
                           "2026-11-23 11:59:59 before\n"
                           "  its second line\n"
                           "2026-11-23 12:00:00 at the beginning\n"
                           "Traceback (most recent call last):\n"
                           "  File \"x\", line 1\r\n"
                           "2026-11-23 12:00:10 at the end\n"
                           "2026-11-23 12:00:11 after\nmore",
                           4096, &window),
                 "2026-11-23 12:00:00 at the beginning\n"
                 "Traceback (most recent call last):\n"
                 "  File \"x\", line 1\n"
                 "2026-11-23 12:00:10 at the end\n");
    CHECK_EQ_INT(window.timed, 4);
    CHECK_EQ_INT(window.taken, 4);
    CHECK(!window.cut);
    buf_done(&out);
}

TEST(the_newest_are_kept)
{
    static char text[64 * 1024];
    struct logs_window window;
    size_t length = 0;
    for (int i = 0; i < 1000; i++)
        length += (size_t)snprintf(text + length, sizeof text - length,
                                   "2026-11-23 12:00:05 line %03d\n", i);
    const char *kept = window_of(text, 1000, &window);
    CHECK(window.cut);
    CHECK(strstr(kept, "line 999\n") != NULL);
    CHECK(strstr(kept, "line 000\n") == NULL);
    CHECK(strncmp(kept, "2026-11-23 12:00:05 line ", 25) == 0); /* whole lines */
    CHECK(out.size_bytes > 500 && out.size_bytes <= 1000);
    buf_done(&out);
}

TEST(lines_are_made_safe_and_cut)
{
    static char text[3 * LOGS_LINE_SIZE];
    struct logs_window window;
    snprintf(text, sizeof text, "2026-11-23 12:00:05 \033[31mred\n2026-11-23 12:00:06 ");
    memset(text + strlen(text), 'x', 2 * LOGS_LINE_SIZE);
    const char *kept = window_of(text, 1 << 20, &window);
    CHECK(strstr(kept, "\\x1b[31mred\n") != NULL);
    CHECK(strlen(kept) < LOGS_LINE_SIZE + 100);
    buf_done(&out);
    CHECK_EQ_STR(window_of("2026-11-23 12:00:05 a line that does not fit\n", 10, &window), "");
    CHECK(window.cut);
    buf_done(&out);
}

/* ---- files of a real process ---- */

/* Starts sleep(1) with the given files open; returns its pid. */
static pid_t start(const int *fds, size_t count)
{
    int ready[2];
    char byte;
    REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        for (size_t i = 0; i < count; i++)
            (void)fcntl(fds[i], F_SETFD, 0);
        (void)dup2(open("/dev/null", O_RDWR), 1);
        (void)dup2(1, 2);
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    (void)!read(ready[0], &byte, 1);
    close(ready[0]);
    return pid;
}

static int capture(pid_t pid, size_t limit)
{
    struct os_process process;
    buf_init(&out, limit);
    set_zone("UTC");
    REQUIRE(os_process_get("", (uint32_t)pid, &process, &failure) == 0);
    return logs_capture("", &process, NOON, NOON + 10 * SECOND, &out, missing, sizeof missing,
                        &failure);
}

static void stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    buf_done(&out);
}

static int open_in(const char *root, const char *path, int flags)
{
    char full[TREE_PATH];
    tree_path(full, root, path);
    int fd = open(full, flags | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0);
    return fd;
}

static bool has(const char *text)
{
    return strstr(buf_str(&out), text) != NULL;
}

TEST(a_log_that_the_process_writes)
{
    const char *root = tree_make();
    tree_write(root, "/a.log", "2026-11-23 11:00:00 old\n2026-11-23 12:00:05 wanted\n");
    tree_write(root, "/read.log", "2026-11-23 12:00:05 only read\n");
    tree_write(root, "/data.db", "2026-11-23 12:00:05 no log\n");
    int fds[] = {open_in(root, "/a.log", O_WRONLY | O_APPEND), open_in(root, "/read.log", O_RDONLY),
                 open_in(root, "/data.db", O_RDWR), open_in(root, "/a.log", O_RDWR)};
    pid_t pid = start(fds, 4);
    REQUIRE(capture(pid, 1 << 20) == 0);
    CHECK(strncmp(buf_str(&out), "==> /tmp/", 9) == 0);
    CHECK(has("/a.log <==\n2026-11-23 12:00:05 wanted\n"));
    CHECK(!has("old") && !has("only read") && !has("no log"));
    CHECK(strstr(buf_str(&out) + 4, "==>") == NULL); /* once, although open twice */
    CHECK_EQ_STR(missing, "");
    stop(pid);
}

TEST(a_log_that_was_deleted_is_still_there)
{
    const char *root = tree_make();
    tree_write(root, "/a.log", "2026-11-23 12:00:05 wanted\n");
    int fds[] = {open_in(root, "/a.log", O_WRONLY)};
    pid_t pid = start(fds, 1);
    tree_remove(root, "/a.log");
    REQUIRE(capture(pid, 1 << 20) == 0);
    CHECK(has("/a.log (deleted) <==\n2026-11-23 12:00:05 wanted\n"));
    stop(pid);
}

TEST(the_rotated_log_comes_first)
{
    const char *root = tree_make();
    char secret[TREE_PATH], rotated[TREE_PATH];
    struct timespec times[2] = {{NOON / SECOND + 1, 0}, {NOON / SECOND + 1, 0}};
    tree_write(root, "/a.log", "2026-11-23 12:00:05 new\n");
    tree_write(root, "/a.log.1", "2026-11-23 12:00:01 rotated\n");
    tree_write(root, "/old.log", "2026-11-23 12:00:06 other\n");
    tree_write(root, "/old.log.1", "2026-11-23 12:00:02 not touched since\n");
    tree_write(root, "/link.log", "2026-11-23 12:00:07 third\n");
    tree_write(root, "/secret", "2026-11-23 12:00:03 secret\n");
    tree_path(secret, root, "/secret");
    tree_link(root, "/link.log.1", secret);
    tree_path(rotated, root, "/a.log.1");
    REQUIRE(utimensat(AT_FDCWD, rotated, times, 0) == 0);
    times[0].tv_sec = times[1].tv_sec = NOON / SECOND - 3600;
    tree_path(rotated, root, "/old.log.1");
    REQUIRE(utimensat(AT_FDCWD, rotated, times, 0) == 0);
    int fds[] = {open_in(root, "/a.log", O_WRONLY), open_in(root, "/old.log", O_WRONLY),
                 open_in(root, "/link.log", O_WRONLY)};
    pid_t pid = start(fds, 3);
    REQUIRE(capture(pid, 1 << 20) == 0);
    const char *first = strstr(buf_str(&out), "rotated\n"),
               *second = strstr(buf_str(&out), "new\n");
    CHECK(first && second && first < second);
    CHECK(has("other\n") && has("third\n"));
    CHECK(!has("not touched"));
    CHECK(!has("secret\n")); /* a link is not followed */
    stop(pid);
}

/* A process must not make us read for it what it may not read itself. */
TEST(a_file_opened_without_the_right_to_read_is_not_taken)
{
    const char *root = tree_make();
    tree_write(root, "/path.log", "2026-11-23 12:00:05 by path only\n");
    int fds[] = {open_in(root, "/path.log", O_PATH)};
    pid_t pid = start(fds, 1);
    CHECK_EQ_INT(capture(pid, 1 << 20), ERR_NOTFOUND);
    CHECK(strstr(failure.text, "no log of process") != NULL);
    CHECK_EQ_INT(out.size_bytes, 0);
    stop(pid);
}

TEST(a_source_without_times_gives_its_end)
{
    static char text[400 * 1024];
    const char *root = tree_make();
    size_t length = 0;
    for (int i = 0; length + 32 < sizeof text; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "line %06d\n", i);
    tree_write_bytes(root, "/a.log", text, length);
    int fds[] = {open_in(root, "/a.log", O_WRONLY)};
    pid_t pid = start(fds, 1);
    REQUIRE(capture(pid, 1 << 20) == 0);
    CHECK(out.size_bytes > 250 * 1024 && out.size_bytes < 257 * 1024);
    CHECK(!has("line 000000\n"));
    CHECK(strcmp(buf_str(&out) + out.size_bytes - 7, text + length - 7) == 0);
    CHECK(strstr(missing, "no times in it, its last 256 KiB are given") != NULL);
    stop(pid);
}

TEST(a_large_log_is_read_from_its_end)
{
    const char *root = tree_make();
    char path[TREE_PATH];
    tree_path(path, root, "/a.log");
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    for (int i = 0; i < 200000; i++) {
        int second = i / 20000;
        fprintf(file, "2026-11-23 11:59:5%d line %06d %060d\n", second, i, i);
    }
    fprintf(file, "2026-11-23 12:00:01 wanted\n");
    fclose(file);
    int fds[] = {open_in(root, "/a.log", O_WRONLY)};
    pid_t pid = start(fds, 1);
    REQUIRE(capture(pid, 1 << 20) == 0);
    CHECK(has("12:00:01 wanted\n"));
    CHECK(!has("line "));
    CHECK_EQ_STR(missing, "");
    stop(pid);
    /* All of the window is more than 8 MiB: said. */
    pid = start(fds, 1);
    struct os_process process;
    buf_init(&out, 1 << 20);
    REQUIRE(os_process_get("", (uint32_t)pid, &process, &failure) == 0);
    REQUIRE(logs_capture("", &process, NOON - 3600 * SECOND, NOON + 3600 * SECOND, &out, missing,
                         sizeof missing, &failure) == 0);
    CHECK(strstr(missing, "only its last 8 MiB were read") != NULL);
    CHECK(strstr(missing, "no room for its oldest lines") != NULL);
    CHECK(has("12:00:01 wanted\n"));
    CHECK(out.size_bytes <= 1 << 20);
    stop(pid);
}

TEST(sources_share_the_room)
{
    const char *root = tree_make();
    char path[TREE_PATH];
    for (int which = 0; which < 2; which++) {
        tree_path(path, root, which ? "/b.log" : "/a.log");
        FILE *file = fopen(path, "w");
        REQUIRE(file != NULL);
        for (int i = 0; i < 500; i++)
            fprintf(file, "2026-11-23 12:00:05 %s %03d\n", which ? "second" : "first", i);
        fclose(file);
    }
    int fds[] = {open_in(root, "/a.log", O_WRONLY), open_in(root, "/b.log", O_WRONLY)};
    pid_t pid = start(fds, 2);
    REQUIRE(capture(pid, 4000) == 0);
    CHECK(out.size_bytes <= 4000);
    CHECK(has("first 499\n") && has("second 499\n"));
    CHECK(!has("first 000\n") && !has("second 000\n"));
    stop(pid);
    pid = start(fds, 2);
    REQUIRE(capture(pid, 100) == 0); /* not even room for headers */
    CHECK(strstr(missing, "no room") != NULL);
    stop(pid);
}

/* ---- the journal, by a stand-in ---- */

static const char *journal_tree(const char *script)
{
    const char *root = tree_make();
    char path[TREE_PATH];
    tree_write(root, "/run/log/journal/0123/system.journal", "x");
    tree_write(root, "/usr/bin/journalctl", script);
    tree_path(path, root, "/usr/bin/journalctl");
    REQUIRE(chmod(path, 0755) == 0);
    tree_write(root, "/proc/9/cgroup", "0::/system.slice/my-app@1.service\n");
    set_zone("UTC");
    return root;
}

static int capture_recorded(const char *root, size_t limit)
{
    struct os_process process = {.pid = 9};
    buf_init(&out, limit);
    return logs_capture(root, &process, NOON, NOON + 10 * SECOND, &out, missing, sizeof missing,
                        &failure);
}

TEST(the_journal_is_asked_with_fixed_arguments)
{
    const char *root = journal_tree("#!/bin/sh\n"
                                    "echo 2026-11-23T11:59:59.9+0000 before\n"
                                    "for a; do echo \"2026-11-23T12:00:01+0000 $a\"; done\n"
                                    "echo \"2026-11-23T12:00:02+0000 secret=$SECRET\"\n"
                                    "printf '2026-11-23T12:00:03+0000 no newline'\n");
    setenv("SECRET", "leaks", 1);
    REQUIRE(capture_recorded(root, 1 << 20) == 0);
    CHECK(strncmp(buf_str(&out), "==> journal <==\n", 16) == 0);
    CHECK(has(" --no-pager\n") && has(" --output=short-iso-precise\n"));
    CHECK(has(" --since=@1795435200\n") && has(" --until=@1795435211\n"));
    CHECK(has(" _PID=9\n") && has(" _SYSTEMD_UNIT=my-app@1.service\n"));
    CHECK(has(" secret=\n")); /* none of our environment */
    CHECK(has(" no newline\n"));
    CHECK(!has("before"));
    CHECK(strstr(missing, "log files: cannot read '") != NULL);
    buf_done(&out);
    CHECK_EQ_INT(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

/* What the follower of the journal gives until it ends. */
static void read_followed(const char *root, const char *cursor, struct buf *b)
{
    uint64_t end_us = port_mono_us() + 10000000;
    uint8_t *room;
    int fd = -1, pid = 0, e = 0;
    buf_init(b, 1 << 16);
    REQUIRE(os_journal_start(root, cursor, &fd, &pid, NULL) == 0);
    while (e != ERR_CLOSED && port_mono_us() < end_us) {
        size_t got = 0;
        REQUIRE(buf_reserve(b, 4096, &room) == 0);
        e = os_journal_read(fd, room, 4096, &got);
        buf_commit(b, got);
        if (e == ERR_AGAIN)
            usleep(1000);
    }
    CHECK_EQ_INT(e, ERR_CLOSED);
    os_journal_stop(pid);
    os_log_close(fd);
}

TEST(the_journal_is_followed_with_fixed_arguments)
{
    const char *root = journal_tree("#!/bin/sh\nfor a; do echo \" $a\"; done\n"
                                    "echo \" secret=$SECRET\"\n");
    struct buf b;
    struct failure f;
    int fd, pid;
    setenv("SECRET", "leaks", 1);
    read_followed(root, "", &b);
    CHECK(strstr(buf_str(&b), " --follow\n") && strstr(buf_str(&b), " --output=export\n"));
    CHECK(strstr(buf_str(&b), " --lines=0\n") && strstr(buf_str(&b), ",UNIT_RESULT,"));
    CHECK(strstr(buf_str(&b), " secret=\n") && !strstr(buf_str(&b), "cursor"));
    buf_done(&b);
    read_followed(root, "s=0a;i=1", &b);
    CHECK(strstr(buf_str(&b), " --after-cursor=s=0a;i=1\n --no-tail\n") != NULL);
    buf_done(&b);
    CHECK_EQ_INT(os_journal_start(root, "s=0a --file=/x", &fd, &pid, &f), ERR_INVALID);
    CHECK_EQ_INT(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

TEST_LIMIT(a_journal_without_end_is_cut, 60)
{
    const char *root =
        journal_tree("#!/bin/sh\nexec yes '2026-11-23T12:00:01+0000 again and again'\n");
    REQUIRE(capture_recorded(root, 4096) == 0);
    CHECK(strstr(missing, "journal: more than 16 MiB") != NULL);
    CHECK(has("again and again\n"));
    buf_done(&out);
    CHECK_EQ_INT(waitpid(-1, NULL, WNOHANG), -1);
}

TEST(a_journal_program_that_cannot_run_is_said)
{
    const char *root = journal_tree("#!/nowhere/interpreter\n");
    REQUIRE(capture_recorded(root, 4096) == 0);
    CHECK(strstr(missing, "journal: cannot start '") != NULL);
    buf_done(&out);
    CHECK_EQ_INT(waitpid(-1, NULL, WNOHANG), -1);
}

TEST(names_of_units)
{
    CHECK(logs_is_unit_name("redis-server.service"));
    CHECK(logs_is_unit_name("a@b:c_d\\x2d.service"));
    CHECK(!logs_is_unit_name(""));
    CHECK(!logs_is_unit_name("-x.service"));
    CHECK(!logs_is_unit_name("a b.service"));
    CHECK(!logs_is_unit_name("a\n.service"));
    CHECK(!logs_is_unit_name("a=b.service"));
    CHECK(!logs_is_unit_name("a+.service"));
}

TEST(no_log_at_all)
{
    const char *root = tree_make();
    CHECK_EQ_INT(capture_recorded(root, 4096), ERR_NOTFOUND);
    CHECK(strstr(failure.text, "no log of process 9: no journal") != NULL);
    buf_done(&out);
}
