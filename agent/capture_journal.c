/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of orders: STATE/captures/ORDER/ with order.pb (its first 16 bytes say when it was
 * received), verdict.pb and the artifacts. Invariant: a directory without order.pb is of an order
 * that was never accepted. Called by capture.
 */
#include "agent/capture_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define FILE_MAX 8192

struct order *order_new(void)
{
    struct order *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    list_init(&o->link);
    buf_init(&o->reasons, sizeof o->verdict.reason - 1);
    return o;
}

void order_free(struct order *o)
{
    if (!o)
        return;
    list_remove(&o->link);
    buf_done(&o->reasons);
    free(o);
}

static int path_in(const char *directory, const char *name, char out[EVIDENCE_PATH_SIZE],
                   struct failure *f)
{
    if (text_format(out, EVIDENCE_PATH_SIZE, "%s/%s", directory, name))
        return fail(f, ERR_LIMIT, "path too long: '%s/%s'", directory, name);
    return 0;
}

static int set_directory(struct capture *c, struct order *o, struct failure *f)
{
    if (text_format(o->directory, sizeof o->directory, "%s/%llu", c->directory,
                    (unsigned long long)o->order.order))
        return fail(f, ERR_LIMIT, "path too long: '%s'", c->directory);
    return 0;
}

/* ---- writing ---- */

int journal_accept(struct capture *c, struct order *o, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf out;
    buf_init(&out, FILE_MAX);
    int e = set_directory(c, o, f);
    if (!e)
        e = port_make_dirs(o->directory, f);
    if (!e)
        e = path_in(o->directory, "order.pb", path, f);
    if (!e)
        e = buf_append_u64(&out, o->received_mono_us);
    if (!e)
        e = buf_append_u64(&out, (uint64_t)o->received_wall_us);
    if (!e)
        e = codec_put_order(&out, &o->order);
    if (!e)
        e = port_write_file(path, buf_span(&out), true, f);
    buf_done(&out);
    return e;
}

int journal_verdict(const struct order *o, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf out;
    buf_init(&out, FILE_MAX);
    int e = path_in(o->directory, "verdict.pb", path, f);
    if (!e)
        e = codec_put_verdict(&out, &o->verdict);
    if (!e)
        e = port_write_file(path, buf_span(&out), true, f);
    buf_done(&out);
    return e;
}

int journal_sealed(const struct order *o, uint32_t no, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    if (text_format(path, sizeof path, "%s/%06u.sealed", o->directory, (unsigned)no))
        return fail(f, ERR_LIMIT, "path too long: '%s'", o->directory);
    return port_write_file(path, span_str("sealed\n"), true, f);
}

static void unlink_file(const char *path)
{
    uv_fs_t request;
    uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

/* Removes the files of a directory, then itself. Order first: without it the rest is rubbish. */
static void remove_directory(const char *directory)
{
    char path[EVIDENCE_PATH_SIZE];
    uv_fs_t scan, request;
    uv_dirent_t entry;
    if (!path_in(directory, "order.pb", path, NULL))
        unlink_file(path);
    if (uv_fs_scandir(NULL, &scan, directory, 0, NULL) >= 0)
        while (uv_fs_scandir_next(&scan, &entry) == 0)
            if (!path_in(directory, entry.name, path, NULL))
                unlink_file(path);
    uv_fs_req_cleanup(&scan);
    uv_fs_rmdir(NULL, &request, directory, NULL);
    uv_fs_req_cleanup(&request);
}

void journal_remove(struct capture *c, struct order *o)
{
    struct failure f;
    if (state_accept_order(c->settings.state, o->order.order, &f)) {
        log_error("%s", f.text);
        return; /* kept: the number must not be forgotten */
    }
    remove_directory(o->directory);
}

/* ---- numbers of artifacts ---- */

static int numbers_path(const struct capture *c, char out[EVIDENCE_PATH_SIZE])
{
    return path_in(c->directory, "numbers", out, NULL);
}

void journal_save_numbers(struct capture *c)
{
    char path[EVIDENCE_PATH_SIZE];
    struct failure f = {0};
    struct buf out;
    buf_init(&out, FILE_MAX);
    for (size_t i = 0; i < c->number_count; i++)
        (void)buf_printf(&out, "%s %u\n", c->numbers[i].incident, (unsigned)c->numbers[i].last);
    if (!numbers_path(c, path) && port_write_file(path, buf_span(&out), true, &f))
        log_error("%s", f.text);
    buf_done(&out);
}

static struct incident_number *find_number(struct capture *c, const char *incident)
{
    size_t i = 0;
    while (i < c->number_count && strcmp(c->numbers[i].incident, incident) != 0)
        i++;
    if (i < c->number_count)
        return &c->numbers[i];
    size_t moved = c->number_count < NUMBERS_MAX ? c->number_count : NUMBERS_MAX - 1;
    memmove(c->numbers + 1, c->numbers, moved * sizeof c->numbers[0]);
    c->number_count = moved + 1;
    c->numbers[0] = (struct incident_number){.last = 0};
    text_copy(c->numbers[0].incident, INCIDENT_SIZE, incident);
    return &c->numbers[0];
}

uint32_t journal_next_number(struct capture *c, const char *incident)
{
    return ++find_number(c, incident)->last;
}

void journal_return_number(struct capture *c, const char *incident, uint32_t no)
{
    struct incident_number *n = find_number(c, incident);
    if (n->last == no)
        n->last--;
}

static void load_number(struct capture *c, struct span line)
{
    char incident[INCIDENT_SIZE], digits[16];
    struct span word;
    uint64_t last;
    if (text_take_until(&line, ' ', &word) || text_copy_span(incident, sizeof incident, word) ||
        text_copy_span(digits, sizeof digits, line) || text_u64_in(digits, 0, UINT32_MAX, &last))
        return;
    find_number(c, incident)->last = (uint32_t)last;
}

static void load_numbers(struct capture *c)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf in;
    struct span rest, line;
    buf_init(&in, FILE_MAX);
    if (!numbers_path(c, path) && !port_read_file(path, &in, NULL)) {
        rest = buf_span(&in);
        while (!text_take_until(&rest, '\n', &line))
            load_number(c, line);
    }
    buf_done(&in);
}

/* ---- reading ---- */

static int load_order_file(struct order *o, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf in;
    uint64_t mono_us, wall_us;
    buf_init(&in, FILE_MAX);
    int e = path_in(o->directory, "order.pb", path, f);
    if (!e)
        e = port_read_file(path, &in, f);
    if (!e) {
        struct span rest = buf_span(&in);
        e = span_take_u64(&rest, &mono_us);
        if (!e)
            e = span_take_u64(&rest, &wall_us);
        if (!e)
            e = codec_get_order(&o->order, rest, f);
        if (!e) {
            o->received_mono_us = mono_us;
            o->received_wall_us = (int64_t)wall_us;
        }
    }
    buf_done(&in);
    return e;
}

static int load_verdict(struct order *o)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf in;
    buf_init(&in, FILE_MAX);
    int e = path_in(o->directory, "verdict.pb", path, NULL);
    if (!e)
        e = port_read_file(path, &in, NULL);
    if (!e)
        e = codec_get_verdict(&o->verdict, buf_span(&in), NULL);
    buf_done(&in);
    return e;
}

/* "000003.pb" -> 3; 0 for a name with another ending. */
static uint32_t artifact_of_name(const char *name, const char *ending)
{
    char digits[16];
    uint64_t no;
    struct span rest = span_str(name), word;
    if (text_take_until(&rest, '.', &word) || !span_equal(rest, span_str(ending)) ||
        text_copy_span(digits, sizeof digits, word) || text_u64_in(digits, 1, UINT32_MAX, &no))
        return 0;
    return (uint32_t)no;
}

static int compare_artifacts(const void *a, const void *b)
{
    const struct order_artifact *left = a, *right = b;
    return left->no < right->no ? -1 : left->no > right->no;
}

static void load_artifact(struct capture *c, struct order *o, const char *name,
                          trawl_v1_Artifact *meta)
{
    uint32_t no = artifact_of_name(name, "pb");
    uint32_t sealed_no = artifact_of_name(name, "sealed");
    if (o->artifact_count == ARTIFACTS_MAX || (!no && !sealed_no) ||
        (no && evidence_load(o->directory, no, meta, NULL)))
        return;
    struct order_artifact found = {no, ARTIFACT_WAITS, meta->size_bytes};
    if (sealed_no)
        found = (struct order_artifact){sealed_no, ARTIFACT_SEALED, 0};
    o->artifacts[o->artifact_count++] = found;
    struct incident_number *n = find_number(c, o->order.incident);
    if (n->last < found.no)
        n->last = found.no;
}

static void load_artifacts(struct capture *c, struct order *o)
{
    uv_fs_t scan;
    uv_dirent_t entry;
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    if (meta && uv_fs_scandir(NULL, &scan, o->directory, 0, NULL) >= 0) {
        while (uv_fs_scandir_next(&scan, &entry) == 0)
            load_artifact(c, o, entry.name, meta);
        uv_fs_req_cleanup(&scan);
    }
    qsort(o->artifacts, o->artifact_count, sizeof o->artifacts[0], compare_artifacts);
    free(meta);
}

static void insert(struct capture *c, struct order *o)
{
    struct list *at = c->orders.prev;
    while (at != &c->orders && LIST_ENTRY(at, struct order, link)->order.order > o->order.order)
        at = at->prev;
    list_insert(at, &o->link);
}

/* What became of an order while nobody ran: queued goes on, running ends, final is delivered. */
static void revive(struct capture *c, struct order *o)
{
    if (load_verdict(o) || o->verdict.state == trawl_v1_State_QUEUED) {
        o->phase = ORDER_QUEUED;
        return;
    }
    load_artifacts(c, o);
    o->phase = ORDER_SENDING;
    if (capture_is_final(o->verdict.state))
        return;
    trawl_v1_State state = o->artifact_count > 0 ? trawl_v1_State_PARTIAL : trawl_v1_State_FAILED;
    capture_decide(c, o, state, "the agent was restarted during the capture");
}

static int load_order(struct capture *c, const char *name)
{
    struct failure f = {0};
    struct order *o = order_new();
    uint64_t number;
    if (!o)
        return ERR_NOMEM;
    o->order.order = 0;
    if (text_u64(name, &number) ||
        text_format(o->directory, sizeof o->directory, "%s/%s", c->directory, name)) {
        order_free(o);
        return 0;
    }
    if (load_order_file(o, &f) || o->order.order != number) {
        log_warn("order '%s' in the journal cannot be read and is removed", name);
        remove_directory(o->directory);
        order_free(o);
        return 0;
    }
    insert(c, o);
    revive(c, o);
    return 0;
}

int journal_load(struct capture *c, struct failure *f)
{
    uv_fs_t scan;
    uv_dirent_t entry;
    int e = port_make_dirs(c->directory, f);
    if (e)
        return e;
    load_numbers(c);
    int n = uv_fs_scandir(NULL, &scan, c->directory, 0, NULL);
    if (n < 0)
        e = fail(f, ERR_IO, "cannot read '%s': %s", c->directory, uv_strerror(n));
    while (!e && uv_fs_scandir_next(&scan, &entry) == 0)
        e = load_order(c, entry.name);
    uv_fs_req_cleanup(&scan);
    return e;
}
