/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kinds "mini" and "core" share: pages copied while the process is held (dump_copy.c),
 * which of them a debugger cannot do without (dump_loader.c), and the writing of the file
 * (dump_write.c). Private to dump*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_DUMP_LINUX_H
#define TRAWL_AGENT_OS_LINUX_DUMP_LINUX_H

#include <pthread.h>

#include "agent/os/dump.h"
#include "agent/os/linux/core_elf.h"
#include "agent/os/linux/segments.h"
#include "agent/os/linux/stop.h"
#include "agent/os/linux/thread_state.h"

/* ---- pages copied while it is held ---- */

#define COPY_BATCH 512 /* pieces of one process_vm_readv(2): at most IOV_MAX (1024) */

struct copied_page {
    uint64_t address;
    uint32_t slot; /* where in the pool */
    bool there;    /* it could be read */
};

/* A set of pages with room for `capacity`. Pages are first wanted, then fetched; after
 * copies_sort() they can be found. */
struct copies {
    uint8_t *pool;
    struct copied_page *list;
    uint32_t *table; /* hash of addresses: index + 1 */
    size_t capacity, table_size, count, fetched;
    uint64_t unreadable;
    bool is_touched;
};

/* All memory is touched at once: fetching allocates nothing. */
int copies_init(struct copies *copies, size_t pages, struct failure *f);
/* Only what is fetched is: for room of which little is used, by who may allocate as it reads. */
int copies_init_untouched(struct copies *copies, size_t pages, struct failure *f);
void copies_done(struct copies *copies);
/* False: no room. A page that is wanted already is fine. */
bool copies_want(struct copies *copies, uint64_t address);
/* Every page of [start, end), up to `pages_max` in all of the set. Returns how many have no room.
 */
size_t copies_want_range(struct copies *copies, uint64_t start, uint64_t end, size_t pages_max);
/* Reads what is wanted and not there yet. Fails only by ERR_TIMEOUT (`stop`'s time; NULL: none) and
 * ERR_GONE. Pages that do not exist are left out. */
int copies_fetch(struct copies *copies, pid_t pid, const struct stop *stop);
/* While it is held, by address; NULL: not fetched. */
const uint8_t *copies_find(const struct copies *copies, uint64_t address);
/* After the release: drops what is not there, and sorts. */
void copies_sort(struct copies *copies);
/* Sorted: the next run in [from, to); ERR_NOTFOUND. */
int copies_next(const struct copies *copies, uint64_t from, uint64_t to, struct segment_run *run);
/* Sorted: lays what was copied over `bytes`, which are those of [start, start + size). */
void copies_overlay(const struct copies *copies, uint64_t start, uint8_t *bytes, size_t size);

/* ---- one dump ---- */

#define DUMP_AUXV_MAX 4096

struct dump {
    const struct os_take *take;
    const struct os_output *out;
    struct os_result *result;
    struct stop stop;
    struct maps maps; /* before the process is held */
    struct areas areas;
    struct thread_states states;
    struct copies copies;
    struct core_process process;
    uint8_t auxv[DUMP_AUXV_MAX];
    size_t auxv_bytes;
    size_t stacks_missed, stacks_cut; /* threads whose stack had no room, or not all of it */
};

/* Opens, reads maps, auxv and who the process is, makes room for the threads. dump_close() is due
 * also after a failure. */
int dump_open(struct dump *d, const struct os_take *take, const struct os_output *out,
              struct os_result *result, struct failure *f);
void dump_close(struct dump *d);
/* What holding it costs that copies so much, besides. */
uint64_t dump_predict_us(const struct dump *d, uint64_t copy_bytes);
/* Whether what is mapped there belongs into a dump at all. */
bool dump_may_copy(const struct dump *d, const struct map *map);
/* Fills the result from the stop: times, threads, who was missed. */
void dump_note_threads(struct dump *d);
/* The text of a failure that happened while the process was held. */
int dump_fail_held(const struct dump *d, int rc, struct failure *cause, struct failure *f);
/* "64.0 MiB WHAT" is missing. */
void dump_note_bytes(struct dump *d, uint64_t bytes, const char *what);

/* ---- what a debugger cannot do without ---- */

/* Wants the pages of the dynamic loader's list, of the executable's data and of small writable
 * mappings, up to `pages_max`. Reads the process, which is not held. Returns how many pages the
 * loader's list alone has. */
size_t dump_want_loader(struct dump *d, size_t pages_max);
/* Held: wants stacks (each at most `stack_bytes_max`) and the blocks of thread-local storage. */
void dump_want_threads(struct dump *d, uint64_t stack_bytes_max, size_t pages_max);
/* Held, after a fetch: wants and fetches what pointers in registers and on stacks lead to, and what
 * pointers there lead to, until `until_us` (port_mono_us()) or the set is full. */
int dump_fetch_pointed(struct dump *d, uint64_t until_us);
/* What looking for them costs, besides the copying. */
uint64_t dump_predict_pointed_us(const struct dump *d);

/* ---- writing ---- */

/* Where the bytes come from. */
struct dump_source {
    const struct maps *maps; /* of the instant that is written */
    pid_t pid, shared_pid;   /* whose pages are asked for; 0: copies only */
    int mem_fd;              /* /proc/PID/mem; -1: copies only */
    struct span notes;       /* to be put in as they are; empty: made of the threads */
    /* Called now and then; non-zero ends the writing and is returned. May be NULL. */
    int (*check)(void *context, struct failure *f);
    void *context;
};
/* Writes the whole file, forward, from one buffer. d->copies is sorted. */
int dump_write(struct dump *d, const struct dump_source *source, struct failure *f);

/* ---- writing while it is held (dump_relay.c) ---- */

/* An output that gives up (ERR_TIMEOUT) when the time of `stop` is over, whatever `to` does. */
struct dump_relay {
    struct os_output out; /* to be written to */
    const struct os_output *to;
    const struct stop *stop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct buf piece;
    char ending[16]; /* to be begun; "": the piece is to be written */
    bool full, over;
    int rc;
    struct failure cause;
};
int dump_relay_start(struct dump_relay *relay, const struct os_output *to, const struct stop *stop,
                     struct failure *f);
/* After the release: waits until all is written. What `to` returned. */
int dump_relay_stop(struct dump_relay *relay, struct failure *f);

/* ---- memory that is left, and the end of the process (dump_watch.c) ---- */

/* `need_bytes` are going to be taken. ERR_REFUSED: too little would be free. ERR_GONE,
 * ERR_UNSUPPORTED as headroom_read(); `root` too. */
int dump_check_headroom(const char *root, pid_t pid, uint64_t need_bytes, struct failure *f);

/* Kills a twin when memory becomes short, or its process ends. */
struct dump_watch {
    const char *root;
    pid_t pid;
    int process_fd, wake_fd;
    pthread_t thread;
    struct failure cause;
};
/* `process_fd`: a pidfd of the process whose twin it is, borrowed; -1: only memory is watched. */
int dump_watch_start(struct dump_watch *watch, const char *root, pid_t pid, int process_fd,
                     struct failure *f);
/* ERR_REFUSED, ERR_GONE: it was killed; *f says why. */
int dump_watch_stop(struct dump_watch *watch, struct failure *f);

/* ---- mappings that are younger than the map (dump_fresh.c) ---- */

#define DUMP_FRESH_MAX 256

struct dump_fresh {
    int fd; /* -1: none */
    struct segment_run list[DUMP_FRESH_MAX];
    size_t count;
    uint64_t lost_bytes; /* for which there was no room */
    uint32_t asked;      /* mappings; 0: this kernel cannot be asked */
};
int dump_fresh_open(struct dump_fresh *fresh, pid_t pid);
void dump_fresh_close(struct dump_fresh *fresh);
/* Held: wants private memory without a file that is in none of d->maps. */
void dump_fresh_want(struct dump *d, struct dump_fresh *fresh, const struct stop *stop);

/* ---- the ways to a core (dump.c chooses) ---- */

/*
 * From a copy-on-write twin. *impossible: no twin can be made of this process, now or ever (*f says
 * why); it is as it was. ERR_REFUSED (pause, memory), ERR_TIMEOUT, ERR_GONE.
 */
int dump_core_snapshot(struct dump *d, bool *impossible, struct failure *f);

#endif
