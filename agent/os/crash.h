/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that is dying of a signal, read before it goes (core(5), "Piping core dumps to a
 * program"). Two steps, and between them the process is gone: os_crash_take() copies what is needed
 * while the kernel waits for us, and lets go; os_crash_describe() makes evidence of the copy.
 * Invariant: until os_crash_take() has let go nothing is compressed, symbolised, parsed by a
 * library (but the names in a Python interpreter's file, agent/os/linux/crash_python.c), or sent.
 * Called by the crash handler (agent/crash_handler.c), never by the agent.
 */
#ifndef TRAWL_AGENT_OS_CRASH_H
#define TRAWL_AGENT_OS_CRASH_H

#include "agent/os/exception.h"
#include "agent/os/process.h"
#include "agent/os/take.h"

/* What the kernel says of it: the specifiers of core(5) in brackets. signal, tid and inner_tid 0:
 * the notes of the core say it. */
struct os_crash_arguments {
    uint32_t pid;        /* in the host's pid namespace (%P) */
    uint32_t inner_pid;  /* in its own (%p) */
    uint32_t tid;        /* of the thread that failed, in the host's namespace (%I) */
    uint32_t inner_tid;  /* in its own (%i) */
    uint32_t uid, gid;   /* real ones (%u, %g) */
    uint32_t dumpable;   /* prctl(2), PR_GET_DUMPABLE (%d); 1: memory may be read */
    uint32_t signal;     /* (%s) */
    int64_t time_s;      /* (%t) */
    uint64_t core_limit; /* RLIMIT_CORE, soft (%c) */
    int pidfd;           /* (%F), since Linux 6.16; -1: the kernel gives none */
    /* Filled in by os_crash_identify(). */
    uint64_t start_ticks; /* 0: not known */
    uint8_t id[16];
    char name[OS_PROCESS_NAME_SIZE];
};

struct os_crash_limits {
    bool memory;          /* false: who it was and of what it died, nothing of its memory */
    uint64_t stack_bytes; /* of one thread at most */
    uint64_t pool_bytes;  /* of all that is copied */
    bool any_state;       /* tests only: also of a process that the kernel does not dump */
};

struct os_crash; /* the copy */

/* What the marker of a crash says, as cheaply as can be: start time, name, and the id, which is the
 * same whoever works it out, as long as the process is there. */
void os_crash_identify(struct os_crash_arguments *arguments);

/*
 * Reads registers, signal and memory of the process on the other end of `core_fd` (the pipe that
 * the kernel writes the core into; its head, with the notes, is read), and lets go: closes core_fd
 * and does nothing until the process is gone, for 250 ms at most, so as not to be in its way;
 * unless `keep_core`, which leaves it open behind what was read (*head are those bytes, borrowed
 * from the copy) for a handler that was there before. What could not be read stands in the copy: of
 * a process that cannot be proved to be the one that the kernel meant (pid, pidfd, start time,
 * auxiliary vector, that it is being dumped, from before the first to after the last reading) there
 * is nothing but what the pipe said. ERR_CORRUPT: what comes out of the pipe is no core; ERR_NOMEM,
 * ERR_IO. *out is set in any case but ERR_NOMEM.
 */
int os_crash_take(const struct os_crash_arguments *arguments, const struct os_crash_limits *limits,
                  int core_fd, bool keep_core, struct os_crash **out, struct span *head,
                  struct failure *f);
void os_crash_close(struct os_crash *crash);

/* "SIGSEGV", or "signal 64". */
void os_signal_name(uint32_t signal, char *out, size_t size_bytes);
/* Of what is known without parsing anything: who, of what, when, where it stood. Before
 * os_crash_describe(), which sorts what was copied. */
void os_crash_head(const struct os_crash *crash, struct os_exception *out);
/* How long the process was kept by us, from our start to letting go. */
uint64_t os_crash_held_us(const struct os_crash *crash);
/* Whether memory was copied: without it there are no stacks. */
bool os_crash_has_memory(const struct os_crash *crash);

/*
 * Where it stood, for telling a crash loop from something new: `weak` over executable, signal and
 * the place in its module; `strong` also over the words on the stack that point into code. Parses
 * no file. The ids of modules are their device and inode.
 */
void os_crash_site(const struct os_crash *crash, uint64_t *weak, uint64_t *strong);

/* The build-id of its program, cut to `most` bytes; 0: not known. Reads no file. */
size_t os_crash_build_id(const struct os_crash *crash, uint8_t *out, size_t most);

/* Gives the file "log": the last OS_CRASH_LOG_BYTES of each file that it logged to (its outputs,
 * and *.log that it had open). ERR_NOTFOUND: there is none. */
#define OS_CRASH_LOG_BYTES 65536u
int os_crash_log(const struct os_crash *crash, const struct os_output *out, struct failure *f);

/*
 * Unwinds all threads, names the frames and gives the files "txt" (for people: signal, registers,
 * all stacks, modules), "json", "folded", and "core" (a small ELF core that gdb and lldb open);
 * completes *exception with the frames of the thread that failed, and the executable's build-id.
 */
int os_crash_describe(struct os_crash *crash, const struct os_output *out,
                      struct os_exception *exception, struct os_result *result, struct failure *f);

#endif
