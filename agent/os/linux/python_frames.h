/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Python functions a process runs (CPython 3.8 to 3.12): the interpreter's own chains of
 * frames, followed in its memory without its help. Invariant: nothing that is read is trusted: each
 * structure must point back to where it was found from, each object be of the type that it should
 * be, each chain has a limit. Under a pause only chains are copied (no allocation, no file);
 * function names and lines are read after it, from objects that live long, and are left out when
 * they do not look right. Called by stacks.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PYTHON_FRAMES_H
#define TRAWL_AGENT_OS_LINUX_PYTHON_FRAMES_H

#include "agent/os/linux/unwind.h"

#define PYTHON_FRAMES_MAX 256 /* of a thread; the outermost ones are left out */
#define PYTHON_THREADS_MAX 256
#define PYTHON_COPY_US 5000 /* given to the copy of all chains under a pause, at most */

/* Memory of the process: `size_bytes` from `address` on, or false. */
typedef bool (*python_read_fn)(void *context, uint64_t address, void *out, size_t size_bytes);

/* One frame as copied. */
struct python_frame {
    uint64_t code;        /* address of the code object */
    uint32_t instruction; /* bytes into its code; UINT32_MAX: not known */
    bool entry;           /* the last one that its call of the native interpreter function runs */
};

/* A thread as the interpreter has it. */
struct python_thread {
    uint64_t state;  /* address of its PyThreadState */
    uint64_t ident;  /* pthread_self() */
    uint64_t native; /* its tid, as in its own pid namespace; 0: not known */
    size_t first, count;
    bool cut; /* there are more frames, or they could not be read */
};

struct python {
    int minor; /* 3.`minor` */
    uint64_t runtime, code_type, text_type, bytes_type;
    uint64_t eval_start, eval_end; /* the native function that runs Python code */
    python_read_fn read;
    void *context;
    pid_t pid;           /* of the process that is read by itself */
    const char *missing; /* why frames cannot be told; NULL: they can */
    struct python_thread *threads;
    size_t thread_count, thread_capacity;
    struct python_frame *frames;
    size_t frame_count, frame_capacity;
};

/*
 * Looks among the modules for an interpreter. *out is NULL when there is none; `missing` is set in
 * it when there is one that is not known. Reads files, does not touch the process. ERR_NOMEM.
 */
int python_open(struct python **out, struct unwind *unwind, pid_t pid, size_t threads,
                struct failure *f);
/* The same of a copy: memory is read by `read`; *context is borrowed. */
int python_open_copy(struct python **out, struct unwind *unwind, python_read_fn read, void *context,
                     size_t threads, struct failure *f);
void python_close(struct python *python);

/* Finds the threads; then, for each, its frames. The first is for a process that runs, both are for
 * one that is held. Neither allocates. `until_us`: CLOCK_MONOTONIC, when to give up. */
void python_list(struct python *python);
void python_copy_all(struct python *python, uint64_t until_us);
/* Copies the frames of one thread; what was copied of it before is dropped. */
void python_copy(struct python *python, struct python_thread *thread);
/* By pthread_self() (the thread's fs_base), or by tid in its own namespace. NULL: unknown. */
struct python_thread *python_find(struct python *python, uint64_t ident, uint64_t native);

/* Function, file and line of a frame. Texts are put into the caller's memory; false: the objects
 * were not what they should be. */
#define PYTHON_NAME_SIZE 256
struct python_name {
    char function[PYTHON_NAME_SIZE];
    char file[PYTHON_NAME_SIZE];
    int line; /* 0: not known */
};
bool python_name(const struct python *python, uint64_t code, uint32_t instruction,
                 struct python_name *out);

/* The line of an instruction. Pure; in python_lines.c. `table`: co_linetable, co_lnotab before
 * 3.10. 0: not there. */
int python_line(int minor, struct span table, int first_line, uint32_t instruction);

#endif
