/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever a collector sends, as people and programs see it: never a crash, and never a byte that a
 * terminal could obey. The first byte chooses the message, the rest is its wire form. Run by the
 * fuzz preset, and over its corpus by every other.
 */
#include <assert.h>
#include <stdint.h>

#include "cli/bundle.h"
#include "cli/follow.h"
#include "cli/render_host.h"
#include "cli/render_incident.h"
#include "cli/render_series.h"
#include "common/text.h"
#include "proto/codec.h"

#define LIMIT (4u << 20)
#define NOW INT64_C(1795442525000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Lines and UTF-8 only. */
static void check_output(struct buf *out)
{
    for (size_t i = 0; i < out->size_bytes; i++)
        assert(out->data[i] == '\n' || out->data[i] == '\t' ||
               (out->data[i] >= ' ' && out->data[i] != 0x7f));
    buf_clear(out);
}

static void put_table(struct render_table *t, struct buf *out)
{
    int r = render_table_put(t, false, out);
    assert(r == 0);
    render_table_done(t);
    check_output(out);
}

static void try_host(struct span in, struct buf *out)
{
    static trawl_v1_Host host;
    struct render_table t;
    size_t count;
    if (codec_get_host(&host, in, NULL) < 0)
        return;
    const struct render_column *columns = render_host_columns(true, &count);
    render_table_init(&t, columns, count);
    render_host_row(&t, &host, true, NOW);
    put_table(&t, out);
    (void)render_host_json(out, &host);
    check_output(out);
}

static void try_top(struct span in, struct buf *out)
{
    trawl_v1_TopRow row;
    struct render_table t;
    size_t count;
    if (codec_get_top_row(&row, in, NULL) < 0)
        return;
    const struct render_column *columns = render_top_columns(&count);
    render_table_init(&t, columns, count);
    render_top_row(&t, &row);
    put_table(&t, out);
    (void)render_top_json(out, &row);
    check_output(out);
}

static void try_part(struct span in, struct buf *out)
{
    static trawl_v1_IncidentPart part;
    const struct follow_target *changed;
    struct follow follow;
    struct bundle bundle;
    struct failure f;
    if (codec_get_incident_part(&part, in, NULL) < 0)
        return;
    (void)render_part_json(out, &part);
    check_output(out);
    follow_init(&follow, 1);
    (void)follow_part(&follow, &part, &changed);
    (void)follow_lines(&follow, NOW, false, out);
    (void)follow_progress(&follow, 1, 80, out);
    (void)follow_exit_code(&follow);
    check_output(out);
    follow_done(&follow);
    bundle_init(&bundle);
    (void)bundle_part(&bundle, &part);
    text_copy(bundle.incident.id, sizeof bundle.incident.id, "INC-1");
    if (bundle_choose(&bundle, "", "", &f) == 0 && bundle.artifact_count > 0) {
        const char *file = bundle.artifacts[0].file;
        assert(!file[0] || bundle_is_safe_name(file));
    }
    (void)bundle_manifest(&bundle, out);
    check_output(out);
    bundle_done(&bundle);
}

static void try_event(struct span in, struct buf *out)
{
    trawl_v1_Event event;
    struct render_table t;
    size_t count;
    if (codec_get_event(&event, in, NULL) < 0)
        return;
    const struct render_column *columns = render_event_columns(&count);
    render_table_init(&t, columns, count);
    render_event_row(&t, &event, NOW);
    put_table(&t, out);
    (void)render_event_json(out, &event);
    check_output(out);
}

/* The same run twice, the second one a step later. */
static void try_samples(struct span in, struct buf *out)
{
    static trawl_v1_Samples samples;
    struct series_set set = {.list = NULL};
    if (codec_get_samples(&samples, in, NULL) < 0)
        return;
    if (series_add(&set, &samples) == 0 && set.count > 0) {
        samples.from_us += samples.step_us;
        (void)series_add(&set, &samples);
        (void)render_series_json(&set.list[0], out);
        (void)render_series_csv(&set.list[0], true, out);
        series_rates(&set);
        (void)render_series_summary(&set, true, false, out);
        (void)render_series_plot(&set, 100, false, out);
        if (series_sum_by_host(&set) == 0 && set.list[0].step_us < UINT32_MAX / 3)
            (void)series_resample(&set, (int64_t)set.list[0].step_us * 3);
        (void)render_series_summary(&set, false, false, out);
        check_output(out);
    }
    series_done(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const tries[])(struct span, struct buf *) = {try_host, try_top, try_part,
                                                               try_event, try_samples};
    struct buf out;
    if (size == 0)
        return 0;
    buf_init(&out, LIMIT);
    tries[data[0] % (sizeof tries / sizeof tries[0])](span_of(data + 1, size - 1), &out);
    buf_done(&out);
    return 0;
}
