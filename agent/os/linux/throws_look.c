/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at throws (throws_look.h): waits, drains, decides, looks at stacks. Called by throws.c,
 * throws_watch.c.
 */
#include "agent/os/linux/throws_look.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/os/linux/demangle.h"
#include "agent/os/linux/throws_stack.h"
#include "common/port.h"
#include "common/text.h"

#define SYMBOL "__cxa_throw"
#define BATCH_MS 5 /* throws come in batches: not a wake-up for each */
#define WATCH_WAIT_MS 10000
#define MAP_AGAIN_US 1000000 /* the map is read again at most this often */
#define LONG_NAME_BYTES 1024

/* ---- where to probe ---- */

/* The offset in its file of an address in memory. */
static bool find_place(const struct throws_look *look, const struct unwind_module *module,
                       struct throws_place *out)
{
    uint64_t address, size;
    if (module->fd < 0 || unwind_symbol(look->unwind, module, SYMBOL, &address, &size))
        return false;
    const struct map *map = maps_find(&look->maps, address);
    if (!map || !map->executable)
        return false;
    *out = (struct throws_place){module->fd, address - map->start + map->offset};
    return true;
}

/* The files stay open for as long as the probe may be set again; the unwinder's do not. */
static size_t find_places(const struct throws_look *look, struct throws_place *places)
{
    const struct unwind_module *modules;
    size_t count = unwind_modules(look->unwind, &modules), found = 0;
    for (size_t i = 0; i < count && found < THROWS_PLACES_MAX; i++) {
        if (!find_place(look, &modules[i], &places[found]))
            continue;
        places[found].file_fd = fcntl(modules[i].fd, F_DUPFD_CLOEXEC, 0);
        found += places[found].file_fd >= 0;
    }
    return found;
}

static void close_places(struct throws_place *places, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(places[i].file_fd);
}

static void unload(struct throws_look *look)
{
    unwind_close(look->unwind);
    look->unwind = NULL;
    maps_done(&look->maps);
    maps_init(&look->maps);
}

/* The unwinder is there, started or not, when this succeeds. */
static int load_code(struct throws_look *look, struct failure *f)
{
    unload(look);
    look->stale = false;
    look->mapped_us = port_mono_us();
    int e = maps_read(&look->maps, look->process.pid, f);
    return e ? e : unwind_open(&look->unwind, (pid_t)look->process.pid, &look->maps, f);
}

static int set_probe(struct throws_look *look, struct failure *f)
{
    struct throws_place places[THROWS_PLACES_MAX];
    const struct unwind_module *modules;
    size_t count = find_places(look, places);
    if (count == 0)
        return fail(f, ERR_NOTFOUND,
                    "nothing here throws: no " SYMBOL " in the %zu files of code that it maps (not "
                    "C++, or linked statically and stripped)",
                    unwind_modules(look->unwind, &modules));
    int e = throws_probe_open(&look->probe, (pid_t)look->process.pid, places, count, f);
    if (e) {
        close_places(places, count);
        return e;
    }
    look->has_probe = true;
    e = throws_probe_arm(&look->probe, f);
    if (!e)
        throws_rate_armed(&look->rate, port_mono_us(), 0, true);
    return e;
}

int throws_look_load(struct throws_look *look, struct failure *f)
{
    int e = load_code(look, f);
    if (!e)
        e = set_probe(look, f);
    if (!e)
        e = unwind_start(look->unwind, f);
    return e;
}

/* ---- the process ---- */

/* Pinned first, then compared with the one that was found. */
static int pin(struct throws_look *look, struct failure *f)
{
    struct os_process now;
    look->pid_fd = (int)syscall(SYS_pidfd_open, (pid_t)look->process.pid, 0);
    if (look->pid_fd < 0)
        return fail(f, errno == ESRCH ? ERR_GONE : err_from_errno(errno), "process ended");
    if (os_process_get("", look->process.pid, &now, NULL) ||
        now.start_ticks != look->process.start_ticks)
        return fail(f, ERR_GONE, "process ended");
    return 0;
}

int throws_look_open(struct throws_look *look, const struct os_process *process, struct failure *f)
{
    memset(look, 0, sizeof *look);
    look->process = *process;
    look->pid_fd = -1;
    maps_init(&look->maps);
    throws_set_init(&look->set);
    look->pending = calloc(THROWS_PENDING_MAX, sizeof *look->pending);
    int e = look->pending ? pin(look, f) : fail(f, ERR_NOMEM, "no memory for stacks");
    if (!e)
        e = throws_look_load(look, f);
    if (e && e != ERR_NOTFOUND)
        throws_look_close(look);
    return e;
}

void throws_look_close(struct throws_look *look)
{
    if (look->has_probe) {
        struct throws_place places[THROWS_PLACES_MAX];
        size_t count = look->probe.place_count;
        memcpy(places, look->probe.places, sizeof places);
        throws_probe_close(&look->probe);
        close_places(places, count);
    }
    look->has_probe = false;
    unload(look);
    throws_set_done(&look->set);
    free(look->pending);
    look->pending = NULL;
    if (look->pid_fd >= 0)
        close(look->pid_fd);
    look->pid_fd = -1;
}

/* ---- one throw ---- */

static ssize_t read_memory(const struct throws_look *look, uint64_t from, void *to, size_t bytes)
{
    struct iovec local = {to, bytes};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)from, bytes};
    return process_vm_readv((pid_t)look->process.pid, &local, 1, &remote, 1, 0);
}

/* The name is in a page that was not there yet when the kernel looked, or it is long. */
static void read_name(const struct throws_look *look, const struct throws_hit *hit, uint64_t type,
                      char *out, size_t size_bytes)
{
    char name[LONG_NAME_BYTES + 1];
    uint64_t address = 0;
    ssize_t got = -1;
    bool whole = hit->name_bytes > 1 && hit->name_bytes < THROWS_NAME_BYTES;
    if (!whole && read_memory(look, type + sizeof address, &address, sizeof address) ==
                      (ssize_t)sizeof address)
        for (size_t bytes = LONG_NAME_BYTES; bytes >= 64 && got <= 0; bytes /= 2)
            got = read_memory(look, address, name, bytes);
    if (got > 0)
        name[got] = '\0';
    else if (hit->name_bytes > 1)
        (void)text_copy_span(name, sizeof name,
                             span_of(hit->name, strnlen(hit->name, THROWS_NAME_BYTES)));
    else
        name[0] = '\0';
    if (name[0])
        demangle_type(name, out, size_bytes);
    else
        (void)text_format(out, size_bytes, "[type at 0x%llx]", (unsigned long long)type);
    text_clean(out);
}

static int take_hit(void *context, const struct throws_hit *hit)
{
    struct throws_look *look = context;
    const struct user_regs_struct *regs = (const void *)hit->registers;
    uint64_t type = regs->rsi, place = 0;
    bool fresh;
    if (hit->stack_bytes >= sizeof place)
        memcpy(&place, hit->stack, sizeof place);
    struct throws_group *group =
        throws_set_count(&look->set, type, place, hit->mono_ns, (uint32_t)hit->ids, &fresh);
    if (!group)
        return 0;
    if (fresh)
        read_name(look, hit, type, group->name, sizeof group->name);
    if (!throws_set_look(group, hit->mono_ns))
        return 0;
    if (look->pending_count == THROWS_PENDING_MAX) {
        look->unlooked++;
        return 0;
    }
    struct throws_pending *pending = &look->pending[look->pending_count++];
    pending->group = (size_t)(group - look->set.list);
    pending->hit = *hit;
    return 0;
}

/* ---- stacks ---- */

static void refresh_code(struct throws_look *look)
{
    if (!look->stale || look->ended || port_mono_us() - look->mapped_us < MAP_AGAIN_US)
        return;
    if (load_code(look, NULL) || unwind_start(look->unwind, NULL))
        unload(look);
}

/* The oldest that waits. */
static int look_at_one(struct throws_look *look)
{
    struct throws_pending *pending = &look->pending[0];
    struct throws_group *group = &look->set.list[pending->group];
    struct os_frame frames[THROWS_FRAMES_MAX];
    struct throws_sample sample = {.frames = frames, .tid = (uint32_t)pending->hit.ids};
    refresh_code(look);
    if (throws_stack(look->unwind, &look->maps, &pending->hit, &sample))
        look->stale = true;
    int e = throws_set_sample(group, &sample);
    int rc = e == ERR_NOMEM ? e : 0;
    if (!rc && look->sampled)
        rc = look->sampled(look->context, group, &sample, pending->hit.mono_ns);
    look->pending_count--;
    memmove(look->pending, look->pending + 1, look->pending_count * sizeof *look->pending);
    return rc;
}

/* ---- steps ---- */

static int decide(struct throws_look *look, struct failure *f)
{
    uint64_t all = throws_probe_all(&look->probe);
    int e;
    switch (throws_rate_act(&look->rate, port_mono_us(), all)) {
    case THROWS_DISARM:
        throws_rate_disarmed(&look->rate, port_mono_us());
        throws_probe_disarm(&look->probe);
        return 0;
    case THROWS_ARM:
        e = throws_probe_arm(&look->probe, f);
        if (e == ERR_GONE) {
            look->ended = true;
            return 0;
        }
        throws_rate_armed(&look->rate, port_mono_us(), all, false);
        return e;
    default:
        return 0;
    }
}

/* Until when to wait at most: the next decision or the caller's instant. */
static int patience_ms(const struct throws_look *look, uint64_t until_us)
{
    uint64_t now = port_mono_us(), then = until_us;
    const struct throws_rate *r = &look->rate;
    if (look->has_probe && !r->armed && r->rest_until_us < then)
        then = r->rest_until_us;
    if (look->has_probe && r->peeking && r->window_us + THROWS_PEEK_US < then)
        then = r->window_us + THROWS_PEEK_US;
    if (then <= now)
        return 0;
    uint64_t ms = (then - now + 999) / 1000;
    if (look->pending_count > 0 && ms > BATCH_MS)
        ms = BATCH_MS;
    return ms < WATCH_WAIT_MS ? (int)ms : WATCH_WAIT_MS;
}

/* When throws have come: a moment for more of them, then all at once. */
static int await(struct throws_look *look, uint64_t until_us, int reader_fd)
{
    struct pollfd fds[3] = {
        {look->pid_fd, POLLIN, 0}, {reader_fd, 0, 0}, {look->probe.ring_fd, POLLIN, 0}};
    if (!look->has_probe)
        fds[2].fd = -1;
    int ready = poll(fds, 3, patience_ms(look, until_us));
    if (ready <= 0)
        return 0;
    look->ended |= (fds[0].revents & (POLLIN | POLLERR)) != 0;
    if (reader_fd >= 0 && (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)))
        return ERR_CLOSED;
    if (fds[2].revents & POLLIN && throws_rate_is_calm(&look->rate, throws_probe_all(&look->probe)))
        poll(fds, 2, BATCH_MS);
    return 0;
}

int throws_look_step(struct throws_look *look, uint64_t until_us, int reader_fd, struct failure *f)
{
    int e = await(look, until_us, reader_fd);
    if (e || !look->has_probe)
        return e;
    e = throws_probe_drain(&look->probe, take_hit, look);
    if (e)
        return fail(f, e, "the ring of the probe makes no sense");
    if (!look->ended)
        e = decide(look, f);
    if (!e && look->pending_count &&
        throws_rate_is_calm(&look->rate, throws_probe_all(&look->probe)))
        e = look_at_one(look);
    return e;
}

int throws_look_finish(struct throws_look *look)
{
    if (!look->has_probe)
        return 0;
    throws_rate_disarmed(&look->rate, port_mono_us());
    throws_probe_disarm(&look->probe);
    int e = throws_probe_drain(&look->probe, take_hit, look);
    while (!e && look->pending_count > 0)
        e = look_at_one(look);
    return e;
}
