/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Followed logs, real files with the real broker: rotation of each kind, files that come and go,
 * partial lines, an agent that is killed in between, and what may not be opened.
 */
#include <signal.h>

#include "tests/unit/agent/kit_follow.h"

#define ALLOW "capture = yes\n"

static void rename_in(const struct kit_follow *k, const char *from, const char *to)
{
    char a[128], b[128];
    kit_follow_path(k, from, a);
    kit_follow_path(k, to, b);
    REQUIRE(rename(a, b) == 0);
}

TEST_LIMIT(what_was_there_before_is_not_told_and_what_comes_is, 240)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    kit_follow_append(k, "a.log", "old");
    kit_follow_start_at(k, "a.log");
    CHECK_EQ_INT(k->sum, 0);
    kit_follow_append(k, "a.log", "new");
    kit_follow_append(k, "b.log", "later"); /* appears now: from its beginning */
    CHECK(kit_follow_until(k, 2));
    kit_follow_settle(k);
    CHECK_EQ_INT(k->sum, 2);
    CHECK(kit_follow_has(k, "new") && kit_follow_has(k, "later"));
    CHECK(strcmp(k->processes[0], "a") == 0 || strcmp(k->processes[0], "b") == 0);
    kit_follow_stop(k);
    kit_follow_remove(k);
}

TEST_LIMIT(rotation_of_each_kind_loses_and_doubles_nothing, 240)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    char path[128];
    kit_follow_append(k, "a.log", "old");
    kit_follow_start_at(k, "a.log");
    kit_follow_append(k, "a.log", "1 before the name goes");
    rename_in(k, "a.log", "a.log.1");
    kit_follow_append(k, "a.log.1", "2 written to the old one");
    kit_follow_append(k, "a.log", "3 written to the new one");
    CHECK(kit_follow_until(k, 3));
    kit_follow_path(k, "a.log", path);
    REQUIRE(truncate(path, 0) == 0);                           /* copytruncate */
    kit_follow_append(k, "a.log", "4 written to the new one"); /* at the same place as the third */
    CHECK(kit_follow_until(k, 4));
    /* Emptied, and longer than it was before anybody looked again. */
    REQUIRE(truncate(path, 0) == 0);
    for (int i = 5; i < 9; i++)
        kit_follow_append(k, "a.log", i == 5 ? "5" : i == 6 ? "6" : i == 7 ? "7" : "8");
    CHECK(kit_follow_until(k, 8));
    int fd = open(path, O_WRONLY | O_APPEND);
    char text[512];
    size_t size = kit_follow_trace(text, sizeof text, "9 into a removed file");
    unlink(path);
    REQUIRE(write(fd, text, size) == (ssize_t)size);
    close(fd);
    CHECK(kit_follow_until(k, 9));
    kit_follow_settle(k);
    CHECK_EQ_INT(k->sum, 9);
    kit_follow_stop(k);
    kit_follow_remove(k);
}

TEST_LIMIT(half_lines_and_garbage_hide_nothing, 240)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    char text[512], noise[5000];
    kit_follow_append(k, "a.log", "old");
    kit_follow_start_at(k, "a.log");
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * 7919 >> 3);
    kit_follow_write(k, "a.log", noise, sizeof noise);
    kit_follow_write(k, "a.log", "\n", 1);
    size_t size = kit_follow_trace(text, sizeof text, "in pieces");
    for (size_t at = 0; at < size; at += 50) {
        kit_follow_write(k, "a.log", text + at, size - at < 50 ? size - at : 50);
        for (int i = 0; i < 13; i++)
            kit_follow_turn(k);
    }
    CHECK(kit_follow_until(k, 1));
    CHECK(kit_follow_has(k, "in pieces"));
    CHECK_EQ_INT(k->sum, 1);
    kit_follow_stop(k);
    kit_follow_remove(k);
}

/* An agent of its own that is killed once it has told `sum`, in the middle of the next trace. */
static void run_and_kill(struct kit_follow *k, uint64_t sum)
{
    int ends[2];
    char byte;
    REQUIRE(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        kit_follow_start(k);
        bool is_said = false;
        for (;;) {
            kit_follow_turn(k);
            if (k->sum >= sum && !is_said)
                is_said = write(ends[1], "x", 1) == 1;
        }
    }
    close(ends[1]);
    CHECK_EQ_INT(read(ends[0], &byte, 1), 1);
    usleep(300000); /* into the trace that is not whole */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ends[0]);
}

TEST_LIMIT(an_agent_that_is_killed_tells_each_once, 270)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    char text[512];
    kit_follow_append(k, "a.log", "old");
    kit_follow_start_at(k, "a.log");
    kit_follow_stop(k);
    spool_close(k->spool);
    size_t size = kit_follow_trace(text, sizeof text, "halved");
    kit_follow_append(k, "a.log", "while nobody looked");
    kit_follow_write(k, "a.log", text, size / 2);
    run_and_kill(k, 1);
    kit_follow_write(k, "a.log", text + size / 2, size - size / 2);
    kit_follow_append(k, "a.log", "while it was dead");
    kit_follow_start(k);
    CHECK(kit_follow_until(k, 3));
    kit_follow_settle(k);
    CHECK_EQ_INT(k->sum, 3);
    CHECK(kit_follow_has(k, "while nobody looked") && kit_follow_has(k, "halved") &&
          kit_follow_has(k, "while it was dead"));
    kit_follow_stop(k);
    kit_follow_remove(k);
}

TEST_LIMIT(a_flood_is_counted_exactly, 300)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    struct buf all;
    char text[512];
    kit_follow_append(k, "a.log", "old");
    kit_follow_start_at(k, "a.log");
    buf_init(&all, 64 << 20);
    for (unsigned i = 0; i < 100000; i++) {
        char message[32];
        snprintf(message, sizeof message, "cart %u", i);
        REQUIRE(buf_append(&all, text, kit_follow_trace(text, sizeof text, message)) == 0);
    }
    kit_follow_write(k, "a.log", all.data, all.size_bytes);
    buf_done(&all);
    CHECK(kit_follow_until(k, 100000));
    kit_follow_settle(k);
    CHECK_EQ_INT(k->sum, 100000);
    CHECK(k->records < 2000);
    kit_follow_stop(k);
    kit_follow_remove(k);
}

TEST_LIMIT(what_is_passed_over_is_said, 240)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    char path[128];
    struct stat st;
    kit_follow_append(k, "a.log", "old");
    kit_follow_start_at(k, "a.log");
    kit_follow_path(k, "a.log", path);
    REQUIRE(stat(path, &st) == 0 && truncate(path, st.st_size + ((off_t)1 << 30)) == 0);
    kit_follow_write(k, "a.log", "\n", 1);
    kit_follow_append(k, "a.log", "behind the hole");
    CHECK(kit_follow_until(k, 1));
    CHECK(kit_follow_has(k, "behind the hole"));
    CHECK(k->gaps >= 1);
    kit_follow_stop(k);
    kit_follow_remove(k);
}

TEST_LIMIT(only_plain_files_are_opened, 240)
{
    struct kit_follow *k = kit_follow_make("*.log", NULL, ALLOW);
    char secret[128], path[128];
    kit_follow_append(k, "secret", "of another");
    kit_follow_path(k, "secret", secret);
    kit_follow_start(k);
    kit_follow_settle(k);
    kit_follow_path(k, "b.log", path);
    REQUIRE(symlink(secret, path) == 0);
    kit_follow_path(k, "c.log", path);
    REQUIRE(link(secret, path) == 0);
    kit_follow_path(k, "d.log", path);
    REQUIRE(mkfifo(path, 0644) == 0);
    kit_follow_append(k, "a.log", "plain");
    CHECK(kit_follow_until(k, 1));
    kit_follow_append(k, "secret", "of another still");
    kit_follow_settle(k);
    CHECK_EQ_INT(k->sum, 1);
    CHECK(kit_follow_has(k, "plain"));
    kit_follow_stop(k);
    kit_follow_remove(k);
}

/* A shell whose output goes to a log file, under a name of its own. */
static pid_t start_writer(const struct kit_follow *k, const char *name)
{
    char path[128];
    kit_follow_path(k, "a.log", path);
    pid_t child = fork();
    if (child != 0)
        return child;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(1);
    execl("/bin/sleep", name, "60", (char *)NULL);
    _exit(1);
}

static void follow_process(const char *policy, bool is_allowed)
{
    struct kit_follow *k = kit_follow_make(NULL, "sleep", policy);
    struct failure f;
    pid_t writer = start_writer(k, "sleep");
    policy_load(&k->policy, k->policy_path, &f);
    kit_follow_append(k, "a.log", "before it was looked at");
    if (is_allowed) {
        kit_follow_start_at(k, "a.log");
        kit_follow_append(k, "a.log", "from the process");
        CHECK(kit_follow_until(k, 1));
        CHECK_EQ_STR(k->processes[0], "sleep");
        CHECK_EQ_INT(k->pids[0], writer);
    } else {
        kit_follow_start(k);
        kit_follow_settle(k);
        kit_follow_append(k, "a.log", "from the process");
        kit_follow_settle(k);
        CHECK_EQ_INT(k->sum, 0);
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    kit_follow_stop(k);
    kit_follow_remove(k);
}

TEST_LIMIT(the_log_of_a_followed_process_is_its_own, 240)
{
    follow_process(ALLOW, true);
}

TEST_LIMIT(a_process_that_the_policy_forbids_is_not_followed, 240)
{
    follow_process(ALLOW "never = sleep\n", false);
}

/* Asked by an agent that was taken over. */
TEST_LIMIT(the_broker_opens_nothing_else, 240)
{
    struct kit_follow *k = kit_follow_make("*.log", "sleep", ALLOW);
    static struct broker_request request;
    static struct broker_reply reply;
    struct os_process self;
    struct failure f;
    int fd = -1, passed = -1;
    REQUIRE(os_broker_fork(broker_run, &k->broker_settings, &fd, &f) == 0);
    REQUIRE(os_process_get("", 1, &self, &f) == 0);
    for (uint32_t what = 0; what < 5; what++) {
        request = (struct broker_request){.magic = BROKER_MAGIC, .op = BROKER_OPEN_LOG, .id = 7};
        request.body.log.what = what;
        request.body.log.index = what == BROKER_LOG_LISTED ? 3 : 0;
        request.body.log.pid = 1;
        request.body.log.start_ticks = self.start_ticks;
        memset(request.body.log.cursor, ';', sizeof request.body.log.cursor);
        REQUIRE(os_message_send(fd, &request, sizeof request, -1, &f) == 0);
        REQUIRE(os_message_receive(fd, &reply, sizeof reply, &passed, 50000, &f) == 0);
        CHECK(reply.error != 0 && passed < 0);
    }
    close(fd);
    free(k);
}
