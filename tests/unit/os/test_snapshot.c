/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot does to a process: nothing that it can notice but the moment. Deaths of the
 * worker in the middle of it are in test_snapshot_death.c.
 */
#include "tests/unit/os/snapshot_kit.h"

#define TIMES 20

static void ask_registers(struct victim *v, const char *where)
{
    char line[512], *at = line;
    victim_ask(v, line, sizeof line);
    strtoul(at, &at, 10);
    unsigned long wrong = strtoul(at, &at, 10);
    unsigned long interrupted = strtoul(at, &at, 10);
    if (wrong || interrupted)
        printf("      %s: %s", where, line);
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(interrupted, 0);
}

static void take_often(const char *mode, const char *thread)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    victim_start(&v, "registers", mode, thread);
    for (int i = 0; i < TIMES; i++) {
        CHECK_EQ_INT(kit_take(&kit, &v.process), 0);
        CHECK_EQ_STR(kit.f.text, "");
        ask_registers(&v, mode);
    }
    victim_check_free(&v);
    CHECK_EQ_INT(kit_zombies(&v), 0);
    victim_end(&v);
}

TEST(registers_are_as_they_were)
{
    take_often("read", NULL);
    take_often("epoll", NULL);
    take_often("ppoll", NULL);
    take_often("poll", NULL);
    take_often("user", NULL);
}

TEST(registers_of_a_thread_are_as_they_were)
{
    take_often("read", "thread");
    take_often("epoll", "thread");
    take_often("ppoll", "thread");
    take_often("poll", "thread");
    take_often("user", "thread");
}

/* Goroutines and coroutines stand in the heap, where what lies below is somebody's. */
TEST(a_stack_on_the_heap_is_never_written)
{
    struct victim v;
    struct kit kit = {.context = NULL};
    victim_start(&v, "registers", "read", "heap");
    CHECK_EQ_INT(kit_take(&kit, &v.process), ERR_REFUSED);
    CHECK_EQ_STR(kit.f.text, "no snapshot is possible: no thread stands on a stack of its own; "
                             "--live takes a core without a snapshot");
    victim_check_free(&v);
    ask_registers(&v, "heap");
    victim_end(&v);
}
