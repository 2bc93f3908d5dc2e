/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout of "rules": "version N", a line end, the text. Of "rules.limits": "TRWL", length and bytes
 * of the boot's ID, monotonic and wall time in microseconds (8 bytes each), the engine's record
 * (which has a sum of its own). Called by rules.c.
 */
#include "agent/rules_keep.h"

#include <string.h>

#include "common/port.h"
#include "common/text.h"

#define RULES_FILE "rules"
#define LIMITS_FILE "rules.limits"
#define HEAD "version "
#define MAGIC "TRWL"
#define MAGIC_SIZE 4
#define LIMITS_HEAD_MAX 256

static int read_file(const struct state *state, const char *name, struct buf *out,
                     struct failure *f)
{
    char path[STATE_PATH_SIZE];
    int e = state_path(state, name, path, f);
    return e ? e : port_read_file(path, out, f);
}

static int write_file(const struct state *state, const char *name, struct span bytes,
                      struct failure *f)
{
    char path[STATE_PATH_SIZE];
    int e = state_path(state, name, path, f);
    return e ? e : port_write_file(path, bytes, true, f);
}

/* ---- rules ---- */

static int take_version(struct span *file, uint64_t *version)
{
    struct span head, end;
    if (span_take(file, strlen(HEAD), &head) || !span_equal(head, span_str(HEAD)) ||
        text_take_u64(file, version) || span_take(file, 1, &end) || end.data[0] != '\n')
        return ERR_CORRUPT;
    return 0;
}

int rules_keep_read(const struct state *state, uint64_t *version, struct buf *text,
                    struct failure *f)
{
    struct buf file;
    buf_init(&file, RULES_TEXT_MAX + LIMITS_HEAD_MAX);
    int e = read_file(state, RULES_FILE, &file, f);
    struct span rest = buf_span(&file);
    if (!e && take_version(&rest, version))
        e = fail(f, ERR_CORRUPT, "'" RULES_FILE "' in the state directory is damaged");
    if (!e)
        e = buf_append_span(text, rest);
    buf_done(&file);
    return e;
}

int rules_keep_write(const struct state *state, uint64_t version, struct span text,
                     struct failure *f)
{
    struct buf file;
    buf_init(&file, RULES_TEXT_MAX + LIMITS_HEAD_MAX);
    int e = buf_printf(&file, HEAD "%llu\n", (unsigned long long)version);
    if (!e)
        e = buf_append_span(&file, text);
    e = e ? fail(f, e, "%s", err_text(e)) : write_file(state, RULES_FILE, buf_span(&file), f);
    buf_done(&file);
    return e;
}

/* ---- limits ---- */

int rules_keep_limits(const struct state *state, const struct rule_engine *engine,
                      struct clock *clock, const char *boot_id, struct failure *f)
{
    struct buf file;
    uint64_t now_us = clock->mono_us(clock);
    buf_init(&file, RULE_RECORD_MAX + LIMITS_HEAD_MAX);
    int e = buf_append(&file, MAGIC, MAGIC_SIZE);
    if (!e)
        e = buf_append_byte(&file, (uint8_t)strlen(boot_id));
    if (!e)
        e = buf_append_str(&file, boot_id);
    if (!e)
        e = buf_append_u64(&file, now_us);
    if (!e)
        e = buf_append_u64(&file, (uint64_t)clock->wall_us(clock));
    if (!e)
        e = rule_engine_record(engine, now_us, &file);
    e = e ? fail(f, e, "%s", err_text(e)) : write_file(state, LIMITS_FILE, buf_span(&file), f);
    buf_done(&file);
    return e;
}

/* How long ago it was made, as far as that is certain. */
static uint64_t elapsed_us(struct clock *clock, bool same_boot, uint64_t mono_us, int64_t wall_us)
{
    if (same_boot) {
        uint64_t now_us = clock->mono_us(clock);
        return now_us > mono_us ? now_us - mono_us : 0;
    }
    int64_t now_us = clock->wall_us(clock);
    return wall_us > 0 && now_us > wall_us ? (uint64_t)(now_us - wall_us) : 0;
}

static int take_head(struct span *file, struct clock *clock, const char *boot_id, uint64_t *ago_us)
{
    struct span magic, boot;
    uint8_t size;
    uint64_t mono_us, wall_us;
    if (span_take(file, MAGIC_SIZE, &magic) || !span_equal(magic, span_str(MAGIC)) ||
        span_take_u8(file, &size) || span_take(file, size, &boot) ||
        span_take_u64(file, &mono_us) || span_take_u64(file, &wall_us))
        return ERR_CORRUPT;
    bool same_boot = size > 0 && span_equal(boot, span_str(boot_id));
    *ago_us = elapsed_us(clock, same_boot, mono_us, (int64_t)wall_us);
    return 0;
}

int rules_keep_restore(const struct state *state, struct rule_engine *engine, struct clock *clock,
                       const char *boot_id, struct failure *f)
{
    struct buf file;
    uint64_t ago_us = 0;
    buf_init(&file, RULE_RECORD_MAX + LIMITS_HEAD_MAX);
    int e = read_file(state, LIMITS_FILE, &file, f);
    struct span record = buf_span(&file);
    if (e != ERR_NOTFOUND) {
        /* What cannot be read is as a record without an end: the engine takes limits as used up. */
        if (e || take_head(&record, clock, boot_id, &ago_us))
            record = span_of(NULL, 0);
        e = rule_engine_restore(engine, record, clock->mono_us(clock), ago_us, f);
    }
    buf_done(&file);
    return e;
}
