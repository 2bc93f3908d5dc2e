/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl fetch: an incident into a directory, several artifacts at once. Invariant: what is under
 * its real name is right; what did not come is named with its reason in manifest.json and by the
 * exit status. A lost connection is borne; an interrupted fetch goes on from the pieces that are
 * there. Called through the table.
 */
#include "cli/cmd.h"

#include <string.h>

#include "cli/bases.h"
#include "cli/bundle.h"
#include "cli/file.h"
#include "cli/incident_call.h"
#include "cli/jsonl.h"
#include "cli/render_incident.h"
#include "cli/transfer.h"
#include "common/port.h"
#include "common/text.h"

#define PARALLEL 4
#define ATTEMPTS 8
#define BACKOFF_US 250000
#define BACKOFF_MAX_US 4000000
#define TICK_MS 100
#define UNPACK_TICK_MS 1
#define UNPACK_US 20000 /* at once; then the network has its turn */
#define TEXT_LIMIT (256u << 20)
#define REQUEST_LIMIT 1024
#define BAR_COLUMNS 24

struct slot {
    struct fetch *fetch;
    struct bundle_artifact *artifact; /* NULL: free */
    struct transfer transfer;
    struct client_call *call; /* NULL: waits to try again */
    struct failure here;      /* what went wrong on our side */
    unsigned attempts;
    uint64_t not_before_us;
    bool from_scratch; /* the part was thrown away once already */
    bool unpacking;    /* all has come */
};

struct fetch {
    struct cli *cli;
    struct bundle bundle;
    char directory[CONTEXT_PATH_SIZE]; /* DIR/INC-... */
    struct bases bases;                /* cores that others are told from: fetched first */
    size_t next_base, next;            /* to look at */
    size_t next_told;                  /* then the artifacts that waited for their bases */
    struct slot slots[PARALLEL];
    uint64_t all_bytes, done_bytes;
    uint64_t all_files, done_files, present_files;
    uint64_t started_us, shown_us;
    struct failure fatal; /* disk full and the like: nothing more is begun */
};

static void fill_slots(struct fetch *f);
static void on_tick(void *owner);

/* ---- one artifact ---- */

static void end_slot(struct slot *s, enum bundle_state state, const struct failure *why)
{
    struct fetch *f = s->fetch;
    struct bundle_artifact *a = s->artifact;
    a->state = state;
    if (why)
        a->why = *why;
    if (state != BUNDLE_FAILED && !bases_has(&f->bases, a)) {
        f->done_files++;
        f->done_bytes += a->record.size_bytes;
        f->present_files += state == BUNDLE_PRESENT;
    }
    s->artifact = NULL;
}

static bool is_fatal(int code)
{
    return code == ERR_FULL || code == ERR_DENIED || code == ERR_IO;
}

static void fail_slot(struct slot *s, const struct failure *why)
{
    transfer_close(&s->transfer);
    if (s->here.code && is_fatal(why->code) && !s->fetch->fatal.code)
        s->fetch->fatal = *why;
    end_slot(s, BUNDLE_FAILED, why);
}

static int on_piece(void *owner, struct span message, struct failure *f)
{
    struct slot *s = owner;
    static trawl_v1_Piece piece; /* 33 KB; one at a time on one thread */
    int r = codec_get_piece(&piece, message, f);
    if (r == 0)
        r = transfer_piece(&s->transfer, &piece, f);
    if (r < 0)
        s->here = *f;
    else
        s->attempts = 0;
    return r;
}

static void try_again(struct slot *s)
{
    uint64_t pause = BACKOFF_US;
    for (unsigned i = 0; i < s->attempts && pause < BACKOFF_MAX_US; i++)
        pause *= 2;
    s->attempts++;
    s->not_before_us = port_mono_us() + pause;
    s->call = NULL;
}

static void begin(struct slot *s);

static void end_fetched(struct slot *s, enum bundle_state state)
{
    s->artifact->plain_bytes = s->transfer.plain_bytes;
    end_slot(s, state, NULL);
}

/* The pieces of an earlier time may be what differs: once more, from the first. */
static void finish(struct slot *s)
{
    struct failure why = {.code = 0};
    bool was_resumed = s->transfer.resumed;
    int r = transfer_finish(&s->transfer, &why);
    if (r == ERR_CORRUPT && was_resumed && !s->from_scratch) {
        s->from_scratch = true;
        begin(s);
        return;
    }
    if (r < 0) {
        s->here = why;
        fail_slot(s, &why);
    } else if (r > 0) {
        s->unpacking = true;
        client_every(s->fetch->cli->client, UNPACK_TICK_MS, on_tick, s->fetch);
    } else {
        end_fetched(s, BUNDLE_FETCHED);
    }
}

static void unpack_more(struct slot *s)
{
    struct failure why = {.code = 0};
    int r = transfer_unpack(&s->transfer, UNPACK_US, &why);
    if (r < 0) {
        s->here = why;
        fail_slot(s, &why);
    } else if (r == 0) {
        end_fetched(s, BUNDLE_FETCHED);
    }
}

static void on_done(void *owner, const struct failure *why)
{
    struct slot *s = owner;
    s->call = NULL;
    if (why->code == 0)
        finish(s);
    else if (!s->here.code && client_may_retry(why->code) && s->attempts < ATTEMPTS &&
             !s->fetch->fatal.code) {
        transfer_close(&s->transfer);
        try_again(s);
    } else {
        fail_slot(s, why);
    }
    fill_slots(s->fetch);
}

static int ask(struct slot *s, struct failure *why)
{
    static const struct client_events events = {on_piece, on_done};
    trawl_v1_FetchRequest request = {.artifact = s->artifact->record.no,
                                     .from_piece = s->transfer.next_piece};
    struct buf wire;
    text_copy(request.incident, sizeof request.incident,
              bases_has(&s->fetch->bases, s->artifact) ? s->artifact->record.incident
                                                       : s->fetch->bundle.incident.id);
    text_copy(request.host, sizeof request.host, s->artifact->record.host);
    buf_init(&wire, REQUEST_LIMIT);
    int r = codec_put_fetch_request(&wire, &request);
    if (r == 0)
        r = client_start(s->fetch->cli->client, METHOD_OPS_FETCH, buf_span(&wire), CLIENT_FOREVER,
                         &events, s, &s->call, why);
    buf_done(&wire);
    return r;
}

static int path_of(const struct fetch *f, const struct bundle_artifact *a,
                   char out[TRANSFER_PATH_SIZE], struct failure *why)
{
    if (text_format(out, TRANSFER_PATH_SIZE, "%s/%s/%s", f->directory, a->record.host, a->file) < 0)
        return fail(why, ERR_INVALID, "path too long: '%.100s...'", f->directory);
    return 0;
}

/* The file that it is told from is there already. */
static int name_base(struct slot *s, struct failure *why)
{
    const struct fetch *f = s->fetch;
    const trawl_v1_Artifact *record = &s->artifact->record;
    if (!bases_is_needed(record))
        return 0;
    const struct bundle_artifact *base = bases_of(&f->bases, &f->bundle, record);
    return base ? path_of(f, base, s->transfer.base_path, why) : 0;
}

static int open_transfer(struct slot *s, bool *present, struct failure *why)
{
    char path[TRANSFER_PATH_SIZE];
    const struct bundle_artifact *a = s->artifact;
    int r = text_format(path, sizeof path, "%s/%s", s->fetch->directory, a->record.host);
    if (r == 0)
        r = port_make_dirs(path, why);
    else
        return fail(why, ERR_INVALID, "path too long: '%.100s...'", s->fetch->directory);
    if (r == 0)
        r = path_of(s->fetch, a, path, why);
    if (r == 0)
        r = transfer_open(&s->transfer, path, &a->record, present, why);
    return r ? r : name_base(s, why);
}

static void begin(struct slot *s)
{
    struct failure why = {.code = 0};
    bool present = false;
    const struct cmd_fetch_options *options = s->fetch->cli->options;
    int r = open_transfer(s, &present, &why);
    s->transfer.max_bytes = options->max_bytes;
    if (r < 0) {
        s->here = why;
        fail_slot(s, &why);
    } else if (present) {
        end_fetched(s, BUNDLE_PRESENT);
    } else if (s->transfer.received_bytes == s->artifact->record.size_bytes &&
               s->artifact->record.size_bytes > 0) {
        finish(s); /* everything had come, only the name was missing */
    } else if (ask(s, &why) < 0) {
        s->here = why;
        fail_slot(s, &why);
    }
}

/* ---- all of them ---- */

static struct bundle_artifact *next_wanted(struct bundle_artifact *list, size_t count, size_t *next)
{
    while (*next < count) {
        struct bundle_artifact *a = &list[(*next)++];
        if (a->state == BUNDLE_WANTED)
            return a;
    }
    return NULL;
}

/* Of those that are told from others: the next whose base is there. One whose base cannot be had
 * fails with its reason; NULL: none, or not yet. */
static struct bundle_artifact *next_told(struct fetch *f)
{
    struct bundle *b = &f->bundle;
    for (; f->next_told < b->artifact_count; f->next_told++) {
        struct bundle_artifact *a = &b->artifacts[f->next_told];
        if (a->state != BUNDLE_WANTED || !bases_is_needed(&a->record))
            continue;
        const struct bundle_artifact *base = bases_of(&f->bases, b, &a->record);
        if (base && base->state == BUNDLE_WANTED)
            return NULL;
        if (base && base->state != BUNDLE_FAILED) {
            f->next_told++;
            return a;
        }
        a->state = BUNDLE_FAILED;
        if (base)
            a->why = base->why;
    }
    return NULL;
}

static struct bundle_artifact *next_artifact(struct fetch *f)
{
    struct bundle *b = &f->bundle;
    if (f->fatal.code)
        return NULL;
    struct bundle_artifact *a = next_wanted(f->bases.list, f->bases.count, &f->next_base);
    while (!a && f->next < b->artifact_count) {
        a = next_wanted(b->artifacts, b->artifact_count, &f->next);
        if (a && bases_is_needed(&a->record))
            a = NULL; /* its turn comes */
    }
    return a ? a : next_told(f);
}

static bool is_busy(const struct fetch *f)
{
    for (size_t i = 0; i < PARALLEL; i++)
        if (f->slots[i].artifact)
            return true;
    return false;
}

static void fill_slots(struct fetch *f)
{
    for (size_t i = 0; i < PARALLEL; i++) {
        struct slot *s = &f->slots[i];
        while (!s->artifact) {
            struct bundle_artifact *a = next_artifact(f);
            if (!a)
                break;
            *s = (struct slot){.fetch = f, .artifact = a};
            transfer_init(&s->transfer);
            begin(s);
        }
    }
    if (!is_busy(f))
        client_stop(f->cli->client);
}

static void show_progress(struct fetch *f)
{
    char done[32], all[32], elapsed[32];
    uint64_t bytes = f->done_bytes;
    struct buf line;
    for (size_t i = 0; i < PARALLEL; i++)
        if (f->slots[i].artifact)
            bytes += f->slots[i].transfer.received_bytes;
    text_put_size(bytes, done, sizeof done);
    text_put_size(f->all_bytes, all, sizeof all);
    text_put_duration((int64_t)(port_mono_us() - f->started_us), elapsed, sizeof elapsed);
    buf_init(&line, REQUEST_LIMIT);
    int r = render_bar(&line, bytes, f->all_bytes, BAR_COLUMNS);
    if (r == 0)
        r = buf_printf(&line, " %llu/%llu files   %s of %s   %s", (unsigned long long)f->done_files,
                       (unsigned long long)f->all_files, done, all, elapsed);
    if (r == 0)
        cli_progress(f->cli, buf_str(&line));
    buf_done(&line);
}

static void on_tick(void *owner)
{
    struct fetch *f = owner;
    uint64_t now = port_mono_us();
    bool unpacking = false;
    for (size_t i = 0; i < PARALLEL; i++) {
        struct slot *s = &f->slots[i];
        if (s->artifact && s->unpacking)
            unpack_more(s);
        else if (s->artifact && !s->call && now >= s->not_before_us)
            begin(s);
        unpacking |= s->artifact && s->unpacking;
    }
    fill_slots(f);
    if (!unpacking)
        client_every(f->cli->client, TICK_MS, on_tick, f);
    if (now - f->shown_us >= TICK_MS * UINT64_C(1000)) {
        f->shown_us = now;
        show_progress(f);
    }
}

static void run(struct fetch *f)
{
    f->started_us = port_mono_us();
    client_every(f->cli->client, TICK_MS, on_tick, f);
    fill_slots(f);
    while (is_busy(f))
        client_run(f->cli->client);
    client_every(f->cli->client, 0, NULL, NULL);
    cli_progress_clear(f->cli);
}

/* What is told from them is whole now. When something failed they stay, for another time. */
static void remove_bases(const struct fetch *f)
{
    char path[TRANSFER_PATH_SIZE], stamp[TRANSFER_PATH_SIZE + 16];
    if (f->done_files < f->all_files)
        return;
    for (size_t i = 0; i < f->bases.count; i++) {
        if (f->bases.list[i].state == BUNDLE_FAILED || path_of(f, &f->bases.list[i], path, NULL))
            continue;
        file_remove(path);
        if (text_format(stamp, sizeof stamp, "%s.unpacked", path) == 0)
            file_remove(stamp);
    }
}

/* ---- the bundle's own files ---- */

static int write_file(struct fetch *f, const char *name, struct span text, struct failure *why)
{
    char path[TRANSFER_PATH_SIZE];
    if (text_format(path, sizeof path, "%s/%s", f->directory, name) < 0)
        return fail(why, ERR_INVALID, "path too long: '%.100s...'", f->directory);
    return port_write_file(path, text, true, why);
}

static int write_manifest(struct fetch *f, struct failure *why)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    int r = bundle_manifest(&f->bundle, &text);
    r = r < 0 ? fail(why, r, "cannot make the manifest: %s", err_text(r))
              : write_file(f, "manifest.json", buf_span(&text), why);
    buf_done(&text);
    return r;
}

/* What is there already needs no base. */
static void look_for_told(struct fetch *f)
{
    char path[TRANSFER_PATH_SIZE];
    for (size_t i = 0; i < f->bundle.artifact_count; i++) {
        struct bundle_artifact *a = &f->bundle.artifacts[i];
        if (a->state != BUNDLE_WANTED || !bases_is_needed(&a->record) ||
            path_of(f, a, path, NULL) || !transfer_is_present(path, &a->record, &a->plain_bytes))
            continue;
        a->state = BUNDLE_PRESENT;
        f->done_files++;
        f->present_files++;
    }
}

static int on_part(void *owner, struct span message, struct failure *f)
{
    struct fetch *fetch = owner;
    trawl_v1_IncidentPart part;
    int r = codec_get_incident_part(&part, message, f);
    return r < 0 ? r : bundle_part(&fetch->bundle, &part);
}

static int prepare(struct fetch *f, struct failure *why)
{
    const struct cmd_fetch_options *options = f->cli->options;
    int r = incident_call(f->cli, METHOD_OPS_SHOW, f->cli->words[0], on_part, f, why);
    if (r == 0)
        r = bundle_choose(&f->bundle, options->host, options->kind, why);
    if (r == 0 && text_format(f->directory, sizeof f->directory, "%s/%s", options->output,
                              f->bundle.incident.id) < 0)
        r = fail(why, ERR_INVALID, "path too long: '%.100s...'", options->output);
    if (r == 0)
        r = port_make_dirs(f->directory, why);
    if (r == 0)
        r = write_file(f, "report.txt", buf_span(&f->bundle.report), why);
    if (r == 0)
        r = write_manifest(f, why);
    if (r == 0) {
        look_for_told(f);
        r = bases_find(&f->bases, f->cli, &f->bundle, why);
    }
    for (size_t i = 0; r == 0 && i < f->bundle.artifact_count; i++) {
        const struct bundle_artifact *a = &f->bundle.artifacts[i];
        f->all_files += a->state != BUNDLE_UNASKED;
        f->all_bytes += a->state == BUNDLE_WANTED ? a->record.size_bytes : 0;
    }
    return r;
}

/* ---- the end ---- */

static int exit_code(const struct fetch *f)
{
    if (f->done_files == f->all_files)
        return CLI_DONE;
    return f->done_files > 0 ? CLI_PARTIAL : CLI_FAILED;
}

static int put_json(const struct fetch *f, struct buf *out)
{
    struct jsonl j = {.out = out};
    for (size_t i = 0; j.error == 0 && i < f->bundle.artifact_count; i++) {
        const struct bundle_artifact *a = &f->bundle.artifacts[i];
        if (a->state == BUNDLE_UNASKED)
            continue;
        jsonl_object(&j, NULL);
        jsonl_str(&j, "type", "artifact");
        jsonl_str(&j, "host", a->record.host);
        jsonl_u64(&j, "no", a->record.no);
        jsonl_str(&j, "kind", a->record.kind);
        jsonl_str(&j, "file", a->file);
        jsonl_str(&j, "state", bundle_state_name(a->state));
        jsonl_str(&j, "reason", a->why.code ? a->why.text : "");
        jsonl_u64(&j, "size_bytes", a->record.size_bytes);
        if (a->plain_bytes)
            jsonl_u64(&j, "file_bytes", a->plain_bytes);
        (void)jsonl_line(&j);
    }
    jsonl_object(&j, NULL);
    jsonl_str(&j, "type", "fetch");
    jsonl_str(&j, "incident", f->bundle.incident.id);
    jsonl_str(&j, "directory", f->directory);
    jsonl_bool(&j, "finished", f->bundle.incident.finished);
    jsonl_u64(&j, "files", f->all_files);
    jsonl_u64(&j, "fetched", f->done_files - f->present_files);
    jsonl_u64(&j, "present", f->present_files);
    jsonl_u64(&j, "size_bytes", f->done_bytes);
    jsonl_int(&j, "exit", exit_code(f));
    return jsonl_line(&j);
}

static int put_failed(const struct fetch *f, bool color, struct buf *out)
{
    char name[BUNDLE_FILE_SIZE + 80];
    int r = 0;
    for (size_t i = 0; r == 0 && i < f->bundle.artifact_count; i++) {
        const struct bundle_artifact *a = &f->bundle.artifacts[i];
        if (a->state != BUNDLE_FAILED && a->state != BUNDLE_WANTED)
            continue;
        text_format(name, sizeof name, "%s/%s", a->record.host, a->record.file);
        r = buf_append_str(out, "  ");
        if (r == 0)
            r = render_styled(out, RENDER_PLAIN, color, name, 0);
        if (r == 0)
            r = buf_append_str(out, "   ");
        if (r == 0)
            r = render_styled(out, RENDER_BAD, color, a->why.code ? a->why.text : "not fetched", 0);
        if (r == 0)
            r = buf_append_byte(out, '\n');
    }
    return r;
}

static int put_text(const struct fetch *f, bool color, struct buf *out)
{
    char size[32];
    text_put_size(f->done_bytes, size, sizeof size);
    int r = put_failed(f, color, out);
    if (r == 0)
        r = buf_printf(out, "%llu of %llu files, %s", (unsigned long long)f->done_files,
                       (unsigned long long)f->all_files, size);
    if (r == 0 && f->present_files)
        r = buf_printf(out, " (%llu were there)", (unsigned long long)f->present_files);
    if (r == 0)
        r = buf_printf(out, "       %s/report.txt\n", f->directory);
    return r;
}

static int show_end(struct fetch *f, struct failure *why)
{
    const struct cmd_fetch_options *options = f->cli->options;
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    int r = options->json ? put_json(f, &text) : put_text(f, f->cli->color, &text);
    r = r < 0 ? fail(why, r, "cannot show the summary: %s", err_text(r))
              : cli_write(f->cli, &text, why);
    buf_done(&text);
    if (r == 0 && !f->bundle.incident.finished)
        cli_note(f->cli, "the incident has not ended: fetch again for what is still to come");
    return r;
}

int cmd_fetch(struct cli *cli, struct failure *f)
{
    static struct fetch fetch; /* too large for a stack, and there is one */
    fetch = (struct fetch){.cli = cli};
    bundle_init(&fetch.bundle);
    int r = prepare(&fetch, f);
    if (r == 0) {
        run(&fetch);
        remove_bases(&fetch);
        r = write_manifest(&fetch, f);
    }
    if (r == 0)
        r = show_end(&fetch, f);
    if (r == 0 && fetch.fatal.code)
        r = fail(f, fetch.fatal.code, "%s", fetch.fatal.text);
    if (r == 0)
        r = exit_code(&fetch);
    bases_done(&fetch.bases);
    bundle_done(&fetch.bundle);
    return r;
}
