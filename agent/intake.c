/* SPDX-License-Identifier: Apache-2.0 */
/* The socket, its users and what is told of them. See intake.h. */
#include "agent/intake.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/intake_json.h"
#include "agent/intake_limit.h"
#include "agent/os/datagram.h"
#include "agent/os/process.h"
#include "common/log.h"
#include "common/text.h"

#define READ_AT_ONCE 256 /* then the rest of the agent has its turn */
#define SECOND_US UINT64_C(1000000)
#define OVER_AGAIN_US (10 * SECOND_US) /* while a flood lasts */
#define BAD_AGAIN_US (60 * SECOND_US)

struct intake {
    struct source_context context;
    uv_poll_t poll;
    int fd;
    char path[STATE_PATH_SIZE];
    struct intake_limit limit;
    struct os_exception exception;
    uint8_t datagram[INTAKE_BYTES_MAX];
};

static uint64_t now_us(const struct intake *in)
{
    return in->context.clock->mono_us(in->context.clock);
}

/* ---- one datagram ---- */

/* The sender may have ended since: then only its number is known. */
static void put_sender(struct os_exception *e, const struct os_sender *sender)
{
    struct os_process process;
    e->uid = sender->uid;
    e->pid = sender->pid;
    if (!sender->pid || os_process_get("", sender->pid, &process, NULL))
        return;
    e->start_ticks = process.start_ticks;
    (void)text_copy(e->process, sizeof e->process, process.name);
}

static void take(struct intake *in, struct intake_user *user, struct span datagram,
                 const struct os_sender *sender)
{
    struct failure f = {0};
    if (intake_parse(datagram, &in->exception, &f)) {
        intake_limit_bad(user, f.text);
        return;
    }
    put_sender(&in->exception, sender);
    watcher_report(in->context.watcher, &in->exception);
}

static int take_next(struct intake *in)
{
    struct os_sender sender;
    size_t size = 0;
    bool allowed;
    int e = os_datagram_receive(in->fd, in->datagram, sizeof in->datagram, &size, &sender);
    if (e && e != ERR_LIMIT)
        return e;
    struct intake_user *user = intake_limit_take(&in->limit, sender.uid, now_us(in), &allowed);
    if (allowed && e)
        intake_limit_bad(user, "longer than 32768 bytes");
    else if (allowed)
        take(in, user, span_of(in->datagram, size), &sender);
    return 0;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct intake *in = poll->data;
    (void)events;
    int e = status ? ERR_IO : 0;
    for (int i = 0; i < READ_AT_ONCE && !e; i++)
        e = take_next(in);
    if (!e || e == ERR_AGAIN)
        return;
    log_warn("exceptions that applications report at '%s' are read no longer: %s", in->path,
             err_text(e));
    uv_poll_stop(poll);
}

/* ---- what is told of the users ---- */

static void put_name(const struct intake_user *user, char *out, size_t size_bytes)
{
    if (user->uid == INTAKE_OTHERS)
        (void)text_copy(out, size_bytes, "other users");
    else if (user->uid == UINT32_MAX)
        (void)text_copy(out, size_bytes, "a user not known");
    else
        (void)text_format(out, size_bytes, "uid %u", user->uid);
}

/* When the flood is over, and now and then while it lasts. */
static void tell_over(struct intake *in, struct intake_user *user, bool at_once)
{
    char who[32];
    uint64_t now = now_us(in);
    bool is_over = now - user->over_us >= SECOND_US;
    if (!user->over || (!at_once && !is_over && now - user->told_us < OVER_AGAIN_US))
        return;
    put_name(user, who, sizeof who);
    events_add(in->context.events, trawl_v1_EventType_DATA_GAP, "", 0,
               "%s reported %" PRIu64 " exceptions too many: only counted, for no more than %d a "
               "second are taken (%" PRIu64 " too many and %" PRIu64 " taken since the start)",
               who, user->over, INTAKE_PER_SECOND, user->over_all, user->taken);
    user->over = 0;
    user->told_us = now;
}

static void tell_bad(struct intake *in, struct intake_user *user, bool at_once)
{
    char who[32];
    uint64_t now = now_us(in);
    bool is_early = user->bad_told_us && now - user->bad_told_us < BAD_AGAIN_US;
    if (!user->bad || (!at_once && is_early))
        return;
    put_name(user, who, sizeof who);
    events_add(in->context.events, trawl_v1_EventType_DATA_GAP, "", 0,
               "%s sent %" PRIu64 " reports of exceptions that cannot be read, the last: %s", who,
               user->bad, user->reason);
    user->bad = 0;
    user->bad_told_us = now;
}

static void tell(struct intake *in, bool at_once)
{
    for (size_t i = 0; i <= INTAKE_USERS_MAX; i++)
        if (in->limit.users[i].is_used) {
            tell_over(in, &in->limit.users[i], at_once);
            tell_bad(in, &in->limit.users[i], at_once);
        }
}

void intake_second(void *source)
{
    tell(source, false);
}

/* ---- opening ---- */

static int start(struct intake *in, struct failure *f)
{
    int e = os_datagram_open(in->path, &in->fd, f);
    if (e)
        return e;
    in->poll.data = in;
    if (uv_poll_init(in->context.loop, &in->poll, in->fd)) {
        os_datagram_close(in->path, in->fd);
        return fail(f, ERR_IO, "cannot watch a socket");
    }
    uv_poll_start(&in->poll, UV_READABLE, on_readable);
    return 0;
}

int intake_open(void **out, const struct source_context *context, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    settings_intake(context->settings, path, sizeof path);
    if (!path[0])
        return 0;
    struct intake *in = calloc(1, sizeof *in);
    if (!in)
        return fail(f, ERR_NOMEM, "out of memory");
    in->context = *context;
    (void)text_copy(in->path, sizeof in->path, path);
    int e = start(in, f);
    if (e)
        free(in);
    else
        *out = in;
    return e;
}

static void on_closed(uv_handle_t *handle)
{
    struct intake *in = handle->data;
    os_datagram_close(in->path, in->fd);
    free(in);
}

void intake_close(void *source)
{
    struct intake *in = source;
    tell(in, true);
    uv_close((uv_handle_t *)&in->poll, on_closed);
}
