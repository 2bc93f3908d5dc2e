/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kind "throws": a look of some seconds, then files. Called by agent/worker.c, in the worker.
 */
#include "agent/os/throws.h"

#include <inttypes.h>
#include <string.h>

#include "agent/os/linux/throws_look.h"
#include "agent/os/linux/throws_write.h"
#include "common/port.h"
#include "common/text.h"

#define FILE_BYTES_MAX (8u << 20)
#define WRITE_RESERVE_US 4000000 /* before the deadline: for names and files */
#define FOR_MIN_US 100000

static int choose_time(const struct os_take *take, uint64_t *for_us, bool *cut, struct failure *f)
{
    char would[32], limit[32];
    *for_us = take->for_us ? take->for_us : OS_THROWS_FOR_DEFAULT_US;
    if (*for_us > OS_THROWS_FOR_MAX_US) {
        text_put_duration((int64_t)*for_us, would, sizeof would);
        text_put_duration((int64_t)OS_THROWS_FOR_MAX_US, limit, sizeof limit);
        return fail(f, ERR_REFUSED, "throws would be watched for %s, limit %s (--for)", would,
                    limit);
    }
    if (take->deadline_mono_us) {
        uint64_t now = port_mono_us(), reserve = WRITE_RESERVE_US;
        uint64_t left = take->deadline_mono_us > now ? take->deadline_mono_us - now : 0;
        if (left / 2 < reserve)
            reserve = left / 2;
        *cut = *for_us > left - reserve;
        if (*cut)
            *for_us = left - reserve;
    }
    if (*for_us < FOR_MIN_US)
        *for_us = FOR_MIN_US;
    return 0;
}

static int observe(struct throws_look *look, uint64_t until_us, struct failure *f)
{
    int e = 0;
    while (!e && !look->ended && port_mono_us() < until_us)
        e = throws_look_step(look, until_us, -1, f);
    return e;
}

static void note(const struct throws_look *look, const struct throws_about *about, bool cut,
                 struct os_result *result)
{
    if (about->cuts)
        os_result_miss(result, "cut off: more than %d throws a second: seen for %.2f s of %.1f s",
                       OS_THROWS_PER_SECOND, (double)(about->took_us - about->off_us) / 1e6,
                       (double)about->took_us / 1e6);
    if (about->unnamed)
        os_result_miss(result, "type and place of %" PRIu64 " throws", about->unnamed);
    if (look->unlooked)
        os_result_miss(result, "%" PRIu64 " stacks: too many at a time", look->unlooked);
    if (look->ended)
        os_result_miss(result, "process ended after %.1f s", (double)about->took_us / 1e6);
    else if (cut)
        os_result_miss(result, "looked %.1f s only: the worker's deadline",
                       (double)about->took_us / 1e6);
}

typedef int (*write_fn)(const struct throws_set *set, const struct throws_about *about,
                        struct buf *out);

static int write_one(const struct throws_set *set, const struct throws_about *about, write_fn write,
                     const char *ending, const struct os_output *out, struct failure *f)
{
    struct buf bytes;
    buf_init(&bytes, FILE_BYTES_MAX);
    int e = write(set, about, &bytes);
    if (e)
        e = fail(f, e, "cannot write the throws as %s: %s", ending, err_text(e));
    else
        e = os_output_file(out, ending, buf_span(&bytes), f);
    buf_done(&bytes);
    return e;
}

static int write_all(struct throws_look *look, struct throws_about *about, bool cut,
                     const struct os_output *out, struct os_result *result, struct failure *f)
{
    uint64_t grouped = throws_set_total(&look->set) - look->set.others;
    about->all = throws_probe_all(&look->probe);
    about->unnamed = about->all > grouped ? about->all - grouped : 0;
    about->off_us = look->rate.off_us;
    about->cuts = look->rate.cuts;
    note(look, about, cut, result);
    about->missing = result->missing;
    throws_set_sort(&look->set);
    int e = write_one(&look->set, about, throws_write_text, "txt", out, f);
    if (!e)
        e = write_one(&look->set, about, throws_write_json, "json", out, f);
    if (!e && look->set.count)
        e = write_one(&look->set, about, throws_write_folded, "folded", out, f);
    return e;
}

int os_throws_capture(const struct os_take *take, const struct os_output *out,
                      struct os_result *result, struct failure *f)
{
    struct throws_look look;
    struct throws_about about = {.process = take->process.name, .pid = take->process.pid};
    uint64_t for_us = 0;
    bool cut = false;
    memset(result, 0, sizeof *result);
    int e = choose_time(take, &for_us, &cut, f);
    if (!e) {
        e = throws_look_open(&look, &take->process, f);
        if (e == ERR_NOTFOUND) {
            throws_look_close(&look);
            e = fail(f, ERR_UNSUPPORTED, "%s", f->text);
        }
    }
    if (e)
        return e;
    uint64_t began_us = port_mono_us();
    about.wall_us = port_wall_us();
    e = observe(&look, began_us + for_us, f);
    about.took_us = port_mono_us() - began_us;
    if (!e) {
        /* What follows is ours, not a gap. */
        look.rate.off_us = throws_rate_off_us(&look.rate, port_mono_us());
        look.rate.off_since_us = 0;
        e = throws_look_finish(&look);
    }
    if (!e)
        e = write_all(&look, &about, cut, out, result, f);
    throws_look_close(&look);
    return e;
}
