/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker that dies (SIGKILL) between any two steps of a snapshot leaves the process as it was:
 * registers, FP state, signal mask and alternate stack, and the system call it was in. With a
 * control in which nothing heals it.
 */
#include <errno.h>

#include "tests/unit/os/snapshot_kit.h"

struct tally {
    unsigned long deaths, wrong, interrupted, gone;
};

/* A worker of its own. Returns whether it was killed. */
static bool die(const struct victim *v, struct inject_controls clone_controls,
                struct inject_controls reap_controls)
{
    int status = 0;
    pid_t worker = fork();
    REQUIRE(worker >= 0);
    if (worker == 0) {
        struct kit kit = {.clone_controls = clone_controls, .reap_controls = reap_controls};
        _exit(kit_take(&kit, &v->process) ? 1 : 0);
    }
    REQUIRE(waitpid(worker, &status, 0) == worker);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Answers whether it still lives. */
static bool ask(struct victim *v, struct tally *tally)
{
    char line[512], *at = line;
    fputs("?\n", v->in);
    fflush(v->in);
    if (!fgets(line, sizeof line, v->out)) {
        tally->gone++;
        return false;
    }
    strtoul(at, &at, 10);
    unsigned long wrong = strtoul(at, &at, 10);
    tally->wrong += wrong;
    tally->interrupted += strtoul(at, &at, 10);
    if (wrong)
        printf("      %s", line);
    return true;
}

static void tidy(const struct victim *v)
{
    struct failure f = {0, ""};
    int rc = snapshot_tidy(&v->process, v->process.start_ticks, &f);
    CHECK(rc >= 0);
    CHECK_EQ_STR(f.text, "");
    CHECK_EQ_INT(kit_zombies(v), 0);
}

static bool no_restorer;

static void die_everywhere(const char *mode, const char *thread, bool in_reap, struct tally *tally)
{
    struct victim v;
    struct inject_controls none = {.die_at = 0}, at_step = {.no_restorer = no_restorer};
    signal(SIGPIPE, SIG_IGN);
    victim_start(&v, "registers", mode, thread);
    for (uint32_t step = 1; step <= INJECT_STEPS; step++) {
        at_step.die_at = step;
        bool died = in_reap ? die(&v, none, at_step) : die(&v, at_step, none);
        /* No child is born by wait4(2). */
        CHECK(died != (in_reap && step == INJECT_STEP_CHILD));
        tally->deaths += died;
        victim_check_free(&v);
        CHECK(ask(&v, tally));
        /* It has answered, so it has made what it was made to call. */
        if (kit_children(&v) > 0)
            tidy(&v);
    }
    victim_end(&v);
}

static const char *const modes[] = {"read", "epoll", "ppoll", "user"};
#define MODES (sizeof modes / sizeof modes[0])

TEST_LIMIT(our_death_while_cloning_is_healed, 120)
{
    struct tally tally = {0, 0, 0, 0};
    for (size_t i = 0; i < MODES; i++) {
        die_everywhere(modes[i], NULL, false, &tally);
        die_everywhere(modes[i], "thread", false, &tally);
    }
    printf("      %lu deaths\n", tally.deaths);
    CHECK_EQ_INT(tally.deaths, 2 * MODES * INJECT_STEPS);
    CHECK_EQ_INT(tally.wrong, 0);
    CHECK_EQ_INT(tally.interrupted, 0);
    CHECK_EQ_INT(tally.gone, 0);
}

TEST_LIMIT(our_death_while_reaping_is_healed, 120)
{
    struct tally tally = {0, 0, 0, 0};
    for (size_t i = 0; i < MODES; i++) {
        die_everywhere(modes[i], NULL, true, &tally);
        die_everywhere(modes[i], "thread", true, &tally);
    }
    printf("      %lu deaths\n", tally.deaths);
    CHECK_EQ_INT(tally.deaths, 2 * MODES * (INJECT_STEPS - 1));
    CHECK_EQ_INT(tally.wrong, 0);
    CHECK_EQ_INT(tally.interrupted, 0);
    CHECK_EQ_INT(tally.gone, 0);
}

TEST_LIMIT(our_death_is_healed_without_a_restorer, 120)
{
    struct tally tally = {0, 0, 0, 0};
    no_restorer = true;
    die_everywhere("read", NULL, false, &tally);
    die_everywhere("user", "thread", false, &tally);
    CHECK_EQ_INT(tally.deaths, 2 * INJECT_STEPS);
    CHECK_EQ_INT(tally.wrong + tally.interrupted + tally.gone, 0);
}

/* A call with a timeout that the kernel resumes returns EINTR: once for each death, at most. */
TEST_LIMIT(a_call_that_is_resumed_may_be_interrupted_by_our_death, 60)
{
    struct tally tally = {0, 0, 0, 0};
    die_everywhere("poll", NULL, false, &tally);
    CHECK_EQ_INT(tally.wrong, 0);
    CHECK_EQ_INT(tally.gone, 0);
    CHECK(tally.interrupted > 0 && tally.interrupted <= tally.deaths);
}

TEST_LIMIT(control_without_frames_our_death_is_seen, 120)
{
    unsigned broken = 0;
    signal(SIGPIPE, SIG_IGN);
    for (uint32_t step = 1; step <= INJECT_STEPS; step++) {
        struct victim v;
        struct tally tally = {0, 0, 0, 0};
        struct inject_controls bare = {.die_at = step, .leave_frames = true}, none = {.die_at = 0};
        victim_start(&v, "registers", "read", NULL);
        CHECK(die(&v, bare, none));
        broken += !ask(&v, &tally) || tally.wrong > 0 || tally.interrupted > 0;
        victim_end(&v);
    }
    printf("      %u of %u deaths are seen\n", broken, INJECT_STEPS);
    CHECK(broken >= 4);
}

/* ---- at any instant ---- */

#define KILLS 100

static _Noreturn void take_for_ever(const struct victim *v)
{
    for (;;) {
        struct kit kit = {.context = NULL};
        kit_take(&kit, &v->process);
    }
}

/* Kills a worker at a random instant, again and again. */
static void kill_workers(const struct victim *v, int count)
{
    unsigned seed = 11;
    for (int i = 0; i < count; i++) {
        int traced = 1;
        pid_t worker = fork();
        REQUIRE(worker >= 0);
        if (worker == 0)
            take_for_ever(v);
        struct timespec t = {0, 2000000 + rand_r(&seed) % 12000000};
        nanosleep(&t, NULL);
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
        CHECK_EQ_INT(victim_count(v, 't', &traced) + traced, 0);
        CHECK_EQ_INT(victim_count(v, 'T', &traced), 0);
    }
}

TEST_LIMIT(a_worker_may_be_killed_at_any_instant, 120)
{
    struct victim v;
    struct tally tally = {0, 0, 0, 0};
    const char *const some[] = {"read", "ppoll", "user"};
    for (size_t i = 0; i < 3; i++) {
        victim_start(&v, "registers", some[i], i % 2 ? "thread" : NULL);
        for (int k = 0; k < KILLS / 10; k++) {
            kill_workers(&v, 3);
            CHECK(ask(&v, &tally));
        }
        tidy(&v);
        victim_end(&v);
    }
    CHECK_EQ_INT(tally.wrong, 0);
    CHECK_EQ_INT(tally.interrupted, 0);
    CHECK_EQ_INT(tally.gone, 0);
}

TEST_LIMIT(no_signal_is_lost_when_workers_are_killed, 120)
{
    struct victim v;
    char line[128], *at = line;
    victim_start(&v, "storm", NULL, NULL);
    kill_workers(&v, KILLS);
    tidy(&v);
    victim_ask(&v, line, sizeof line);
    unsigned long sent = strtoul(at, &at, 10);
    CHECK(sent > 100);
    CHECK_EQ_INT(strtoul(at, &at, 10), sent);
    CHECK_EQ_INT(strtoul(at, &at, 10), 0); /* out of order */
    CHECK_EQ_INT(strtoul(at, &at, 10), 0); /* SIGCHLD */
    victim_end(&v);
}
