/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formats of /proc that more than one reader needs: one bounded, hand-written parser for each,
 * and reading of files that may end at any moment. Parsers are pure; they accept a whole record or
 * return ERR_CORRUPT with `*out` untouched. Called by counters_process, process, triage and logs.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROCFS_H
#define TRAWL_AGENT_OS_LINUX_PROCFS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/os/process.h"
#include "common/buf.h"
#include "common/err.h"

#define PROC_PATH_SIZE 512
#define PROC_LINE_SIZE 4096
/* 52 numbers of at most 20 digits and a name of at most 64 bytes. */
#define PROC_STAT_SIZE 1536
/* A process's text files (status, limits, cgroup, io): larger ones are cut. */
#define PROC_TEXT_SIZE 8192
#define PROC_UNIT_SIZE 256
#define PROC_COMM_CUT 15 /* the kernel keeps this many bytes of a user process's name */

/* proc(5), /proc/PID/stat. */
struct proc_stat {
    uint32_t pid;
    uint32_t parent;
    uint32_t flags;
    uint32_t threads;
    char state; /* R S D T t Z X I */
    uint64_t minor_faults;
    uint64_t major_faults;
    uint64_t user_ticks;
    uint64_t system_ticks;
    uint64_t start_ticks;
    uint64_t virtual_bytes;
    uint64_t rss_pages;
    char name[OS_PROCESS_NAME_SIZE]; /* comm; may hold any byte but zero */
};
int proc_parse_stat(struct span text, struct proc_stat *out);
bool proc_is_kernel_thread(const struct proc_stat *stat);
/* Ended, and only not yet reaped by its parent. */
bool proc_has_ended(const struct proc_stat *stat);

int proc_parse_io(struct span text, uint64_t *read_bytes, uint64_t *write_bytes);

/* /proc/PID/schedstat of one thread (kernel: Documentation/scheduler/sched-stats). */
struct proc_schedstat {
    uint64_t run_ns;
    uint64_t wait_ns;  /* ready to run, but waiting for a processor */
    uint64_t switches; /* times it got a processor */
};
int proc_parse_schedstat(struct span text, struct proc_schedstat *out);

/* One line of /proc/PID/net/{tcp,tcp6,udp,udp6}. Addresses in network order, ports in host order.
 */
struct proc_socket {
    int family; /* AF_INET, AF_INET6 */
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port;
    uint8_t state; /* TCP_ESTABLISHED ... of netinet/tcp.h */
    uint64_t send_queue, receive_queue;
    uint64_t inode;
};
int proc_parse_socket(struct span line, struct proc_socket *out);

/* One line of /proc/PID/net/unix. `path` borrows from the line; empty when it has none. */
struct proc_unix_socket {
    uint32_t type; /* SOCK_STREAM ... */
    uint32_t state;
    bool listens;
    uint64_t inode;
    struct span path;
};
int proc_parse_unix_socket(struct span line, struct proc_unix_socket *out);

/* One record of /dev/kmsg: "4,1234,5678901,-;text\n KEY=value\n" (kernel: ABI/testing/dev-kmsg). */
struct proc_kernel_message {
    int priority;     /* 0 emergency ... 7 debug */
    bool from_kernel; /* facility 0, which the kernel gives to nobody else */
    uint64_t sequence;
    uint64_t time_us; /* since boot, without suspend */
    struct span text; /* its first line, borrowed */
};
int proc_parse_kernel_message(struct span record, struct proc_kernel_message *out);

/* Next run of bytes other than space, tab, newline; moves `*s` behind it. ERR_NOTFOUND at the end.
 */
int proc_take_field(struct span *s, struct span *out);
/* Takes a field that must be a decimal number. */
int proc_take_number(struct span *s, uint64_t *out);
/* Next line without its newline. ERR_NOTFOUND at the end. */
int proc_take_line(struct span *s, struct span *out);
/* The rest of the line that begins with `key` (with its ':'), blanks before it removed. */
int proc_find_key(struct span text, const char *key, struct span *out);
bool proc_starts_with(struct span s, const char *prefix);
bool proc_ends_with(struct span s, const char *suffix);
/* What follows the last '/'. */
struct span proc_base_name(struct span path);
/* "socket:[123]", "net:[4026531840]" -> 123. */
int proc_parse_inode(struct span target, const char *prefix, uint64_t *out);

/*
 * The systemd unit in the text of /proc/PID/cgroup: the first component of the path (of v2, else of
 * v1's name=systemd) that is no slice and ends in a unit suffix. ERR_NOTFOUND: in no unit.
 */
int proc_cgroup_unit(struct span text, char *out, size_t size_bytes);
/* Whether any component of that path is `unit` (a glob; ".service" may be left out). */
bool proc_cgroup_has_unit(struct span text, const char *unit);
/* Whether a path in it is of this container: its ID, or at least four characters that it begins
 * with; or the name of an LXC container or a machine. */
bool proc_cgroup_has_container(struct span text, const char *container);
/* Whether the arguments of the process, joined by spaces, match the glob. Only their first
 * PROC_TEXT_SIZE bytes are looked at. */
bool proc_has_command(const char *root, uint32_t pid, const char *glob);

/* "ROOT/proc/PID/LEAF" into `out` of PROC_PATH_SIZE. */
void proc_path(char *out, const char *root, uint32_t pid, const char *leaf);

/*
 * Reads the beginning of a file, at most `size_bytes`, into the caller's memory. ERR_GONE when it
 * is not there or its process ended; ERR_DENIED, ERR_IO. The text names the path.
 */
int proc_read(const char *path, void *data, size_t size_bytes, struct span *out, struct failure *f);
/* As proc_read() of "ROOT/proc/PID/LEAF". */
int proc_read_pid(const char *root, uint32_t pid, const char *leaf, void *data, size_t size_bytes,
                  struct span *out, struct failure *f);
/* "/proc/PID/LEAF" for reading; the descriptor is the caller's. Negative: as proc_read(). */
int proc_open_pid(uint32_t pid, const char *leaf, struct failure *f);
/* The target of a symbolic link, terminated, cut at size_bytes - 1. Errors as proc_read(). */
int proc_link(const char *path, char *out, size_t size_bytes, struct failure *f);
int proc_link_pid(const char *root, uint32_t pid, const char *leaf, char *out, size_t size_bytes,
                  struct failure *f);

/*
 * What the process is called: `comm`, or the base name of its executable or argv[0] when comm is as
 * long as the kernel keeps and that name begins with it. `out` of OS_PROCESS_NAME_SIZE.
 */
void proc_full_name(const char *root, uint32_t pid, const char *comm, char *out);
/* Whether `glob` fits comm, the executable's base name or argv[0]'s base name. */
bool proc_is_named(const char *root, uint32_t pid, const char *comm, const char *glob);

/* Calls `each` for every line of a file of any size; lines over PROC_LINE_SIZE are cut. Non-zero
 * stops and is returned. */
typedef int (*proc_line_fn)(void *context, struct span line);
int proc_each_line(const char *path, proc_line_fn each, void *context, struct failure *f);

/*
 * The numeric entries of a directory (/proc, task, fd) in rising order, into an allocated array
 * that the caller frees. More than `limit`: the first `limit` found, and ERR_LIMIT.
 */
int proc_numbers(const char *path, uint32_t **out, size_t *count, size_t limit, struct failure *f);

#endif
