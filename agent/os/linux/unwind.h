/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From copied registers and stacks to frames with names, without the process. The files that it
 * runs are opened before it is held (unwind_open(), which parses nothing), so that its end, its
 * container or a deleted file do not matter afterwards; ELF and DWARF are parsed by libdw after it
 * was released. Worker only: what is parsed is the process's own, and may be made to crash us.
 * Called by stacks.
 */
#ifndef TRAWL_AGENT_OS_LINUX_UNWIND_H
#define TRAWL_AGENT_OS_LINUX_UNWIND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "agent/os/linux/maps.h"
#include "common/err.h"

#define UNWIND_FRAMES_MAX 256
#define UNWIND_MODULES_MAX 512
#define UNWIND_BUILD_ID_SIZE 32 /* longer ones are cut */
#define UNWIND_NAME_SIZE 96

/* A file of which code is mapped, or the vdso. */
struct unwind_module {
    uint64_t start, end;         /* from its first mapping to its last */
    char path[512];              /* as the process sees it */
    char name[UNWIND_NAME_SIZE]; /* base name, without " (deleted)" */
    int fd;                      /* -1: see `missing` */
    const char *missing;         /* why it could not be opened or read; NULL: it could */
    uint8_t *image;              /* the vdso's copy */
    size_t image_bytes;
    uint8_t build_id[UNWIND_BUILD_ID_SIZE];
    size_t build_id_bytes; /* 0: has none; known after unwind_start() */
    uint64_t bias; /* address in memory less address in the file; known after unwind_start() */
};

/* One thread, as it was copied. */
struct unwind_thread {
    pid_t tid;
    const struct user_regs_struct *regs;
    bool few_registers; /* only rip and rsp are known; what needs another ends the walk */
    const uint8_t *stack;
    uint64_t stack_start;
    size_t stack_bytes;
    const uint8_t *second; /* the stack that a signal came on, when its handler has its own */
    uint64_t second_start;
    size_t second_bytes;
};

/*
 * A frame's place. `exact`: the instruction itself; else a return address, one behind the call.
 * Of a Python function `pc` is its code object and `instruction` how far it is.
 */
struct unwind_place {
    uint64_t pc;
    uint32_t instruction;
    bool exact;
    bool python;
    bool signal;           /* where a signal handler returns to: the frame the kernel made */
    bool by_frame_pointer; /* found by the frame pointer of the frame before it, not by rules */
    bool by_call_site;     /* found by who calls the frame before it: rbp was not known there */
};

enum unwind_kind {
    UNWIND_NATIVE, /* code of a file */
    UNWIND_JIT,    /* code made at run time */
    UNWIND_PYTHON, /* a function that an interpreter runs */
};

/*
 * What is known of a place. Texts are the unwinder's, valid until unwind_close(). A symbol's
 * version ("@@V") may stand behind its name.
 */
struct unwind_frame {
    const struct unwind_module *module; /* NULL: in no file */
    uint64_t offset;                    /* address in the module's file, as addr2line(1) takes it */
    const char *function;               /* NULL: unknown */
    uint64_t function_offset;           /* of the symbol; 0 when inlined */
    bool inlined;                       /* its code stands in the function of the next frame */
    const char *file;                   /* NULL: no debug information here */
    int line;
    enum unwind_kind kind;
};

struct unwind;

/* Opens the files in `maps`. Needs the process alive, does not touch it. ERR_NOMEM. */
int unwind_open(struct unwind **out, pid_t pid, const struct maps *maps, struct failure *f);
void unwind_close(struct unwind *unwind);
size_t unwind_modules(const struct unwind *unwind, const struct unwind_module **out);
/* Files that were left closed because there were more than UNWIND_MODULES_MAX. */
size_t unwind_modules_left(const struct unwind *unwind);

/* Starts the parsing, after the process was released. ERR_UNSUPPORTED: libdw cannot work with these
 * files. */
int unwind_start(struct unwind *unwind, struct failure *f);

/* Without source lines and inlined functions: for those who need little memory. Default: with. */
void unwind_set_lines(struct unwind *unwind, bool lines);

/*
 * Fills at most `max` places (> 0), innermost first. *why is NULL when the outermost frame was
 * reached, else a constant text that says why not. At least one frame is given.
 */
size_t unwind_walk(struct unwind *unwind, const struct unwind_thread *thread,
                   struct unwind_place *places, size_t max, const char **why);

/*
 * Looks up the names of code made at run time (perf_map.h) for these places, in any order; others
 * are passed over. unwind_name() then knows them. ERR_NOMEM; ERR_LIMIT: too many.
 */
int unwind_learn(struct unwind *unwind, const struct unwind_place *places, size_t count,
                 struct failure *f);
/* Whether the process has such a list; whether it was longer than what is read of it. */
bool unwind_has_names(const struct unwind *unwind);
bool unwind_names_cut(const struct unwind *unwind);

/*
 * The address in memory of a symbol of a module, *size_bytes of it behind; for the tables of an
 * interpreter. Reads the file: may be called before unwind_start(). ERR_NOTFOUND.
 */
int unwind_symbol(struct unwind *unwind, const struct unwind_module *module, const char *name,
                  uint64_t *address, uint64_t *size_bytes);

/*
 * Names a place: at most `max` frames (>= 1), the innermost inlined function first, the function
 * that has the code last. Debug information is no longer looked at once that took UNWIND_LINES_US
 * in all.
 */
#define UNWIND_LINES_US 2000000
#define UNWIND_INLINED_MAX 16
size_t unwind_name(struct unwind *unwind, struct unwind_place place, struct unwind_frame *out,
                   size_t max);
bool unwind_lines_cut(const struct unwind *unwind);

#endif
