/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's export format, as journalctl gives it, from a pipe: entries of several processes in
 * turn, messages of several lines, bytes that are no text, what is not whole yet, and where a later
 * reader goes on.
 */
#include <fcntl.h>

#include "agent/follow_private.h"
#include "tests/unit/agent/kit_follow.h"

struct pipe_kit {
    struct kit_follow *k;
    struct source_context context;
    struct follow_journal *journal;
    char cursor[OS_JOURNAL_CURSOR_SIZE];
    int end;
    unsigned entries;
};

static struct pipe_kit *open_pipe(void)
{
    static const uint64_t floor[SPOOL_LANES];
    struct pipe_kit *p = calloc(1, sizeof *p);
    struct spool_opened how;
    int ends[2];
    REQUIRE(p != NULL && pipe(ends) == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    p->k = kit_follow_make(NULL, NULL, "capture = yes\n");
    p->end = ends[1];
    REQUIRE(spool_open(&p->k->spool, p->k->settings.state_dir, 4 << 20, floor, &how, NULL) == 0);
    REQUIRE(watcher_open(&p->k->watcher, p->k->spool, clock_system(), NULL, NULL) == 0);
    p->context = (struct source_context){.clock = clock_system(), .watcher = p->k->watcher};
    REQUIRE(follow_journal_open(&p->journal, ends[0], p->cursor, &p->context) == 0);
    return p;
}

static void close_pipe(struct pipe_kit *p)
{
    follow_journal_close(p->journal);
    watcher_close(p->k->watcher);
    if (p->end >= 0)
        close(p->end);
    kit_follow_remove(p->k);
    free(p);
}

static void put(struct pipe_kit *p, const void *data, size_t size_bytes)
{
    REQUIRE(write(p->end, data, size_bytes) == (ssize_t)size_bytes);
}

static void put_entry(struct pipe_kit *p, unsigned pid, const char *message)
{
    char text[1024];
    p->entries++;
    int n = snprintf(text, sizeof text,
                     "__CURSOR=s=abc;i=%u\n__REALTIME_TIMESTAMP=180000000000%04u\n_PID=%u\n"
                     "_COMM=shop%u\n_SYSTEMD_UNIT=shop@%u.service\nMESSAGE=%s\n\n",
                     p->entries, p->entries, pid, pid, pid, message);
    put(p, text, (size_t)n);
}

static int take_all(struct pipe_kit *p)
{
    return follow_journal_read(p->journal, port_mono_us() + 5000000);
}

static void settle(struct pipe_kit *p)
{
    for (int i = 0; i < 5; i++) {
        usleep(120000);
        follow_journal_tick(p->journal);
    }
    uint64_t end_us = port_mono_us() + KIT_LIMIT_US;
    while (watcher_look(p->k->watcher) && port_mono_us() < end_us) /* for a better source */
        usleep(20000);
    watcher_tick(p->k->watcher);
    kit_follow_read(p->k);
}

TEST(lines_of_two_processes_in_turn_are_two_traces)
{
    static const char *const lines[] = {
        "Traceback (most recent call last):", "  File \"/srv/shop.py\", line 4, in parse",
        "    return int(text)", "ValueError: of "};
    struct pipe_kit *p = open_pipe();
    char message[64];
    for (size_t i = 0; i < 4; i++)
        for (unsigned pid = 701; pid < 703; pid++) {
            snprintf(message, sizeof message, "%s%s", lines[i],
                     i < 3        ? ""
                     : pid == 701 ? "the first"
                                  : "the second");
            put_entry(p, pid, message);
        }
    CHECK_EQ_INT(take_all(p), 0);
    CHECK_EQ_STR(p->cursor, ""); /* both may still go on */
    settle(p);
    CHECK_EQ_INT(p->k->sum, 2);
    CHECK(kit_follow_has(p->k, "of the first") && kit_follow_has(p->k, "of the second"));
    CHECK_EQ_INT(p->k->pids[0] + p->k->pids[1], 701 + 702);
    CHECK_EQ_STR(p->k->processes[0], p->k->pids[0] == 701 ? "shop701" : "shop702");
    put_entry(p, 703, "next");
    CHECK_EQ_INT(take_all(p), 0);
    CHECK_EQ_STR(p->cursor, "s=abc;i=9");
    close_pipe(p);
}

TEST(a_message_of_several_lines_comes_with_its_length)
{
    static const char head[] = "__CURSOR=s=abc;i=1\n_PID=9\n_COMM=java\nMESSAGE\n";
    static const char trace[] = "java.lang.IllegalStateException: \x01\xff no cart\n"
                                "\tat com.example.Shop.main(Shop.java:11)";
    uint8_t length[8] = {sizeof trace - 1};
    struct pipe_kit *p = open_pipe();
    put(p, head, sizeof head - 1);
    CHECK_EQ_INT(take_all(p), 0);
    put(p, length, sizeof length);
    put(p, trace, 20);
    CHECK_EQ_INT(take_all(p), 0);
    put(p, trace + 20, sizeof trace - 1 - 20);
    put(p, "\n\n", 2);
    CHECK_EQ_INT(take_all(p), 0);
    settle(p);
    CHECK_EQ_INT(p->k->sum, 1);
    CHECK_EQ_STR(p->k->processes[0], "java");
    close_pipe(p);
}

static const char *unit_of(const struct pipe_kit *p, const char *type)
{
    for (uint64_t i = 0; i < p->k->records && i < KIT_TOLD_MAX; i++)
        if (strcmp(p->k->types[i], type) == 0)
            return p->k->units[i];
    return "none";
}

/* systemd's own entries, between those of programs, as they come through the pipe. */
static void play_units(size_t step)
{
    struct pipe_kit *p = open_pipe();
    struct buf b;
    buf_init(&b, 1 << 16);
    REQUIRE(port_read_file(TESTS_DIR "/fixtures/journal/units.export", &b, NULL) == 0);
    put_entry(p, 701, "Traceback (most recent call last):");
    for (size_t at = 0; at < b.size_bytes; at += step) {
        put(p, b.data + at, b.size_bytes - at < step ? b.size_bytes - at : step);
        CHECK_EQ_INT(take_all(p), 0);
    }
    put_entry(p, 701, "  File \"/srv/shop.py\", line 4, in parse");
    put_entry(p, 701, "ValueError: of the program");
    CHECK_EQ_INT(take_all(p), 0);
    settle(p);
    CHECK_EQ_INT(p->k->sum, 5);
    CHECK_EQ_STR(unit_of(p, "watchdog"), "app.service");
    CHECK_EQ_STR(unit_of(p, "exit-code"), "app.service");
    CHECK_EQ_STR(unit_of(p, "start-limit-hit"), "app.service");
    CHECK_EQ_STR(unit_of(p, "oom-kill"), "mine.service");
    CHECK_EQ_STR(unit_of(p, "ValueError"), "shop@701.service");
    buf_done(&b);
    close_pipe(p);
}

TEST(results_of_units_come_from_the_same_journal)
{
    play_units(1 << 16);
    play_units(1);
    play_units(7);
}

/* What another process than PID 1 writes is no result, whatever fields it sets. */
TEST(only_the_init_system_tells_results)
{
    static const char said[] =
        "__CURSOR=s=abc;i=1\n_PID=702\nMESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c\n"
        "UNIT=app.service\nUNIT_RESULT=watchdog\nMESSAGE=lies\n\n";
    struct pipe_kit *p = open_pipe();
    put(p, said, sizeof said - 1);
    CHECK_EQ_INT(take_all(p), 0);
    settle(p);
    CHECK_EQ_INT(p->k->sum, 0);
    close_pipe(p);
}

TEST(nonsense_is_passed_over_and_the_end_is_noticed)
{
    static const uint8_t huge[] = "MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff";
    char noise[30000];
    struct pipe_kit *p = open_pipe();
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * 7919 >> 3);
    put(p, huge, sizeof huge - 1);
    CHECK_EQ_INT(take_all(p), 0);
    put(p, noise, sizeof noise);
    CHECK_EQ_INT(take_all(p), 0);
    close(p->end);
    p->end = -1;
    CHECK_EQ_INT(take_all(p), ERR_CLOSED);
    settle(p);
    CHECK_EQ_INT(p->k->sum, 0);
    close_pipe(p);
}
