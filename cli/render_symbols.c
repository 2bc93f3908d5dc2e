/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols as text and JSON. Invariant: paths and names come from outside and are made safe. Called
 * by cmd_symbols.c.
 */
#include "cli/render_symbols.h"

#include <string.h>

#include "cli/cli.h"
#include "cli/jsonl.h"
#include "common/text.h"

#define SHORT_ID_BYTES 6 /* of a build-id, where there is little room */

const struct render_column SYMBOLS_COLUMNS[] = {
    {"NAME", false}, {"BUILD-ID", false}, {"FUNCTIONS", true}, {"LINES", true},
    {"SIZE", true},  {"ADDED", false},    {"BY", false}};
const size_t SYMBOLS_COLUMN_COUNT = CLI_COUNT(SYMBOLS_COLUMNS);

struct sum {
    uint64_t states[SYMBOLS_REFUSED + 1];
};

static struct sum sum_up(const struct symbols_files *files)
{
    struct sum sum = {.states = {0}};
    for (size_t i = 0; i < files->count; i++)
        sum.states[files->list[i].state]++;
    return sum;
}

/* ---- what became of the files ---- */

/* The collector's sentence begins with the file's name, which stands in front of it already. */
static const char *text_of(const struct symbols_file *file)
{
    const char *slash = strrchr(file->path, '/'), *name = slash ? slash + 1 : file->path;
    size_t length = strlen(name);
    bool repeats = strncmp(file->text, name, length) == 0 && file->text[length] == ':' &&
                   file->text[length + 1] == ' ';
    return repeats ? file->text + length + 2 : file->text;
}

static int put_file(const struct symbols_file *file, bool color, struct buf *out)
{
    static const enum render_style styles[] = {RENDER_WARN, RENDER_GOOD, RENDER_DIM, RENDER_BAD};
    int r = buf_append_str(out, "  ");
    if (r == 0)
        r = render_styled(out, styles[file->state], color, symbols_state_name(file->state), 8);
    if (r == 0)
        r = buf_append_str(out, "  ");
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, color, file->path, 0);
    if (r == 0 && file->text[0])
        r = buf_append_str(out, ": ");
    if (r == 0 && file->text[0])
        r = render_styled(out, RENDER_PLAIN, color, text_of(file), 0);
    return r ? r : buf_append_byte(out, '\n');
}

static int put_part(struct buf *out, uint64_t count, const char *what)
{
    return count ? buf_printf(out, ", %llu %s", (unsigned long long)count, what) : 0;
}

int render_symbols_added(const struct symbols_files *files, bool wide, bool color, struct buf *out)
{
    struct sum sum = sum_up(files);
    int r = 0;
    for (size_t i = 0; r == 0 && i < files->count; i++) {
        const struct symbols_file *file = &files->list[i];
        if (wide || file->state == SYMBOLS_REFUSED ||
            (files->count == 1 && file->state != SYMBOLS_UNSENT))
            r = put_file(file, color, out);
    }
    if (r == 0)
        r = buf_printf(out, "%zu file%s", files->count, files->count == 1 ? "" : "s");
    if (r == 0)
        r = put_part(out, sum.states[SYMBOLS_ADDED], "added");
    if (r == 0)
        r = put_part(out, sum.states[SYMBOLS_AS_GOOD], "already as good");
    if (r == 0)
        r = put_part(out, sum.states[SYMBOLS_REFUSED], "refused");
    if (r == 0)
        r = put_part(out, sum.states[SYMBOLS_UNSENT], "not sent");
    if (r == 0 && files->duplicates)
        r = buf_printf(out, " (%llu more of the same build-ids)",
                       (unsigned long long)files->duplicates);
    if (r == 0 && files->without_id)
        r = buf_printf(out, " (%llu without build-id or symbols passed over)",
                       (unsigned long long)files->without_id);
    return r ? r : buf_append_byte(out, '\n');
}

int render_symbols_added_json(const struct symbols_files *files, int exit_code, struct buf *out)
{
    struct jsonl j = {.out = out};
    struct sum sum = sum_up(files);
    for (size_t i = 0; j.error == 0 && i < files->count; i++) {
        const struct symbols_file *file = &files->list[i];
        jsonl_object(&j, NULL);
        jsonl_str(&j, "type", "file");
        jsonl_str(&j, "path", file->path);
        jsonl_hex(&j, "build_id", file->elf.build_id, file->elf.build_id_bytes);
        jsonl_str(&j, "state", symbols_state_name(file->state));
        if (file->state == SYMBOLS_ADDED) {
            jsonl_u64(&j, "functions", file->functions);
            jsonl_u64(&j, "lines", file->lines);
        }
        jsonl_str(&j, "text", file->text);
        (void)jsonl_line(&j);
    }
    jsonl_object(&j, NULL);
    jsonl_str(&j, "type", "summary");
    jsonl_u64(&j, "files", files->count);
    jsonl_u64(&j, "added", sum.states[SYMBOLS_ADDED]);
    jsonl_u64(&j, "as_good", sum.states[SYMBOLS_AS_GOOD]);
    jsonl_u64(&j, "refused", sum.states[SYMBOLS_REFUSED]);
    jsonl_u64(&j, "unsent", sum.states[SYMBOLS_UNSENT]);
    jsonl_u64(&j, "duplicates", files->duplicates);
    jsonl_int(&j, "exit", exit_code);
    return jsonl_line(&j);
}

/* ---- what the collector has ---- */

void render_symbol_file(struct render_table *table, const trawl_v1_SymbolFile *file, bool wide,
                        int64_t now_us)
{
    char id[2 * ELF_FILE_BUILD_ID + 1], size[RENDER_TEXT_SIZE], when[RENDER_TEXT_SIZE];
    size_t bytes = file->build_id.size;
    text_put_hex(file->build_id.bytes,
                 wide || bytes < SHORT_ID_BYTES ? bytes : (size_t)SHORT_ID_BYTES, id);
    text_put_size(file->size_bytes, size, sizeof size);
    render_clock(file->added_us, now_us, when);
    render_cell(table, RENDER_PLAIN, file->name);
    render_cell(table, RENDER_PLAIN, id);
    render_cellf(table, RENDER_PLAIN, "%u", file->functions);
    if (file->lines)
        render_cellf(table, RENDER_PLAIN, "%u", file->lines);
    else
        render_cell(table, RENDER_DIM, RENDER_GAP);
    render_cell(table, RENDER_PLAIN, size);
    render_cell(table, RENDER_PLAIN, when);
    render_cell(table, RENDER_PLAIN, file->added_by);
}

int render_symbol_file_json(const trawl_v1_SymbolFile *file, struct buf *out)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "name", file->name);
    jsonl_hex(&j, "build_id", file->build_id.bytes, file->build_id.size);
    jsonl_u64(&j, "functions", file->functions);
    jsonl_u64(&j, "lines", file->lines);
    jsonl_u64(&j, "size_bytes", file->size_bytes);
    jsonl_time(&j, "added", file->added_us);
    jsonl_str(&j, "added_by", file->added_by);
    jsonl_str(&j, "text", file->text);
    return jsonl_line(&j);
}
