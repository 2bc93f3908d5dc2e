/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two steps of a crash share: the copy that os_crash_take() makes while the kernel waits,
 * and that os_crash_describe() makes evidence of. Invariant: once the process was let go nothing
 * here refers to it: files are open, memory is copied, names are read. Private to crash_*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_LINUX_H
#define TRAWL_AGENT_OS_LINUX_CRASH_LINUX_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/os/crash.h"
#include "agent/os/linux/crash_notes.h"
#include "agent/os/linux/dump_linux.h"
#include "agent/os/linux/unwind.h"
#include "common/buf.h"

#define CRASH_COMM_SIZE 16
#define CRASH_LOG_FILES 4

/* One thread besides its registers (dump.stop.threads[i].regs) and its signal, floating point and
 * vector registers (dump.states.list[i]). */
struct crash_thread {
    pid_t tid;       /* in the host's pid namespace; 0: not known */
    pid_t inner_tid; /* in its own */
    char name[CRASH_COMM_SIZE];
    uint64_t stack_start;  /* from the red zone below rsp */
    size_t stack_bytes;    /* 0: could not be read, or had no room */
    const uint8_t *stack;  /* into dump.copies */
    bool end_copied;       /* the copy reaches to the end of the mapping */
    uint64_t second_start; /* the stack that a signal came on, when its handler has its own */
    size_t second_bytes;
    const uint8_t *second;
};

/* One of /proc/PID/task. */
struct crash_task {
    uint32_t tid;
    char name[CRASH_COMM_SIZE];
};

/*
 * `dump` is what a dump is after its release, without ever having held the process: .process,
 * .maps, .auxv, .copies (pages of stacks, of the loader, of what registers point to, first pages of
 * mapped files; not sorted yet: dump_write() needs copies_sort()), .stop.threads (all STOP_HELD,
 * the one that failed is [0] and .stop.process.pid is its tid, so that readers see it first),
 * .states (the signal in .info of [0]; .wide borrows from `core_head`). .take and .result are NULL,
 * .out unset. With dump_source.mem_fd -1 and .pid 0 dump_write() writes a core of it.
 */
struct os_crash {
    struct os_crash_arguments arguments;
    struct dump dump;
    struct crash_thread *threads; /* dump.stop.count of them, same order */
    struct unwind *unwind;        /* opened, not started; NULL: no memory was read */
    struct buf core_head;         /* ELF header, program headers, notes: as the kernel wrote them */
    struct crash_notes notes;     /* parsed; borrows from core_head */
    uint64_t start_ticks, started_us, held_us;
    int64_t wall_us;
    uint8_t id[16];
    bool verified;   /* it is the process that the kernel meant: what /proc said is its own */
    bool has_memory; /* maps, files and copies are there */
    size_t threads_left_out;
    char name[OS_PROCESS_NAME_SIZE];
    char executable[256];
    uint64_t exe_device, exe_inode; /* 0, 0: not known */
    char unit[128];
    struct buf status, limits, cgroup; /* of /proc/PID, as they were; may be empty */
    struct buf auxv;                   /* the same; the notes have it too */
    pthread_t reader;                  /* of tasks, when reads_tasks */
    bool reads_tasks;
    struct crash_task *tasks; /* sorted by number */
    size_t task_count;
    int log_fds[CRASH_LOG_FILES]; /* regular files that it logged to; -1: none */
    char log_paths[CRASH_LOG_FILES][256];
    struct buf assembled;          /* stacks whose pages do not lie together in dump.copies */
    char missing[OS_MISSING_SIZE]; /* what could not be read, and why */
};

/* What a debugger and the unwinder need of the memory: after notes, maps and threads are there.
 * Neither parses a file nor writes one. ERR_NOMEM, ERR_GONE. In crash_memory.c. */
int crash_copy_memory(struct os_crash *crash, const struct os_crash_limits *limits,
                      struct failure *f);
/* Of a Python program also what tells its functions: copies what is looked at, on demand, and looks
 * at the thread that failed. In crash_python.c. */
void crash_copy_python(struct os_crash *crash);
/* After the release: where the stacks lie in the copies. */
void crash_find_stacks(struct os_crash *crash);
/* Adds "; ..." to crash->missing. */
void crash_miss(struct os_crash *crash, const char *format, ...) TRAWL_PRINTF(2, 3);

#endif
