/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent believes of a watch's messages: nothing that is not well-formed and of the process
 * that is watched. The message stands at the end of its memory, so that a sanitizer sees who reads
 * on.
 */
#include "agent/watch.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static const struct os_process process = {.pid = 42, .start_ticks = 7};

static struct watch_message *good(void)
{
    struct watch_message *m = calloc(1, sizeof *m);
    REQUIRE(m != NULL);
    m->magic = WATCH_MAGIC;
    m->type = WATCH_EXCEPTION;
    m->exception.source = OS_CPP_THROW;
    memcpy(m->exception.type, "int", 4);
    m->exception.pid = 42;
    m->exception.start_ticks = 7;
    m->exception.count = 1;
    m->exception.frame_count = OS_EXCEPTION_FRAMES;
    return m;
}

#define SPOILT(change)                                       \
    do {                                                     \
        struct watch_message *m = good();                    \
        CHECK_EQ_INT(watch_check(m, &process), 0);           \
        change;                                              \
        CHECK_EQ_INT(watch_check(m, &process), ERR_CORRUPT); \
        free(m);                                             \
    } while (0)
#define FILL(array) memset(array, 'x', sizeof(array))

TEST(a_message_that_makes_no_sense_is_not_used)
{
    SPOILT(m->magic++);
    SPOILT(m->type = 9);
    SPOILT(FILL(m->text));
    SPOILT(m->exception.source = OS_CRASH);
    SPOILT(m->exception.type[0] = '\0');
    SPOILT(FILL(m->exception.type));
    SPOILT(FILL(m->exception.message));
    SPOILT(FILL(m->exception.thread));
    SPOILT(FILL(m->exception.executable));
    SPOILT(FILL(m->exception.missing));
    SPOILT(m->exception.frame_count = OS_EXCEPTION_FRAMES + 1);
    SPOILT(FILL(m->exception.frames[23].function));
    SPOILT(FILL(m->exception.frames[0].file));
    SPOILT(m->exception.frames[5].build_id_bytes = OS_BUILD_ID_SIZE + 1);
    SPOILT(m->exception.build_id_bytes = 99);
    SPOILT(m->exception.pid = 1);
    SPOILT(m->exception.start_ticks = 8);
    SPOILT(m->exception.tag_count = 1);
    SPOILT(m->exception.saved_count = 1);
    SPOILT(m->exception.count = 0);
    SPOILT(m->exception.count = UINT64_MAX);
}

TEST(the_last_message_needs_no_exception)
{
    struct watch_message *m = good();
    memset(&m->exception, 0xff, sizeof m->exception);
    m->type = WATCH_ENDED;
    CHECK_EQ_INT(watch_check(m, &process), 0);
    FILL(m->text);
    CHECK_EQ_INT(watch_check(m, &process), ERR_CORRUPT);
    free(m);
}
