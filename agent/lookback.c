/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of a window: a first walk finds which series there are, a second one writes the lines.
 * Columns are sorted by name; a series that an agent restart gave a new number stays one column.
 * Called by capture.
 */
#include "agent/lookback.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "proto/block.h"
#include "proto/codec.h"

#define BLOCK_SPAN_US ((int64_t)BLOCK_MAX_SAMPLES * 1000000)
#define PIECE_BYTES (64 * 1024)
#define LABEL_SIZE 192
#define REASONS_MAX 6

/* A series of one epoch and the column it went to. */
struct known {
    uint64_t epoch;
    uint32_t id;
    uint32_t scale;
    uint32_t column;
    bool is_used;
    char *label;
};

/* Sorted by name; of several series of one name the first. */
struct column {
    struct known *series;
};

struct reason {
    char text[BLOCK_REASON_SIZE];
    char example[LABEL_SIZE];
    uint32_t series;
};

struct lookback {
    int64_t from_us, to_us;
    lookback_write_fn write;
    void *context;
    struct buf out;
    trawl_v1_AgentMessage *message;
    struct known *known;
    size_t known_count, known_room;
    size_t epoch_low, epoch_high; /* the run of the epoch last asked for */
    size_t columns;
    struct column *by_column;
    /* The rows under way: blocks of one beginning belong together. */
    int64_t rows_from_us;
    uint32_t step_us;
    size_t row_count;
    int64_t *cells; /* row_count x columns */
    int64_t first_us;
    struct reason reasons[REASONS_MAX];
    uint32_t reason_count;
    int error;
};

/* ---- which series ---- */

/* The run of an epoch's series, kept for the next question. */
static void find_epoch(struct lookback *l, uint64_t epoch)
{
    if (l->epoch_high > l->epoch_low && l->known[l->epoch_low].epoch == epoch)
        return;
    size_t low = 0, high;
    while (low < l->known_count && l->known[low].epoch != epoch)
        low++;
    for (high = low; high < l->known_count && l->known[high].epoch == epoch;)
        high++;
    l->epoch_low = low;
    l->epoch_high = high;
}

/* The place of (epoch, id), or where it belongs; epochs stay in the order of their appearance. */
static struct known *find_known(struct lookback *l, uint64_t epoch, uint32_t id, size_t *place)
{
    find_epoch(l, epoch);
    size_t low = l->epoch_low, high = l->epoch_high, end = high;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->known[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (place)
        *place = low;
    return low < end && l->known[low].id == id ? &l->known[low] : NULL;
}

static char *make_label(const trawl_v1_Descriptor *d)
{
    char pid[16] = "";
    char label[LABEL_SIZE];
    if (d->pid)
        text_format(pid, sizeof pid, "(%u)", (unsigned)d->pid);
    text_format(label, sizeof label, "%s%s%s%s [%s]%s", d->name, d->instance[0] ? "{" : "",
                d->instance, d->instance[0] ? "}" : "", d->unit, pid);
    size_t size = strlen(label) + 1;
    char *copy = malloc(size);
    if (copy)
        memcpy(copy, label, size);
    return copy;
}

static int add_known(struct lookback *l, uint64_t epoch, const trawl_v1_Descriptor *d)
{
    size_t place;
    if (find_known(l, epoch, d->id, &place))
        return 0;
    if (BUF_GROW(l->known, l->known_count, &l->known_room, 256))
        return ERR_NOMEM;
    char *label = make_label(d);
    if (!label)
        return ERR_NOMEM;
    memmove(l->known + place + 1, l->known + place, (l->known_count - place) * sizeof *l->known);
    l->known[place] = (struct known){epoch, d->id, d->scale ? d->scale : 1, 0, false, label};
    l->known_count++;
    l->epoch_high = l->epoch_low = 0;
    return 0;
}

static int mark_used(void *context, const struct block_view *view)
{
    struct lookback *l = context;
    struct known *k = find_known(l, l->message->body.block.epoch, view->id, NULL);
    if (k)
        k->is_used = true;
    return 0;
}

static struct span block_data(const trawl_v1_CounterBlock *block)
{
    return span_of(block->data.bytes, block->data.size);
}

static bool touches_window(const struct lookback *l, const trawl_v1_CounterBlock *b)
{
    int64_t end_us = b->from_us + (int64_t)b->count * b->step_us;
    return b->step_us > 0 && b->from_us <= l->to_us && end_us > l->from_us;
}

/* First walk. A record that cannot be read is passed over: it is a gap then. */
static int learn(void *context, const struct ring_record *record)
{
    struct lookback *l = context;
    if (codec_get_agent_message(l->message, record->payload, NULL))
        return 0;
    if (l->message->which_body == trawl_v1_AgentMessage_descriptors_tag) {
        const trawl_v1_Descriptors *d = &l->message->body.descriptors;
        for (size_t i = 0; i < d->list_count; i++)
            if (add_known(l, d->epoch, &d->list[i]))
                return ERR_NOMEM;
    } else if (l->message->which_body == trawl_v1_AgentMessage_block_tag &&
               touches_window(l, &l->message->body.block)) {
        (void)block_each(block_data(&l->message->body.block), mark_used, l, NULL);
    }
    return 0;
}

static int compare_labels(const void *a, const void *b)
{
    const struct column *left = a, *right = b;
    return strcmp(left->series->label, right->series->label);
}

/* Gives used series their columns, equal labels the same one. */
static int make_columns(struct lookback *l)
{
    size_t used = 0;
    l->by_column = calloc(l->known_count + 1, sizeof *l->by_column);
    if (!l->by_column)
        return ERR_NOMEM;
    for (size_t i = 0; i < l->known_count; i++)
        if (l->known[i].is_used)
            l->by_column[used++].series = &l->known[i];
    qsort(l->by_column, used, sizeof *l->by_column, compare_labels);
    for (size_t i = 0; i < used; i++) {
        struct known *k = l->by_column[i].series;
        bool is_same =
            l->columns > 0 && strcmp(l->by_column[l->columns - 1].series->label, k->label) == 0;
        if (!is_same)
            l->by_column[l->columns++].series = k;
        k->column = (uint32_t)(l->columns - 1);
    }
    return 0;
}

/* ---- writing ---- */

static int flush(struct lookback *l, size_t above)
{
    if (l->out.size_bytes <= above)
        return 0;
    int e = l->write(l->context, buf_span(&l->out));
    buf_clear(&l->out);
    return e;
}

static int put_cell_text(struct buf *out, const char *text)
{
    if (!strpbrk(text, ",\"\n\r"))
        return buf_append_str(out, text);
    int e = buf_append_byte(out, '"');
    for (; *text && !e; text++) {
        if (*text == '"')
            e = buf_append_byte(out, '"');
        if (!e)
            e = buf_append_byte(out, (uint8_t)*text);
    }
    return e ? e : buf_append_byte(out, '"');
}

static int put_names(struct lookback *l)
{
    int e = buf_append_str(&l->out, "time");
    for (size_t i = 0; i < l->columns && !e; i++) {
        e = buf_append_byte(&l->out, ',');
        if (!e)
            e = put_cell_text(&l->out, l->by_column[i].series->label);
        if (!e)
            e = flush(l, PIECE_BYTES);
    }
    return e ? e : buf_append_byte(&l->out, '\n');
}

/* value / scale; exact where the scale is a power of ten. */
static int put_value(struct buf *out, int64_t value, uint32_t scale)
{
    int digits = 0;
    uint32_t power = 1;
    while (power < scale && digits < 9) {
        power *= 10;
        digits++;
    }
    if (power != scale)
        return buf_printf(out, "%.9g", (double)value / scale);
    if (digits == 0)
        return buf_printf(out, "%lld", (long long)value);
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    return buf_printf(out, "%s%llu.%0*llu", value < 0 ? "-" : "",
                      (unsigned long long)(magnitude / scale), digits,
                      (unsigned long long)(magnitude % scale));
}

static int put_row(struct lookback *l, size_t row)
{
    int64_t at_us = l->rows_from_us + (int64_t)row * l->step_us;
    const int64_t *cells = l->cells + row * l->columns;
    char time[32];
    if (at_us < l->from_us || at_us > l->to_us)
        return 0;
    if (l->first_us == 0)
        l->first_us = at_us;
    text_put_time(at_us, time, sizeof time);
    int e = buf_append_str(&l->out, time);
    for (size_t i = 0; i < l->columns && !e; i++) {
        e = buf_append_byte(&l->out, ',');
        if (!e && cells[i] != BLOCK_GAP)
            e = put_value(&l->out, cells[i], l->by_column[i].series->scale);
        if (!e)
            e = flush(l, PIECE_BYTES);
    }
    return e ? e : buf_append_byte(&l->out, '\n');
}

static int put_rows(struct lookback *l)
{
    int e = 0;
    for (size_t row = 0; row < l->row_count && !e; row++)
        e = put_row(l, row);
    l->row_count = 0;
    return e;
}

/* ---- the second walk ---- */

/* Whether two reasons differ in numbers only, as those that name a pid do. */
static bool same_reason(const char *a, const char *b)
{
    static const char digits[] = "0123456789";
    for (;;) {
        bool both = strchr(digits, *a) && strchr(digits, *b) && *a && *b;
        if (both) {
            a += strspn(a, digits);
            b += strspn(b, digits);
        } else if (*a != *b) {
            return false;
        } else if (*a == '\0') {
            return true;
        } else {
            a++;
            b++;
        }
    }
}

static void note_reason(struct lookback *l, struct span text, const char *label)
{
    char copy[BLOCK_REASON_SIZE];
    uint32_t i = 0;
    if (text.size_bytes == 0)
        return;
    text_copy_span(copy, sizeof copy, text);
    while (i < l->reason_count && !same_reason(l->reasons[i].text, copy))
        i++;
    if (i == REASONS_MAX)
        return;
    struct reason *r = &l->reasons[i];
    if (i == l->reason_count) {
        l->reason_count++;
        text_copy(r->text, sizeof r->text, copy);
        text_copy(r->example, sizeof r->example, label);
        r->series = 1;
    } else if (strcmp(r->example, label) != 0) {
        r->series++;
    }
}

static int fill_cells(void *context, const struct block_view *view)
{
    struct lookback *l = context;
    const struct known *k = find_known(l, l->message->body.block.epoch, view->id, NULL);
    if (!k || view->sample_count != l->row_count)
        return 0;
    for (size_t row = 0; row < view->sample_count; row++)
        l->cells[row * l->columns + k->column] = view->values[row];
    if (view->gap_count > 0)
        note_reason(l, view->reason, k->label);
    return 0;
}

static int begin_rows(struct lookback *l, const trawl_v1_CounterBlock *block)
{
    size_t cells = (size_t)block->count * l->columns;
    int64_t *room = realloc(l->cells, cells * sizeof *room);
    if (!room)
        return ERR_NOMEM;
    l->cells = room;
    for (size_t i = 0; i < cells; i++)
        room[i] = BLOCK_GAP;
    l->rows_from_us = block->from_us;
    l->step_us = block->step_us;
    l->row_count = block->count;
    return 0;
}

static int write_block(void *context, const struct ring_record *record)
{
    struct lookback *l = context;
    const trawl_v1_CounterBlock *block = &l->message->body.block;
    if (record->type != RING_BLOCK || codec_get_agent_message(l->message, record->payload, NULL) ||
        l->message->which_body != trawl_v1_AgentMessage_block_tag || !touches_window(l, block) ||
        block->count == 0 || block->count > BLOCK_MAX_SAMPLES)
        return 0;
    bool goes_on = l->row_count == block->count && l->rows_from_us == block->from_us;
    if (!goes_on) {
        l->error = put_rows(l);
        if (!l->error)
            l->error = begin_rows(l, block);
    }
    if (!l->error)
        (void)block_each(block_data(block), fill_cells, l, NULL);
    return l->error;
}

static void put_missing(const struct lookback *l, char *out, size_t size_bytes)
{
    struct buf text;
    buf_init(&text, 4096);
    if (l->first_us > l->from_us + 2 * 1000000) {
        char time[32];
        text_put_time(l->first_us, time, sizeof time);
        (void)buf_printf(&text, "nothing before %s: the recording begins there", time);
    }
    for (uint32_t i = 0; i < l->reason_count; i++) {
        const struct reason *r = &l->reasons[i];
        char more[32] = "";
        if (r->series > 1)
            text_format(more, sizeof more, " and %u more", (unsigned)(r->series - 1));
        (void)buf_printf(&text, "%s%s%s: %s", text.size_bytes ? "; " : "", r->example, more,
                         r->text);
    }
    text_copy(out, size_bytes, buf_str(&text));
    buf_done(&text);
}

static void lookback_done(struct lookback *l)
{
    for (size_t i = 0; i < l->known_count; i++)
        free(l->known[i].label);
    free(l->known);
    free(l->by_column);
    free(l->cells);
    free(l->message);
    buf_done(&l->out);
}

static int write_counters(struct lookback *l, const struct ring *ring, struct failure *f)
{
    int64_t first_us = l->from_us - BLOCK_SPAN_US;
    int e = l->message ? ring_each(ring, first_us, l->to_us, learn, l) : ERR_NOMEM;
    if (!e)
        e = make_columns(l);
    if (e)
        return fail(f, e, "cannot look back: %s", err_text(e));
    if (l->columns == 0)
        return fail(f, ERR_NOTFOUND, "no counters were recorded in this window");
    e = put_names(l);
    if (!e)
        e = ring_each(ring, first_us, l->to_us, write_block, l);
    if (!e)
        e = put_rows(l);
    if (!e)
        e = flush(l, 0);
    return e ? fail(f, e, "cannot write the counters: %s", err_text(e)) : 0;
}

int lookback_counters(const struct spool *spool, int64_t from_us, int64_t to_us,
                      lookback_write_fn write, void *context, char *missing, size_t size_bytes,
                      struct failure *f)
{
    struct lookback l = {.from_us = from_us, .to_us = to_us, .write = write, .context = context};
    buf_init(&l.out, 2 * PIECE_BYTES);
    l.message = calloc(1, sizeof *l.message);
    int e = write_counters(&l, spool_ring(spool, SPOOL_BLOCKS), f);
    if (!e)
        put_missing(&l, missing, size_bytes);
    lookback_done(&l);
    return e;
}
