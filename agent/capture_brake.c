/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet brake on this host: while it is on, no order begins, and what runs is ended. Kept in
 * STATE/brake, because the collector may be gone when the agent starts again. Invariant: it is on
 * disk before the collector is told that we go by it; a file that cannot be read counts as on.
 * Called by capture.c and the uplink session.
 */
#include "agent/capture_private.h"

#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

static int read_brake(struct capture *c, const char *path, struct failure *f)
{
    struct buf in;
    buf_init(&in, trawl_v1_Brake_size);
    int e = port_read_file(path, &in, f);
    if (!e)
        e = codec_get_brake(&c->brake, buf_span(&in), f);
    buf_done(&in);
    return e;
}

int brake_load(struct capture *c, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    struct failure why = {0};
    int e = state_path(c->settings.state, "brake", path, f);
    if (e)
        return e;
    e = read_brake(c, path, &why);
    if (e && e != ERR_NOTFOUND) {
        log_error("nothing is captured until the collector says whether the fleet is frozen: %s",
                  why.text);
        c->brake = (trawl_v1_Brake){.on = true};
        text_copy(c->brake.note, sizeof c->brake.note, "what was kept of it here is damaged");
    } else if (!e && c->brake.on) {
        log_info("the fleet is frozen by %s: nothing is captured", c->brake.by);
    }
    return 0;
}

static int write_brake(struct capture *c, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    struct buf out;
    buf_init(&out, trawl_v1_Brake_size);
    int e = state_path(c->settings.state, "brake", path, f);
    if (!e)
        e = codec_put_brake(&out, &c->brake);
    if (!e)
        e = port_write_file(path, buf_span(&out), true, f);
    buf_done(&out);
    return e;
}

int brake_refuse(const struct capture *c, struct failure *f)
{
    const trawl_v1_Brake *b = &c->brake;
    if (!b->on)
        return 0;
    return fail(f, ERR_REFUSED, "the fleet is frozen%s%s%s%s", b->by[0] ? " by " : "", b->by,
                b->note[0] ? ": " : "", b->note);
}

/* What waits is refused as it is looked at next; what runs ends now. */
static void stop_all(struct capture *c, const char *reason)
{
    if (c->run.order)
        capture_cancel_order(c, c->run.order, reason);
    capture_start_next(c);
}

int capture_set_brake(struct capture *c, const trawl_v1_Brake *brake, struct failure *f)
{
    struct failure why = {0};
    bool same = c->brake.no == brake->no && c->brake.on == brake->on;
    c->brake = *brake;
    text_clean(c->brake.by);
    text_clean(c->brake.note);
    int e = same ? 0 : write_brake(c, f);
    if (!same)
        log_info("the fleet is %s by %s%s%s", c->brake.on ? "frozen" : "thawed", c->brake.by,
                 c->brake.note[0] ? ": " : "", c->brake.note);
    if (brake_refuse(c, &why))
        stop_all(c, why.text);
    return e;
}
