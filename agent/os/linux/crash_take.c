/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking what is needed of a dying process while the kernel waits, and letting it go. Invariant:
 * what /proc says is kept only when it is proved that it was said of the process that the kernel
 * meant, from before the first to after the last reading. Called by agent/crash_handler.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/crash_proc.h"
#include "common/port.h"

#define PIPE_BYTES (64u << 10)    /* that a pipe holds unless it is told otherwise */
#define PIPE_BYTES_MAX (8u << 20) /* notes of some thousand threads */
#define GONE_MS 250               /* that we stand back at most for the process to end */

void crash_miss(struct os_crash *c, const char *format, ...)
{
    char text[256];
    size_t used = strlen(c->missing);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(c->missing + used, sizeof c->missing - used, "%s%s", used ? "; " : "", text);
}

/* ---- what comes out of the pipe ---- */

/* Reads until `bytes` are there; the memory behind the head stays in the pipe, which is what makes
 * the kernel wait. */
static int read_until(struct os_crash *c, int fd, uint64_t bytes, struct failure *f)
{
    while (c->core_head.size_bytes < bytes) {
        uint8_t *room;
        size_t some = (size_t)(bytes - c->core_head.size_bytes);
        if (buf_reserve(&c->core_head, some, &room))
            return fail(f, ERR_NOMEM, "no memory for the %llu bytes of notes",
                        (unsigned long long)bytes);
        ssize_t got = read(fd, room, some);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(f, err_from_errno(errno), errno, "cannot read the core");
        if (got == 0)
            return fail(f, ERR_CORRUPT, "the core ended after %zu bytes", c->core_head.size_bytes);
        buf_commit(&c->core_head, (size_t)got);
    }
    return 0;
}

/* How long the notes are. */
static int read_extent(struct os_crash *c, int fd, struct crash_extent *out, struct failure *f)
{
    *out = (struct crash_extent){.head_bytes = 0};
    do {
        int rc = read_until(c, fd, out->head_bytes, f);
        if (rc)
            return rc;
        rc = crash_head_extent(buf_span(&c->core_head), out);
        if (rc)
            return fail(f, rc, "what was to be a core is none that can be read");
    } while (out->notes_bytes == 0);
    return 0;
}

/*
 * So that the kernel can write all notes while we look elsewhere (fcntl(2), F_SETPIPE_SZ). It
 * begins a new page for a note that does not fit into the last one: half as much again. A pipe that
 * cannot grow is only slower.
 */
static void make_pipe_hold(int fd, uint64_t bytes)
{
    bytes += bytes / 2;
    if (bytes > PIPE_BYTES)
        (void)fcntl(fd, F_SETPIPE_SZ, (int)(bytes < PIPE_BYTES_MAX ? bytes : PIPE_BYTES_MAX));
}

static int read_notes(struct os_crash *c, int fd, const struct crash_extent *extent,
                      struct failure *f)
{
    int rc = read_until(c, fd, extent->head_bytes, f);
    if (rc)
        return rc;
    rc = crash_notes_parse(
        &c->notes, span_of(c->core_head.data + extent->notes_offset, (size_t)extent->notes_bytes));
    return rc ? fail(f, rc, "the notes of the core cannot be read: %s", err_text(rc)) : 0;
}

/* ---- threads ---- */

static void *zeroed(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void fill_thread(struct os_crash *c, size_t i)
{
    const struct crash_thread_notes *from = &c->notes.threads[i];
    struct stop_thread *thread = &c->dump.stop.threads[i];
    struct thread_state *state = &c->dump.states.list[i];
    c->threads[i].inner_tid = from->tid;
    c->threads[i].tid = i == 0 && c->arguments.tid ? (pid_t)c->arguments.tid : from->tid;
    thread->tid = c->threads[i].tid;
    thread->state = STOP_HELD;
    thread->regs = from->regs;
    state->pending = from->pending;
    state->blocked = from->blocked;
    state->has_fp = from->fp.size_bytes == sizeof state->fp;
    if (state->has_fp)
        memcpy(&state->fp, from->fp.data, sizeof state->fp);
    state->wide = from->xstate.data;
    state->wide_bytes = (uint32_t)from->xstate.size_bytes;
}

static int fill_threads(struct os_crash *c, struct failure *f)
{
    struct stop *stop = &c->dump.stop;
    size_t count = c->notes.count;
    stop->threads = zeroed(count * sizeof *stop->threads);
    c->dump.states.list = zeroed(count * sizeof *c->dump.states.list);
    c->threads = calloc(count, sizeof *c->threads);
    stop->capacity = c->dump.states.capacity = count;
    if (!stop->threads || !c->dump.states.list || !c->threads)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", count);
    stop->count = count;
    for (size_t i = 0; i < count; i++)
        fill_thread(c, i);
    if (c->notes.has_info)
        c->dump.states.list[0].info = c->notes.info;
    else
        c->dump.states.list[0].info.si_signo = (int)c->arguments.signal;
    stop->process.pid = (uint32_t)c->threads[0].tid;
    c->threads_left_out = c->notes.left_out;
    if (c->notes.left_out > 0)
        crash_miss(c, "%zu of the threads: more than %d", c->notes.left_out, CRASH_THREADS_MAX);
    return 0;
}

/* What a pipe's arguments say and a socket does not; the thread's number in the host's namespace is
 * found by crash_read_texts(). */
static void complete_arguments(struct os_crash *c)
{
    const struct crash_thread_notes *failed = &c->notes.threads[0];
    if (c->arguments.signal == 0)
        c->arguments.signal = (uint32_t)failed->signal;
    if (c->arguments.inner_tid == 0)
        c->arguments.inner_tid = (uint32_t)failed->tid;
}

static void fill_process(struct os_crash *c)
{
    struct core_process *p = &c->dump.process;
    const struct crash_notes *n = &c->notes;
    p->pid = (pid_t)c->arguments.pid;
    p->parent = n->parent;
    p->group = n->group;
    p->session = n->session;
    p->uid = c->arguments.uid;
    p->gid = c->arguments.gid;
    p->state = n->state ? n->state : 'R';
    memcpy(p->name, n->name, sizeof p->name);
    /* Its arguments may hold secrets: the name has to do. */
    memcpy(p->arguments, n->name, sizeof n->name);
    if (n->auxv.size_bytes <= sizeof c->dump.auxv) {
        memcpy(c->dump.auxv, n->auxv.data ? n->auxv.data : (const uint8_t *)"", n->auxv.size_bytes);
        c->dump.auxv_bytes = n->auxv.size_bytes;
    }
    if (!c->name[0])
        memcpy(c->name, n->name, sizeof n->name);
}

/* ---- who it is ---- */

static int pidfd_of(struct os_crash *c)
{
    if (c->arguments.pidfd < 0)
        c->arguments.pidfd = (int)syscall(SYS_pidfd_open, (pid_t)c->arguments.pid, 0);
    return c->arguments.pidfd;
}

/*
 * The kernel waits for the pipe to be emptied or closed, and as long as it waits, the process has
 * its pid. A pipe that the kernel has closed proves nothing; then the pidfd has to.
 */
static bool is_still_there(const struct os_crash *c, int core_fd, bool from_kernel)
{
    struct pollfd fds[2] = {{.fd = core_fd, .events = POLLIN},
                            {.fd = c->arguments.pidfd, .events = POLLIN}};
    if (c->arguments.pidfd < 0 || poll(fds, 2, 0) < 0 || (fds[1].revents & POLLIN))
        return false;
    return from_kernel || !(fds[0].revents & POLLHUP);
}

/* ---- while it is held: all of it, in this order ---- */

/* 1. What needs no notes, while the kernel writes them. From here the names of threads are read. */
static int look_around(struct os_crash *c, const struct os_crash_limits *limits, struct failure *f)
{
    if (pidfd_of(c) < 0)
        return fail(f, ERR_GONE, "the process was gone already");
    int rc = crash_read_identity(c, limits->any_state, f);
    if (rc == 0)
        crash_read_texts(c);
    return rc;
}

/* 2. Who died of what. */
static int take_notes(struct os_crash *c, const struct crash_extent *extent, int core_fd,
                      struct failure *f)
{
    int rc = read_notes(c, core_fd, extent, f);
    if (rc == 0)
        complete_arguments(c);
    if (rc == 0)
        rc = fill_threads(c, f);
    if (rc == 0)
        fill_process(c);
    else
        c->dump.stop.count = 0;
    return rc;
}

/* 3. What it had in memory. */
static int look_inside(struct os_crash *c, const struct os_crash_limits *limits, struct failure *f)
{
    int rc = maps_read(&c->dump.maps, c->arguments.pid, f);
    if (rc == 0)
        rc = crash_copy_memory(c, limits, f);
    if (rc == 0)
        rc = unwind_open(&c->unwind, (pid_t)c->arguments.pid, &c->dump.maps, f);
    c->has_memory = rc == 0;
    if (rc == 0)
        crash_copy_python(c);
    return rc;
}

/* 4. The names are there: crash_name_threads(). 5. Whether all that was said of the process that
 * the kernel meant. */
static int prove(struct os_crash *c, int core_fd, bool from_kernel, struct failure *f)
{
    int rc = crash_check_identity(c, f);
    if (rc == 0 && !is_still_there(c, core_fd, from_kernel))
        rc = fail(f, ERR_GONE, "the process ended while it was read");
    c->verified = rc == 0;
    return rc;
}

static int take(struct os_crash *c, const struct os_crash_limits *limits, int core_fd,
                struct failure *f)
{
    struct crash_extent extent;
    struct failure who = {0}, memory = {0};
    bool from_kernel = c->arguments.pidfd >= 0;
    int rc = read_extent(c, core_fd, &extent, f);
    if (rc)
        return rc;
    make_pipe_hold(core_fd, extent.head_bytes);
    int known = look_around(c, limits, &who);
    rc = take_notes(c, &extent, core_fd, f);
    if (rc == 0 && known == 0)
        known = crash_match_notes(c, &who);
    if (rc == 0 && known == 0) {
        int inside = limits->memory ? look_inside(c, limits, &memory) : 0;
        crash_name_threads(c);
        known = prove(c, core_fd, from_kernel, &who);
        if (known == 0 && inside)
            crash_miss(c, "its memory: %s", memory.text);
    }
    if (rc || known)
        crash_forget(c);
    if (rc == 0 && known)
        crash_miss(c, "all but what the kernel said: %s", who.text);
    return rc;
}

/* ---- and let go ---- */

/* Its end is work, and who waits for its port is not us: until it is over we do nothing. */
static void stand_back(const struct os_crash *c)
{
    struct pollfd gone = {.fd = c->arguments.pidfd, .events = POLLIN};
    if (gone.fd >= 0)
        (void)poll(&gone, 1, GONE_MS);
}

int os_crash_take(const struct os_crash_arguments *arguments, const struct os_crash_limits *limits,
                  int core_fd, bool keep_core, struct os_crash **out, struct span *head,
                  struct failure *f)
{
    uint64_t started_us = port_mono_us();
    struct os_crash *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "no memory for a crash");
    crash_init(c, arguments);
    c->started_us = started_us;
    int rc = take(c, limits, core_fd, f);
    *head = buf_span(&c->core_head);
    if (!keep_core)
        close(core_fd);
    c->held_us = port_mono_us() - started_us;
    if (rc)
        crash_miss(c, "all but what the kernel's arguments say: %s", f ? f->text : err_text(rc));
    else if (!limits->memory)
        crash_miss(c, arguments->dumpable == 1
                          ? "its memory: this host's policy does not allow it"
                          : "its memory: it is setuid or protected from dumps");
    if (!keep_core && !limits->any_state)
        stand_back(c);
    if (c->has_memory)
        crash_find_stacks(c);
    *out = c;
    return rc;
}
