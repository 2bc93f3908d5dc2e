/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following CPython's structures in the memory of another process. Invariant: every address comes
 * with a check (a pointer back, a type, a limit) before anything is made of what lies there; no
 * chain is followed longer than its limit. Called by stacks; fuzzed by fuzz_python.c.
 */
#include "agent/os/linux/python_frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define MINOR_LEAST 8
#define MINOR_MOST 12
#define INTERPRETERS_MAX 16
#define OWNED_BY_C_STACK 3 /* 3.12: the frame below which the native function returns */
#define TABLE_BYTES_MAX (64u << 10)
#define INSTRUCTION_UNKNOWN UINT32_MAX
#define POINTER_LEAST 4096
#define GLIBC_TID 0x2d0 /* of struct pthread: nptl/descr.h, x86-64, since 2.4 */

/*
 * Where things lie, in bytes. From Include/internal/pycore_{runtime,interp,frame}.h and
 * Include/cpython/{pystate,code,frameobject}.h of each version, x86-64, ordinary build.
 */
struct layout {
    uint16_t interpreters, threads;                /* first interpreter, first thread of one */
    uint16_t ident, native;                        /* of a thread; native 0: there is none */
    uint16_t current;                              /* its frame; from 3.11 on what leads there */
    int16_t current_frame;                         /* there; -1: not from 3.11 on */
    uint16_t code, back, instruction, boundary;    /* of a frame */
    uint16_t file, name, first_line, table, start; /* of a code object; start: its instructions */
    uint16_t ascii, compact;                       /* where the characters of a text begin */
};

static const struct layout layouts[MINOR_MOST - MINOR_LEAST + 1] = {
    {32, 8, 176, 0, 24, -1, 32, 24, 104, 0, 104, 112, 40, 120, 0, 48, 72},
    {32, 8, 176, 0, 24, -1, 32, 24, 104, 0, 104, 112, 40, 120, 0, 48, 72},
    {32, 8, 176, 0, 24, -1, 32, 24, 96, 0, 104, 112, 40, 120, 0, 48, 72},
    {40, 16, 152, 160, 56, 8, 32, 48, 56, 68, 112, 128, 72, 136, 184, 48, 72},
    {40, 72, 136, 144, 56, 0, 0, 8, 56, 70, 112, 128, 68, 136, 192, 40, 56},
};
#define FRAME_BYTES_10 112 /* as much of a frame as is looked at, to 3.10 and from 3.11 on */
#define FRAME_BYTES_11 72
#define INTERPRETER_NEXT 0
#define THREAD_NEXT 8
#define THREAD_INTERPRETER 16
#define OBJECT_TYPE 8
#define OBJECT_SIZE 16
#define BYTES_DATA 32
#define TEXT_LENGTH 16
#define TEXT_STATE 32

static const struct layout *layout_of(const struct python *p)
{
    return &layouts[p->minor - MINOR_LEAST];
}

static bool read_pointer(const struct python *p, uint64_t address, uint64_t *out)
{
    return address >= POINTER_LEAST && p->read(p->context, address, out, sizeof *out);
}

static bool is_type(const struct python *p, uint64_t object, uint64_t type)
{
    uint64_t found;
    return read_pointer(p, object + OBJECT_TYPE, &found) && found == type;
}

/* ---- threads ---- */

/* Before 3.11 only glibc knows it; when it is another library, no thread has that number. */
static bool read_native(const struct python *p, uint64_t state, struct python_thread *out)
{
    uint32_t tid;
    if (layout_of(p)->native)
        return read_pointer(p, state + layout_of(p)->native, &out->native);
    if (p->read(p->context, out->ident + GLIBC_TID, &tid, sizeof tid))
        out->native = tid;
    return true;
}

static bool read_thread(const struct python *p, uint64_t state, uint64_t interpreter,
                        struct python_thread *out)
{
    const struct layout *l = layout_of(p);
    uint64_t owner;
    *out = (struct python_thread){.state = state};
    return read_pointer(p, state + THREAD_INTERPRETER, &owner) && owner == interpreter &&
           read_pointer(p, state + l->ident, &out->ident) && read_native(p, state, out);
}

/* Returns whether all of them were what they should be. */
static bool list_interpreter(struct python *p, uint64_t interpreter)
{
    uint64_t state;
    if (!read_pointer(p, interpreter + layout_of(p)->threads, &state))
        return false;
    while (state) {
        struct python_thread thread;
        if (!read_thread(p, state, interpreter, &thread))
            return false;
        if (p->thread_count == p->thread_capacity)
            return true;
        p->threads[p->thread_count++] = thread;
        if (!read_pointer(p, state + THREAD_NEXT, &state))
            return false;
    }
    return true;
}

void python_list(struct python *p)
{
    uint64_t interpreter;
    p->thread_count = p->frame_count = 0;
    if (p->missing)
        return;
    bool fine = read_pointer(p, p->runtime + layout_of(p)->interpreters, &interpreter);
    for (int i = 0; fine && interpreter && i < INTERPRETERS_MAX; i++) {
        fine = list_interpreter(p, interpreter) &&
               read_pointer(p, interpreter + INTERPRETER_NEXT, &interpreter);
    }
    if (!fine && p->thread_count == 0)
        p->missing = "the interpreter's state is not laid out as expected";
}

struct python_thread *python_find(struct python *p, uint64_t ident, uint64_t native)
{
    for (size_t i = 0; i < p->thread_count; i++) {
        struct python_thread *thread = &p->threads[i];
        if ((ident && thread->ident == ident) || (native && thread->native == native))
            return thread;
    }
    return NULL;
}

/* ---- frames ---- */

/* How far the function is, in bytes of its code. */
static uint32_t instruction_of(const struct python *p, uint64_t raw, uint64_t code)
{
    if (p->minor < 11) {
        uint32_t last = (uint32_t)raw;
        return last > INT32_MAX ? INSTRUCTION_UNKNOWN : p->minor == 10 ? last * 2 : last;
    }
    uint64_t start = code + layout_of(p)->start;
    return raw < start || raw - start > INT32_MAX ? INSTRUCTION_UNKNOWN : (uint32_t)(raw - start);
}

/* Reads one frame; *out is not set for a mere boundary (*boundary then is true). */
static bool read_frame(const struct python *p, uint64_t address, struct python_frame *out,
                       uint64_t *back, bool *boundary)
{
    const struct layout *l = layout_of(p);
    uint64_t raw = 0;
    uint8_t mark = 0, image[FRAME_BYTES_10];
    size_t size_bytes = p->minor < 11 ? FRAME_BYTES_10 : FRAME_BYTES_11;
    if (address < POINTER_LEAST || !p->read(p->context, address, image, size_bytes))
        return false;
    memcpy(&out->code, image + l->code, sizeof out->code);
    memcpy(back, image + l->back, sizeof *back);
    memcpy(&raw, image + l->instruction, p->minor < 11 ? 4 : 8);
    if (l->boundary)
        mark = image[l->boundary];
    *boundary = p->minor == 12 && mark == OWNED_BY_C_STACK;
    out->entry = p->minor < 11 || (p->minor == 11 && mark);
    out->instruction = instruction_of(p, raw, out->code);
    return *boundary || out->code >= POINTER_LEAST;
}

static bool first_frame(const struct python *p, const struct python_thread *thread, uint64_t *out)
{
    const struct layout *l = layout_of(p);
    uint64_t current;
    if (!read_pointer(p, thread->state + l->current, &current))
        return false;
    if (l->current_frame < 0) {
        *out = current;
        return true;
    }
    return read_pointer(p, current + (uint64_t)l->current_frame, out);
}

void python_copy(struct python *p, struct python_thread *thread)
{
    uint64_t address, ident, back = 0;
    if (thread->count > 0 && thread->first + thread->count == p->frame_count)
        p->frame_count = thread->first;
    thread->first = p->frame_count;
    thread->count = 0;
    /* It may have ended since it was listed. */
    thread->cut = !read_pointer(p, thread->state + layout_of(p)->ident, &ident) ||
                  ident != thread->ident || !first_frame(p, thread, &address);
    while (!thread->cut && address) {
        struct python_frame frame;
        bool boundary;
        thread->cut = thread->count == PYTHON_FRAMES_MAX || p->frame_count == p->frame_capacity ||
                      !read_frame(p, address, &frame, &back, &boundary) || back == address;
        if (thread->cut)
            return;
        if (!boundary) {
            p->frames[p->frame_count++] = frame;
            thread->count++;
        } else if (thread->count > 0) {
            p->frames[p->frame_count - 1].entry = true;
        }
        address = back;
    }
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void python_copy_all(struct python *p, uint64_t until_us)
{
    python_list(p);
    for (size_t i = 0; i < p->thread_count; i++) {
        if (now_us() < until_us)
            python_copy(p, &p->threads[i]);
        else
            p->threads[i].cut = true;
    }
}

/* ---- names ---- */

static size_t put_utf8(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[length] | c);
    return length;
}

/* Characters of 1, 2 or 4 bytes into UTF-8; what is none becomes '?'. */
static void put_characters(const uint8_t *data, size_t count, size_t width, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < count && used + 5 < PYTHON_NAME_SIZE; i++) {
        uint32_t c = 0;
        memcpy(&c, data + i * width, width);
        bool valid = c > 0 && c < 0x110000 && (c < 0xd800 || c > 0xdfff);
        used += put_utf8(valid ? c : '?', out + used);
    }
    out[used] = '\0';
}

/* Of a long text the beginning, or the end (`tail`: of a path). */
static bool read_text(const struct python *p, uint64_t object, bool tail, char *out)
{
    const struct layout *l = layout_of(p);
    uint64_t length, skipped = 0;
    uint32_t state;
    uint8_t data[4 * (PYTHON_NAME_SIZE - 6)];
    const uint64_t most = sizeof data / 4;
    if (!is_type(p, object, p->text_type) || !read_pointer(p, object + TEXT_LENGTH, &length) ||
        !p->read(p->context, object + TEXT_STATE, &state, sizeof state) || length > INT32_MAX)
        return false;
    uint32_t width = state >> 2 & 7;
    if (!(state >> 5 & 1) || (width != 1 && width != 2 && width != 4))
        return false;
    uint64_t start = object + (state >> 6 & 1 ? l->ascii : l->compact);
    if (length > most) {
        skipped = tail ? length - most : 0;
        length = most;
    }
    if (!p->read(p->context, start + skipped * width, data, length * width))
        return false;
    put_characters(data, length, width, out);
    return true;
}

static bool read_line(const struct python *p, uint64_t code, uint32_t instruction, int *out)
{
    const struct layout *l = layout_of(p);
    uint64_t table, size;
    int32_t first;
    if (!p->read(p->context, code + l->first_line, &first, sizeof first) || first < 0 ||
        !read_pointer(p, code + l->table, &table) || !is_type(p, table, p->bytes_type) ||
        !read_pointer(p, table + OBJECT_SIZE, &size) || size > TABLE_BYTES_MAX)
        return false;
    *out = first;
    uint8_t *bytes = instruction == INSTRUCTION_UNKNOWN ? NULL : malloc(size + 1);
    if (!bytes)
        return true;
    if (p->read(p->context, table + BYTES_DATA, bytes, size))
        *out = python_line(p->minor, span_of(bytes, size), first, instruction);
    free(bytes);
    return true;
}

bool python_name(const struct python *p, uint64_t code, uint32_t instruction,
                 struct python_name *out)
{
    const struct layout *l = layout_of(p);
    uint64_t name, file;
    memset(out, 0, sizeof *out);
    if (!is_type(p, code, p->code_type) || !read_pointer(p, code + l->name, &name) ||
        !read_pointer(p, code + l->file, &file) || !read_text(p, name, false, out->function) ||
        !read_text(p, file, true, out->file))
        return false;
    if (!read_line(p, code, instruction, &out->line))
        out->line = 0;
    return true;
}

/* ---- opening ---- */

static bool read_process(void *context, uint64_t address, void *out, size_t size_bytes)
{
    struct iovec local = {out, size_bytes};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)address, size_bytes};
    return process_vm_readv(*(pid_t *)context, &local, 1, &remote, 1, 0) == (ssize_t)size_bytes;
}

/* "python3.11", "libpython3.11.so.1.0" -> 11; 0: something else. */
static int minor_of(const char *name)
{
    struct span s = span_str(name);
    uint64_t minor;
    size_t skip = strncmp(name, "lib", 3) == 0 ? 3 : 0;
    if (strncmp(name + skip, "python3.", 8) != 0)
        return 0;
    s = span_of(name + skip + 8, strlen(name) - skip - 8);
    if (text_take_u64(&s, &minor) || minor == 0 || minor > 99)
        return 0;
    if (s.size_bytes > 0 && s.data[0] == 'm') /* until 3.7: "libpython3.7m.so" */
        s = span_of(s.data + 1, s.size_bytes - 1);
    bool whole = skip ? proc_starts_with(s, ".so") : s.size_bytes == 0;
    return whole ? (int)minor : 0;
}

/* What must be found in the interpreter's file. Returns what could not be done, or NULL. */
static const char *find_symbols(struct python *p, struct unwind *unwind,
                                const struct unwind_module *module)
{
    uint64_t size, version_at;
    uint32_t version;
    const struct {
        const char *name;
        uint64_t *out;
    } wanted[] = {{"_PyRuntime", &p->runtime},
                  {"PyCode_Type", &p->code_type},
                  {"PyUnicode_Type", &p->text_type},
                  {"PyBytes_Type", &p->bytes_type}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (unwind_symbol(unwind, module, wanted[i].name, wanted[i].out, &size) != 0)
            return "its symbols are not in its file";
    }
    if (unwind_symbol(unwind, module, "Py_Version", &version_at, &size) == 0 &&
        (!p->read(p->context, version_at, &version, sizeof version) ||
         version >> 16 != (3u << 8 | (uint32_t)p->minor)))
        return "its version is not the one of its file";
    if (unwind_symbol(unwind, module, "_PyEval_EvalFrameDefault", &p->eval_start, &size) == 0)
        p->eval_end = p->eval_start + size;
    return NULL;
}

static int allocate(struct python *p, size_t threads, struct failure *f)
{
    size_t most = threads + 8 < PYTHON_THREADS_MAX ? threads + 8 : PYTHON_THREADS_MAX;
    p->threads = calloc(most, sizeof *p->threads);
    p->frames = calloc(most * PYTHON_FRAMES_MAX, sizeof *p->frames);
    if (!p->threads || !p->frames)
        return fail(f, ERR_NOMEM, "no memory for Python frames of %zu threads", most);
    p->thread_capacity = most;
    p->frame_capacity = most * PYTHON_FRAMES_MAX;
    /* calloc() may give pages that are not there yet. */
    memset(p->threads, 0, most * sizeof *p->threads);
    memset(p->frames, 0, p->frame_capacity * sizeof *p->frames);
    return 0;
}

static int open_interpreter(struct python **out, struct unwind *unwind, const struct python *how,
                            size_t threads, struct failure *f)
{
    const struct unwind_module *modules, *found = NULL;
    size_t count = unwind_modules(unwind, &modules);
    int minor = 0;
    *out = NULL;
    for (size_t i = 0; i < count && !found; i++) {
        uint64_t address, size;
        minor = minor_of(modules[i].name);
        /* The program itself may be nothing but a call of its library. */
        const char *symbol = minor < 7 ? "PyEval_EvalFrameEx" : "_PyRuntime";
        if (minor && unwind_symbol(unwind, &modules[i], symbol, &address, &size) == 0)
            found = &modules[i];
    }
    if (!found)
        return 0;
    struct python *p = calloc(1, sizeof *p);
    if (!p)
        return fail(f, ERR_NOMEM, "no memory for Python frames");
    *p = *how;
    if (!p->context)
        p->context = &p->pid;
    p->minor = minor;
    if (minor < MINOR_LEAST || minor > MINOR_MOST) {
        p->missing = "its version is not known here (3.8 to 3.12 are)";
    } else {
        int rc = allocate(p, threads, f);
        if (rc) {
            python_close(p);
            return rc;
        }
        p->missing = find_symbols(p, unwind, found);
    }
    *out = p;
    return 0;
}

int python_open(struct python **out, struct unwind *unwind, pid_t pid, size_t threads,
                struct failure *f)
{
    const struct python how = {.read = read_process, .pid = pid};
    return open_interpreter(out, unwind, &how, threads, f);
}

int python_open_copy(struct python **out, struct unwind *unwind, python_read_fn read, void *context,
                     size_t threads, struct failure *f)
{
    const struct python how = {.read = read, .context = context};
    return open_interpreter(out, unwind, &how, threads, f);
}

void python_close(struct python *p)
{
    if (!p)
        return;
    free(p->threads);
    free(p->frames);
    free(p);
}
