/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl watch: what changes in an incident, a line at a time, until everything has ended.
 * Invariant: it ends as `capture` would have: same summary, same exit status. Called through the
 * table.
 */
#include "cli/cmd.h"

#include "cli/incident_call.h"
#include "cli/summary.h"
#include "cli/watching.h"
#include "common/port.h"
#include "common/text.h"

#define LINE_LIMIT (64 * 1024)
#define HOST_WIDTH 16

struct view {
    struct cli *cli;
    struct buf line;
};

static int put_change(struct view *v, const struct follow_target *changed)
{
    char when[RENDER_TEXT_SIZE];
    int64_t now = port_wall_us();
    const trawl_v1_Target *target = &changed->record;
    render_clock(target->updated_us ? target->updated_us : now, now, when);
    int r = buf_append_str(&v->line, when);
    return r < 0 ? r : render_target_line(&v->line, target, HOST_WIDTH, v->cli->color);
}

static int on_part(void *owner, const trawl_v1_IncidentPart *part,
                   const struct follow_target *changed, struct failure *f)
{
    struct view *v = owner;
    int r = 0;
    if (v->cli->output == CLI_JSON)
        r = render_part_json(&v->line, part);
    else if (changed)
        r = put_change(v, changed);
    if (r < 0 || v->line.size_bytes == 0)
        return r;
    cli_progress_clear(v->cli);
    r = cli_write(v->cli, &v->line, f);
    return r < 0 ? r : cli_flush(v->cli, f);
}

static int watch(struct cli *cli, const char *incident, struct failure *f)
{
    struct view view = {.cli = cli};
    struct follow follow;
    enum watching_end end;
    struct watching_settings settings = {
        .incident = incident,
        .wait_for_offline = true,
        .part = on_part,
        .owner = &view,
    };
    follow_init(&follow, 0);
    buf_init(&view.line, LINE_LIMIT);
    int r = watching_run(cli, &settings, &follow, &end, f);
    cli_progress_clear(cli);
    if (r == 0 && cli->output != CLI_JSON)
        r = summary_line(cli, &follow, f);
    if (r == 0 && end == WATCHING_INTERRUPTED)
        cli_note(cli, "the capture goes on: trawl watch %s", render_short_id(follow.incident.id));
    if (r == 0)
        r = follow_exit_code(&follow);
    buf_done(&view.line);
    follow_done(&follow);
    return r;
}

int cmd_watch(struct cli *cli, struct failure *f)
{
    char incident[sizeof(((trawl_v1_Incident *)0)->id)] = "";
    int r = cli_connect(cli, f);
    if (r == 0 && cli->word_count > 0)
        r = incident_check_id(cli->words[0], f);
    if (r == 0 && cli->word_count > 0)
        r = text_copy(incident, sizeof incident, cli->words[0]);
    else if (r == 0)
        r = incident_newest(cli, incident, sizeof incident, f);
    return r < 0 ? r : watch(cli, incident, f);
}
