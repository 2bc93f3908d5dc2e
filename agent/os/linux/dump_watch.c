/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching while a twin is there. Memory: each page that the process writes to is copied for it, so
 * a snapshot of a busy process may cost as much as the process. The process itself: the twin holds
 * its files and ports open, and its control group busy, so it must not outlive it. Invariant: the
 * twin is killed within WATCH_US of the moment when too little is free, and at once when the
 * process ends, also while a slow reader blocks the writing. Called by dump_snapshot.c.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

/* Sleeps. False: it is over. */
static bool look_again(struct dump_watch *watch)
{
    struct pollfd wait[] = {{watch->wake_fd, POLLIN, 0}, {watch->process_fd, POLLIN, 0}};
    (void)poll(wait, sizeof wait / sizeof wait[0], WATCH_US / 1000);
    if (wait[0].revents)
        return false;
    if (wait[1].revents)
        fail(&watch->cause, ERR_GONE,
             "process ended while its core was read, and the snapshot of it had to make way for "
             "its successor");
    return true;
}

static void *watch_main(void *argument)
{
    struct dump_watch *watch = argument;
    while (look_again(watch)) {
        if (watch->cause.code || is_low(watch)) {
            kill(watch->pid, SIGKILL);
            break;
        }
    }
    return NULL;
}

int dump_watch_start(struct dump_watch *watch, const char *root, pid_t pid, int process_fd,
                     struct failure *f)
{
    *watch = (struct dump_watch){.root = root, .pid = pid, .process_fd = process_fd};
    watch->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (watch->wake_fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot watch the snapshot");
    int error = pthread_create(&watch->thread, NULL, watch_main, watch);
    if (error == 0)
        return 0;
    close(watch->wake_fd);
    return fail_errno(f, err_from_errno(error), error, "cannot watch the snapshot");
}

int dump_watch_stop(struct dump_watch *watch, struct failure *f)
{
    uint64_t one = 1;
    ssize_t put = write(watch->wake_fd, &one, sizeof one); /* an eventfd that is empty takes it */
    (void)put;
    pthread_join(watch->thread, NULL);
    close(watch->wake_fd);
    if (watch->cause.code && f)
        *f = watch->cause;
    return watch->cause.code;
}
