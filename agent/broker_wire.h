/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What passes between the agent and its broker: fixed-size structs, one per message, over a socket
 * pair on one machine between two halves of one program. Invariant: no field of a request is a
 * length or a pointer that the broker follows; every text is terminated before use. Shared by
 * broker.c, worker.c and broker_client.c.
 */
#ifndef TRAWL_AGENT_BROKER_WIRE_H
#define TRAWL_AGENT_BROKER_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/counters.h"
#include "agent/os/log_follow.h"
#include "agent/os/process.h"
#include "agent/os/take.h"
#include "agent/os/watch.h"
#include "common/err.h"
#include "common/patch.h"

#define BROKER_MAGIC 0x54524B31u
#define BROKER_PROCESSES_MAX 16
#define BROKER_IO_MAX 32
#define BROKER_PEEK_MAX 16
#define BROKER_KIND_SIZE 16
#define BROKER_DEADLINE_MIN_US UINT64_C(100000)
#define BROKER_DEADLINE_MAX_US UINT64_C(1800000000)

enum broker_op {
    BROKER_RESOLVE = 1, /* which processes match */
    BROKER_RUN,      /* take one kind of one process; bytes go to the descriptor that comes along */
    BROKER_STOP,     /* kill the worker that runs */
    BROKER_READ_IO,  /* I/O counters of processes */
    BROKER_USAGE,    /* what the broker itself costs */
    BROKER_BASE,     /* the descriptor that comes along is the page list for the next run */
    BROKER_OPEN_LOG, /* a descriptor comes with the reply */
    BROKER_WATCH,    /* look at a process for as long as it lives (watch.h); body as of RUN */
    BROKER_PEEK,     /* what threads wait in */
    BROKER_CRASH_REMOVE /* take out the crash handler that the agent's setting put there */
};

struct broker_selector {
    char name[64];
    char unit[128];
    char container[80];
    char command[128];
    uint32_t pid;
    uint32_t port;
};

struct broker_run {
    char kind[BROKER_KIND_SIZE];
    uint64_t order;
    uint32_t pid;
    uint32_t pause_max_us;
    uint64_t start_ticks;
    uint64_t exe_device, exe_inode; /* both 0: was not seen */
    uint64_t deadline_us;           /* from now */
    int64_t from_us, to_us;         /* window, host wall time */
    uint64_t for_us;                /* look this long */
    uint64_t at_mono_us;            /* begin at this instant; 0: at once */
    bool live, allow_pause;         /* see struct os_take */
};

enum broker_log_what {
    BROKER_LOG_LISTED =
        1, /* the index-th of the setting follow-logs; index 0 makes the list anew */
    BROKER_LOG_OF_PROCESS, /* the index-th that the process has open */
    BROKER_LOG_JOURNAL     /* all that comes, behind `cursor` */
};

struct broker_open_log {
    uint32_t what, index, pid;
    uint64_t start_ticks;
    struct os_log known; /* of the one there last time: it is not opened again */
    char cursor[OS_JOURNAL_CURSOR_SIZE];
};

/* The descriptor comes along, but when it is the known one. */
struct broker_log {
    struct os_log log; /* the path also when it could not be opened */
    char process[OS_PROCESS_NAME_SIZE];
    bool cut; /* the setting names more than can be followed */
};

struct broker_request {
    uint32_t magic;
    uint32_t op;
    uint64_t id; /* comes back in the reply */
    union {
        struct broker_selector resolve;
        struct broker_run run;
        struct {
            uint32_t count;
            uint32_t pids[BROKER_IO_MAX];
        } io;
        struct {
            uint32_t count;
            uint32_t pids[BROKER_PEEK_MAX];
            uint32_t tids[BROKER_PEEK_MAX]; /* 0: the main thread */
            bool ports;                     /* those they listen on, too */
        } peek;
        struct broker_open_log log;
    } body;
};

struct broker_found {
    uint32_t count;   /* in `list` */
    uint32_t matched; /* altogether */
    struct os_process list[BROKER_PROCESSES_MAX];
};

/* Written by the worker, passed on by the broker. */
struct broker_result {
    uint64_t began_mono_us;
    uint64_t plain_bytes; /* of the file that was packed; 0: none was */
    struct os_result taken;
};

/*
 * What passes through the pipe from the worker to the agent: chunks, each a head and then `size`
 * bytes. A FILE chunk holds a struct broker_file; the DATA chunks behind it are its bytes.
 */
#define BROKER_CHUNK_MAX 65536
#define BROKER_FILES_MAX 8 /* of one run */

enum broker_chunk_type { BROKER_CHUNK_FILE = 1, BROKER_CHUNK_DATA };

struct broker_chunk {
    uint32_t magic, type, size;
};

#define BROKER_ZSTD "zstd"
#define BROKER_ZSTD_DELTA PATCH_ENCODING /* against the base */
#define BROKER_PAGES "pages"             /* not evidence: the page list of the core before it */

struct broker_file {
    char ending[16];   /* "txt" */
    char encoding[16]; /* "": as it is; or one of those above */
};

struct broker_usage {
    uint64_t cpu_us, private_bytes, resident_bytes;
};

struct broker_reply {
    uint32_t magic;
    uint32_t op;
    uint64_t id;
    int32_t error; /* enum err */
    char text[FAILURE_TEXT_SIZE];
    union {
        struct broker_found found;
        struct broker_result result;
        struct {
            uint32_t count;
            struct os_process_io list[BROKER_IO_MAX];
        } io;
        struct broker_usage usage;
        struct {
            uint32_t count;
            struct os_peek list[BROKER_PEEK_MAX];
        } peek;
        struct broker_log log;
    } body;
};

#endif
