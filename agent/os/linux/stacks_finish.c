/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From copied threads to files: unwinding, Python frames put between the native ones, grouping,
 * naming, writing. Invariant: the process is not asked for anything but the names of its Python
 * functions, and that without a stop. Called by stacks.c and stacks_zero.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/stacks_linux.h"
#include "common/port.h"
#include "common/text.h"

#define FILE_BYTES_MAX (16u << 20)
#define FRAMES_MAX (UNWIND_FRAMES_MAX + PYTHON_FRAMES_MAX)

/* ---- before ---- */

size_t stacks_bytes_max(size_t threads)
{
    const size_t together = 16u << 20;
    size_t each = threads ? together / threads : STACKS_BYTES_MAX;
    return each < STACKS_BYTES_LEAST ? STACKS_BYTES_LEAST
           : each > STACKS_BYTES_MAX ? STACKS_BYTES_MAX
                                     : each & ~(size_t)15;
}

void stacks_read_name(pid_t pid, pid_t tid, char *out, size_t size_bytes)
{
    char leaf[64], data[64];
    struct span text, line;
    snprintf(leaf, sizeof leaf, "task/%d/comm", tid);
    text_copy(out, size_bytes, "?");
    if (proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &text, NULL) == 0 &&
        proc_take_line(&text, &line) == 0)
        text_copy_span(out, size_bytes, line);
}

void stacks_plan_copy(const struct maps *maps, uint64_t pointer, size_t most,
                      struct stacks_copy *out)
{
    out->start = out->size_bytes = 0;
    if (pointer < 2 * STACKS_RED_ZONE || pointer > UINT64_MAX - STACKS_BYTES_MAX)
        return;
    const struct map *map = maps_find(maps, pointer);
    out->start = (pointer - STACKS_RED_ZONE) & ~(uint64_t)15;
    if (map && out->start < map->start)
        out->start = map->start;
    out->size_bytes = most;
    out->end_copied = map && map->end - out->start <= most;
    if (out->end_copied)
        out->size_bytes = (size_t)(map->end - out->start);
    out->unmapped = !map;
}

/* ---- signal handlers with a stack of their own ---- */

/* struct ucontext of the kernel (arch/x86/include/uapi/asm/ucontext.h, sigcontext.h), in words. */
#define UC_STACK 2 /* ss_sp, ss_flags, ss_size; before it uc_flags and uc_link */
#define UC_RSP 20  /* 5 words, then r8-r15, di, si, bp, bx, dx, ax, cx, sp */
#define UC_RIP 21
#define UC_WORDS 22
#define UC_FLAGS_MOST 7
#define ALT_STACK_MOST (64u << 20)

/* Whether these words are a frame whose signal came while the thread had another stack. */
static bool is_signal_frame(const uint64_t *words, uint64_t address, uint64_t pointer)
{
    uint64_t base = words[UC_STACK], size = words[UC_STACK + 2], before = words[UC_RSP];
    return words[0] <= UC_FLAGS_MOST && words[1] == 0 && (words[UC_STACK + 1] & INT32_MAX) <= 2 &&
           size >= 1024 && size <= ALT_STACK_MOST && base <= pointer && pointer - base < size &&
           address - base < size && before % 8 == 0 && before >= 2 * STACKS_RED_ZONE &&
           (before < base || before - base >= size) && words[UC_RIP] != 0;
}

uint64_t stacks_find_signal(const struct stacks_copy *copy)
{
    uint64_t words[UC_WORDS];
    for (size_t at = copy->start % 8 ? 8 - copy->start % 8 : 0;
         copy->size_bytes >= sizeof words && at <= copy->size_bytes - sizeof words; at += 8) {
        memcpy(words, copy->data + at, sizeof words);
        if (is_signal_frame(words, copy->start + at, copy->sp))
            return words[UC_RSP];
    }
    return 0;
}

int stacks_job_open(struct stacks_job *job, const struct os_take *take, struct failure *f)
{
    uint32_t pid = take->process.pid;
    job->take = take;
    int rc = maps_read(&job->maps, pid, f);
    if (rc == 0)
        rc = unwind_open(&job->unwind, (pid_t)pid, &job->maps, f);
    if (rc == 0)
        rc = python_open(&job->python, job->unwind, (pid_t)pid, take->process.threads, f);
    return rc;
}

void stacks_job_done(struct stacks_job *job)
{
    python_close(job->python);
    unwind_close(job->unwind);
    stacks_set_done(&job->set);
    maps_done(&job->maps);
    free(job->copies);
}

/* ---- Python frames ---- */

/* The pid namespace's own number of a thread: the last of NSpid (proc(5)). */
uint64_t stacks_inner_tid(pid_t pid, pid_t tid)
{
    char leaf[64], data[PROC_TEXT_SIZE];
    struct span text, line, field;
    uint64_t inner = (uint64_t)tid, number;
    snprintf(leaf, sizeof leaf, "task/%d/status", tid);
    if (proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &text, NULL) == 0 &&
        proc_find_key(text, "NSpid:", &line) == 0) {
        while (proc_take_field(&line, &field) == 0) {
            if (text_take_u64(&field, &number) == 0)
                inner = number;
        }
    }
    return inner;
}

static const struct python_thread *python_of(struct stacks_job *job, const struct stacks_copy *copy)
{
    if (!job->python || job->python->missing || !copy->taken)
        return NULL;
    return copy->regs ? python_find(job->python, copy->regs->fs_base, 0) : copy->python;
}

static bool is_eval(const struct python *p, struct unwind_place place)
{
    uint64_t address = place.exact ? place.pc : place.pc - 1;
    return !place.python && address >= p->eval_start && address < p->eval_end;
}

static size_t count_runs(const struct python *p, const struct python_thread *thread)
{
    size_t runs = 0;
    for (size_t i = 0; i < thread->count; i++)
        runs += p->frames[thread->first + i].entry;
    return runs;
}

/* Appends Python frames from *next on, to the end of one run or of all. */
static size_t put_run(const struct python *p, const struct python_thread *thread, size_t *next,
                      bool all, struct unwind_place *out)
{
    size_t count = 0;
    while (*next < thread->count) {
        const struct python_frame *frame = &p->frames[thread->first + (*next)++];
        out[count++] = (struct unwind_place){
            .pc = frame->code, .instruction = frame->instruction, .exact = true, .python = true};
        if (frame->entry && !all)
            break;
    }
    return count;
}

/*
 * Each call of the native interpreter function runs one row of Python functions, which stand in
 * front of it. When there are as many rows as calls (or one call more, that has only begun), they
 * belong together; else all Python functions stand in front, as a block. Returns how many places.
 */
static size_t merge_python(struct stacks_job *job, const struct python_thread *thread,
                           const struct unwind_place *native, size_t count, bool whole,
                           struct unwind_place *out)
{
    const struct python *p = job->python;
    size_t runs = count_runs(p, thread), calls = 0, used = 0, next = 0, seen = 0;
    for (size_t i = 0; i < count; i++)
        calls += is_eval(p, native[i]);
    bool apart = !whole || thread->cut || calls < runs || calls > runs + 1;
    if (apart) {
        job->python_apart = true;
        used = put_run(p, thread, &next, true, out);
    }
    for (size_t i = 0; i < count; i++) {
        if (!apart && is_eval(p, native[i]) && seen++ >= calls - runs)
            used += put_run(p, thread, &next, false, out + used);
        out[used++] = native[i];
    }
    return used;
}

/* ---- frames ---- */

static int make_room(struct stacks_set *set, size_t *capacity, size_t used, struct failure *f)
{
    if (*capacity - used >= FRAMES_MAX)
        return 0;
    size_t wanted = *capacity + *capacity / 2 + 4 * FRAMES_MAX;
    struct unwind_place *places = realloc(set->places, wanted * sizeof *places);
    if (!places)
        return fail(f, ERR_NOMEM, "no memory for %zu frames", wanted);
    set->places = places;
    *capacity = wanted;
    return 0;
}

/* How a thread ended up without all of its frames; NULL: with all. */
static const char *explain(const struct stacks_copy *copy, const char *why)
{
    if (copy->size_bytes == 0)
        return "its stack could not be read";
    if (copy->unmapped)
        return "its stack is in no known mapping";
    return why;
}

static size_t walk_native(struct stacks_job *job, const struct stacks_copy *copy,
                          struct unwind_place *places, const char **why)
{
    struct user_regs_struct few = {.rip = copy->pc, .rsp = copy->sp};
    struct unwind_thread in = {.tid = copy->tid,
                               .regs = copy->regs ? copy->regs : &few,
                               .few_registers = copy->few,
                               .stack = copy->data,
                               .stack_start = copy->start,
                               .stack_bytes = copy->size_bytes,
                               .second = copy->second,
                               .second_start = copy->second_start,
                               .second_bytes = copy->second_bytes};
    size_t count = unwind_walk(job->unwind, &in, places, UNWIND_FRAMES_MAX, why);
    if (*why)
        *why = explain(copy, *why);
    return count;
}

static void walk_thread(struct stacks_job *job, const struct stacks_copy *copy, size_t first)
{
    struct stacks_thread *out = &job->set.threads[job->set.thread_count++];
    struct unwind_place native[UNWIND_FRAMES_MAX], *places = job->set.places + first;
    out->tid = copy->tid;
    out->state = copy->state;
    out->first = first;
    out->why = copy->why;
    text_copy(out->comm, sizeof out->comm, copy->name);
    if (!copy->taken)
        return;
    out->count = walk_native(job, copy, native, &out->why);
    const struct python_thread *thread = python_of(job, copy);
    if (thread && (thread->count > 0 || thread->cut)) {
        bool whole = out->why == NULL;
        out->count = merge_python(job, thread, native, out->count, whole, places);
    } else {
        memcpy(places, native, out->count * sizeof *native);
    }
}

static int walk_all(struct stacks_job *job, struct failure *f)
{
    size_t capacity = 0, used = 0;
    job->set.threads = calloc(job->count + 1, sizeof *job->set.threads);
    if (!job->set.threads)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", job->count);
    for (size_t i = 0; i < job->count; i++) {
        if (!job->copies[i].taken && !job->copies[i].why)
            continue;
        int rc = make_room(&job->set, &capacity, used, f);
        if (rc)
            return rc;
        walk_thread(job, &job->copies[i], used);
        used += job->set.threads[job->set.thread_count - 1].count;
    }
    return 0;
}

/* ---- names ---- */

static size_t name_python(struct stacks_job *job, struct unwind_place place,
                          struct unwind_frame *out, struct failure *f)
{
    struct python_name name;
    memset(out, 0, sizeof *out);
    out->kind = UNWIND_PYTHON;
    if (python_name(job->python, place.pc, place.instruction, &name)) {
        out->function = stacks_keep(&job->set, name.function);
        out->file = stacks_keep(&job->set, name.file);
        out->line = name.line;
        if (!out->function || !out->file) {
            fail(f, ERR_NOMEM, "no memory for names of Python functions");
            return 0;
        }
    }
    return 1;
}

static int name_place(struct stacks_job *job, size_t index, struct failure *f)
{
    struct unwind_frame frames[UNWIND_INLINED_MAX];
    struct unwind_place place = job->set.known[index].place;
    size_t count = place.python ? name_python(job, place, frames, f)
                                : unwind_name(job->unwind, place, frames, UNWIND_INLINED_MAX);
    if (count == 0)
        return ERR_NOMEM;
    if (stacks_set_names(&job->set, index, frames, count))
        return fail(f, ERR_NOMEM, "no memory to name %zu frames", job->set.known_count);
    return 0;
}

/* Names that the process has written down; too many of them are no failure. */
static int learn_names(struct stacks_job *job, struct failure *f)
{
    struct unwind_place *places = calloc(job->set.known_count + 1, sizeof *places);
    if (!places)
        return fail(f, ERR_NOMEM, "no memory to name %zu frames", job->set.known_count);
    for (size_t i = 0; i < job->set.known_count; i++)
        places[i] = job->set.known[i].place;
    int rc = unwind_learn(job->unwind, places, job->set.known_count, f);
    free(places);
    return rc == ERR_LIMIT ? 0 : rc;
}

int stacks_job_unwind(struct stacks_job *job, struct failure *f)
{
    int rc = unwind_start(job->unwind, f);
    if (rc == 0)
        rc = walk_all(job, f);
    if (rc == 0)
        rc = stacks_group(&job->set, f);
    if (rc == 0)
        rc = learn_names(job, f);
    for (size_t i = 0; rc == 0 && i < job->set.known_count; i++)
        rc = name_place(job, i, f);
    for (size_t i = 0; rc == 0 && i < job->set.group_count; i++) {
        struct stacks_group *group = &job->set.groups[i];
        stacks_signature(&job->set, &job->set.threads[job->set.order[group->first]],
                         group->signature);
    }
    return rc;
}

/* ---- what is missing ---- */

/* The commonest reasons why stacks are not whole, with how many threads they concern. */
static void note_reasons(const struct stacks_set *set, struct os_result *result)
{
    for (size_t i = 0; i < set->group_count; i++) {
        const char *why = set->threads[set->order[set->groups[i].first]].why;
        size_t threads = 0;
        bool first = why != NULL;
        for (size_t k = 0; first && k < set->group_count; k++) {
            const char *other = set->threads[set->order[set->groups[k].first]].why;
            bool same = other && strcmp(other, why) == 0;
            first = !(same && k < i);
            threads += same ? set->groups[k].count : 0;
        }
        if (first)
            os_result_miss(result, "frames of %zu thread%s: %s", threads, threads == 1 ? "" : "s",
                           why);
    }
}

/* Code made at run time that has no name: how many places of it. */
static void note_unnamed(struct stacks_job *job, struct os_result *result)
{
    size_t unnamed = 0;
    for (size_t i = 0; i < job->set.known_count; i++) {
        const struct unwind_frame *frame;
        stacks_names(&job->set, job->set.known[i].place, &frame);
        unnamed += frame->kind == UNWIND_JIT && !frame->function;
    }
    if (unnamed == 0)
        return;
    bool named = unwind_has_names(job->unwind);
    os_result_miss(result, "names of %zu places in code made at run time: %s", unnamed,
                   named ? "not in the process's perf-PID.map"
                         : "the process writes no perf-PID.map");
}

void stacks_job_note_missing(struct stacks_job *job, struct os_result *result)
{
    const struct python *p = job->python;
    note_reasons(&job->set, result);
    if (unwind_lines_cut(job->unwind))
        os_result_miss(result, "source lines of some frames: time limit");
    note_unnamed(job, result);
    if (unwind_names_cut(job->unwind))
        os_result_miss(result, "names of some code made at run time: the process's list of them "
                               "is too long");
    if (unwind_modules_left(job->unwind) > 0)
        os_result_miss(result, "names from %zu of the files: more than %d",
                       unwind_modules_left(job->unwind), UNWIND_MODULES_MAX);
    if (p && p->missing)
        os_result_miss(result, "python frames: 3.%d: %s", p->minor, p->missing);
    size_t cut = 0;
    for (size_t i = 0; p && i < p->thread_count; i++)
        cut += p->threads[i].cut;
    if (cut > 0)
        os_result_miss(result, "python frames of %zu thread%s: more than %d, or not readable", cut,
                       cut == 1 ? "" : "s", PYTHON_FRAMES_MAX);
}

/* ---- files ---- */

static int write_file(struct stacks_job *job, const char *ending, stacks_write_fn write,
                      const struct os_output *out, size_t *left_out, struct failure *f)
{
    struct buf text;
    const struct unwind_module *modules;
    size_t count = unwind_modules(job->unwind, &modules);
    buf_init(&text, FILE_BYTES_MAX);
    int rc = write(&job->set, &job->head, modules, count, &text, left_out);
    if (rc)
        fail(f, rc, "stacks do not fit into %u bytes", FILE_BYTES_MAX);
    else
        rc = os_output_file(out, ending, buf_span(&text), f);
    buf_done(&text);
    return rc;
}

/* JSON last: it then knows what the others left out. */
static int write_files(struct stacks_job *job, const struct os_output *out,
                       struct os_result *result, struct failure *f)
{
    static const struct {
        const char *ending;
        stacks_write_fn write;
    } files[] = {
        {"txt", stacks_write}, {"folded", stacks_write_folded}, {"json", stacks_write_json}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        size_t left_out = 0;
        int rc = write_file(job, files[i].ending, files[i].write, out, &left_out, f);
        if (rc)
            return rc;
        if (left_out > 0)
            os_result_miss(result, "%zu groups of stacks in the %s file: limit of %u bytes",
                           left_out, files[i].ending, FILE_BYTES_MAX);
    }
    return 0;
}

int stacks_job_finish(struct stacks_job *job, const struct os_output *out, struct os_result *result,
                      struct failure *f)
{
    int rc = stacks_job_unwind(job, f);
    if (rc)
        return rc;
    stacks_job_note_missing(job, result);
    job->head.process = job->take->process.name;
    job->head.pid = job->take->process.pid;
    job->head.paused = result->paused;
    job->head.pause_us = result->pause_us;
    job->head.expected_us = result->expected_us;
    job->head.threads = result->threads;
    job->head.missing = result->missing;
    stacks_tops(&job->set, result);
    return write_files(job, out, result, f);
}
