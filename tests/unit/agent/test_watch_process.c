/* SPDX-License-Identifier: Apache-2.0 */
/* Watched processes: bad ends are told with their status, restarts by a plain supervisor chained.
 */
#include "agent/watch_process.h"

#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/agent/watch_kit.h"

#define VICTIM VICTIMS_DIR "/watched"

static const char *const followed[] = {"watched", NULL};
static struct watch_kit k;

struct crowd {
    pid_t shell;
    int count;
};

/* `sh -c script` in a group of its own; $V is the victim. */
static pid_t run_shell(const char *script)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        setpgid(0, 0);
        setenv("V", VICTIM, 1);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    (void)setpgid(pid, pid);
    return pid;
}

static void end_shell(pid_t pid)
{
    (void)kill(-pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static int count_group(void *context, const struct os_process *process)
{
    struct crowd *crowd = context;
    crowd->count += getpgid((pid_t)process->pid) == crowd->shell;
    return 0;
}

/* Until so many victims of the shell run. */
static void await_victims(pid_t shell, int count)
{
    struct os_process_filter filter = {.name = "watched"};
    struct crowd crowd = {shell, 0};
    struct failure f;
    for (int i = 0; i < KIT_CERTAIN_MS && crowd.count < count; i++) {
        crowd.count = 0;
        (void)os_process_each("", &filter, count_group, &crowd, &f);
        if (crowd.count < count)
            usleep(1000);
    }
    REQUIRE(crowd.count >= count);
}

static void open_source(void)
{
    struct failure f = {0, ""};
    watch_kit_open(&k, followed);
    REQUIRE(watch_process_open(&k.source, &k.context, &f) == 0);
    REQUIRE(k.source != NULL);
    k.tick = watch_process_second;
}

static void close_source(void)
{
    watch_process_close(k.source);
    watch_kit_close(&k);
}

static bool knows_status(void)
{
    return kit_find(&k, KIT_EVENT, "not known: this kernel", 0) == false;
}

TEST(what_counts_as_a_bad_end)
{
    static const struct {
        struct os_exit exit;
        bool is_bad;
        const char *text;
    } cases[] = {
        {{false, 0, false}, false, "exit 0"},
        {{false, 3, false}, true, "exit 3"},
        {{true, 15, false}, false, "killed by SIGTERM"},
        {{true, 2, false}, false, "killed by SIGINT"},
        {{true, 1, false}, false, "killed by SIGHUP"},
        {{true, 9, false}, true, "killed by SIGKILL"},
        {{true, 11, true}, true, "killed by SIGSEGV"},
        {{false, 143, false}, false, "exit 143"},
        {{false, 130, false}, false, "exit 130"},
        {{false, 137, false}, true, "exit 137"},
        {{true, 40, false}, true, "killed by signal 40"},
    };
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ_INT(watch_is_bad_exit(&cases[i].exit), cases[i].is_bad);
        watch_exit_text(&cases[i].exit, text, sizeof text);
        CHECK_EQ_STR(text, cases[i].text);
    }
}

TEST_LIMIT(a_supervisor_restarts_and_the_chain_is_told, 300)
{
    const trawl_v1_Exception *e = &kit_message.body.exception;
    pid_t shell = run_shell("while :; do $V listen 17391 sleep 4000 exit 3; sleep 0.3; done");
    kit_await_listener(17391);
    open_source();
    bool found = kit_wait(&k, KIT_EXCEPTION, "exit 3", 0, KIT_CERTAIN_MS);
    if (!found && !knows_status())
        SKIP("this kernel does not tell exit statuses of others' children");
    REQUIRE(found);
    CHECK_EQ_INT(e->source, trawl_v1_ExceptionSource_PROCESS_EXIT);
    CHECK_EQ_STR(e->process, "watched");
    CHECK_EQ_STR(e->template, "ended: exit 3");
    CHECK(e->pid > 0 && e->start_ticks > 0);
    CHECK(strstr(e->executable, "/watched") != NULL);
    uint32_t first = e->pid;
    char chained[64], recovered[64];
    snprintf(chained, sizeof chained, "watched (%u) restarted as ", first);
    REQUIRE(kit_wait(&k, KIT_EVENT, chained, 0, KIT_CERTAIN_MS));
    CHECK(strstr(kit_message.body.event.text, "it had ended: exit 3") != NULL);
    CHECK(strstr(kit_message.body.event.text, " ms;") != NULL); /* 300 and some */
    CHECK_EQ_INT(kit_message.body.event.type, trawl_v1_EventType_PROCESS_STARTED);
    snprintf(recovered, sizeof recovered, "after %u had ended", first);
    REQUIRE(kit_wait(&k, KIT_EVENT, recovered, 0, KIT_CERTAIN_MS));
    CHECK(strstr(kit_message.body.event.text, "listens on port 17391 again") != NULL);
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "exit 3", 1, KIT_CERTAIN_MS)); /* restarts are counted */
    bool counted = false;
    for (pb_size_t i = 0; i < e->tags_count; i++)
        counted |= strcmp(e->tags[i].key, "restarts") == 0 && strcmp(e->tags[i].value, "1") == 0;
    CHECK(counted);
    close_source();
    end_shell(shell);
}

TEST_LIMIT(an_ordinary_end_is_an_event_only, 180)
{
    pid_t shell = run_shell("$V sleep 5000 exit 0 & P=$!; $V sleep 600000 & wait $P; "
                            "kill $!; wait; sleep 600");
    await_victims(shell, 2);
    open_source();
    REQUIRE(kit_wait(&k, KIT_EVENT, "ended: exit 0", 0, KIT_CERTAIN_MS) || !knows_status());
    if (knows_status())
        CHECK(kit_wait(&k, KIT_EVENT, "ended: killed by SIGTERM", 0, KIT_CERTAIN_MS));
    (void)kit_wait(&k, KIT_EXCEPTION, "there is none", 0, 2600);
    CHECK(!kit_find(&k, KIT_EXCEPTION, "", 0));
    close_source();
    end_shell(shell);
}

TEST(nothing_followed_nothing_watched)
{
    static const char *const nobody[] = {NULL};
    struct failure f = {0, ""};
    watch_kit_open(&k, nobody);
    CHECK_EQ_INT(watch_process_open(&k.source, &k.context, &f), 0);
    CHECK(k.source == NULL);
    watch_kit_close(&k);
}

/* ---- standing still: each takes STALL_US and more ---- */

TEST_LIMIT(a_thread_in_uninterruptible_sleep, 300)
{
    const trawl_v1_Exception *e = &kit_message.body.exception;
    pid_t shell = run_shell("$V vfork 30000 sleep 300000");
    await_victims(shell, 1);
    open_source();
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "uninterruptible", 0, KIT_CERTAIN_MS));
    CHECK_EQ_INT(e->source, trawl_v1_ExceptionSource_HANG);
    CHECK(strstr(e->message, "a thread is in uninterruptible sleep in vfork()") != NULL);
    REQUIRE(kit_wait(&k, KIT_EVENT, "is out of uninterruptible sleep", 0, KIT_CERTAIN_MS));
    close_source();
    end_shell(shell);
}

TEST_LIMIT(event_loops_that_stop_and_one_that_is_idle, 300)
{
    const trawl_v1_Exception *e = &kit_message.body.exception;
    pid_t shell = run_shell("$V loop 6000 spin & "
                            "sleep 600 | $V loop 6000 read & "
                            "$V loop 600000 & wait");
    await_victims(shell, 3);
    open_source();
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "computes without end", 0, KIT_CERTAIN_MS));
    CHECK_EQ_STR(e->type, "event-loop");
    REQUIRE(kit_wait(&k, KIT_EXCEPTION, "sleeps in read()", 0, KIT_CERTAIN_MS));
    CHECK_EQ_STR(e->process, "watched");
    CHECK(!kit_find(&k, KIT_EXCEPTION, "", 2)); /* the third goes on waiting, and is idle */
    close_source();
    end_shell(shell);
}
