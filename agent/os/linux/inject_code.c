/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process must have for a call to be injected: code to run, and a thread on a stack that may
 * be written. Invariant: code comes from files that are mapped read-only, never from what a program
 * has made at run time; a stack is fit only if it is certainly the thread's own. Called by
 * snapshot.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/os/linux/inject.h"

#define PIECE_BYTES (256u << 10)
#define OVERLAP_BYTES 16
#define SEARCH_BYTES_MAX (256u << 20)
#define SYSCALL_DISPATCH_CONFIG 0x4211 /* PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4 */
#define RSEQ_CONFIG 0x420f             /* PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13 */
#define SYSCALL_INFO 0x420e            /* PTRACE_GET_SYSCALL_INFO, Linux 5.3 */
#define RSEQ_CS_OFFSET 8               /* struct rseq: cpu_id_start, cpu_id, rseq_cs */

static const uint8_t gadget_code[] = {0x0f, 0x05, 0xc3};
/* mov $15,%rax or mov $15,%eax; syscall */
static const uint8_t restorer_long[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
static const uint8_t restorer_short[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05};

/* pop %rax; ret */
static const uint8_t pop_code[] = {0x58, 0xc3};

/* ---- code ---- */

static uint64_t find_bytes(const uint8_t *data, size_t size, uint64_t address,
                           const uint8_t *wanted, size_t wanted_size)
{
    const uint8_t *at = memmem(data, size, wanted, wanted_size);
    return at ? address + (uint64_t)(at - data) : 0;
}

static void look_at_piece(struct signal_frame_code *code, const uint8_t *data, size_t size,
                          uint64_t address)
{
    if (!code->gadget)
        code->gadget = find_bytes(data, size, address, gadget_code, sizeof gadget_code);
    if (!code->restorer)
        code->restorer = find_bytes(data, size, address, restorer_long, sizeof restorer_long);
    if (!code->restorer)
        code->restorer = find_bytes(data, size, address, restorer_short, sizeof restorer_short);
    if (!code->pop)
        code->pop = find_bytes(data, size, address, pop_code, sizeof pop_code);
}

/* A static program that handles no signals may have no restorer. */
static bool is_enough(const struct signal_frame_code *code)
{
    return code->gadget && (code->restorer || code->pop);
}

static bool is_found(const struct signal_frame_code *code)
{
    return code->gadget && code->restorer;
}

/* Pieces overlap, so that code on a border is found. */
static void look_at_map(struct signal_frame_code *code, int mem, const struct map *map,
                        uint8_t *piece, uint64_t *budget)
{
    for (uint64_t at = map->start; at < map->end && !is_found(code) && *budget > 0;) {
        size_t size = map->end - at < PIECE_BYTES ? (size_t)(map->end - at) : PIECE_BYTES;
        ssize_t got = pread(mem, piece, size, (off_t)at);
        if (got <= OVERLAP_BYTES)
            return;
        look_at_piece(code, piece, (size_t)got, at);
        *budget = *budget > (uint64_t)got ? *budget - (uint64_t)got : 0;
        at += (uint64_t)got - ((uint64_t)got < map->end - at ? OVERLAP_BYTES : 0);
    }
}

/* Read-only code of a file, or the kernel's own. In what order: 0 first; -1 never. */
static int rank_of(const struct maps *maps, const struct map *map)
{
    const char *path = maps_path(maps, map);
    const char *name = strrchr(path, '/');
    if (!map->readable || !map->executable || map->writable)
        return -1;
    if (strcmp(path, "[vdso]") == 0)
        return 1;
    if (!name || map->inode == 0 || map->shared)
        return -1;
    if (strncmp(name, "/libc.", 6) == 0 || strncmp(name, "/libc-", 6) == 0 ||
        strncmp(name, "/ld-musl", 8) == 0)
        return 0;
    return 2;
}

static void search(struct inject *inject, int mem, uint8_t *piece)
{
    uint64_t budget = SEARCH_BYTES_MAX;
    for (int rank = 0; rank <= 2; rank++) {
        for (size_t i = 0; i < inject->maps->count && !is_found(&inject->code); i++) {
            const struct map *map = &inject->maps->list[i];
            if (rank_of(inject->maps, map) == rank)
                look_at_map(&inject->code, mem, map, piece, &budget);
        }
    }
}

static int open_memory(pid_t pid, int *mem, struct failure *f)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    *mem = open(path, O_RDONLY | O_CLOEXEC);
    if (*mem >= 0)
        return 0;
    int error = errno;
    return fail_errno(f, error == ENOENT || error == ESRCH ? ERR_GONE : err_from_errno(error),
                      error, "cannot open '%s'", path);
}

int inject_find_code(struct inject *inject, pid_t pid, const struct maps *maps, struct failure *f)
{
    int mem;
    inject->pid = pid;
    inject->maps = maps;
    inject->code = (struct signal_frame_code){0, 0, 0};
    xstate_layout_get(&inject->layout);
    int rc = open_memory(pid, &mem, f);
    if (rc)
        return rc;
    uint8_t *piece = malloc(PIECE_BYTES);
    if (piece)
        search(inject, mem, piece);
    free(piece);
    close(mem);
    if (!piece)
        return fail(f, ERR_NOMEM, "no memory for %u bytes of code", PIECE_BYTES);
    if (!is_enough(&inject->code))
        return fail(f, ERR_REFUSED,
                    "no snapshot is possible: the process has no code that makes a system call and "
                    "returns; --live takes a core without a snapshot");
    return 0;
}

/* ---- stacks ---- */

/* The memory right below cannot be reached: what runs into it was this stack and no other. */
static bool has_guard(const struct maps *maps, const struct map *map)
{
    if (map == maps->list)
        return false;
    const struct map *below = map - 1;
    return below->end == map->start && !below->readable && !below->writable && !below->executable;
}

/* The thread's descriptor lies at the top of the stack that the C library gave it; coroutines and
 * Go's goroutines stand elsewhere. */
static bool is_own_stack(const struct maps *maps, const struct map *map,
                         const struct user_regs_struct *regs)
{
    if (!map->readable || !map->writable || map->shared)
        return false;
    const char *path = maps_path(maps, map);
    if (strcmp(path, "[stack]") == 0)
        return true;
    bool anonymous = map->inode == 0 && (path[0] == '\0' || strncmp(path, "[anon", 5) == 0 ||
                                         strncmp(path, "[stack", 6) == 0);
    return anonymous && regs->fs_base > regs->rsp && regs->fs_base < map->end &&
           has_guard(maps, map);
}

/* A restartable sequence must not be left and entered again (rseq(2); where the kernel does not
 * tell, any code may be one, but none that is in a system call); calls from elsewhere may be turned
 * into signals (prctl(2), PR_SET_SYSCALL_USER_DISPATCH; kernels that do not tell are about as old
 * as the feature). */
static bool is_free_of_tricks(const struct inject *inject, pid_t tid, bool user)
{
    struct {
        uint64_t mode, selector, offset, length;
    } dispatch = {0, 0, 0, 0};
    struct {
        uint64_t pointer;
        uint32_t size, signature, flags, padding;
    } rseq = {0, 0, 0, 0, 0};
    if (ptrace(SYSCALL_DISPATCH_CONFIG, tid, sizeof dispatch, &dispatch) == 0 && dispatch.mode != 0)
        return false;
    if (!user)
        return true;
    if (ptrace(RSEQ_CONFIG, tid, sizeof rseq, &rseq) < 0)
        return false;
    if (rseq.pointer == 0)
        return true;
    uint64_t section = 1;
    struct iovec local = {&section, sizeof section};
    struct iovec remote = {(void *)(uintptr_t)(rseq.pointer + RSEQ_CS_OFFSET), sizeof section};
    return process_vm_readv(inject->pid, &local, 1, &remote, 1, 0) == (ssize_t)sizeof section &&
           section == 0;
}

/* Before Linux 5.1, PTRACE_GETSIGMASK tells the mask of the call, not the one to go back to. */
static bool is_mask_told(pid_t tid, const struct user_regs_struct *regs)
{
    static const uint16_t calls[] = {
        SYS_rt_sigsuspend,        SYS_pselect6, SYS_ppoll, SYS_epoll_pwait, 333 /* io_pgetevents */,
        426 /* io_uring_enter */, 441 /* epoll_pwait2 */};
    uint64_t info[16];
    bool swaps = false;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        swaps |= regs->orig_rax == calls[i];
    return !swaps || ptrace(SYSCALL_INFO, tid, sizeof info, info) > 0;
}

unsigned inject_fitness(struct inject *inject, pid_t tid, const struct user_regs_struct *regs,
                        const char **why)
{
    const struct map *map = maps_find(inject->maps, regs->rsp);
    enum signal_frame_stand stand = signal_frame_stands(regs);
    if (inject->controls.only && tid != inject->controls.only) {
        *why = "no other thread is asked for";
        return 0;
    }
    if (!map || !is_own_stack(inject->maps, map, regs)) {
        *why = "no thread stands on a stack of its own";
        return 0;
    }
    if (regs->rsp - map->start < signal_frames_room(&inject->layout)) {
        *why = "no thread has enough room on its stack";
        return 0;
    }
    if (!is_free_of_tricks(inject, tid, stand == STAND_USER)) {
        *why = "its threads are in a restartable sequence, or have their system calls dispatched";
        return 0;
    }
    if (!is_mask_told(tid, regs)) {
        *why = "the kernel does not tell the signal mask of its threads";
        return 0;
    }
    return stand == STAND_BLOCKED ? 3 : stand == STAND_RESUMES ? 2 : 1;
}
