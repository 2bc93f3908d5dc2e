/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format of an ELF core file of x86-64 Linux: headers and notes, as the kernel writes them
 * (fs/binfmt_elf.c, elf(5), core(5)) and gdb and lldb read them. Pure: makes bytes, knows no file
 * and no process. A core is written forward: header, program headers, notes, then memory at whole
 * pages. Called by dump_write.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CORE_ELF_H
#define TRAWL_AGENT_OS_LINUX_CORE_ELF_H

#include <elf.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "agent/os/linux/maps.h"
#include "common/buf.h"
#include "common/err.h"

#define CORE_PAGE 4096u
#define CORE_ARGUMENTS_SIZE 80 /* struct elf_prpsinfo */

struct core_process {
    pid_t pid, parent, group, session;
    uint32_t uid, gid;
    char state; /* R S D T t Z */
    char name[16];
    char arguments[CORE_ARGUMENTS_SIZE];
};

/* One thread. Pointers are borrowed; NULL: not known, and then there is no note of it. */
struct core_thread {
    const struct core_process *process;
    pid_t tid;
    int signal; /* that it is stopped by; 0: none */
    uint64_t pending, blocked;
    const struct user_regs_struct *regs;
    const siginfo_t *info;
    const struct user_fpregs_struct *fp;
    struct span xstate; /* empty: none */
};

/*
 * The notes of the process, to stand within the first thread's: NT_PRPSINFO, NT_AUXV (`auxv` as in
 * /proc/PID/auxv) and NT_FILE of what is mapped from files that can be looked up later. ERR_LIMIT,
 * ERR_NOMEM.
 */
int core_process_notes(struct buf *out, const struct core_process *process, struct span auxv,
                       const struct maps *maps);
/* Appends the notes of one thread; `process`: those of the process, for the first thread, else
 * empty. ERR_LIMIT, ERR_NOMEM. */
int core_thread_notes(struct buf *out, const struct core_thread *thread, struct span process);
/* How many bytes that is. */
uint64_t core_thread_notes_bytes(const struct core_thread *thread, struct span process);

/* Where things lie. More than 65,534 program headers are counted in a section header (PN_XNUM). */
struct core_layout {
    uint64_t segments, notes_bytes;
    bool extended;
    uint64_t headers_offset, notes_offset, data_offset;
    uint64_t next_offset; /* of the next filled segment; core_put_segment() moves it */
};
void core_layout_init(struct core_layout *layout, uint64_t segments, uint64_t notes_bytes);
/* File header, the section header where needed, and the program header of the notes. */
int core_put_headers(const struct core_layout *layout, struct buf *out);
/* The program header of the next segment. */
void core_put_segment(struct core_layout *layout, const struct map *map, uint64_t start,
                      uint64_t end, bool filled, Elf64_Phdr *out);

#endif
