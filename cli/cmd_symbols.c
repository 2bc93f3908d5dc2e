/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl symbols: add, list. Invariant: a file is sent only when the collector has no table of its
 * build-id that is known to be as good; each file given ends in one state, with a reason when it
 * did not come in. Called through the table.
 */
#include "cli/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "cli/file.h"
#include "cli/render_symbols.h"
#include "common/port.h"
#include "common/text.h"

#define REQUEST_LIMIT 1024
#define TEXT_LIMIT (64u << 20)
#define ATTEMPTS 6
#define WAIT_MS 500
#define SHOW_US 100000
#define BAR_COLUMNS 24
#define HAS_MAX 20000 /* build-ids that a collector may list */

struct has {
    uint8_t build_id[ELF_FILE_BUILD_ID];
    size_t build_id_bytes;
    uint32_t functions, lines;
};

struct add {
    struct cli *cli;
    struct symbols_files files;
    struct has *has; /* what the collector has */
    size_t has_count;
    uint64_t all_bytes, done_bytes, shown_us;
    size_t all_files, done_files;

    struct symbols_file *file; /* being sent */
    int handle;
    uint64_t sent_bytes;
    bool is_last, answered, ended;
    trawl_v1_SymbolFile reply;
    struct failure why;
};

/* ---- what the collector has ---- */

static int list_all(struct cli *cli, client_reply_fn reply, void *owner, struct failure *f)
{
    trawl_v1_SymbolsRequest request = {.build_id = {.size = 0}};
    struct buf wire;
    buf_init(&wire, REQUEST_LIMIT);
    int r = codec_put_symbols_request(&wire, &request);
    r = r < 0 ? fail(f, r, "%s", err_text(r))
              : cli_call(cli, METHOD_OPS_SYMBOLS, &wire, reply, owner, f);
    buf_done(&wire);
    return r;
}

static int on_has(void *owner, struct span message, struct failure *f)
{
    struct add *a = owner;
    trawl_v1_SymbolFile file;
    int r = codec_get_symbol_file(&file, message, f);
    if (r < 0 || a->has_count == HAS_MAX)
        return r;
    struct has *h = &a->has[a->has_count++];
    h->build_id_bytes = file.build_id.size;
    memcpy(h->build_id, file.build_id.bytes, file.build_id.size);
    h->functions = file.functions;
    h->lines = file.lines;
    return 0;
}

/* As far as its headers tell; the collector compares what it reads in it. */
static bool is_as_good(const struct add *a, const struct elf_file *elf)
{
    for (size_t i = 0; i < a->has_count; i++) {
        const struct has *h = &a->has[i];
        if (h->build_id_bytes == elf->build_id_bytes &&
            memcmp(h->build_id, elf->build_id, elf->build_id_bytes) == 0)
            return h->lines || (!elf->has_lines && h->functions >= elf->functions);
    }
    return false;
}

static int look_up(struct add *a, struct failure *f)
{
    const struct cmd_symbols_options *options = a->cli->options;
    a->has = calloc(HAS_MAX, sizeof *a->has);
    if (!a->has)
        return fail(f, ERR_NOMEM, "out of memory");
    int r = options->force ? cli_connect(a->cli, f) : list_all(a->cli, on_has, a, f);
    for (size_t i = 0; r == 0 && i < a->files.count; i++) {
        struct symbols_file *file = &a->files.list[i];
        if (file->state == SYMBOLS_UNSENT && is_as_good(a, &file->elf)) {
            file->state = SYMBOLS_AS_GOOD;
            text_copy(file->text, sizeof file->text, "the collector has a table that is as good");
        }
        a->all_files += file->state == SYMBOLS_UNSENT;
        a->all_bytes += file->state == SYMBOLS_UNSENT ? file->elf.size_bytes : 0;
    }
    return r;
}

/* ---- sending one ---- */

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void show_progress(struct add *a)
{
    char done[32], all[32];
    struct buf line;
    uint64_t now = port_mono_us(), bytes = a->done_bytes + a->sent_bytes;
    if (now - a->shown_us < SHOW_US)
        return;
    a->shown_us = now;
    text_put_size(bytes, done, sizeof done);
    text_put_size(a->all_bytes, all, sizeof all);
    buf_init(&line, REQUEST_LIMIT);
    int r = render_bar(&line, bytes, a->all_bytes, BAR_COLUMNS);
    if (r == 0)
        r = buf_printf(&line, " %zu/%zu files   %s of %s   ", a->done_files, a->all_files, done,
                       all);
    if (r == 0)
        r = render_styled(&line, RENDER_PLAIN, false, name_of(a->file->path), 0);
    if (r == 0)
        cli_progress(a->cli, buf_str(&line));
    buf_done(&line);
}

static int next_piece(void *owner, struct buf *message, struct failure *f)
{
    static trawl_v1_SymbolPiece piece; /* 33 KB; one at a time on one thread */
    struct add *a = owner;
    uint64_t left = a->file->elf.size_bytes - a->sent_bytes;
    size_t size = left < CODEC_PIECE_SIZE ? (size_t)left : CODEC_PIECE_SIZE;
    if (a->is_last)
        return 0;
    piece = (trawl_v1_SymbolPiece){.last = left == size};
    if (a->sent_bytes == 0) {
        text_copy(piece.name, sizeof piece.name, name_of(a->file->path));
        text_clean(piece.name);
        piece.size_bytes = a->file->elf.size_bytes;
    }
    int n = file_read(a->handle, piece.data.bytes, size, a->sent_bytes);
    if (n < 0 || (size_t)n != size)
        return fail(f, ERR_REFUSED, "it changed while it was sent, or cannot be read");
    piece.data.size = (pb_size_t)size;
    a->sent_bytes += size;
    a->is_last = piece.last;
    show_progress(a);
    int r = codec_put_symbol_piece(message, &piece);
    return r < 0 ? fail(f, r, "%s", err_text(r)) : 1;
}

static int on_reply(void *owner, struct span message, struct failure *f)
{
    struct add *a = owner;
    a->answered = true;
    return codec_get_symbol_file(&a->reply, message, f);
}

static void on_done(void *owner, const struct failure *why)
{
    struct add *a = owner;
    a->why = *why;
    a->ended = true;
    client_stop(a->cli->client);
}

static void send_once(struct add *a)
{
    static const struct client_events events = {on_reply, on_done};
    a->sent_bytes = 0;
    a->is_last = a->answered = a->ended = false;
    a->why = (struct failure){.code = 0};
    if (client_start_feed(a->cli->client, METHOD_OPS_SYMBOLS_ADD, CLIENT_FOREVER, next_piece,
                          &events, a, NULL, &a->why) < 0)
        return;
    while (!a->ended)
        client_run(a->cli->client);
    if (!a->why.code && !a->answered)
        fail(&a->why, ERR_PROTOCOL, "the collector did not say what became of it");
}

/* What is wrong with this one file; anything else ends the run. */
static bool is_refusal(int code)
{
    return code == ERR_REFUSED || code == ERR_LIMIT || code == ERR_CORRUPT ||
           code == ERR_NOTFOUND || code == ERR_INVALID || code == ERR_FULL;
}

static int send_file(struct add *a, struct symbols_file *file, struct failure *f)
{
    struct failure why;
    a->file = file;
    a->handle = file_open_read(file->path);
    if (a->handle < 0) {
        file_fail(&why, a->handle, "open", file->path);
        file->state = SYMBOLS_REFUSED;
        text_copy(file->text, sizeof file->text, why.text);
        return 0;
    }
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        if (i)
            client_wait(a->cli->client, (uint64_t)WAIT_MS << i);
        send_once(a);
        if (!client_may_retry(a->why.code) && a->why.code != ERR_BUSY)
            break;
    }
    port_close(a->handle);
    if (a->why.code && !is_refusal(a->why.code))
        return fail(f, a->why.code, "%s", a->why.text);
    file->state = a->why.code ? SYMBOLS_REFUSED : a->reply.kept ? SYMBOLS_ADDED : SYMBOLS_AS_GOOD;
    text_copy(file->text, sizeof file->text, a->why.code ? a->why.text : a->reply.text);
    file->functions = a->reply.functions;
    file->lines = a->reply.lines;
    a->done_bytes += file->elf.size_bytes;
    a->done_files++;
    return 0;
}

/* ---- add ---- */

static int exit_code(const struct symbols_files *files)
{
    size_t good = 0;
    for (size_t i = 0; i < files->count; i++)
        good += files->list[i].state == SYMBOLS_ADDED || files->list[i].state == SYMBOLS_AS_GOOD;
    return good == files->count && good ? CLI_DONE : good ? CLI_PARTIAL : CLI_FAILED;
}

static int show_end(struct add *a, struct failure *f)
{
    struct buf text;
    int code = exit_code(&a->files);
    buf_init(&text, TEXT_LIMIT);
    cli_progress_clear(a->cli);
    int r = a->cli->output == CLI_JSON
                ? render_symbols_added_json(&a->files, code, &text)
                : render_symbols_added(&a->files, a->cli->output == CLI_WIDE, a->cli->color, &text);
    r = r < 0 ? fail(f, r, "cannot show the summary: %s", err_text(r))
              : cli_write(a->cli, &text, f);
    buf_done(&text);
    return r < 0 ? r : code;
}

static int collect(struct add *a, struct failure *f)
{
    int r = 0;
    for (int i = 1; r == 0 && i < a->cli->word_count; i++)
        r = symbols_files_add(&a->files, a->cli->words[i], f);
    if (r == 0 && a->files.count == 0)
        r = fail(f, ERR_NOTFOUND,
                 "no ELF file with a build-id and symbols there (%llu files looked at): give the "
                 "programs before they were stripped, or their .debug files",
                 (unsigned long long)a->files.seen);
    return r;
}

static int add(struct cli *cli, struct failure *f)
{
    struct add a = {.cli = cli, .handle = -1};
    struct failure fatal = {.code = 0};
    if (cli->word_count < 2)
        return fail(f, ERR_INVALID, "missing argument: trawl symbols add PATH...");
    int r = collect(&a, f);
    if (r == 0)
        r = look_up(&a, f);
    if (r == 0) {
        for (size_t i = 0; r == 0 && i < a.files.count; i++)
            if (a.files.list[i].state == SYMBOLS_UNSENT)
                r = send_file(&a, &a.files.list[i], &fatal);
        r = show_end(&a, f);
    }
    if (r >= 0 && fatal.code)
        r = fail(f, fatal.code, "%s", fatal.text);
    symbols_files_done(&a.files);
    free(a.has);
    return r;
}

/* ---- list ---- */

struct listing {
    struct cli *cli;
    struct render_table table;
    struct buf line;
};

static int on_file(void *owner, struct span message, struct failure *f)
{
    struct listing *l = owner;
    trawl_v1_SymbolFile file;
    int r = codec_get_symbol_file(&file, message, f);
    if (r < 0)
        return r;
    if (l->cli->output != CLI_JSON) {
        render_symbol_file(&l->table, &file, l->cli->output == CLI_WIDE, l->cli->now_us);
        return 0;
    }
    r = render_symbol_file_json(&file, &l->line);
    return r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(l->cli, &l->line, f);
}

static int list(struct cli *cli, struct failure *f)
{
    struct listing l = {.cli = cli};
    if (cli->word_count > 1)
        return fail(f, ERR_INVALID, "unexpected argument '%.80s': trawl symbols list",
                    cli->words[1]);
    render_table_init(&l.table, SYMBOLS_COLUMNS, SYMBOLS_COLUMN_COUNT);
    buf_init(&l.line, TEXT_LIMIT);
    int r = list_all(cli, on_file, &l, f);
    if (r == 0)
        r = cli_write_table(cli, &l.table, f);
    if (r == 0 && cli->output != CLI_JSON && render_row_count(&l.table) == 0)
        cli_note(cli, "no symbols yet: 'trawl symbols add PATH...' gives the collector some");
    render_table_done(&l.table);
    buf_done(&l.line);
    return r;
}

int cmd_symbols(struct cli *cli, struct failure *f)
{
    int r = cli_choose("verb", cli->words[0], cli->command->words, f);
    if (r < 0)
        return r;
    return strcmp(cli->words[0], "add") == 0 ? add(cli, f) : list(cli, f);
}
