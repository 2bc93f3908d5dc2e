/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching memory while a twin is there: each page that the process writes to is copied for it, so
 * a snapshot of a busy process may cost as much as the process. Invariant: the twin is killed
 * within WATCH_US of the moment when too little is free, also while a slow reader blocks the
 * writing. Called by dump_snapshot.c.
 */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "agent/os/linux/dump_linux.h"
#include "agent/os/linux/headroom.h"

#define FREE_PERMILLE_MIN 100
#define WATCH_US 50000

static int refuse(const struct headroom *room, const char *what, struct failure *f)
{
    return fail(f, ERR_REFUSED,
                "%s: %.1f %% of the memory of %s would be free, limit %.1f %%, and a snapshot "
                "takes what the process writes to: --live takes a core without one",
                what, (double)room->free_permille / 10, room->where,
                (double)FREE_PERMILLE_MIN / 10);
}

int dump_check_headroom(const char *root, pid_t pid, uint64_t need_bytes, struct failure *f)
{
    struct headroom room;
    int rc = headroom_read(root, (uint32_t)pid, &room, f);
    if (rc)
        return rc;
    uint64_t left = room.free_bytes > need_bytes ? room.free_bytes - need_bytes : 0;
    if (room.total_bytes > 0)
        room.free_permille = (uint32_t)(left * 1000 / room.total_bytes);
    return room.free_permille < FREE_PERMILLE_MIN ? refuse(&room, "memory is short", f) : 0;
}

/* What cannot be read is no reason to end it: it could be read a moment ago. */
static bool is_low(struct dump_watch *watch)
{
    struct headroom room;
    if (headroom_read(watch->root, (uint32_t)watch->pid, &room, NULL) != 0 ||
        room.free_permille >= FREE_PERMILLE_MIN)
        return false;
    refuse(&room, "snapshot was ended, memory is short", &watch->cause);
    return true;
}

static void after_us(struct timespec *t, long us)
{
    clock_gettime(CLOCK_MONOTONIC, t);
    t->tv_nsec += us * 1000;
    t->tv_sec += t->tv_nsec / 1000000000;
    t->tv_nsec %= 1000000000;
}

static void *watch_main(void *argument)
{
    struct dump_watch *watch = argument;
    pthread_mutex_lock(&watch->lock);
    while (!watch->over) {
        if (is_low(watch)) {
            kill(watch->pid, SIGKILL);
            break;
        }
        struct timespec until;
        after_us(&until, WATCH_US);
        pthread_cond_timedwait(&watch->wake, &watch->lock, &until);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

int dump_watch_start(struct dump_watch *watch, const char *root, pid_t pid, struct failure *f)
{
    pthread_condattr_t clock;
    memset(watch, 0, sizeof *watch);
    watch->root = root;
    watch->pid = pid;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->wake, &clock);
    pthread_condattr_destroy(&clock);
    int error = pthread_create(&watch->thread, NULL, watch_main, watch);
    if (error == 0)
        return 0;
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
    return fail_errno(f, err_from_errno(error), error, "cannot watch memory");
}

int dump_watch_stop(struct dump_watch *watch, struct failure *f)
{
    pthread_mutex_lock(&watch->lock);
    watch->over = true;
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
    if (watch->cause.code && f)
        *f = watch->cause;
    return watch->cause.code;
}
