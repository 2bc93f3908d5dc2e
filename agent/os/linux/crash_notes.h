/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of a core file as the kernel writes it: ELF header, program headers, notes (elf(5),
 * core(5); kernel: fs/binfmt_elf.c). Bytes from outside: every length is checked, every loop ends.
 * Pure: knows no process and no file. Called by crash_take.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_NOTES_H
#define TRAWL_AGENT_OS_LINUX_CRASH_NOTES_H

#include <elf.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include "common/buf.h"
#include "common/err.h"

#define CRASH_THREADS_MAX 32768
#define CRASH_HEAD_MAX (1u << 30) /* more than this of headers and notes is refused */
#define CRASH_SEGMENTS_MAX (1u << 20)
#define CRASH_FILES_MAX (1u << 20)

/* How much of the head there is, as far as its beginning tells. */
struct crash_extent {
    uint64_t notes_offset, notes_bytes; /* 0, 0: not known yet */
    uint64_t head_bytes;                /* to be read in all; grows once, to the end of the notes */
    uint64_t memory_bytes;              /* of the segments behind it; known with the notes */
};

/*
 * Looks at what was read so far. 0: *out says how much the head is (when out->notes_bytes is 0 read
 * until head_bytes and ask again). ERR_CORRUPT: no core of a 64-bit x86 process; ERR_LIMIT.
 */
int crash_head_extent(struct span head, struct crash_extent *out);

/* Notes of one thread; they stand one behind the other, the thread that failed comes first. */
struct crash_thread_notes {
    int32_t tid; /* in its own pid namespace */
    int signal;
    uint64_t pending, blocked;
    struct user_regs_struct regs;
    struct span fp;     /* struct user_fpregs_struct; empty: none */
    struct span xstate; /* empty: none */
};

/* Borrows from the head; the list of threads is owned. Zeroed: nothing. */
struct crash_notes {
    struct crash_thread_notes *threads;
    size_t count, left_out; /* left_out: beyond CRASH_THREADS_MAX */
    siginfo_t info;
    bool has_info, has_process;
    int32_t pid, parent, group, session; /* of NT_PRPSINFO, in its own pid namespace */
    uint32_t uid, gid;
    char state;
    char name[16];
    struct span auxv;
    struct span files; /* NT_FILE, checked: crash_file_next() walks it */
    uint64_t file_page;
    size_t file_count;
};

/* `notes`: the bytes of PT_NOTE. ERR_CORRUPT (no thread, a length that does not fit), ERR_NOMEM. */
int crash_notes_parse(struct crash_notes *out, struct span notes);
void crash_notes_done(struct crash_notes *notes);

/* One mapping of NT_FILE. `path` is terminated, within the notes. */
struct crash_file {
    uint64_t start, end, offset;
    const char *path;
};
/* The file that is mapped at `address`; ERR_NOTFOUND. */
int crash_file_at(const struct crash_notes *notes, uint64_t address, struct crash_file *out);
/* The first mapping of the file that `at` is one of: where its offset 0 lies, or would. */
uint64_t crash_file_base(const struct crash_notes *notes, const struct crash_file *at);

#endif
