/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on standard error. Invariant: a line is one write(2), holds one event and no control
 * character but its end, and `errno` is as before. Called by main functions and the parts that a
 * program owns, on any thread; never by a library.
 */
#include "common/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/port.h"
#include "common/text.h"

#define STANDARD_ERROR 2
#define MESSAGE_BYTES 2048
#define LINE_BYTES (4 * MESSAGE_BYTES + 64) /* an escape is at most four times as long */
#define TIME_TEXT_SIZE 32

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static atomic_int chosen_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    atomic_store(&chosen_level, (int)level);
}

int log_level_parse(const char *text, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    return ERR_INVALID;
}

static void write_line(struct span line)
{
    ssize_t n;
    do
        n = write(STANDARD_ERROR, line.data, (unsigned)line.size_bytes);
    while (n < 0 && errno == EINTR);
}

static int make_line(struct buf *line, enum log_level level, const char *message, bool was_cut)
{
    char time[TIME_TEXT_SIZE];
    text_put_time(port_wall_us(), time, sizeof time);
    int r = buf_printf(line, "%s %-5s ", time, level_names[level]);
    if (r == 0)
        r = text_append_safe(line, span_str(message), false);
    if (r == 0)
        r = buf_append_str(line, was_cut ? " ...\n" : "\n");
    return r;
}

TRAWL_PRINTF(2, 0)
static void log_va(enum log_level level, const char *format, va_list args)
{
    static const char no_memory[] = "log line dropped: out of memory\n";
    if ((int)level > atomic_load(&chosen_level))
        return;
    int saved_errno = errno;
    char message[MESSAGE_BYTES];
    int length = vsnprintf(message, sizeof message, format, args);
    if (length < 0)
        message[0] = '\0';
    struct buf line;
    buf_init(&line, LINE_BYTES);
    if (make_line(&line, level, message, length >= (int)sizeof message) == 0)
        write_line(buf_span(&line));
    else
        write_line(span_str(no_memory));
    buf_done(&line);
    errno = saved_errno;
}

void log_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_va(LOG_LEVEL_ERROR, format, args);
    va_end(args);
}

void log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_va(LOG_LEVEL_WARN, format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_va(LOG_LEVEL_INFO, format, args);
    va_end(args);
}

void log_debug(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_va(LOG_LEVEL_DEBUG, format, args);
    va_end(args);
}
