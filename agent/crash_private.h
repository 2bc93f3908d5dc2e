/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the crash handler share. Private to crash_handler.c, crash_evidence.c
 * and crash_wants.c. */
#ifndef TRAWL_AGENT_CRASH_PRIVATE_H
#define TRAWL_AGENT_CRASH_PRIVATE_H

#include "agent/crash_config.h"
#include "agent/crash_spool.h"
#include "agent/os/crash.h"
#include "common/zip.h"

/* One crash. */
struct crash_job {
    struct os_crash_arguments arguments;
    struct crash_config config;
    struct crash_spool spool;
    int marker;            /* -1: none could be made */
    int kernel;            /* the kernel's log; -1: none */
    int core_fd;           /* -1: closed */
    trawl_v1_Wants *wants; /* that may mean this crash; NULL: none */
    bool may_want_core;
    bool want_core, want_whole; /* decided */
    bool lacks_room;            /* for evidence */
    bool by_socket;             /* the kernel waits for an answer on core_fd */
    struct os_crash *crash;
    struct os_exception *exception;
};

/* What is wanted that may mean this crash, as far as arguments tell. */
void crash_wants_read(struct crash_job *job);
/* Which of it does, once job->crash is there: sets want_core and want_whole, and notes that it is
 * given. Without with_memory nobody gets a core. */
void crash_wants_decide(struct crash_job *job, bool with_memory);

/* The whole core as it comes out of the pipe, packed into ID.full.zst. */
struct crash_core {
    struct crash_job *job;
    struct zip_stream *zip;
    int fd;
    uint64_t plain_bytes, checked_bytes, packed_bytes;
    int rc;
};
int crash_core_open(struct crash_core *core, struct crash_job *job);
/* After an error it takes nothing more, and crash_core_close() says so. */
void crash_core_feed(struct crash_core *core, struct span bytes);
/* True: it is whole. Else the file is gone and job->exception->missing says why. */
bool crash_core_close(struct crash_core *core);

/* In a child of its own with a deadline: evidence files, and frames into job->exception. Its death
 * costs only the frames. */
void crash_describe(struct crash_job *job);
void crash_note(struct os_exception *exception, const char *text);

#endif
