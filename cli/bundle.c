/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bundle holds and how it says so. Invariant: `file` is set by bundle_choose() only, from a
 * name that passed bundle_is_safe_name(). Pure; called by cmd_fetch.c.
 */
#include "cli/bundle.h"

#include <stdlib.h>
#include <string.h>

#include "cli/render_incident.h"
#include "common/text.h"

#define REPORT_LIMIT (64u << 20)
#define ROWS_MAX 1000000
#define FIRST_ROWS 64

void bundle_init(struct bundle *b)
{
    *b = (struct bundle){.target_count = 0};
    buf_init(&b->report, REPORT_LIMIT);
}

void bundle_done(struct bundle *b)
{
    free(b->targets);
    free(b->artifacts);
    buf_done(&b->report);
    b->targets = NULL;
    b->artifacts = NULL;
}

/* ---- taking in ---- */

static int take_target(struct bundle *b, const trawl_v1_Target *target)
{
    int r = b->target_count >= ROWS_MAX
                ? ERR_LIMIT
                : BUF_GROW(b->targets, b->target_count, &b->target_capacity, FIRST_ROWS);
    if (r == 0)
        b->targets[b->target_count++] = *target;
    return r;
}

static int take_artifact(struct bundle *b, const trawl_v1_Artifact *artifact)
{
    int r = b->artifact_count >= ROWS_MAX
                ? ERR_LIMIT
                : BUF_GROW(b->artifacts, b->artifact_count, &b->artifact_capacity, FIRST_ROWS);
    if (r == 0)
        b->artifacts[b->artifact_count++] = (struct bundle_artifact){.record = *artifact};
    return r;
}

int bundle_part(struct bundle *b, const trawl_v1_IncidentPart *part)
{
    int r = 0;
    switch (part->which_body) {
    case trawl_v1_IncidentPart_incident_tag:
        b->incident = part->body.incident;
        return 0;
    case trawl_v1_IncidentPart_target_tag:
        return take_target(b, &part->body.target);
    case trawl_v1_IncidentPart_artifact_tag:
        return take_artifact(b, &part->body.artifact);
    case trawl_v1_IncidentPart_line_tag:
        r = text_append_safe(&b->report, span_str(part->body.line), true);
        return r < 0 ? r : buf_append_byte(&b->report, '\n');
    default:
        return 0;
    }
}

/* ---- names ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

bool bundle_is_safe_name(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length >= BUNDLE_FILE_SIZE - 16 || name[0] == '.' || name[0] == '-' ||
        name[length - 1] == '.' || name[length - 1] == ' ' || ends_with(name, ".part") ||
        ends_with(name, ".unpacked"))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < ' ' || c > '~' || strchr("/\\:*?\"<>|", c))
            return false;
    }
    return true;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Some file systems do not tell case apart. */
static bool same_name(const char *a, const char *b)
{
    while (*a && lower(*a) == lower(*b)) {
        a++;
        b++;
    }
    return lower(*a) == lower(*b);
}

static bool is_taken(const struct bundle *b, size_t before, const char *host, const char *file)
{
    for (size_t i = 0; i < before; i++)
        if (same_name(b->artifacts[i].record.host, host) && same_name(b->artifacts[i].file, file))
            return true;
    return false;
}

/* A host's directory lies beside these. */
static bool is_safe_host(const char *host)
{
    return text_is_name(host) && bundle_is_safe_name(host) && !same_name(host, "report.txt") &&
           !same_name(host, "manifest.json");
}

/* The first to have a name keeps it; the next get their number before it. */
static void name_file(struct bundle *b, size_t i)
{
    struct bundle_artifact *a = &b->artifacts[i];
    if (!is_safe_host(a->record.host) || !bundle_is_safe_name(a->record.file))
        return;
    text_copy(a->file, sizeof a->file, a->record.file);
    if (!is_taken(b, i, a->record.host, a->file))
        return;
    text_format(a->file, sizeof a->file, "%u-%s", a->record.no, a->record.file);
    if (is_taken(b, i, a->record.host, a->file))
        a->file[0] = '\0';
}

/* ---- choosing ---- */

static bool list_has(const char *list, const char *text)
{
    struct span rest = span_str(list), word;
    char pattern[256];
    if (!list[0])
        return true;
    while (text_take_until(&rest, ',', &word) == 0)
        if (text_copy_span(pattern, sizeof pattern, word) == 0 && text_glob(pattern, text))
            return true;
    return false;
}

/* Each word of the list must stand for something. */
static int check_list(const char *what, const char *list, const struct names *known,
                      struct failure *f)
{
    struct span rest = span_str(list), word;
    char pattern[256];
    while (text_take_until(&rest, ',', &word) == 0) {
        bool any = false;
        (void)text_copy_span(pattern, sizeof pattern, word);
        for (size_t i = 0; !any && i < known->count; i++)
            any = text_glob(pattern, known->list[i]);
        if (!any)
            return names_fail(f, ERR_INVALID, what, pattern, names_list(known));
    }
    return 0;
}

static int check_choice(const struct bundle *b, const char *hosts, const char *kinds,
                        struct failure *f)
{
    struct names known_hosts = {.list = NULL}, known_kinds = {.list = NULL};
    int r = 0;
    for (size_t i = 0; r == 0 && i < b->target_count; i++)
        r = names_add(&known_hosts, b->targets[i].host);
    for (pb_size_t i = 0; r == 0 && i < b->incident.what_count; i++)
        r = names_add(&known_kinds, b->incident.what[i]);
    for (size_t i = 0; r == 0 && i < b->artifact_count; i++) {
        r = names_add(&known_hosts, b->artifacts[i].record.host);
        if (r == 0)
            r = names_add(&known_kinds, b->artifacts[i].record.kind);
    }
    if (r < 0)
        r = fail(f, r, "out of memory");
    if (r == 0)
        r = check_list("host of this incident", hosts, &known_hosts, f);
    if (r == 0)
        r = check_list("kind of this incident", kinds, &known_kinds, f);
    names_done(&known_hosts);
    names_done(&known_kinds);
    return r;
}

static void choose(struct bundle_artifact *a, const char *hosts, const char *kinds)
{
    if (!list_has(hosts, a->record.host) || !list_has(kinds, a->record.kind)) {
        a->state = BUNDLE_UNASKED;
        return;
    }
    a->state = BUNDLE_WANTED;
    if (!a->record.sealed)
        fail(&a->why, ERR_AGAIN, "not complete yet at the collector: fetch again later");
    else if (!a->file[0])
        fail(&a->why, ERR_INVALID, "host or file name is not safe to be a path: not kept");
    else if (a->record.sha256.size != 32)
        fail(&a->why, ERR_CORRUPT, "the collector gave no hash for it: not kept");
    if (a->why.code)
        a->state = BUNDLE_FAILED;
}

int bundle_choose(struct bundle *b, const char *hosts, const char *kinds, struct failure *f)
{
    if (!bundle_is_safe_name(b->incident.id))
        return fail(f, ERR_CORRUPT,
                    "the collector's name for the incident, '%s', cannot be a "
                    "directory",
                    b->incident.id);
    int r = check_choice(b, hosts, kinds, f);
    for (size_t i = 0; r == 0 && i < b->artifact_count; i++) {
        name_file(b, i);
        choose(&b->artifacts[i], hosts, kinds);
    }
    return r;
}

/* ---- the manifest ---- */

const char *bundle_state_name(enum bundle_state state)
{
    static const char *const names[] = {"not asked for", "not fetched", "fetched", "present",
                                        "failed"};
    return names[state];
}

static int put_artifact(const struct bundle_artifact *a, struct buf *out)
{
    char path[BUNDLE_FILE_SIZE + 80];
    struct jsonl j = {.out = out};
    bool is_there = a->state == BUNDLE_FETCHED || a->state == BUNDLE_PRESENT;
    jsonl_object(&j, NULL);
    render_artifact_members(&j, &a->record);
    jsonl_bool(&j, "fetched", is_there);
    text_format(path, sizeof path, "%s/%s", a->record.host, a->file);
    if (is_there && a->record.encoding[0]) /* size and hash above are those of the stored bytes */
        jsonl_u64(&j, "file_bytes", a->plain_bytes);
    if (is_there)
        jsonl_str(&j, "path", path);
    else
        jsonl_str(&j, "not_fetched_because",
                  a->why.code ? a->why.text : bundle_state_name(a->state));
    return jsonl_line(&j);
}

static int put_target(const trawl_v1_Target *target, struct buf *out)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    render_target_members(&j, target);
    return jsonl_line(&j);
}

/* Lines of JSON become the elements of a list. */
static void drop_line_end(struct buf *out)
{
    if (out->size_bytes > 0 && out->data[out->size_bytes - 1] == '\n')
        out->size_bytes--;
}

int bundle_manifest(const struct bundle *b, struct buf *out)
{
    struct jsonl j = {.out = out};
    int r = buf_append_str(out, "{\"version\":1,\n\"incident\":");
    if (r < 0)
        return r;
    jsonl_object(&j, NULL);
    render_incident_members(&j, &b->incident);
    r = jsonl_line(&j);
    drop_line_end(out);
    if (r == 0)
        r = buf_append_str(out, ",\n\"targets\":[");
    for (size_t i = 0; r == 0 && i < b->target_count; i++) {
        r = buf_append_str(out, i ? ",\n" : "\n");
        if (r == 0)
            r = put_target(&b->targets[i], out);
        drop_line_end(out);
    }
    if (r == 0)
        r = buf_append_str(out, "],\n\"artifacts\":[");
    for (size_t i = 0; r == 0 && i < b->artifact_count; i++) {
        r = buf_append_str(out, i ? ",\n" : "\n");
        if (r == 0)
            r = put_artifact(&b->artifacts[i], out);
        drop_line_end(out);
    }
    return r < 0 ? r : buf_append_str(out, "]}\n");
}
