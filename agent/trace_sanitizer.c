/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of the sanitizers: "==PID==ERROR: AddressSanitizer: kind ...", "WARNING: ThreadSanitizer:
 * kind (pid=N)", "file:line:column: runtime error: text". The first stack is that of the access; a
 * line "SUMMARY:" ends the report (compiler-rt, sanitizer_symbolizer_report.cpp). Called by
 * trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"
#include "common/text.h"

/* The module's base name and the offset in it: "(/a/shop_asan+0x233f0) (BuildId: 4786...)". */
static void set_module(struct os_frame *frame, struct span s)
{
    size_t plus = trace_find(s, "+0x"), id = trace_find(s, "(BuildId: ");
    uint64_t offset;
    if (plus == SIZE_MAX)
        return;
    struct span module = trace_first(s, plus - 3), number = trace_skip(s, plus);
    size_t slash = trace_find_last(module, '/');
    if (text_take_hex(&number, &offset) || !trace_begins(number, ")"))
        return;
    trace_copy(frame->module, sizeof frame->module,
               slash == SIZE_MAX ? module : trace_skip(module, slash + 1));
    frame->offset = offset;
    char hex[2 * OS_BUILD_ID_SIZE + 1];
    if (id == SIZE_MAX || trace_skip(s, id).size_bytes < sizeof hex)
        return;
    trace_copy(hex, sizeof hex, trace_skip(s, id));
    if (text_parse_hex(hex, frame->build_id, OS_BUILD_ID_SIZE) == 0)
        frame->build_id_bytes = OS_BUILD_ID_SIZE;
}

/* "use(int*, int) /tmp/shop.cc:11:59" or "malloc (/tmp/shop+0xa623e) (BuildId: ...)" or both. */
static void add_frame(struct trace_open *t, struct span s)
{
    struct span file = span_of("", 0), where = span_of("", 0), rest = s;
    uint64_t line = 0;
    size_t plus = trace_find(s, "+0x");
    if (plus != SIZE_MAX) {
        size_t open = trace_find_last(trace_first(s, plus), '(');
        if (open != SIZE_MAX && open > 0) {
            where = trace_skip(s, open + 1);
            rest = trace_trim(trace_first(s, open));
        }
    }
    size_t blank = trace_find_last(rest, ' ');
    if (blank != SIZE_MAX &&
        (trace_place(trace_skip(rest, blank + 1), &file, &line) || trace_ends(rest, " <null>")))
        rest.size_bytes = blank;
    struct os_frame *frame = trace_frame(t, rest, file, line);
    if (frame && where.size_bytes > 0)
        set_module(frame, where);
}

/* "#0 0x557e6ff89630 in use(int*, int) ...", "#0 main::$_3::operator()() const ..." */
static bool take_frame(struct trace_open *t, struct span s)
{
    uint64_t number;
    s = trace_skip(s, 1);
    if (!trace_number(&s, &number) || !trace_begins(s, " "))
        return false;
    s = trace_trim(s);
    size_t in = trace_begins(s, "0x") ? trace_find(s, " in ") : SIZE_MAX;
    if (trace_begins(s, "0x") && in == SIZE_MAX)
        in = trace_find(s, " "); /* no symbol: only "(module+0x12)" */
    if (number == 0)
        t->count++;
    if (t->count <= 1)
        add_frame(t, in == SIZE_MAX ? s : trace_skip(s, in));
    return true;
}

static void take_thread(struct trace_open *t, struct span s)
{
    size_t at = trace_find(s, "thread T");
    if (at != SIZE_MAX && !t->e.thread[0]) {
        struct span name = trace_skip(s, at - 1);
        size_t length = 1;
        while (length < name.size_bytes && trace_is_digit(name.data[length]))
            length++;
        trace_copy(t->e.thread, sizeof t->e.thread, trace_first(name, length));
    }
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(trace_first(line, 4096));
    if (trace_begins(s, "SUMMARY: "))
        return TRACE_LAST;
    if (trace_begins(s, "#"))
        return take_frame(t, s) ? TRACE_MINE : TRACE_NOT;
    if (t->count == 0)
        take_thread(t, s);
    return s.size_bytes == 0 ? TRACE_MINE : TRACE_NOT;
}

static bool finish(struct trace_open *t)
{
    if (t->flag && t->e.frame_count == 0)
        (void)trace_frame(t, span_of("", 0), span_str(t->text), t->outer_total);
    t->e.frames_left_out = t->total - t->e.frame_count;
    return true;
}

static const struct trace_language sanitizer = {"sanitizer", 24, false, next, finish};

/* The kind is the first word, or more of them where that says nothing ("detected memory leaks"). */
static void set_kind(struct trace_open *t, struct span name, struct span text)
{
    static const char *const ends[] = {" on ", " (pid=", " in ", " (thread", ": "};
    char type[128];
    size_t end = text.size_bytes;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t at = trace_find(text, ends[i]);
        if (at != SIZE_MAX && at - strlen(ends[i]) < end)
            end = at - strlen(ends[i]);
    }
    size_t pid_at = trace_find(text, "(pid=");
    uint64_t pid;
    if (pid_at != SIZE_MAX) {
        struct span number = trace_skip(text, pid_at);
        if (trace_number(&number, &pid) && pid <= INT32_MAX)
            t->e.pid = (uint32_t)pid;
    }
    (void)text_format(type, sizeof type, "%.*s: %.*s", (int)name.size_bytes,
                      (const char *)name.data, (int)(end < 80 ? end : 80), (const char *)text.data);
    trace_set_type(t, span_str(type), text);
}

/* "==123==" */
static bool take_pid(struct trace_open *t, struct span s, size_t *begin)
{
    uint64_t pid;
    size_t at = s.size_bytes;
    if (!trace_ends(s, "=="))
        return false;
    at -= 2;
    while (at > 0 && trace_is_digit(s.data[at - 1]))
        at--;
    struct span number = trace_skip(s, at);
    if (at < 2 || s.data[at - 1] != '=' || s.data[at - 2] != '=' || !trace_number(&number, &pid) ||
        pid > INT32_MAX)
        return false;
    t->e.pid = (uint32_t)pid;
    *begin = at - 2;
    return true;
}

bool trace_start_sanitizer(struct trace_open *t, struct trace_look *look)
{
    size_t begin = look->at, level;
    while (begin > 0 && trace_is_word(look->line.data[begin - 1]))
        begin--;
    struct span before = trace_first(look->line, begin);
    struct span name = span_of(look->line.data + begin, look->at + strlen("Sanitizer") - begin);
    struct span text = trace_first(trace_skip(look->line, look->at + strlen("Sanitizer: ")), 4096);
    level = trace_ends(before, "ERROR: ") ? 7 : trace_ends(before, "WARNING: ") ? 9 : 0;
    if (level == 0 || name.size_bytes > 40)
        return false;
    begin -= level;
    if (!take_pid(t, trace_first(look->line, begin), &begin) &&
        !span_equal(name, span_str("ThreadSanitizer")))
        return false;
    set_kind(t, name, text);
    trace_set_prefix(t, trace_first(look->line, begin));
    t->prefix_open = begin > 0;
    t->language = &sanitizer;
    return true;
}

/* "shop.cc:28:44"; not "127.0.0.1:51324". */
static bool take_column(struct span place, struct span *file, uint64_t *line)
{
    size_t colon = trace_find_last(place, ':');
    uint64_t column;
    struct span number = trace_skip(place, colon == SIZE_MAX ? place.size_bytes : colon + 1);
    return colon != SIZE_MAX && trace_number(&number, &column) && number.size_bytes == 0 &&
           trace_place(trace_first(place, colon), file, line) && file->size_bytes > 0 &&
           memchr(file->data, '.', file->size_bytes) && !trace_is_digit(file->data[0]);
}

/* "shop.cc:28:44: runtime error: signed integer overflow: ..." */
bool trace_start_ubsan(struct trace_open *t, struct trace_look *look)
{
    struct span before = trace_first(look->line, look->at), file;
    uint64_t line;
    if (!trace_ends(before, ":"))
        return false;
    before.size_bytes--;
    size_t blank = trace_find_last(before, ' ');
    size_t begin = blank == SIZE_MAX ? 0 : blank + 1;
    if (!take_column(trace_skip(before, begin), &file, &line))
        return false;
    trace_set_type(
        t, span_str("UndefinedBehaviorSanitizer"),
        trace_first(trace_skip(look->line, look->at + strlen(" runtime error: ")), 4096));
    trace_copy_end(t->text, sizeof t->e.frames[0].file, file);
    t->outer_total = line <= UINT32_MAX ? (uint32_t)line : 0;
    trace_set_prefix(t, trace_first(look->line, begin));
    t->prefix_open = begin > 0;
    t->language = &sanitizer;
    t->flag = true;
    return true;
}
