/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a profile, one after the other. Invariant: each is made in memory within its limit
 * and handed over whole. Called by profile.c.
 */
#include "agent/os/linux/profile_write.h"

#include <stdio.h>

#include "agent/os/linux/flame_svg.h"
#include "agent/os/linux/gzip.h"
#include "agent/os/linux/pprof.h"
#include "common/text.h"

#define PPROF_BYTES_MAX (32u << 20)
#define FOLDED_BYTES_MAX (16u << 20)
#define SVG_BYTES_MAX (8u << 20)
#define LINE_SIZE 256

static int write_pprof(struct profile_set *set, const struct profile_about *about,
                       const struct os_output *out, struct os_result *result, struct failure *f)
{
    struct buf plain, packed;
    struct pprof_head head = {.wall_us = about->wall_us,
                              .duration_ns = about->took_us * 1000,
                              .period_ns = UINT64_C(1000000000) / about->hz,
                              .comment = result->missing};
    buf_init(&plain, PPROF_BYTES_MAX);
    buf_init(&packed, PPROF_BYTES_MAX);
    int e = pprof_put(set, &head, &plain);
    if (!e)
        e = gzip_put(buf_span(&plain), &packed);
    buf_done(&plain);
    if (e == ERR_LIMIT) {
        os_result_miss(result, "pb.gz: more than %u MiB", PPROF_BYTES_MAX >> 20);
        e = 0;
    } else if (e) {
        fail(f, e, "no memory to write the profile");
    } else {
        e = os_output_file(out, "pb.gz", buf_span(&packed), f);
    }
    buf_done(&packed);
    return e;
}

static int write_folded(const struct profile_lines *lines, const char *ending,
                        const struct os_output *out, struct os_result *result, struct failure *f)
{
    struct buf text;
    size_t left_out;
    buf_init(&text, FOLDED_BYTES_MAX);
    int e = profile_lines_folded(lines, &text, &left_out);
    if (e)
        fail(f, e, "no memory to write the stacks");
    else if (left_out > 0)
        os_result_miss(result, "%zu lines of %s: more than %u MiB", left_out, ending,
                       FOLDED_BYTES_MAX >> 20);
    if (!e)
        e = os_output_file(out, ending, buf_span(&text), f);
    buf_done(&text);
    return e;
}

static int write_flame(const struct profile_lines *lines, const struct flame_head *head,
                       const char *ending, const struct os_output *out, struct os_result *result,
                       struct failure *f)
{
    struct buf svg;
    buf_init(&svg, SVG_BYTES_MAX);
    int e = flame_svg_put(lines, head, &svg);
    if (e == ERR_LIMIT) {
        os_result_miss(result, "%s: more than %u MiB", ending, SVG_BYTES_MAX >> 20);
        e = 0;
    } else if (e) {
        fail(f, e, "no memory to draw the flame graph");
    } else {
        e = os_output_file(out, ending, buf_span(&svg), f);
    }
    buf_done(&svg);
    return e;
}

static void describe(const struct profile_about *about, const struct profile_lines *lines, bool off,
                     char *title, char *subtitle)
{
    char when[32], took[32], total[32];
    text_put_time(about->wall_us, when, sizeof when);
    text_put_duration((int64_t)about->took_us, took, sizeof took);
    text_put_duration((int64_t)lines->total, total, sizeof total);
    snprintf(title, LINE_SIZE, "%s CPU: '%s', pid %u", off ? "Off the" : "On the", about->process,
             about->pid);
    if (off)
        snprintf(subtitle, LINE_SIZE, "%s, %s, %s of waiting", when, took, total);
    else
        snprintf(subtitle, LINE_SIZE, "%s, %s, %llu samples at %u Hz", when, took,
                 (unsigned long long)lines->total, about->hz);
}

static int write_lines(struct profile_set *set, const struct profile_about *about, bool off,
                       const struct os_output *out, struct os_result *result, struct failure *f)
{
    struct profile_lines lines;
    char title[LINE_SIZE], subtitle[LINE_SIZE];
    struct flame_head head = {title, subtitle, off ? NULL : "samples", off};
    int e = profile_lines_make(&lines, set, about->process, off ? PROFILE_OFF_US : PROFILE_SAMPLES);
    if (e == ERR_LIMIT) {
        os_result_miss(result, "%sfolded and %ssvg: too many names", off ? "off." : "",
                       off ? "off." : "");
        return 0;
    }
    if (e)
        return fail(f, e, "no memory to write the stacks");
    describe(about, &lines, off, title, subtitle);
    if (lines.count > 0)
        e = write_folded(&lines, off ? "off.folded" : "folded", out, result, f);
    if (!e && lines.count > 0)
        e = write_flame(&lines, &head, off ? "off.svg" : "svg", out, result, f);
    if (lines.count == 0)
        os_result_miss(result, off ? "off.folded and off.svg: no thread was seen waiting"
                                   : "folded and svg: no thread ran");
    profile_lines_done(&lines);
    return e;
}

int profile_write(struct profile_set *set, const struct profile_about *about,
                  const struct os_output *out, struct os_result *result, struct failure *f)
{
    int e = write_pprof(set, about, out, result, f);
    if (!e)
        e = write_lines(set, about, false, out, result, f);
    if (!e)
        e = write_lines(set, about, true, out, result, f);
    return e;
}
