/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the watcher of crashes. The directory is looked through once a second, and at once when
 * something in it was renamed. See crashes.h.
 */
#include "agent/crashes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/crash_spool.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define BATCH 256                      /* files told in one pass */
#define ORPHAN_US UINT64_C(2000000)    /* a marker this old whose handler is dead */
#define SITE_WAIT_US INT64_C(25000000) /* for what was seen at a site to be described */
#define TIDY_SECONDS 60

struct crashes {
    struct watcher *watcher;
    struct crash_spool spool;
    uv_fs_event_t *event; /* NULL: the directory is not watched */
    struct os_exception *exception;
    trawl_v1_Exception *message;
    uint32_t seconds, told;
    uint64_t site; /* that `message` holds; 0: none */
};

/* There is one; the uplink has no other way to it. */
static struct crashes *the_crashes;

/* ---- from the file to the watcher ---- */

static void copy_frame(struct os_frame *out, const trawl_v1_Frame *in)
{
    memset(out, 0, sizeof *out);
    text_copy(out->function, sizeof out->function, in->function);
    text_copy(out->module, sizeof out->module, in->module);
    text_copy(out->file, sizeof out->file, in->file);
    out->build_id_bytes =
        in->build_id.size < sizeof out->build_id ? in->build_id.size : sizeof out->build_id;
    memcpy(out->build_id, in->build_id.bytes, out->build_id_bytes);
    out->offset = in->offset;
    out->line = in->line;
    out->exact = in->exact;
}

static void copy_texts(struct os_exception *out, const trawl_v1_Exception *in)
{
    text_copy(out->type, sizeof out->type, in->type);
    text_copy(out->message, sizeof out->message, in->message);
    text_copy(out->template_text, sizeof out->template_text, in->template);
    text_copy(out->language, sizeof out->language, in->language);
    text_copy(out->process, sizeof out->process, in->process);
    text_copy(out->thread, sizeof out->thread, in->thread);
    text_copy(out->executable, sizeof out->executable, in->executable);
    text_copy(out->unit, sizeof out->unit, in->unit);
    text_copy(out->missing, sizeof out->missing, in->missing);
}

/* The other way round than watcher_fill(). */
static void read_message(struct os_exception *out, const trawl_v1_Exception *in)
{
    memset(out, 0, sizeof *out);
    if (in->id.size == sizeof out->id)
        memcpy(out->id, in->id.bytes, sizeof out->id);
    out->source = OS_CRASH;
    copy_texts(out, in);
    out->wall_us = in->wall_us;
    out->mono_us = in->mono_us;
    out->last_us = in->last_us;
    out->count = in->count;
    out->pid = in->pid;
    out->start_ticks = in->start_ticks;
    out->tid = in->tid;
    out->uid = in->uid;
    out->build_id_bytes =
        in->build_id.size < sizeof out->build_id ? in->build_id.size : sizeof out->build_id;
    memcpy(out->build_id, in->build_id.bytes, out->build_id_bytes);
    out->signal = in->signal;
    out->signal_code = in->signal_code;
    out->fault_address = in->fault_address;
    out->has_fault_address = in->has_fault_address;
    for (size_t i = 0; i < in->frames_count && i < OS_EXCEPTION_FRAMES; i++)
        copy_frame(&out->frames[out->frame_count++], &in->frames[i]);
    out->frames_left_out = in->frames_left_out;
    for (size_t i = 0; i < in->tags_count && i < OS_EXCEPTION_TAGS; i++) {
        struct os_tag *tag = &out->tags[out->tag_count++];
        text_copy(tag->key, sizeof tag->key, in->tags[i].key);
        text_copy(tag->value, sizeof tag->value, in->tags[i].value);
    }
    for (size_t i = 0; i < in->saved_count && i < OS_EXCEPTION_SAVED; i++)
        text_copy(out->saved[out->saved_count++], sizeof out->saved[0], in->saved[i]);
}

static int read_file(struct crashes *c, const char *name)
{
    struct buf data;
    buf_init(&data, trawl_v1_Exception_size);
    c->site = 0;
    int rc = crash_spool_get(&c->spool, name, &data);
    if (rc == 0)
        rc = codec_get_exception(c->message, buf_span(&data), NULL);
    buf_done(&data);
    return rc;
}

/* What is told lies in the ring when this returns: only then is it marked. */
static void report(struct crashes *c)
{
    watcher_report(c->watcher, c->exception);
    watcher_tick(c->watcher);
}

static void rename_to_told(struct crashes *c, const char *name, const uint8_t id[16])
{
    char from[CRASH_PATH_SIZE + CRASH_NAME_SIZE], to[CRASH_PATH_SIZE + CRASH_NAME_SIZE];
    char told[CRASH_NAME_SIZE];
    uv_fs_t request;
    crash_spool_name(id, "told", told);
    (void)text_format(from, sizeof from, "%s/%s", c->spool.path, name);
    (void)text_format(to, sizeof to, "%s/%s", c->spool.path, told);
    int e = uv_fs_rename(NULL, &request, from, to, NULL);
    uv_fs_req_cleanup(&request);
    if (e)
        log_warn("cannot rename '%s': %s", from, uv_strerror(e));
}

/* ---- whole ones ---- */

static int tell_file(void *context, const char *name)
{
    struct crashes *c = context;
    uint8_t id[16];
    if (!crash_spool_id(name, id))
        return 0;
    if (crash_spool_has(&c->spool, id, "told")) {
        crash_spool_remove(&c->spool, id, "pb"); /* told before we were killed */
        return 0;
    }
    memset(c->message, 0, sizeof *c->message);
    int rc = read_file(c, name);
    read_message(c->exception, c->message);
    if (rc) {
        memcpy(c->exception->id, id, sizeof id);
        text_copy(c->exception->type, sizeof c->exception->type, "crash");
        text_format(c->exception->missing, sizeof c->exception->missing,
                    "what it was: its record cannot be read (%s)", err_text(rc));
    }
    report(c);
    rename_to_told(c, name, id);
    crash_spool_remove(&c->spool, id, "begun");
    return ++c->told >= BATCH;
}

/* ---- markers of handlers that died ---- */

static bool is_told_elsewhere(struct crashes *c, const uint8_t id[16])
{
    return crash_spool_has(&c->spool, id, "pb") || crash_spool_has(&c->spool, id, "told") ||
           crash_table_knows(&c->spool, id);
}

/* It will be told, now or when its handler is dead: what others say of this process waits. */
static void expect_marker(struct crashes *c, const char *name)
{
    memset(c->message, 0, sizeof *c->message);
    if (read_file(c, name) == 0 && c->message->pid)
        watcher_expect(c->watcher, c->message->pid);
}

static int tell_marker(void *context, const char *name)
{
    struct crashes *c = context;
    uint8_t id[16];
    if (!crash_spool_id(name, id))
        return 0;
    if (!crash_spool_is_orphan(&c->spool, name, ORPHAN_US)) {
        expect_marker(c, name);
        return 0;
    }
    crash_spool_drop_begun(&c->spool, id);
    if (is_told_elsewhere(c, id)) {
        crash_spool_remove(&c->spool, id, "begun");
        return 0;
    }
    memset(c->message, 0, sizeof *c->message);
    if (read_file(c, name))
        text_copy(c->message->type, sizeof c->message->type, "crash");
    read_message(c->exception, c->message);
    memcpy(c->exception->id, id, sizeof id);
    text_copy(c->exception->missing, sizeof c->exception->missing,
              "everything but who it was: the crash handler was killed");
    crash_table_give_back(&c->spool, id);
    report(c);
    rename_to_told(c, name, id);
    return ++c->told >= BATCH;
}

/* ---- those that are only counted ---- */

/* What was seen when one of this site was looked at. */
static bool read_site(struct crashes *c, uint64_t site)
{
    char name[CRASH_NAME_SIZE];
    if (site == 0)
        return false;
    if (c->site == site)
        return true;
    (void)text_format(name, sizeof name, "%016llx.site", (unsigned long long)site);
    if (read_file(c, name))
        return false;
    c->site = site;
    return true;
}

static int tell_record(void *context, const struct crash_record *r)
{
    struct crashes *c = context;
    bool known = read_site(c, r->site);
    if (!known && r->site && port_wall_us() - r->wall_us < SITE_WAIT_US &&
        port_wall_us() >= r->wall_us) {
        watcher_expect(c->watcher, r->pid);
        return ERR_AGAIN;
    }
    if (known) {
        read_message(c->exception, c->message);
        c->exception->saved_count = 0;
        c->exception->missing[0] = '\0';
        c->exception->by_site = true;
    } else {
        memset(c->exception, 0, sizeof *c->exception);
        text_copy(c->exception->type, sizeof c->exception->type, r->type);
        text_copy(c->exception->message, sizeof c->exception->message, r->type);
        text_copy(c->exception->missing, sizeof c->exception->missing,
                  r->why == CRASH_DISK_FULL ? "everything but who it was: the disk is full"
                                            : "where it was: nothing is known of this site");
    }
    struct os_exception *e = c->exception;
    memcpy(e->id, r->id, sizeof e->id);
    e->source = OS_CRASH;
    e->wall_us = r->wall_us;
    e->mono_us = 0;
    e->last_us = r->last_us;
    e->count = r->count;
    e->pid = r->pid;
    e->tid = r->tid;
    e->uid = r->uid;
    e->start_ticks = r->start_ticks;
    e->signal = r->signal;
    e->signal_code = r->signal_code;
    text_copy(e->process, sizeof e->process, r->process);
    text_copy(e->thread, sizeof e->thread, r->thread);
    watcher_report(c->watcher, e);
    c->told++;
    return 0;
}

/* Many are told together: the ring gets them before they leave the table. */
static int tell_record_last(void *context, const struct crash_record *r)
{
    struct crashes *c = context;
    int rc = tell_record(context, r);
    watcher_tick(c->watcher);
    return rc;
}

/* ---- the source ---- */

static void look(struct crashes *c)
{
    c->told = 0;
    (void)crash_spool_each(&c->spool, ".pb", tell_file, c);
    (void)crash_spool_each(&c->spool, ".begun", tell_marker, c);
    (void)crash_table_drain(&c->spool, tell_record_last, c);
}

void crashes_second(void *source)
{
    struct crashes *c = source;
    look(c);
    if (++c->seconds % TIDY_SECONDS == 1)
        crash_spool_tidy(&c->spool);
}

static void on_event(uv_fs_event_t *handle, const char *name, int events, int status)
{
    struct crashes *c = handle->data;
    (void)events;
    if (!c || status != 0 || !name || strstr(name, CRASH_BEGUN))
        return;
    if (strstr(name, ".pb"))
        look(c);
    else if (strstr(name, ".begun"))
        expect_marker(c, name);
}

static void watch(struct crashes *c, uv_loop_t *loop)
{
    c->event = calloc(1, sizeof *c->event);
    if (!c->event)
        return;
    if (uv_fs_event_init(loop, c->event)) {
        free(c->event);
        c->event = NULL;
        return;
    }
    c->event->data = c;
    (void)uv_fs_event_start(c->event, on_event, c->spool.path, 0);
}

int crashes_open(void **out, const struct source_context *context, struct failure *f)
{
    char path[CRASH_PATH_SIZE];
    struct crashes *c = calloc(1, sizeof *c);
    if (c) {
        c->exception = calloc(1, sizeof *c->exception);
        c->message = calloc(1, sizeof *c->message);
    }
    int rc = c && c->exception && c->message ? 0 : fail(f, ERR_NOMEM, "out of memory");
    if (rc == 0 && text_format(path, sizeof path, "%s/crash", context->settings->state_dir))
        rc = fail(f, ERR_LIMIT, "path of the state directory is too long");
    if (rc == 0)
        rc = crash_spool_make(&c->spool, path, f);
    if (rc) {
        if (c) {
            free(c->exception);
            free(c->message);
        }
        free(c);
        return rc;
    }
    c->watcher = context->watcher;
    c->spool.size_bytes = context->settings->crash_bytes;
    watch(c, context->loop);
    the_crashes = c;
    *out = c;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

void crashes_close(void *source)
{
    struct crashes *c = source;
    the_crashes = NULL;
    if (c->event) {
        c->event->data = NULL;
        uv_close((uv_handle_t *)c->event, on_closed);
    }
    crash_spool_close(&c->spool);
    free(c->exception);
    free(c->message);
    free(c);
}

void crashes_set_wants(const trawl_v1_Wants *wants)
{
    struct failure f = {0};
    struct buf data;
    if (!the_crashes)
        return;
    buf_init(&data, trawl_v1_Wants_size);
    int rc = codec_put_wants(&data, wants);
    if (rc == 0)
        rc = crash_spool_put(&the_crashes->spool, "wants", buf_span(&data), &f);
    if (rc)
        log_warn("what is wanted of the next crashes cannot be kept: %s",
                 f.code ? f.text : err_text(rc));
    buf_done(&data);
}
