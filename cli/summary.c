/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a capture ended, for people and for programs. Invariant: one line per target that is not
 * done, then one line for all. Called by cmd_capture.c and cmd_watch.c.
 */
#include "cli/summary.h"

#include "cli/jsonl.h"
#include "common/text.h"

#define TEXT_LIMIT (16u << 20)
#define GAP_COLUMNS 7

static int put_line(const struct follow *follow, struct buf *out)
{
    uint32_t counts[RENDER_STATE_COUNT];
    follow_counts(follow, counts);
    int r = render_counts(out, counts);
    if (r == 0)
        r = buf_printf(out, "%*strawl show ", GAP_COLUMNS, "");
    if (r == 0)
        r = text_append_safe(out, span_str(render_short_id(follow->incident.id)), false);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

static int print(struct cli *cli, struct buf *text, int r, struct failure *f)
{
    r = r < 0 ? fail(f, r, "cannot show the summary: %s", err_text(r)) : cli_write(cli, text, f);
    buf_done(text);
    return r;
}

int summary_targets(struct cli *cli, const struct follow *follow, struct failure *f)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    int r = follow_lines(follow, cli->now_us, cli->color, &text);
    return print(cli, &text, r, f);
}

int summary_line(struct cli *cli, const struct follow *follow, struct failure *f)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    int r = put_line(follow, &text);
    if (r == 0 && follow->incident.stopped[0]) {
        r = render_styled(&text, RENDER_BAD, cli->color, follow->incident.stopped, 0);
        if (r == 0)
            r = buf_append_byte(&text, '\n');
    }
    return print(cli, &text, r, f);
}

static void total_members(struct jsonl *j, const struct follow *follow, uint32_t online,
                          int64_t elapsed_us)
{
    uint32_t counts[RENDER_STATE_COUNT];
    follow_counts(follow, counts);
    jsonl_str(j, "type", "capture");
    jsonl_str(j, "incident", follow->incident.id);
    jsonl_u64(j, "hosts", follow->count);
    jsonl_u64(j, "online", online);
    jsonl_object(j, "states");
    for (unsigned s = trawl_v1_State_QUEUED; s < RENDER_STATE_COUNT; s++)
        if (counts[s])
            jsonl_u64(j, render_state((trawl_v1_State)s), counts[s]);
    jsonl_end(j);
    jsonl_u64(j, "longest_pause_us", follow_longest_pause_us(follow));
    jsonl_int(j, "elapsed_us", elapsed_us);
    jsonl_str(j, "stopped", follow->incident.stopped);
    jsonl_int(j, "exit", follow_exit_code(follow));
}

int summary_json(struct cli *cli, const struct follow *follow, uint32_t online, int64_t elapsed_us,
                 struct failure *f)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    struct jsonl j = {.out = &text};
    int r = 0;
    for (size_t i = 0; r == 0 && i < follow->count; i++)
        r = render_target_json(&text, &follow->targets[i].record);
    if (r == 0) {
        jsonl_object(&j, NULL);
        total_members(&j, follow, online, elapsed_us);
        r = jsonl_line(&j);
    }
    return print(cli, &text, r, f);
}
