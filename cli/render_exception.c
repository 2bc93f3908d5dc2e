/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How exceptions look. Invariant: JSON has every field that the message has, with null for what is
 * not known; build-ids and offsets are hexadecimal strings, for numbers of 64 bits do not survive
 * every reader of JSON. Pure; called by the commands.
 */
#include "cli/render_exception.h"

#include <stdio.h>
#include <string.h>

#include "cli/render_incident.h"
#include "common/text.h"

#define VERSION_BYTES 6 /* of a build-id, for people */

/* ---- names ---- */

const char *render_source(trawl_v1_ExceptionSource source)
{
    static const char *const names[] = {
        "unknown",  "crash",       "oom kill",      "fault line", "hung task",
        "hardware", "unit result", "process exit",  "log trace",  "c++ throw",
        "hang",     "reported",    "windows error",
    };
    return (unsigned)source < sizeof names / sizeof names[0] ? names[source] : names[0];
}

void render_source_member(struct jsonl *j, const char *key, trawl_v1_ExceptionSource source)
{
    jsonl_word(j, key,
               source == trawl_v1_ExceptionSource_CPP_THROW ? "cpp_throw" : render_source(source));
}

static void render_process(const char *process, uint32_t pid, char *out, size_t size_bytes)
{
    if (process[0] && pid)
        text_format(out, size_bytes, "%s[%u]", process, pid);
    else if (pid)
        text_format(out, size_bytes, "[%u]", pid);
    else
        text_copy(out, size_bytes, process);
}

/* ---- frames ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* "file.c:42", "file.c" or "". */
static void put_place(const trawl_v1_Frame *frame, bool whole, char *out, size_t size_bytes)
{
    const char *file = whole ? frame->file : base_name(frame->file);
    if (frame->line && file[0])
        text_format(out, size_bytes, "%s:%u", file, frame->line);
    else
        text_copy(out, size_bytes, file);
}

void render_frame_short(const trawl_v1_Frame *frame, char out[RENDER_FRAME_SIZE])
{
    char place[sizeof frame->file + 16];
    put_place(frame, false, place, sizeof place);
    if (frame->function[0] && place[0])
        text_format(out, RENDER_FRAME_SIZE, "%s (%s)", frame->function, place);
    else if (frame->function[0])
        text_copy(out, RENDER_FRAME_SIZE, frame->function);
    else if (place[0])
        text_copy(out, RENDER_FRAME_SIZE, place);
    else if (frame->module[0] || frame->offset)
        text_format(out, RENDER_FRAME_SIZE, "%s+0x%llx", frame->module[0] ? frame->module : "??",
                    (unsigned long long)frame->offset);
    else
        out[0] = '\0';
}

void render_frame_long(const trawl_v1_Frame *frame, char out[RENDER_FRAME_SIZE])
{
    char place[sizeof frame->file + 16], address[32] = "";
    put_place(frame, true, place, sizeof place);
    bool is_machine = frame->module[0] || frame->offset;
    if (is_machine)
        text_format(address, sizeof address, "0x%llx in ", (unsigned long long)frame->offset);
    text_format(out, RENDER_FRAME_SIZE, "%s%s%s%s%s", address,
                frame->function[0] ? frame->function : "??", is_machine ? " ()" : "",
                place[0]           ? " at "
                : frame->module[0] ? " from "
                                   : "",
                place[0] ? place : frame->module);
}

bool render_frame_equal(const trawl_v1_Frame *a, const trawl_v1_Frame *b)
{
    if (a->function[0] || b->function[0])
        return strcmp(a->function, b->function) == 0 &&
               (!a->module[0] || !b->module[0] || strcmp(a->module, b->module) == 0);
    return strcmp(a->module, b->module) == 0 && a->offset == b->offset &&
           strcmp(a->file, b->file) == 0;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* A library of machine code, or a file that belongs to a language's runtime. */
static bool is_of_a_library(const trawl_v1_Frame *f)
{
    static const char *const places[] = {
        "/usr/lib/", "/usr/share/",     "/rustc/",        "node:",     "internal/",
        "<frozen ",  "/usr/local/lib/", "/usr/local/go/", "/usr/src/", NULL};
    static const char *const functions[] = {"java.", "javax.", "jdk.", "sun.", "runtime.", NULL};
    const char *library = strstr(f->module, ".so");
    if (library || begins(f->module, "ld-") || begins(f->module, "[v"))
        return true;
    for (size_t i = 0; places[i]; i++)
        if (begins(f->file, places[i]))
            return true;
    for (size_t i = 0; !f->module[0] && functions[i]; i++)
        if (begins(f->function, functions[i]))
            return true;
    return false;
}

const trawl_v1_Frame *render_frame_of_application(const trawl_v1_Frame *frames, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_of_a_library(&frames[i]) &&
            (frames[i].module[0] || frames[i].function[0] || frames[i].file[0]))
            return &frames[i];
    return count ? &frames[0] : NULL;
}

/* ---- lists ---- */

static const struct render_column COLUMNS[] = {
    {"TIME", false},  {"HOST", false},  {"PROCESS", false}, {"WHAT", false},
    {"WHERE", false}, {"GROUP", false}, {"COUNT", true},
};
static const struct render_column WIDE_COLUMNS[] = {
    {"TIME", false},    {"ERROR", true}, {"HOST", false},     {"PROCESS", false}, {"THREAD", false},
    {"SOURCE", false},  {"WHAT", false}, {"WHERE", false},    {"GROUP", false},   {"COUNT", true},
    {"VERSION", false}, {"UNIT", false}, {"INCIDENT", false}, {"MESSAGE", false},
};

const struct render_column *render_exception_columns(bool wide, size_t *count)
{
    *count =
        wide ? sizeof WIDE_COLUMNS / sizeof WIDE_COLUMNS[0] : sizeof COLUMNS / sizeof COLUMNS[0];
    return wide ? WIDE_COLUMNS : COLUMNS;
}

void render_exception_widths(bool wide, size_t widths[RENDER_EXCEPTION_COLUMNS])
{
    static const size_t narrow[] = {8, 8, 22, 14, 36, 7, 5};
    static const size_t broad[] = {8, 9, 8, 22, 14, 9, 14, 36, 7, 5, 12, 12, 8, 7};
    memset(widths, 0, RENDER_EXCEPTION_COLUMNS * sizeof *widths);
    if (wide)
        memcpy(widths, broad, sizeof broad);
    else
        memcpy(widths, narrow, sizeof narrow);
}

static void where_of(const trawl_v1_Exception *e, char out[RENDER_FRAME_SIZE])
{
    const trawl_v1_Frame *frame = render_frame_of_application(e->frames, e->frames_count);
    if (frame)
        render_frame_short(frame, out);
    else
        text_copy(out, RENDER_FRAME_SIZE, e->unit);
}

static void version_cell(struct render_table *t, const uint8_t *bytes, size_t count)
{
    char text[2 * VERSION_BYTES + 1] = "";
    text_put_hex(bytes, count < VERSION_BYTES ? count : VERSION_BYTES, text);
    render_cell(t, RENDER_PLAIN, text);
}

static void count_cell(struct render_table *t, const trawl_v1_Exception *e)
{
    render_cellf(t, RENDER_PLAIN, "%llu%s", (unsigned long long)(e->count ? e->count : 1),
                 e->cut_off ? "+" : "");
}

/* How far the time may be off; "" while the host's clock was never compared. */
static void put_error(const trawl_v1_Exception *e, char *out, size_t size_bytes)
{
    char error[32];
    text_put_duration(e->skew_error_us, error, sizeof error);
    text_format(out, size_bytes, "%s%s", e->skew_error_us ? "±" : "",
                e->skew_error_us ? error : "");
}

static void wide_who(struct render_table *t, const trawl_v1_Exception *e)
{
    char text[sizeof e->thread + 16];
    if (e->tid && e->thread[0])
        text_format(text, sizeof text, "%u %s", e->tid, e->thread);
    else if (e->tid)
        text_format(text, sizeof text, "%u", e->tid);
    else
        text_copy(text, sizeof text, e->thread);
    render_cell(t, RENDER_PLAIN, text);
    render_cell(t, RENDER_PLAIN, render_source(e->source));
}

void render_exception_row(struct render_table *t, const trawl_v1_Exception *e, bool wide,
                          int64_t now_us)
{
    char when[RENDER_TEXT_SIZE], process[96], where[RENDER_FRAME_SIZE], error[32];
    render_clock(e->wall_us, now_us, when);
    render_process(e->process, e->pid, process, sizeof process);
    where_of(e, where);
    render_cell(t, RENDER_PLAIN, when);
    if (wide) {
        put_error(e, error, sizeof error);
        render_cell(t, RENDER_PLAIN, error);
    }
    render_cell(t, RENDER_PLAIN, e->host);
    render_cell(t, RENDER_PLAIN, process);
    if (wide)
        wide_who(t, e);
    render_cell(t, RENDER_BAD, e->type);
    render_cell(t, RENDER_PLAIN, where);
    render_cell(t, RENDER_PLAIN, e->group);
    count_cell(t, e);
    if (!wide)
        return;
    version_cell(t, e->build_id.bytes, e->build_id.size);
    render_cell(t, RENDER_PLAIN, e->unit);
    render_cell(t, RENDER_PLAIN, render_short_id(e->incident));
    render_cell(t, RENDER_PLAIN, e->message[0] ? e->message : " ");
}

/* ---- a page ---- */

/* "  message     text", nothing for an empty one. */
static int put_line(struct buf *out, const char *title, const char *text)
{
    if (!text[0])
        return 0;
    int r = buf_printf(out, "  %-12s", title);
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, false, text, 0);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

static int put_head(struct buf *out, const trawl_v1_Exception *e, int64_t now_us, bool color)
{
    char when[RENDER_TEXT_SIZE], process[96], error[32];
    render_clock(e->wall_us, now_us, when);
    put_error(e, error, sizeof error);
    render_process(e->process, e->pid, process, sizeof process);
    int r = buf_printf(out, "%s%s%s  ", when, error[0] ? " " : "", error);
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, false, e->host, 0);
    if (r == 0 && process[0])
        r = buf_append_str(out, "  ");
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, false, process, 0);
    if (r == 0)
        r = buf_append_str(out, "  ");
    if (r == 0)
        r = render_styled(out, RENDER_BAD, color, e->type, 0);
    if (r == 0 && e->count > 1)
        r = buf_printf(out, "  %llu times", (unsigned long long)e->count);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

static int put_signal(struct buf *out, const trawl_v1_Exception *e)
{
    char text[96], address[40] = "";
    if (e->signal == 0)
        return 0;
    if (e->has_fault_address)
        text_format(address, sizeof address, ", address 0x%llx",
                    (unsigned long long)e->fault_address);
    text_format(text, sizeof text, "%u, code %d%s", e->signal, (int)e->signal_code, address);
    return put_line(out, "signal", text);
}

static int put_who(struct buf *out, const trawl_v1_Exception *e)
{
    char text[sizeof e->thread + 16] = "", version[2 * sizeof e->build_id.bytes + 1] = "";
    if (e->tid)
        text_format(text, sizeof text, "%u%s%s", e->tid, e->thread[0] ? " " : "", e->thread);
    else
        text_copy(text, sizeof text, e->thread);
    text_put_hex(e->build_id.bytes, e->build_id.size, version);
    int r = put_line(out, "thread", text);
    if (r == 0)
        r = put_line(out, "executable", e->executable);
    if (r == 0)
        r = put_line(out, "build-id", version);
    return r < 0 ? r : put_line(out, "unit", e->unit);
}

static bool is_in(const trawl_v1_Group *group, const trawl_v1_Frame *frame)
{
    for (pb_size_t i = 0; group && i < group->frames_count; i++)
        if (render_frame_equal(&group->frames[i], frame))
            return true;
    return false;
}

static int put_frames(struct buf *out, const trawl_v1_Exception *e, const trawl_v1_Group *group,
                      bool color)
{
    char text[RENDER_FRAME_SIZE];
    int r = 0;
    for (pb_size_t i = 0; r == 0 && i < e->frames_count; i++) {
        bool is_marked = is_in(group, &e->frames[i]);
        render_frame_long(&e->frames[i], text);
        r = buf_printf(out, "%c #%-3u", is_marked ? '*' : ' ', (unsigned)i);
        if (r == 0)
            r = render_styled(out, is_marked ? RENDER_BOLD : RENDER_PLAIN, color, text, 0);
        if (r == 0)
            r = buf_append_byte(out, '\n');
    }
    if (r == 0 && e->frames_left_out)
        r = buf_printf(out, "  %u more frames are in the evidence\n", e->frames_left_out);
    return r;
}

static int put_tags(struct buf *out, const trawl_v1_Exception *e)
{
    struct buf text;
    int r = 0;
    buf_init(&text, sizeof e->tags + sizeof e->tags);
    for (pb_size_t i = 0; r == 0 && i < e->tags_count; i++)
        r = buf_printf(&text, "%s%s=%s", i ? ", " : "", e->tags[i].key, e->tags[i].value);
    if (r == 0)
        r = put_line(out, "tags", buf_str(&text));
    buf_done(&text);
    return r;
}

int render_exception_page(struct buf *out, const trawl_v1_Exception *e, const trawl_v1_Group *group,
                          int64_t now_us, bool color)
{
    int r = put_head(out, e, now_us, color);
    if (r == 0)
        r = put_line(out, "message", e->message);
    if (r == 0)
        r = put_signal(out, e);
    if (r == 0)
        r = put_who(out, e);
    if (r == 0)
        r = put_tags(out, e);
    if (r == 0)
        r = put_line(out, "missing", e->missing);
    if (r == 0 && e->by_site)
        r = put_line(out, "note", "the frames are those of an earlier one at the same place");
    if (r == 0 && e->cut_off)
        r = put_line(out, "note",
                     "they came too often: from here on they were counted in part only");
    return r < 0 ? r : put_frames(out, e, group, color);
}

/* ---- for programs ---- */

static void address_member(struct jsonl *j, const char *key, uint64_t value, bool is_known)
{
    char text[32];
    text_format(text, sizeof text, "0x%llx", (unsigned long long)value);
    jsonl_str_or_null(j, key, is_known ? text : "");
}

static void frame_members(struct jsonl *j, const trawl_v1_Frame *frame)
{
    bool is_machine = frame->module[0] || frame->offset;
    jsonl_str_or_null(j, "function", frame->function);
    jsonl_str_or_null(j, "module", frame->module);
    jsonl_hex_or_null(j, "build_id", frame->build_id.bytes, frame->build_id.size);
    address_member(j, "offset", frame->offset, is_machine);
    jsonl_str_or_null(j, "file", frame->file);
    jsonl_u64_or_null(j, "line", frame->line);
    jsonl_bool(j, "exact", frame->exact);
}

void render_frames_member(struct jsonl *j, const trawl_v1_Frame *frames, size_t count)
{
    jsonl_list(j, "frames");
    for (size_t i = 0; i < count; i++) {
        jsonl_object(j, NULL);
        frame_members(j, &frames[i]);
        jsonl_end(j);
    }
    jsonl_end(j);
}

static void process_members(struct jsonl *j, const trawl_v1_Exception *e)
{
    jsonl_str_or_null(j, "process", e->process);
    jsonl_u64_or_null(j, "pid", e->pid);
    jsonl_u64_or_null(j, "start_ticks", e->start_ticks);
    jsonl_u64_or_null(j, "tid", e->tid);
    jsonl_str_or_null(j, "thread", e->thread);
    if (e->uid == UINT32_MAX)
        jsonl_null(j, "uid");
    else
        jsonl_u64(j, "uid", e->uid);
    jsonl_str_or_null(j, "executable", e->executable);
    jsonl_hex_or_null(j, "build_id", e->build_id.bytes, e->build_id.size);
    jsonl_str_or_null(j, "unit", e->unit);
    jsonl_u64_or_null(j, "signal", e->signal);
    if (e->signal)
        jsonl_int(j, "signal_code", e->signal_code);
    else
        jsonl_null(j, "signal_code");
    address_member(j, "fault_address", e->fault_address, e->has_fault_address);
}

static void list_members(struct jsonl *j, const trawl_v1_Exception *e)
{
    render_frames_member(j, e->frames, e->frames_count);
    jsonl_u64(j, "frames_left_out", e->frames_left_out);
    jsonl_object(j, "tags");
    for (pb_size_t i = 0; i < e->tags_count; i++)
        jsonl_member(j, e->tags[i].key, e->tags[i].value);
    jsonl_end(j);
    jsonl_strs(j, "saved", e->saved[0], sizeof e->saved[0], e->saved_count);
}

void render_exception_members(struct jsonl *j, const trawl_v1_Exception *e)
{
    jsonl_hex_or_null(j, "id", e->id.bytes, e->id.size);
    jsonl_time(j, "time", e->wall_us);
    jsonl_time(j, "last", e->last_us ? e->last_us : e->wall_us);
    jsonl_int(j, "skew_us", e->skew_us);
    if (e->skew_error_us)
        jsonl_int(j, "skew_error_us", e->skew_error_us);
    else
        jsonl_null(j, "skew_error_us");
    jsonl_str(j, "host", e->host);
    jsonl_u64(j, "count", e->count ? e->count : 1);
    jsonl_str_or_null(j, "group", e->group);
    jsonl_str_or_null(j, "incident", e->incident);
    render_source_member(j, "source", e->source);
    jsonl_str(j, "type", e->type);
    jsonl_str(j, "message", e->message);
    jsonl_str(j, "template", e->template);
    jsonl_str_or_null(j, "language", e->language);
    process_members(j, e);
    list_members(j, e);
    jsonl_bool(j, "cut_off", e->cut_off);
    jsonl_bool(j, "by_site", e->by_site);
    jsonl_str(j, "missing", e->missing);
}

int render_exception_json(struct buf *out, const trawl_v1_Exception *e)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    render_exception_members(&j, e);
    return jsonl_line(&j);
}
