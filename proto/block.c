/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counter blocks, both directions; the layout is in block.h. Invariant: what the encoder wrote the
 * decoder gives back value for value, and a block whose summary (last, minimum, maximum) does not
 * agree with its values is damaged. Called by the agent's sampler, the collector and the CLI. Pure.
 */
#include "proto/block.h"

#include <assert.h>
#include <string.h>

#include "common/zip.h"

#define VERSION 1
#define FORM_PLAIN 0
#define FORM_ZSTD 1
#define FLAG_CONSTANT 1u
#define FLAG_GAPS 2u
#define PLAIN_MAX_BYTES ((size_t)4 * 1024 * 1024)
#define SERIES_MIN_BYTES 5 /* id, flags, last, minimum, maximum: one byte each at least */
#define BITMAP_BYTES(samples) (((samples) + 7) / 8)

/* Differences wrap: any two 64-bit values have one, and adding it back gives the value again. */
static int64_t difference(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static int64_t sum(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

/* What a reader wants to know of a series without its values. */
struct summary {
    int64_t last, minimum, maximum;
    size_t gaps;
};

static struct summary summarise(const int64_t *values, size_t count)
{
    struct summary s = {BLOCK_GAP, BLOCK_GAP, BLOCK_GAP, 0};
    for (size_t i = 0; i < count; i++) {
        int64_t value = values[i];
        if (value == BLOCK_GAP) {
            s.gaps++;
            continue;
        }
        if (s.last == BLOCK_GAP || value < s.minimum)
            s.minimum = value;
        if (s.last == BLOCK_GAP || value > s.maximum)
            s.maximum = value;
        s.last = value;
    }
    return s;
}

/* ---- encoding ---- */

static int put_bitmap(struct buf *out, const int64_t *values, size_t count)
{
    uint8_t bits[BITMAP_BYTES(BLOCK_MAX_SAMPLES)] = {0};
    for (size_t i = 0; i < count; i++)
        if (values[i] == BLOCK_GAP)
            bits[i / 8] |= (uint8_t)(1u << (i % 8));
    return buf_append(out, bits, BITMAP_BYTES(count));
}

static int put_differences(struct buf *out, const int64_t *values, size_t count, int64_t last)
{
    int64_t before = last;
    int e = 0;
    for (size_t i = 0; i < count && !e; i++) {
        if (values[i] == BLOCK_GAP)
            continue;
        e = buf_append_zigzag(out, difference(values[i], before));
        before = values[i];
    }
    return e;
}

static int put_series(struct buf *out, const struct block_series *series, uint32_t id_before,
                      size_t sample_count)
{
    struct summary s = summarise(series->values, sample_count);
    bool is_empty = s.gaps == sample_count;
    int64_t last = is_empty ? 0 : s.last;
    unsigned flags = s.gaps ? FLAG_GAPS : 0;
    if (is_empty || s.minimum == s.maximum)
        flags |= FLAG_CONSTANT;
    int e = buf_append_varint(out, series->id - id_before);
    if (!e)
        e = buf_append_varint(out, flags);
    if (!e)
        e = buf_append_zigzag(out, last);
    if (!e)
        e = buf_append_zigzag(out, is_empty ? 0 : difference(s.minimum, last));
    if (!e)
        e = buf_append_zigzag(out, is_empty ? 0 : difference(s.maximum, last));
    if (!e && (flags & FLAG_GAPS))
        e = put_bitmap(out, series->values, sample_count);
    if (!e && !(flags & FLAG_CONSTANT))
        e = put_differences(out, series->values, sample_count, last);
    return e;
}

/* A cut reason still ends with a whole character. */
static size_t reason_length(const char *reason)
{
    size_t length = strlen(reason);
    if (length < BLOCK_REASON_SIZE)
        return length;
    length = BLOCK_REASON_SIZE - 1;
    while (length > 0 && ((uint8_t)reason[length] & 0xC0) == 0x80)
        length--;
    return length;
}

static int put_reasons(struct buf *out, const struct block_series *series, size_t count)
{
    size_t with_reason = 0;
    for (size_t i = 0; i < count; i++)
        with_reason += series[i].reason && series[i].reason[0];
    int e = buf_append_varint(out, with_reason);
    for (size_t i = 0; i < count && !e; i++) {
        if (!series[i].reason || !series[i].reason[0])
            continue;
        size_t length = reason_length(series[i].reason);
        e = buf_append_varint(out, i);
        if (!e)
            e = buf_append_varint(out, length);
        if (!e)
            e = buf_append(out, series[i].reason, length);
    }
    return e;
}

static int put_plain(struct buf *out, const struct block_series *series, size_t count,
                     size_t sample_count)
{
    buf_clear(out);
    int e = buf_append_byte(out, FORM_PLAIN);
    if (!e)
        e = buf_append_byte(out, VERSION);
    if (!e)
        e = buf_append_varint(out, count);
    if (!e)
        e = buf_append_varint(out, sample_count);
    for (size_t i = 0; i < count && !e; i++)
        e = put_series(out, &series[i], i ? series[i - 1].id : 0, sample_count);
    return e ? e : put_reasons(out, series, count);
}

/* Packs behind a form byte. Any failure to pack only means that the plain form is used. */
static void pack(struct buf *packed, const struct buf *plain)
{
    buf_clear(packed);
    struct span body = span_of(plain->data + 1, plain->size_bytes - 1);
    if (buf_append_byte(packed, FORM_ZSTD) || zip_pack(body, 1, packed))
        buf_clear(packed);
}

/* Appends the first `count` series. ERR_LIMIT with *size_bytes: how large it would have been. */
static int put_some(struct buf *out, const struct block_series *series, size_t count,
                    size_t sample_count, size_t *size_bytes)
{
    struct buf plain, packed;
    buf_init(&plain, PLAIN_MAX_BYTES);
    buf_init(&packed, PLAIN_MAX_BYTES);
    *size_bytes = PLAIN_MAX_BYTES;
    int e = put_plain(&plain, series, count, sample_count);
    if (!e) {
        pack(&packed, &plain);
        bool is_smaller = packed.size_bytes > 0 && packed.size_bytes < plain.size_bytes;
        const struct buf *best = is_smaller ? &packed : &plain;
        *size_bytes = best->size_bytes;
        e = buf_append_span(out, buf_span(best));
    }
    buf_done(&plain);
    buf_done(&packed);
    return e;
}

/* How many to try next when `count` series took `size_bytes` and only `room_bytes` are there. */
static size_t fewer(size_t count, size_t size_bytes, size_t room_bytes)
{
    size_t guess = (size_t)((uint64_t)count * room_bytes / size_bytes);
    guess -= guess / 16;
    if (guess >= count)
        guess = count - 1;
    return guess ? guess : 1;
}

int block_put(struct buf *out, const struct block_series *series, size_t series_count,
              size_t sample_count, size_t *taken)
{
    assert(series_count > 0 && series_count <= BLOCK_MAX_SERIES);
    assert(sample_count > 0 && sample_count <= BLOCK_MAX_SAMPLES);
    for (size_t i = 0; i < series_count; i++)
        assert(series[i].id > (i ? series[i - 1].id : 0));
    size_t count = series_count, size_bytes;
    for (;;) {
        int e = put_some(out, series, count, sample_count, &size_bytes);
        if (!e)
            *taken = count;
        if (e != ERR_LIMIT || count == 1)
            return e;
        count = fewer(count, size_bytes, out->limit_bytes - out->size_bytes);
    }
}

/* ---- decoding ---- */

struct header {
    size_t series_count, sample_count;
};

static int damaged(struct failure *f, const char *what)
{
    return fail(f, ERR_CORRUPT, "damaged counter block: %s", what);
}

static int take_header(struct span *s, struct header *out, struct failure *f)
{
    uint8_t version;
    uint64_t series_count, sample_count;
    if (span_take_u8(s, &version))
        return damaged(f, "too short");
    if (version != VERSION)
        return fail(f, ERR_CORRUPT, "counter block of unknown version %u", (unsigned)version);
    if (span_take_varint(s, &series_count) || span_take_varint(s, &sample_count))
        return damaged(f, "too short");
    if (series_count == 0 || series_count > BLOCK_MAX_SERIES || sample_count == 0 ||
        sample_count > BLOCK_MAX_SAMPLES || series_count * SERIES_MIN_BYTES > s->size_bytes)
        return damaged(f, "impossible counts");
    *out = (struct header){(size_t)series_count, (size_t)sample_count};
    return 0;
}

/* The plain body of either form; `room` holds it when it had to be unpacked. */
static int open_body(struct span data, struct buf *room, struct span *body, struct failure *f)
{
    uint8_t form;
    if (span_take_u8(&data, &form))
        return damaged(f, "empty");
    if (form == FORM_PLAIN && data.size_bytes <= PLAIN_MAX_BYTES) {
        *body = data;
        return 0;
    }
    if (form == FORM_PLAIN)
        return fail(f, ERR_LIMIT, "counter block larger than 4 MiB");
    if (form != FORM_ZSTD)
        return damaged(f, "unknown form");
    int e = zip_unpack(data, room);
    if (e == ERR_LIMIT)
        return fail(f, ERR_LIMIT, "counter block larger than 4 MiB");
    if (e)
        return damaged(f, "cannot be unpacked");
    *body = buf_span(room);
    return 0;
}

/* One series as it stands in the block; `values` only when asked for. */
struct series {
    uint32_t id;
    struct summary summary;
    int64_t values[BLOCK_MAX_SAMPLES];
};

static bool is_gap(struct span bitmap, size_t at)
{
    return bitmap.size_bytes > 0 && (bitmap.data[at / 8] >> (at % 8) & 1);
}

static int take_values(struct span *s, struct series *out, size_t count, struct span bitmap,
                       bool is_constant, int64_t last)
{
    int64_t value = last;
    for (size_t i = 0; i < count; i++) {
        int64_t step = 0;
        out->values[i] = BLOCK_GAP;
        if (is_gap(bitmap, i))
            continue;
        if (!is_constant && span_take_zigzag(s, &step))
            return ERR_CORRUPT;
        value = sum(value, step);
        if (value == BLOCK_GAP)
            return ERR_CORRUPT;
        out->values[i] = value;
    }
    return 0;
}

static bool agrees(const struct series *series, size_t count, int64_t last, int64_t minimum,
                   int64_t maximum)
{
    const struct summary *s = &series->summary;
    if (s->gaps == count)
        return last == 0 && minimum == 0 && maximum == 0;
    return s->last == last && s->minimum == minimum && s->maximum == maximum;
}

static int take_series(struct span *s, struct series *out, uint32_t id_before, size_t count)
{
    uint64_t id_step, flags;
    int64_t last, minimum, maximum;
    struct span bitmap = {0};
    if (span_take_varint(s, &id_step) || id_step == 0 || id_step > UINT32_MAX - id_before)
        return ERR_CORRUPT;
    if (span_take_varint(s, &flags) || flags > (FLAG_CONSTANT | FLAG_GAPS))
        return ERR_CORRUPT;
    if (span_take_zigzag(s, &last) || span_take_zigzag(s, &minimum) ||
        span_take_zigzag(s, &maximum))
        return ERR_CORRUPT;
    if ((flags & FLAG_GAPS) && span_take(s, BITMAP_BYTES(count), &bitmap))
        return ERR_CORRUPT;
    out->id = id_before + (uint32_t)id_step;
    if (take_values(s, out, count, bitmap, flags & FLAG_CONSTANT, last))
        return ERR_CORRUPT;
    out->summary = summarise(out->values, count);
    if (!agrees(out, count, last, sum(last, minimum), sum(last, maximum)))
        return ERR_CORRUPT;
    return 0;
}

/* The gap reasons, which stand behind the series, one ahead of the series being given out. */
struct reasons {
    struct span rest;
    uint64_t left;
    uint64_t index; /* of `text`; UINT64_MAX when there is none */
    struct span text;
};

static int reasons_next(struct reasons *r, size_t series_count)
{
    uint64_t index, length;
    uint64_t least = r->index == UINT64_MAX ? 0 : r->index + 1;
    r->index = UINT64_MAX;
    r->text = (struct span){0};
    if (r->left == 0)
        return r->rest.size_bytes == 0 ? 0 : ERR_CORRUPT;
    if (span_take_varint(&r->rest, &index) || index < least || index >= series_count)
        return ERR_CORRUPT;
    if (span_take_varint(&r->rest, &length) || length == 0 || length >= BLOCK_REASON_SIZE)
        return ERR_CORRUPT;
    if (span_take(&r->rest, (size_t)length, &r->text))
        return ERR_CORRUPT;
    r->left--;
    r->index = index;
    return 0;
}

/* Passes over the series to where the reasons begin. */
static int find_reasons(struct span s, const struct header *h, struct reasons *out)
{
    struct series series = {0};
    for (size_t i = 0; i < h->series_count; i++)
        if (take_series(&s, &series, series.id, h->sample_count))
            return ERR_CORRUPT;
    *out = (struct reasons){.index = UINT64_MAX};
    if (span_take_varint(&s, &out->left) || out->left > h->series_count)
        return ERR_CORRUPT;
    out->rest = s;
    return reasons_next(out, h->series_count);
}

static int give(const struct series *series, size_t sample_count, struct span reason,
                block_each_fn each, void *context)
{
    struct block_view view = {
        .id = series->id,
        .sample_count = sample_count,
        .last = series->summary.last,
        .minimum = series->summary.minimum,
        .maximum = series->summary.maximum,
        .gap_count = series->summary.gaps,
        .values = series->values,
        .reason = reason,
    };
    return each(context, &view);
}

static int each_series(struct span body, block_each_fn each, void *context, struct failure *f)
{
    struct header h = {0};
    struct reasons reasons;
    struct series series = {0};
    int e = take_header(&body, &h, f);
    if (e)
        return e;
    if (find_reasons(body, &h, &reasons))
        return damaged(f, "series or reasons cannot be read");
    for (size_t i = 0; i < h.series_count && !e; i++) {
        struct span reason = {0};
        e = take_series(&body, &series, series.id, h.sample_count);
        assert(!e);
        if (reasons.index == i) {
            reason = reasons.text;
            if (reasons_next(&reasons, h.series_count))
                return damaged(f, "reasons cannot be read");
        }
        e = give(&series, h.sample_count, reason, each, context);
    }
    return e;
}

int block_each(struct span data, block_each_fn each, void *context, struct failure *f)
{
    struct buf room;
    struct span body;
    buf_init(&room, PLAIN_MAX_BYTES);
    int e = open_body(data, &room, &body, f);
    if (!e)
        e = each_series(body, each, context, f);
    buf_done(&room);
    return e;
}

int block_check(struct span data, size_t *series_count, size_t *sample_count, struct failure *f)
{
    struct buf room;
    struct span body;
    struct header h = {0};
    buf_init(&room, PLAIN_MAX_BYTES);
    int e = open_body(data, &room, &body, f);
    if (!e)
        e = take_header(&body, &h, f);
    if (!e) {
        *series_count = h.series_count;
        *sample_count = h.sample_count;
    }
    buf_done(&room);
    return e;
}
