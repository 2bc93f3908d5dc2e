/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines as they arrive on descriptor 2: their form, what they escape, and that threads never
 * mix them. The descriptor is swapped for a file while a test logs, so that checks can still print.
 */
#include "tests/unit/common/scratch.h"

#include "tests/unit/common/failing_buf.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "common/text.h"
#include "tests/check.h"

#define OUTPUT_BYTES (1 << 20)

static int saved_stderr;
static int log_fd;
static char output[OUTPUT_BYTES];

static void log_begin(void)
{
    char path[SCRATCH_PATH_SIZE];
    log_fd = open(scratch("log", path), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    saved_stderr = dup(2);
    REQUIRE(log_fd >= 0 && saved_stderr >= 0);
    REQUIRE(dup2(log_fd, 2) == 2);
}

/* Gives descriptor 2 back and returns everything that was logged. */
static const char *log_end(void)
{
    dup2(saved_stderr, 2);
    ssize_t n = pread(log_fd, output, sizeof output - 1, 0);
    close(saved_stderr);
    close(log_fd);
    REQUIRE(n >= 0);
    output[n] = '\0';
    return output;
}

/* The line behind its time, which must be one; NULL when it is not. */
static const char *after_time(const char *line)
{
    char time[32];
    int64_t us;
    if (strlen(line) < 25 || line[24] != ' ')
        return NULL;
    text_copy_span(time, sizeof time, span_of(line, 24));
    return text_time_us(time, 0, &us) == 0 && us > INT64_C(1700000000000000) ? line + 25 : NULL;
}

TEST(a_line_has_time_level_and_text)
{
    log_begin();
    log_warn("disk '%s' is %d %% full", "sda", 93);
    CHECK_EQ_STR(after_time(log_end()), "warn  disk 'sda' is 93 % full\n");
    log_begin();
    log_error("e");
    CHECK_EQ_STR(after_time(log_end()), "error e\n");
    log_begin();
    log_info("i");
    CHECK_EQ_STR(after_time(log_end()), "info  i\n");
}

TEST(the_level_is_a_threshold)
{
    static const struct {
        enum log_level level;
        const char *words;
    } levels[] = {
        {LOG_LEVEL_ERROR, "e"},
        {LOG_LEVEL_WARN, "ew"},
        {LOG_LEVEL_INFO, "ewi"},
        {LOG_LEVEL_DEBUG, "ewid"},
    };
    for (size_t i = 0; i < 4; i++) {
        char words[8] = "";
        size_t count = 0;
        log_begin();
        log_set_level(levels[i].level);
        log_error("e");
        log_warn("w");
        log_info("i");
        log_debug("d");
        for (const char *at = log_end(); (at = strchr(at, '\n')) && count < 7; at++)
            words[count++] = at[-1];
        CHECK_EQ_STR(words, levels[i].words);
    }
}

TEST(debug_is_off_by_default)
{
    log_begin();
    log_debug("d");
    CHECK_EQ_STR(log_end(), "");
}

TEST(levels_are_read)
{
    enum log_level level = LOG_LEVEL_WARN;
    CHECK_EQ_INT(log_level_parse("verbose", &level), ERR_INVALID);
    CHECK_EQ_INT(log_level_parse("", &level), ERR_INVALID);
    CHECK_EQ_INT(log_level_parse("INFO", &level), ERR_INVALID);
    CHECK_EQ_INT(level, LOG_LEVEL_WARN);
    CHECK_EQ_INT(log_level_parse("error", &level), 0);
    CHECK_EQ_INT(level, LOG_LEVEL_ERROR);
    CHECK_EQ_INT(log_level_parse("debug", &level), 0);
    CHECK_EQ_INT(level, LOG_LEVEL_DEBUG);
}

TEST(a_foreign_text_makes_neither_lines_nor_colours)
{
    log_begin();
    log_info("user '%s'", "x\n2026-11-23T14:02:05.123Z error forged\x1b[31m\xFF");
    CHECK_EQ_STR(after_time(log_end()),
                 "info  user 'x\\x0a2026-11-23T14:02:05.123Z error forged\\x1b[31m\\xff'\n");
}

TEST(a_long_text_is_cut_and_says_so)
{
    static char text[5000];
    memset(text, '\x01', sizeof text - 1);
    log_begin();
    log_info("%s", text);
    const char *line = after_time(log_end());
    REQUIRE(line != NULL);
    size_t length = strlen(line);
    CHECK_EQ_INT(length, strlen("info  ") + 4 * 2047 + strlen(" ...\n"));
    CHECK_EQ_STR(line + length - 9, "\\x01 ...\n");
    CHECK(strchr(line, '\n') == line + length - 1);
}

TEST(the_longest_whole_text_is_not_cut)
{
    static char text[2049];
    for (size_t length = 2047; length <= 2048; length++) {
        memset(text, 'x', length);
        text[length] = '\0';
        log_begin();
        log_info("%s", text);
        const char *line = after_time(log_end());
        REQUIRE(line != NULL);
        CHECK_EQ_INT(strlen(line), strlen("info  ") + 2047 + (length > 2047 ? 5 : 1));
    }
}

TEST(errno_is_kept)
{
    log_begin();
    errno = EXDEV;
    log_info("x");
    int after = errno;
    log_end();
    CHECK_EQ_INT(after, EXDEV);
    int saved = dup(2);
    close(2);
    errno = EXDEV;
    log_info("nobody reads this");
    after = errno;
    dup2(saved, 2);
    CHECK_EQ_INT(after, EXDEV);
}

TEST(without_memory_it_says_that)
{
    log_begin();
    failing_buf_after(0);
    log_error("the cause");
    failing_buf_after(-1);
    CHECK_EQ_STR(log_end(), "log line dropped: out of memory\n");
}

#define THREADS 4
#define LINES 500

static void *log_lines(void *letter)
{
    char text[201];
    memset(text, *(const char *)letter, 200);
    text[200] = '\0';
    for (int i = 0; i < LINES; i++)
        log_info("%s", text);
    return NULL;
}

/* Every line must be 200 times one letter. */
TEST(threads_do_not_mix_lines)
{
    static char letters[THREADS] = {'a', 'b', 'c', 'd'};
    pthread_t threads[THREADS];
    log_begin();
    int started = 0;
    for (; started < THREADS; started++)
        if (pthread_create(&threads[started], NULL, log_lines, &letters[started]) != 0)
            break;
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    const char *line = log_end();
    CHECK_EQ_INT(started, THREADS);
    unsigned whole = 0, lines = 0;
    for (; *line; lines++) {
        const char *end = strchr(line, '\n');
        REQUIRE(end != NULL);
        const char *text = line + 31;
        whole += end - line == 231 && strspn(text, (char[]){*text, '\0'}) == 200;
        line = end + 1;
    }
    CHECK_EQ_INT(lines, THREADS * LINES);
    CHECK_EQ_INT(whole, THREADS * LINES);
}
