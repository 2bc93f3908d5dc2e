/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the source "processes" share. Private to watch_process.c (who is there, and how
 * it ends), watch_restart.c (who came instead) and watch_look.c (who stands still). Invariant: a
 * `struct watched` is freed by its handle's close callback only.
 */
#ifndef TRAWL_AGENT_WATCH_PRIVATE_H
#define TRAWL_AGENT_WATCH_PRIVATE_H

#include "agent/watch_process.h"
#include "agent/watch_stall.h"

#define GONE_MAX 32
#define GONE_CHILDREN 64
#define GONE_US UINT64_C(600000000) /* so long somebody may come in its place */
#define RESTARTS_US UINT64_C(600000000)

struct watch_process;

struct watched {
    struct watch_process *owner;
    struct os_process process;
    struct os_watch_who who;
    char executable[160];
    uint16_t ports[OS_PEEK_PORTS];
    uint32_t port_count;
    uint32_t restarts; /* in a row, each within RESTARTS_US */
    int fd, runs_fd;
    uv_poll_t poll;
    uint64_t added_us, began_us, ended_us; /* ended_us 0: lives */
    bool is_closing;
    /* Asked of the broker. */
    bool wants_peek, wants_ports;
    uint32_t port_asks;
    uint64_t ports_asked_us;
    struct stall stall;
    struct stall_blocked blocked[STALL_BLOCKED];
    uint32_t blocked_asked; /* thread that is to be told of, when the answer is there */
    /* Came in somebody's place; its ports are waited for. */
    uint32_t before_pid;
    uint64_t before_ended_us;
    uint16_t awaited[OS_PEEK_PORTS];
    uint32_t awaited_count;
};

/* One that has ended and may come back. */
struct gone {
    bool is_used;
    struct os_process process;
    struct os_watch_who who;
    char executable[160];
    uint16_t ports[OS_PEEK_PORTS];
    uint32_t port_count, restarts;
    uint64_t ended_us, began_us;
    char how[64];                     /* "exit 3" */
    uint32_t children[GONE_CHILDREN]; /* that its parent had then */
    size_t child_count;
    bool knows_children;
};

struct watch_process {
    struct source_context context;
    struct events_listener listener;
    struct watched *list[WATCH_PROCESSES];
    struct gone gone[GONE_MAX];
    uv_timer_t finder;
    uint64_t finder_until_us; /* 0: it rests */
    uint64_t rescan_us;
    uint32_t seconds;
    bool is_asking; /* of the broker */
    bool is_closed;
    int handles;
};

/* Takes it up, if it is not there yet and is one that is followed. NULL: not taken. */
struct watched *watch_add(struct watch_process *w, const struct os_process *process);
struct watched *watch_find(struct watch_process *w, uint32_t pid, uint64_t start_ticks);
bool watch_is_followed(const struct watch_process *w, uint32_t pid);
/* Who it is. */
void watch_describe(const struct watched *one, struct os_exception *e);
void watch_tag(struct os_exception *e, const char *key, const char *format, ...) TRAWL_PRINTF(3, 4);
uint64_t watch_now(const struct watch_process *w);

/* watch_restart.c */
void restart_note_gone(struct watch_process *w, const struct watched *one, const char *how);
void restart_note_new(struct watch_process *w, struct watched *one);
void restart_second(struct watch_process *w);

/* watch_look.c */
void look_second(struct watch_process *w);
void look_answer(struct watch_process *w, const struct os_peek *peek, bool had_ports);
void look_close(struct watch_process *w);

#endif
