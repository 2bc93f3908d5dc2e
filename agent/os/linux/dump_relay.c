/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output of a core that is written while the process is held: pieces are handed to a thread that
 * may wait for a slow reader as long as it likes, while the thread that holds the process waits for
 * that one only until the limit of the pause. Invariant: a write returns at the latest at
 * `until_us`, and nothing is lost or changed in order. Called by dump.c.
 */
#include <string.h>
#include <time.h>

#include "agent/os/linux/dump_linux.h"
#include "common/text.h"

#define PIECE_BYTES (1u << 20)

static void *relay_main(void *argument)
{
    struct dump_relay *relay = argument;
    pthread_mutex_lock(&relay->lock);
    for (;;) {
        while (!relay->full && !relay->over)
            pthread_cond_wait(&relay->wake, &relay->lock);
        if (!relay->full)
            break;
        pthread_mutex_unlock(&relay->lock);
        int rc = relay->ending[0]
                     ? relay->to->begin(relay->to->context, relay->ending, &relay->cause)
                     : relay->to->write(relay->to->context, buf_span(&relay->piece), &relay->cause);
        pthread_mutex_lock(&relay->lock);
        relay->rc = rc;
        relay->full = false;
        pthread_cond_broadcast(&relay->wake);
    }
    pthread_mutex_unlock(&relay->lock);
    return NULL;
}

/* Waits until the other thread has done what it had to do. Under the lock. */
static int await_room(struct dump_relay *relay, struct failure *f)
{
    uint64_t until_us = stop_until_us(relay->stop);
    struct timespec until = {(time_t)(until_us / 1000000), (long)(until_us % 1000000) * 1000};
    while (relay->full) {
        if (pthread_cond_timedwait(&relay->wake, &relay->lock, &until) != 0 && relay->full)
            return fail(f, ERR_TIMEOUT, "reader is too slow for the limit of the pause");
    }
    if (relay->rc && f)
        *f = relay->cause;
    return relay->rc;
}

static int hand_over(struct dump_relay *relay, const char *ending, struct span bytes,
                     struct failure *f)
{
    pthread_mutex_lock(&relay->lock);
    int rc = await_room(relay, f);
    if (rc == 0) {
        buf_clear(&relay->piece);
        text_copy(relay->ending, sizeof relay->ending, ending);
        rc = buf_append_span(&relay->piece, bytes);
    }
    if (rc == 0) {
        relay->full = true;
        pthread_cond_broadcast(&relay->wake);
    }
    pthread_mutex_unlock(&relay->lock);
    return rc;
}

static int relay_begin(void *context, const char *ending, struct failure *f)
{
    return hand_over(context, ending, span_of(NULL, 0), f);
}

static int relay_write(void *context, struct span bytes, struct failure *f)
{
    return hand_over(context, "", bytes, f);
}

int dump_relay_start(struct dump_relay *relay, const struct os_output *to, const struct stop *stop,
                     struct failure *f)
{
    pthread_condattr_t clock;
    uint8_t *room;
    memset(relay, 0, sizeof *relay);
    relay->to = to;
    relay->stop = stop;
    relay->out = (struct os_output){relay_begin, relay_write, relay};
    buf_init(&relay->piece, PIECE_BYTES);
    if (buf_reserve(&relay->piece, PIECE_BYTES, &room))
        return fail(f, ERR_NOMEM, "no memory to write");
    memset(room, 0, PIECE_BYTES);
    pthread_mutex_init(&relay->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&relay->wake, &clock);
    pthread_condattr_destroy(&clock);
    int error = pthread_create(&relay->thread, NULL, relay_main, relay);
    if (error == 0)
        return 0;
    buf_done(&relay->piece);
    return fail_errno(f, err_from_errno(error), error, "cannot start the writing thread");
}

int dump_relay_stop(struct dump_relay *relay, struct failure *f)
{
    pthread_mutex_lock(&relay->lock);
    relay->over = true;
    pthread_cond_broadcast(&relay->wake);
    pthread_mutex_unlock(&relay->lock);
    pthread_join(relay->thread, NULL);
    pthread_cond_destroy(&relay->wake);
    pthread_mutex_destroy(&relay->lock);
    buf_done(&relay->piece);
    if (relay->rc && f)
        *f = relay->cause;
    return relay->rc;
}
