/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence of a process that is no more, made of the copy that os_crash_take() left: stacks of all
 * threads with names, four files, and the frames of the thread that failed. Invariant: what cannot
 * be parsed is said to be missing and never ends the rest; the exception as it came in stays.
 * Called by the crash handler, when the process was let go.
 */
#include "agent/os/linux/crash_describe.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/headroom.h"
#include "common/text.h"

#define LINES_LEAST_BYTES (256u << 20) /* of free memory, that debug information may be read */
#define ABORT_MESSAGE_BYTES 200
#define SIGNAL_FRAME "<signal handler called>"

/* ---- the copy ---- */

bool crash_read_copy(void *context, uint64_t address, void *out, size_t size_bytes)
{
    const struct os_crash *c = context;
    uint8_t *to = out;
    while (size_bytes > 0) {
        size_t offset = address % SEGMENTS_PAGE, some = SEGMENTS_PAGE - offset;
        const uint8_t *page = copies_find(&c->dump.copies, address);
        if (!page)
            return false;
        some = some < size_bytes ? some : size_bytes;
        memcpy(to, page + offset, some);
        to += some;
        address += some;
        size_bytes -= some;
    }
    return true;
}

static uint64_t auxiliary(const struct dump *d, uint64_t type)
{
    Elf64_auxv_t entry;
    for (size_t at = 0; at + sizeof entry <= d->auxv_bytes; at += sizeof entry) {
        memcpy(&entry, d->auxv + at, sizeof entry);
        if (entry.a_type == type)
            return entry.a_un.a_val;
    }
    return 0;
}

/* ---- stacks ---- */

static void fill_copy(const struct os_crash *c, size_t index, struct stacks_copy *out)
{
    const struct crash_thread *t = &c->threads[index];
    struct stop_thread *thread = &c->dump.stop.threads[index];
    *out = (struct stacks_copy){.tid = thread->tid,
                                .taken = true,
                                .regs = &thread->regs,
                                .pc = thread->regs.rip,
                                .sp = thread->regs.rsp,
                                .start = t->stack_start,
                                .size_bytes = t->stack ? t->stack_bytes : 0,
                                .data = (uint8_t *)t->stack,
                                .end_copied = t->end_copied,
                                .second_start = t->second_start,
                                .second_bytes = t->second ? t->second_bytes : 0,
                                .second = (uint8_t *)t->second};
    text_copy(out->name, sizeof out->name, t->name[0] ? t->name : c->name);
}

static int fill_job(struct describing *d, struct failure *f)
{
    struct os_crash *c = d->crash;
    struct stacks_job *job = &d->job;
    size_t threads = c->dump.stop.count;
    job->copies = calloc(threads + 1, sizeof *job->copies);
    if (!job->copies)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", threads);
    for (size_t i = 0; i < threads; i++)
        fill_copy(c, i, &job->copies[i]);
    job->count = threads;
    job->unwind = c->unwind;
    return python_open_copy(&job->python, c->unwind, crash_read_copy, c, threads, f);
}

/* ---- what the C library said ---- */

/* glibc, assert/assert.c: __abort_msg points to {unsigned size; char msg[]}, for debuggers. */
static void put_abort_text(struct describing *d)
{
    struct os_crash *c = d->crash;
    const struct unwind_module *modules;
    size_t count = unwind_modules(c->unwind, &modules);
    char text[ABORT_MESSAGE_BYTES + 1] = "";
    uint64_t at, size, message;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(modules[i].name, "libc.so", 7) != 0 &&
            strncmp(modules[i].name, "libc-", 5) != 0)
            continue;
        if (unwind_symbol(c->unwind, &modules[i], "__abort_msg", &at, &size) != 0 ||
            !crash_read_copy(c, at, &message, sizeof message) || message == 0)
            continue;
        for (size_t k = 0; k < ABORT_MESSAGE_BYTES; k++)
            if (!crash_read_copy(c, message + sizeof(uint32_t) + k, &text[k], 1) || !text[k])
                break;
    }
    text[strcspn(text, "\n")] = '\0';
    text_copy(d->abort_text, sizeof d->abort_text, text);
    text_clean(d->abort_text);
    size_t used = strlen(d->exception->message);
    if (d->abort_text[0] && d->exception->signal == SIGABRT)
        (void)text_format(d->exception->message + used, sizeof d->exception->message - used, ": %s",
                          d->abort_text);
}

/* ---- frames ---- */

/* Reading debug information may take memory that the host needs more. */
static void spare_memory(struct describing *d)
{
    struct headroom room;
    if (headroom_read("", (uint32_t)getpid(), &room, NULL) != 0 ||
        room.free_bytes >= LINES_LEAST_BYTES)
        return;
    unwind_set_lines(d->crash->unwind, false);
    os_result_miss(d->result, "source lines and inlined functions: too little memory is free");
}

static void unwind_all(struct describing *d)
{
    struct failure f = {0, ""};
    if (!d->crash->has_memory || !d->crash->unwind || d->crash->dump.stop.count == 0)
        return;
    put_abort_text(d); /* as long as the files are not libdw's */
    int rc = fill_job(d, &f);
    if (rc == 0 && d->job.python)
        python_copy_all(d->job.python, UINT64_MAX);
    if (rc == 0) {
        spare_memory(d);
        rc = stacks_job_unwind(&d->job, &f);
    }
    d->has_stacks = rc == 0;
    if (rc)
        os_result_miss(d->result, "stacks: %s", f.text);
    else
        stacks_job_note_missing(&d->job, d->result);
}

/* ---- the exception ---- */

static void put_build_id(const struct unwind_module *module, uint8_t *out, uint32_t *bytes)
{
    *bytes = module->build_id_bytes < OS_BUILD_ID_SIZE ? (uint32_t)module->build_id_bytes
                                                       : OS_BUILD_ID_SIZE;
    memcpy(out, module->build_id, *bytes);
}

/* Of a long path the end. */
static void put_tail(char *out, size_t size_bytes, const char *text)
{
    size_t length = strlen(text);
    text_copy(out, size_bytes, length < size_bytes ? text : text + length - size_bytes + 1);
    text_clean(out);
}

static void put_name(const struct unwind_frame *frame, struct unwind_place place, char *out,
                     size_t size_bytes)
{
    const char *name = frame->function;
    if (place.signal)
        text_copy(out, size_bytes, SIGNAL_FRAME);
    else if (name && frame->kind == UNWIND_PYTHON)
        text_copy(out, size_bytes, name);
    else if (name)
        text_copy_span(out, size_bytes, span_of(name, (size_t)stacks_name_length(name)));
    else if (frame->kind == UNWIND_JIT)
        text_copy(out, size_bytes, "[jit]");
    text_clean(out);
}

static void put_frame(struct os_frame *out, struct unwind_place place,
                      const struct unwind_frame *frame)
{
    memset(out, 0, sizeof *out);
    put_name(frame, place, out->function, sizeof out->function);
    out->exact = place.exact;
    if (frame->file) {
        put_tail(out->file, sizeof out->file, frame->file);
        out->line = frame->line > 0 ? (uint32_t)frame->line : 0;
    }
    if (!frame->module)
        return;
    put_tail(out->module, sizeof out->module, frame->module->name);
    put_build_id(frame->module, out->build_id, &out->build_id_bytes);
    out->offset = frame->offset;
}

/* Of the thread that failed: the first one. */
static void put_frames(struct describing *d)
{
    const struct stacks_set *set = &d->job.set;
    struct os_exception *e = d->exception;
    if (set->thread_count == 0 || set->threads[0].count == 0)
        return;
    const struct stacks_thread *thread = &set->threads[0];
    e->frame_count = e->frames_left_out = 0;
    for (size_t i = 0; i < thread->count; i++) {
        struct unwind_place place = set->places[thread->first + i];
        const struct unwind_frame *frames;
        size_t count = stacks_names(set, place, &frames);
        for (size_t k = 0; k < count; k++) {
            if (e->frame_count < OS_EXCEPTION_FRAMES)
                put_frame(&e->frames[e->frame_count++], place, &frames[k]);
            else
                e->frames_left_out++;
        }
    }
}

/* The version that ran: of the module with the program's own headers. */
static void put_program(struct describing *d)
{
    const struct unwind_module *modules;
    uint64_t headers = auxiliary(&d->crash->dump, AT_PHDR);
    size_t count = unwind_modules(d->crash->unwind, &modules);
    for (size_t i = 0; i < count; i++)
        if (headers >= modules[i].start && headers < modules[i].end)
            put_build_id(&modules[i], d->exception->build_id, &d->exception->build_id_bytes);
}

/* ---- who sent it, where it points ---- */

static void look_at_signal(struct describing *d)
{
    const struct crash_notes *notes = &d->crash->notes;
    const siginfo_t *info = &notes->info;
    if (d->exception->has_fault_address)
        crash_put_where(d->crash, d->exception->fault_address, d->where, sizeof d->where);
    if (!notes->has_info || info->si_code > 0)
        return;
    if ((int32_t)info->si_pid == notes->pid)
        text_copy(d->sender, sizeof d->sender, "itself");
    else if (info->si_pid != 0)
        text_format(d->sender, sizeof d->sender, "pid %d of uid %u", (int)info->si_pid,
                    (unsigned)info->si_uid);
    else
        text_copy(d->sender, sizeof d->sender,
                  "a process outside its pid namespace, or the kernel");
}

/* ---- files ---- */

static int give(const struct os_output *out, const char *ending, struct buf *text, int rc,
                struct failure *f)
{
    rc = rc ? fail(f, rc, "evidence of the crash does not fit into %u bytes", CRASH_TEXT_MAX)
            : os_output_file(out, ending, buf_span(text), f);
    buf_done(text);
    return rc;
}

static int write_file(struct describing *d, const struct os_output *out, const char *ending,
                      stacks_write_fn write, struct failure *f)
{
    struct buf head, text;
    const struct unwind_module *modules = NULL;
    size_t count = d->crash->unwind ? unwind_modules(d->crash->unwind, &modules) : 0, left_out = 0;
    buf_init(&head, CRASH_TEXT_MAX / 2);
    buf_init(&text, CRASH_TEXT_MAX);
    int rc = write == stacks_write ? crash_put_head(d, &head) : 0;
    d->job.head.text = buf_str(&head);
    if (rc == 0)
        rc = write(&d->job.set, &d->job.head, modules, count, &text, &left_out);
    d->job.head.text = NULL;
    buf_done(&head);
    if (left_out > 0)
        os_result_miss(d->result, "%zu groups of stacks in the %s file: limit of %u bytes",
                       left_out, ending, CRASH_TEXT_MAX);
    return give(out, ending, &text, rc, f);
}

static int write_files(struct describing *d, const struct os_output *out, struct failure *f)
{
    d->job.head = (struct stacks_head){.kind = "crash",
                                       .process = d->crash->name,
                                       .pid = d->crash->arguments.pid,
                                       .wall_us = d->crash->wall_us,
                                       .threads = d->crash->dump.stop.count,
                                       .missing = d->result->missing,
                                       .put_members = crash_put_members,
                                       .context = d};
    int rc = write_file(d, out, "txt", stacks_write, f);
    if (rc == 0 && d->has_stacks)
        rc = write_file(d, out, "folded", stacks_write_folded, f);
    return rc ? rc : write_file(d, out, "json", stacks_write_json, f);
}

/* The notes are the kernel's own, so that a debugger sees what it would have seen. */
static int write_core(struct describing *d, const struct os_output *out, struct failure *f)
{
    struct os_crash *c = d->crash;
    static const struct os_take no_deadline;
    struct crash_extent extent = {.notes_bytes = 0};
    struct dump_source source = {.maps = &c->dump.maps, .mem_fd = -1};
    if (!c->has_memory || c->dump.stop.count == 0)
        return 0;
    if (crash_head_extent(buf_span(&c->core_head), &extent) == 0 && extent.notes_bytes > 0 &&
        extent.notes_offset + extent.notes_bytes <= c->core_head.size_bytes)
        source.notes = span_of(c->core_head.data + extent.notes_offset, (size_t)extent.notes_bytes);
    c->dump.take = &no_deadline;
    c->dump.out = out;
    c->dump.result = d->result;
    copies_sort(&c->dump.copies); /* crash_read_copy() finds nothing from here on */
    int rc = dump_write(&c->dump, &source, f);
    c->dump.take = NULL;
    c->dump.out = NULL;
    c->dump.result = NULL;
    return rc;
}

/* ---- the whole ---- */

static void note_missing(struct describing *d)
{
    const struct dump *dump = &d->crash->dump;
    if (d->crash->missing[0])
        os_result_miss(d->result, "%s", d->crash->missing);
    if (dump->stacks_missed > 0)
        os_result_miss(d->result, "stacks of %zu threads: more than fits", dump->stacks_missed);
}

/* Nothing of the crash is the job's own. */
static void done(struct describing *d)
{
    d->job.unwind = NULL;
    stacks_job_done(&d->job);
    free(d);
}

int os_crash_describe(struct os_crash *crash, const struct os_output *out,
                      struct os_exception *exception, struct os_result *result, struct failure *f)
{
    memset(result, 0, sizeof *result);
    struct describing *d = calloc(1, sizeof *d);
    if (!d)
        return fail(f, ERR_NOMEM, "no memory to describe a crash");
    d->crash = crash;
    d->exception = exception;
    d->result = result;
    maps_init(&d->job.maps);
    result->threads = (uint32_t)crash->dump.stop.count;
    note_missing(d);
    look_at_signal(d);
    unwind_all(d);
    if (d->has_stacks) {
        put_frames(d);
        put_program(d);
        crash_find_first(d);
        stacks_tops(&d->job.set, result);
    }
    text_copy(exception->missing, sizeof exception->missing, result->missing);
    int rc = write_files(d, out, f);
    if (rc == 0)
        rc = write_core(d, out, f);
    done(d);
    return rc;
}
