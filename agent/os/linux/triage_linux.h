/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to triage*.c: all that is known of one process, and the sections that are written of it.
 * Invariant: everything is read before anything is written; every array has a limit, and what went
 * over it, or could not be read, stands in the result's missing with the reason.
 */
#ifndef TRAWL_AGENT_OS_LINUX_TRIAGE_LINUX_H
#define TRAWL_AGENT_OS_LINUX_TRIAGE_LINUX_H

#include "agent/os/linux/json_text.h"
#include "agent/os/linux/net_sockets.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/triage_holders.h"
#include "agent/os/take.h"

#define TRIAGE_THREADS_MAX 8192
#define TRIAGE_GROUPS_MAX 256
#define TRIAGE_FDS_MAX 20000   /* whose targets are looked at */
#define TRIAGE_FILES_SHOWN 500 /* of which more is said */
#define TRIAGE_WAITED_MAX 256  /* and these, which threads wait for */
#define TRIAGE_TARGET_SIZE 192
#define TRIAGE_TEXT_SIZE 320
#define TRIAGE_CALL_SIZE 200
#define TRIAGE_WCHAN_SIZE 48
#define TRIAGE_SUMMARY_LINES 16
#define TRIAGE_SUMMARY_SIZE 640
#define TRIAGE_TYPES_MAX 24
#define TRIAGE_TCP_STATES 13
#define TRIAGE_LOCKS_MAX 256
#define TRIAGE_CGROUP_ROWS 32
#define TRIAGE_LIMITS 8
#define TRIAGE_NO_LIMIT UINT64_MAX

/* ---- system calls: triage_syscall.c ---- */

struct triage_call {
    enum { CALL_UNKNOWN, CALL_RUNNING, CALL_NONE, CALL_MADE } how;
    bool narrow; /* of a 32-bit program, which has numbers of its own */
    uint64_t number;
    uint64_t arguments[6];
};

/* How a system call's arguments are looked up. */
struct triage_eyes {
    /* What a file number stands for. */
    bool (*target_of)(void *context, uint64_t fd, char *out, size_t size_bytes);
    /* Bytes of the process's memory; 0 or a negative error. */
    int (*read_memory)(void *context, uint64_t address, void *out, size_t size_bytes);
    void *context;
};

/* The text of /proc/PID/task/TID/syscall (proc(5)). Pure. ERR_CORRUPT. */
int triage_parse_call(struct span text, struct triage_call *out);
/* In words: "futex(0x7f12, wait)", "read(5 -> pipe:[77], 4096 B)", "running". */
int triage_describe_call(const struct triage_call *call, const struct triage_eyes *eyes, char *out,
                         size_t size_bytes);
/* The file that the call is about; -1: none, or several. `*writes`: it gives instead of taking. */
int64_t triage_call_file(const struct triage_call *call, const struct triage_eyes *eyes,
                         bool *writes);
enum triage_call_kind { CALL_IS_OTHER, CALL_IS_FUTEX, CALL_IS_WAIT, CALL_IS_VFORK, CALL_IS_LOCK };
enum triage_call_kind triage_call_kind(const struct triage_call *call);

/* ---- futexes: triage_futex.c ---- */

enum triage_futex {
    FUTEX_UNKNOWN,   /* a condition, a semaphore or the like */
    FUTEX_LOCK,      /* a lock; who holds it is not recorded */
    FUTEX_HELD,      /* the kernel's own protocol names the holder (futex(2): PI, robust) */
    FUTEX_MUTEX,     /* the holder, if this is a pthread_mutex_t */
    FUTEX_RWLOCK,    /* the writer that holds it, if this is a pthread_rwlock_t */
    FUTEX_THREAD_END /* pthread_join(3) */
};
#define TRIAGE_FUTEX_WORDS 5
/*
 * What a thread waits for in futex(2) and which thread could end that, from the words at the
 * futex's address. `exists` says whether a number is a living thread (`shared`: also of another
 * process). Pure.
 */
enum triage_futex triage_judge_futex(uint64_t operation, uint32_t expected, const uint32_t *words,
                                     size_t count,
                                     bool (*exists)(void *context, uint32_t tid, bool shared),
                                     void *context, uint32_t *holder);

/* ---- threads ---- */

enum triage_wait_kind {
    WAIT_NOTHING,
    WAIT_CONDITION,
    WAIT_LOCK,       /* nobody known to hold it */
    WAIT_HOLDER,     /* held by `thread` */
    WAIT_THREAD_END, /* of `thread` */
    WAIT_FILE,       /* `fd` */
    WAIT_FILE_LOCK,
    WAIT_CHILD,
    WAIT_VFORK
};

struct triage_wait {
    enum triage_wait_kind kind;
    enum triage_futex futex;
    uint64_t address;
    uint32_t thread;
    uint32_t fd;
    bool writes;
};

struct triage_thread {
    uint32_t tid;
    char state;
    char name[PROC_COMM_CUT + 1];
    char wchan[TRIAGE_WCHAN_SIZE];
    struct triage_call call;
    char call_text[TRIAGE_CALL_SIZE];
    struct triage_wait wait;
    uint64_t ticks;
    int32_t holder; /* index of the thread that it waits for; -1 */
    uint8_t mark;   /* of the search for cycles */
};

#define TRIAGE_TIDS_SHOWN 6
#define TRIAGE_STACK_SIZE 400
struct triage_group {
    size_t first; /* index of its first thread */
    uint32_t count;
    uint32_t tids[TRIAGE_TIDS_SHOWN];
    uint32_t names; /* different ones among its threads, about */
    uint64_t ticks;
    char stack[TRIAGE_STACK_SIZE]; /* the kernel's, of the first; "" not readable */
};

/* A lock of a thread's memory for which others wait. */
struct triage_held_lock {
    uint64_t address;
    int32_t holder; /* index, or -1 */
    struct triage_wait wait;
    uint32_t waiters;
};

/* ---- files ---- */

struct triage_fd {
    uint32_t fd;
    struct held held;
};

struct triage_file {
    uint32_t fd;
    struct held held;
    char target[TRIAGE_TARGET_SIZE];
    char text[TRIAGE_TEXT_SIZE];          /* a socket's addresses and queues; "" for others */
    char details[TRIAGE_TEXT_SIZE];       /* from fdinfo */
    char other_end[HOLDERS_TEXT_SIZE];    /* who holds it */
    char other_writer[HOLDERS_TEXT_SIZE]; /* of a pipe: its write end */
    bool has_inode;
    uint64_t file_inode;
};

struct triage_type {
    char name[40];
    uint32_t count;
};

/* ---- locks of files: triage_lock.c ---- */

struct triage_file_lock { /* one line of /proc/locks (proc_locks(5)) */
    uint64_t id;
    bool waits;
    char class[12]; /* FLOCK POSIX OFDLCK LEASE */
    char mode[8];   /* READ WRITE */
    int64_t pid;    /* -1: not recorded */
    uint64_t inode;
    char range[48];
};
int triage_parse_lock(struct span line, struct triage_file_lock *out);

struct triage_lock_pair {
    struct triage_file_lock held;
    bool has_waiter;
    struct triage_file_lock waiter;
};

/* ---- the rest ---- */

struct triage_limit {
    const char *name;
    uint64_t soft, hard; /* TRIAGE_NO_LIMIT */
    bool has_used;
    uint64_t used;
    char unit[12];
};

struct triage_row {
    const char *controller; /* v1; "" for v2 */
    const char *name;
    char text[200];
};

#define TRIAGE_HEAD_ROWS 40
struct triage_head_row {
    const char *label; /* for people */
    const char *key;   /* for programs */
    char text[TRIAGE_TEXT_SIZE * 2];
};

struct triage {
    const char *root;
    const struct os_process *process;
    struct os_result *result;
    struct proc_stat stat;
    char status_data[PROC_TEXT_SIZE];
    struct span status;
    struct triage_eyes eyes;
    bool memory_denied;

    struct triage_head_row head[TRIAGE_HEAD_ROWS];
    size_t head_count;

    struct triage_thread *threads; /* by rising tid */
    size_t thread_count;
    uint32_t threads_ended;
    struct triage_group groups[TRIAGE_GROUPS_MAX];
    size_t group_count;
    uint32_t group_over; /* threads in groups that had no room */
    struct triage_held_lock locks[TRIAGE_LOCKS_MAX];
    size_t lock_count;

    uint32_t waited[TRIAGE_WAITED_MAX]; /* files that threads wait for, rising */
    size_t waited_count;
    struct triage_fd *fds;
    size_t fd_count, fd_total;
    bool fds_known; /* else they may not be seen */
    struct triage_file *files;
    size_t file_count;
    struct triage_type types[TRIAGE_TYPES_MAX];
    size_t type_count;
    struct net_sockets sockets;
    uint32_t tcp_states[TRIAGE_TCP_STATES], udp_sockets, unix_sockets, other_sockets;
    char worst_socket[TRIAGE_TEXT_SIZE];
    struct holders holders;

    struct triage_lock_pair file_locks[TRIAGE_LOCKS_MAX];
    size_t file_lock_count;

    struct triage_limit limits[TRIAGE_LIMITS];
    size_t limit_count;
    struct triage_row rows[TRIAGE_CGROUP_ROWS];
    size_t row_count;

    char summary[TRIAGE_SUMMARY_LINES][TRIAGE_SUMMARY_SIZE];
    size_t summary_count;

    struct buf *out;
    int rc; /* the first error of writing */
};

/* Appends; nothing after the first error. */
void triage_put(struct triage *t, const char *format, ...) TRAWL_PRINTF(2, 3);
/* Appends text of the process's own making, safe for a terminal. */
void triage_put_safe(struct triage *t, struct span text);
void triage_put_str(struct triage *t, const char *text);
/* Reads "/proc/PID/LEAF" into the caller's memory; a failure is noted as missing. */
int triage_read(struct triage *t, const char *leaf, void *data, size_t size_bytes,
                struct span *out);
/* Notes what could not be read, with the reason alone of a failure that names a path. */
void triage_miss(struct triage *t, const char *what, const struct failure *f);
/* "sleeping" for S, ... */
const char *triage_state(char state);
/* Appends to a text of a fixed size; cut when full. */
void triage_add(char *out, size_t size_bytes, const char *format, ...) TRAWL_PRINTF(3, 4);

/* What is read, in this order. */
void triage_read_head(struct triage *t);
void triage_read_threads(struct triage *t);
void triage_read_files(struct triage *t);
void triage_read_file_locks(struct triage *t);
void triage_read_limits(struct triage *t);
void triage_read_cgroup(struct triage *t);
/* From what was read: who is at the other end, who waits for whom, groups, the first lines. */
void triage_find_others(struct triage *t);
void triage_find_waits(struct triage *t);
void triage_find_groups(struct triage *t);
void triage_summarise(struct triage *t);

/* What a thread waits for, with who could end that; "" when nothing is known. */
void triage_wait_text(const struct triage *t, const struct triage_thread *thread, char *out,
                      size_t size_bytes);
/* " (if this is a pthread mutex)" or "". */
const char *triage_hedge(enum triage_futex futex);
/*
 * The next cycle of threads that wait for each other, from thread *from on (0 at first; moved on).
 * Returns how many threads are in it (the first `members_max` indexes in `members`); 0: none.
 */
size_t triage_find_cycle(struct triage *t, size_t *from, size_t *members, size_t members_max);
const struct triage_thread *triage_find_thread(const struct triage *t, uint32_t tid);
const struct triage_file *triage_find_file(const struct triage *t, uint32_t fd);
/* The text of /proc/PID/task/TID/stack: "futex_wait < do_futex < ...". Pure. */
void triage_kernel_stack(struct span text, char *out, size_t size_bytes);
/* The text of /proc/PID/fdinfo/FD in words. Pure. */
void triage_describe_fdinfo(struct span text, const char *target, char *out, size_t size_bytes);
/* Names of the signals in a set of proc(5)'s status: " INT TERM 34". Pure. */
void triage_put_signals(uint64_t set, char *out, size_t size_bytes);
/* The names of capabilities(7) in a set: "chown, kill", "all". Pure. */
void triage_put_capabilities(uint64_t set, char *out, size_t size_bytes);

void triage_write_text(struct triage *t, struct buf *out);
void triage_write_json(struct triage *t, struct buf *out);

/* With a root, for tests: "" or a recorded tree. */
int triage_capture(const char *root, const struct os_process *process, const struct os_output *out,
                   struct os_result *result, struct failure *f);

#endif
