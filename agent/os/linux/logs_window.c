/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of a window of time. Invariant: what is kept is safe for a terminal and, when there is
 * not room for all, the newest. Pure but for the host's zone. Called by logs.c and its sources.
 */
#include <string.h>

#include "agent/os/linux/logs_linux.h"
#include "common/text.h"

/* Removes whole lines from the front, at least a quarter of what is there. */
static void drop_oldest(struct logs_window *window)
{
    struct buf *out = window->out;
    size_t least = out->size_bytes / 4;
    const uint8_t *end =
        out->size_bytes > least ? memchr(out->data + least, '\n', out->size_bytes - least) : NULL;
    buf_consume(out, end ? (size_t)(end - out->data) + 1 : out->size_bytes);
    window->cut = true;
}

static int append(struct logs_window *window, struct span line)
{
    size_t before = window->out->size_bytes;
    int result = text_append_safe(window->out, line, true);
    if (result == 0)
        result = buf_append_byte(window->out, '\n');
    if (result < 0)
        window->out->size_bytes = before;
    return result;
}

static void take(struct logs_window *window, struct span line)
{
    bool is_long = line.size_bytes > LOGS_LINE_SIZE;
    if (is_long)
        line.size_bytes = LOGS_LINE_SIZE;
    while (append(window, line) == ERR_LIMIT) {
        if (window->out->size_bytes == 0) {
            window->cut = true; /* not even this line alone */
            return;
        }
        drop_oldest(window);
    }
    window->taken++;
}

void logs_window_line(struct logs_window *window, struct span line)
{
    int64_t time_us;
    if (line.size_bytes > 0 && line.data[line.size_bytes - 1] == '\r')
        line.size_bytes--;
    if (!window->take_all && logs_time(line, window->to_us, &time_us) == 0) {
        window->timed++;
        window->inside = time_us >= window->from_us && time_us <= window->to_us;
    }
    if (window->take_all || window->inside)
        take(window, line);
}

void logs_window_text(struct logs_window *window, struct span text)
{
    struct span line;
    while (proc_take_line(&text, &line) == 0)
        logs_window_line(window, line);
}
