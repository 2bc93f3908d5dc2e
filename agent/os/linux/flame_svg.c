/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drawing a flame graph. Frames are found by going once through the sorted lines: a frame is open
 * as long as lines begin like it. Invariant: every text of the process goes through put_text(), so
 * no name can leave its place in the XML. Called by profile.c.
 */
#include "agent/os/linux/flame_svg.h"

#include <string.h>

#include "agent/os/linux/flame_script.h"
#include "common/text.h"

#define WIDTH 1200
#define MARGIN 10
#define TOP 64    /* of titles */
#define BOTTOM 28 /* of the line that says what the mouse is on */
#define ROW 16
#define CHARACTER 7.0 /* widest usual character of 12 px monospace */
#define NARROWEST 0.1
#define TRIES 8 /* each leaves out four times as much */

struct open_frame {
    uint32_t name;
    uint64_t start;
};

struct drawing {
    const struct profile_lines *lines;
    const struct flame_head *head;
    struct buf *out; /* NULL: only measuring */
    double narrowest;
    struct open_frame open[PROFILE_LINE_DEPTH_MAX + 2];
    size_t open_count;
    size_t depth; /* rows that are needed */
    int error;
};

/* ---- text ---- */

/* XML 1.0 knows no control characters, and not U+FFFE and U+FFFF, in any form. */
static int put_text(struct buf *out, const char *text)
{
    struct buf safe;
    buf_init(&safe, PROFILE_TEXT_MAX * 16);
    int e = text_append_safe(&safe, span_str(text), false);
    for (size_t i = 0; i < safe.size_bytes && !e; i++) {
        const uint8_t *c = safe.data + i;
        if (*c == '&')
            e = buf_append_str(out, "&amp;");
        else if (*c == '<')
            e = buf_append_str(out, "&lt;");
        else if (*c == '>')
            e = buf_append_str(out, "&gt;");
        else if (*c == '"')
            e = buf_append_str(out, "&quot;");
        else if (*c == '\'')
            e = buf_append_str(out, "&#39;");
        else if (safe.size_bytes - i >= 3 && c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe) {
            e = buf_append_byte(out, '?');
            i += 2;
        } else
            e = buf_append_byte(out, *c);
    }
    buf_done(&safe);
    return e;
}

/* The beginning that fits, for viewers without script. */
static int put_label(struct buf *out, const char *name, double width)
{
    char shown[WIDTH / 7 + 8];
    size_t fits = width > 2 * CHARACTER ? (size_t)((width - 6) / CHARACTER) : 0;
    size_t length = strlen(name);
    if (fits < 3)
        return 0;
    if (length <= fits)
        return put_text(out, name);
    size_t keep = fits - 2;
    if (keep >= sizeof shown - 3)
        keep = sizeof shown - 3;
    while (keep > 0 && ((uint8_t)name[keep] & 0xc0) == 0x80)
        keep--;
    memcpy(shown, name, keep);
    memcpy(shown + keep, "..", 3);
    return put_text(out, shown);
}

/* ---- colours ---- */

static uint32_t hash_name(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash ^ hash >> 15;
}

static bool ends_with(const char *text, const char *tail)
{
    size_t length = strlen(text), tail_length = strlen(tail);
    return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

/* Always the same for one name: orange the kernel, grey what is no function, else warm or cold. */
static void choose_colour(const char *name, bool cold, unsigned rgb[3])
{
    uint32_t hash = hash_name(name);
    unsigned a = hash & 63, b = hash >> 8 & 63, c = hash >> 16 & 63;
    if (name[0] == '[') {
        rgb[0] = rgb[1] = rgb[2] = 190 + a / 4;
    } else if (ends_with(name, "_[k]")) {
        rgb[0] = 225 + a / 4, rgb[1] = 140 + b / 2, rgb[2] = 30 + c / 4;
    } else if (cold) {
        rgb[0] = 80 + a, rgb[1] = 130 + b, rgb[2] = 190 + c;
    } else {
        rgb[0] = 200 + a * 55 / 63, rgb[1] = 70 + b * 2, rgb[2] = c * 55 / 63;
    }
}

/* ---- frames ---- */

static int put_weight(struct drawing *d, uint64_t weight)
{
    double share = d->lines->total ? 100.0 * (double)weight / (double)d->lines->total : 0;
    char duration[32];
    if (d->head->unit)
        return buf_printf(d->out, " (%llu %s, %.2f%%)", (unsigned long long)weight, d->head->unit,
                          share);
    text_put_duration((int64_t)weight, duration, sizeof duration);
    return buf_printf(d->out, " (%s, %.2f%%)", duration, share);
}

static void draw(struct drawing *d, const char *name, size_t level, uint64_t start, uint64_t weight)
{
    double scale = (WIDTH - 2.0 * MARGIN) / (double)d->lines->total;
    double x = MARGIN + (double)start * scale, width = (double)weight * scale;
    size_t y = TOP + (d->depth - 1 - level) * ROW;
    unsigned rgb[3];
    choose_colour(name, d->head->cold, rgb);
    int e = buf_append_str(d->out, "<g><title>");
    if (!e)
        e = put_text(d->out, name);
    if (!e)
        e = put_weight(d, weight);
    if (!e)
        e = buf_printf(d->out,
                       "</title><rect x=\"%.2f\" y=\"%zu\" width=\"%.2f\" height=\"%d\" "
                       "fill=\"rgb(%u,%u,%u)\"/><text x=\"%.2f\" y=\"%zu\">",
                       x, y, width, ROW - 1, rgb[0], rgb[1], rgb[2], x + 3, y + ROW - 5);
    if (!e)
        e = put_label(d->out, name, width);
    if (!e)
        e = buf_append_str(d->out, "</text></g>\n");
    if (!d->error)
        d->error = e;
}

/* Ends the frames above `level`, which `until` is the right edge of. */
static void close_frames(struct drawing *d, size_t level, uint64_t until)
{
    while (d->open_count > level && !d->error) {
        const struct open_frame *frame = &d->open[--d->open_count];
        double width = (double)(until - frame->start) / (double)d->lines->total * WIDTH;
        if (width < d->narrowest)
            continue;
        if (!d->out) {
            if (d->open_count + 1 > d->depth)
                d->depth = d->open_count + 1;
            continue;
        }
        const char *name = profile_text_of(d->lines->set, frame->name);
        draw(d, name, d->open_count, frame->start, until - frame->start);
    }
}

static size_t common_frames(const struct drawing *d, const struct profile_line *line)
{
    size_t same = 0;
    while (same < d->open_count && same < line->count &&
           d->open[same].name == d->lines->names[line->first + same])
        same++;
    return same;
}

static void go_through(struct drawing *d)
{
    uint64_t at = 0;
    d->open_count = 0;
    for (size_t i = 0; i < d->lines->count && !d->error; i++) {
        const struct profile_line *line = &d->lines->list[i];
        close_frames(d, common_frames(d, line), at);
        while (d->open_count < line->count) {
            uint32_t name = d->lines->names[line->first + d->open_count];
            d->open[d->open_count++] = (struct open_frame){name, at};
        }
        at += line->weight;
    }
    close_frames(d, 0, at);
}

/* ---- the whole ---- */

static int put_head(struct drawing *d, size_t height)
{
    struct buf *out = d->out;
    int e = buf_printf(out,
                       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                       "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%zu\" "
                       "viewBox=\"0 0 %d %zu\">\n<title>",
                       WIDTH, height, WIDTH, height);
    if (!e)
        e = put_text(out, d->head->title);
    if (!e)
        e = buf_append_str(out, "</title>\n" FLAME_STYLE);
    if (!e)
        e = buf_printf(out,
                       "<rect width=\"100%%\" height=\"100%%\" fill=\"#fffdf5\"/>\n"
                       "<text class=\"title\" x=\"%d\" y=\"24\">",
                       WIDTH / 2);
    if (!e)
        e = put_text(out, d->head->title);
    if (!e)
        e = buf_printf(out, "</text>\n<text class=\"subtitle\" x=\"%d\" y=\"42\">", WIDTH / 2);
    if (!e)
        e = put_text(out, d->head->subtitle);
    if (!e)
        e = buf_printf(out,
                       "</text>\n<text id=\"reset\" class=\"button\" x=\"%d\" y=\"24\"></text>\n"
                       "<text id=\"search\" class=\"button right\" x=\"%d\" y=\"24\"></text>\n"
                       "<text id=\"found\" class=\"right\" x=\"%d\" y=\"%zu\"></text>\n"
                       "<text id=\"details\" x=\"%d\" y=\"%zu\"></text>\n<g id=\"frames\">\n",
                       MARGIN, WIDTH - MARGIN, WIDTH - MARGIN, height - 10, MARGIN, height - 10);
    return e;
}

static int put_all(struct drawing *d, struct buf *out)
{
    d->out = NULL;
    d->depth = 1;
    go_through(d);
    d->out = out;
    d->error = put_head(d, TOP + d->depth * ROW + BOTTOM);
    if (!d->error)
        go_through(d);
    if (!d->error)
        d->error = buf_append_str(out, "</g>\n" FLAME_SCRIPT "</svg>\n");
    return d->error;
}

int flame_svg_put(const struct profile_lines *lines, const struct flame_head *head, struct buf *out)
{
    size_t before = out->size_bytes;
    int e = ERR_LIMIT;
    double narrowest = NARROWEST;
    for (int i = 0; i < TRIES && e == ERR_LIMIT; i++, narrowest *= 4) {
        struct drawing d = {.lines = lines, .head = head, .narrowest = narrowest};
        out->size_bytes = before;
        e = put_all(&d, out);
    }
    if (e)
        out->size_bytes = before;
    return e;
}
