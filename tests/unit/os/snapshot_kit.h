/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a whole snapshot of a victim, from opening to the last of it. Included by
 * test_snapshot*.c.
 */
#ifndef TESTS_UNIT_OS_SNAPSHOT_KIT_H
#define TESTS_UNIT_OS_SNAPSHOT_KIT_H

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/snapshot.h"
#include "tests/unit/os/victim.h"

#define KIT_PAUSE_MAX_US 2000000

struct kit {
    struct inject_controls clone_controls, reap_controls;
    struct stop_controls stop_controls;
    uint32_t pause_max_us; /* 0: KIT_PAUSE_MAX_US */
    /* Called when the twin is open; may be NULL. */
    void (*look)(struct kit *kit);
    void *context;
    /* set */
    struct snapshot snapshot;
    struct stop stop;
    struct maps maps;
    uint64_t reap_us;
    struct failure f;
};

static inline int kit_make(void *context, struct stop *stop)
{
    struct kit *kit = context;
    return snapshot_make(&kit->snapshot, stop, &kit->f);
}

static inline int kit_after(void *context, struct stop *stop, struct failure *f)
{
    struct kit *kit = context;
    (void)stop;
    int rc = snapshot_open(&kit->snapshot, f);
    if (rc == 0 && kit->look)
        kit->look(kit);
    int ended = snapshot_end(&kit->snapshot, &kit->reap_us, f);
    return rc ? rc : ended;
}

/* 0, or what failed; the text is in kit->f. */
static inline int kit_take(struct kit *kit, const struct os_process *process)
{
    uint32_t limit = kit->pause_max_us ? kit->pause_max_us : KIT_PAUSE_MAX_US;
    kit->f = (struct failure){0, ""};
    kit->reap_us = 0;
    int rc = stop_open(&kit->stop, process, &kit->f);
    if (rc)
        return rc;
    kit->stop.controls = kit->stop_controls;
    maps_init(&kit->maps);
    rc = maps_read(&kit->maps, process->pid, &kit->f);
    if (rc == 0) {
        rc = snapshot_prepare(&kit->snapshot, &kit->stop, &kit->maps, &kit->f);
        kit->snapshot.clone_controls = kit->clone_controls;
        kit->snapshot.reap_controls = kit->reap_controls;
        if (rc == 0)
            rc = stop_run(&kit->stop, limit, kit_make, kit_after, kit, &kit->f);
        if (rc)
            snapshot_end(&kit->snapshot, &kit->reap_us, NULL);
        snapshot_done(&kit->snapshot);
    }
    maps_done(&kit->maps);
    stop_close(&kit->stop);
    return rc;
}

/* Children of the process, those that have ended and were not reaped among them. */
static inline size_t kit_count(const struct victim *v, bool ended)
{
    uint32_t *all = NULL;
    size_t count = 0, children = 0;
    REQUIRE(proc_numbers("/proc", &all, &count, 100000, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        char data[PROC_STAT_SIZE];
        struct span text;
        struct proc_stat stat;
        if (proc_read_pid("", all[i], "stat", data, sizeof data, &text, NULL) == 0 &&
            proc_parse_stat(text, &stat) == 0 && stat.parent == (uint32_t)v->pid)
            children += !ended || stat.state == 'Z';
    }
    free(all);
    return children;
}

static inline size_t kit_children(const struct victim *v)
{
    return kit_count(v, false);
}

static inline size_t kit_zombies(const struct victim *v)
{
    return kit_count(v, true);
}

#endif
