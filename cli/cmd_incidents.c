/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that read what the collector keeps of incidents and events: incidents, show, cancel,
 * events. Invariant: `show` prints the report that the collector made, so that it reads the same
 * here, in a bundle and for everybody. Called through the table.
 */
#include "cli/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "cli/incident_call.h"
#include "cli/render_incident.h"
#include "common/text.h"

#define LINE_LIMIT (256 * 1024)
#define REQUEST_LIMIT (16 * 1024)
#define FIRST_EVENTS 64

struct listing {
    struct cli *cli;
    struct render_table table;
    struct buf line;
    char group[sizeof(((trawl_v1_Incident *)0)->group)]; /* of show; "": none, or named already */
};

static int write_line(struct listing *l, int rendered, struct failure *f)
{
    if (rendered < 0)
        return fail(f, rendered, "cannot show a line: %s", err_text(rendered));
    return cli_write(l->cli, &l->line, f);
}

/* ---- incidents ---- */

static int on_incident(void *owner, struct span message, struct failure *f)
{
    struct listing *l = owner;
    trawl_v1_Incident incident;
    int r = codec_get_incident(&incident, message, f);
    if (r < 0)
        return r;
    if (l->cli->output == CLI_JSON)
        return write_line(l, render_incident_json(&l->line, &incident), f);
    render_incident_row(&l->table, &incident, l->cli->output == CLI_WIDE, l->cli->now_us);
    return 0;
}

int cmd_incidents(struct cli *cli, struct failure *f)
{
    const struct cmd_window_options *options = cli->options;
    trawl_v1_IncidentsRequest request = {.from_us = 0};
    struct listing l = {.cli = cli};
    struct buf wire;
    size_t count;
    const struct render_column *columns = render_incident_columns(cli->output == CLI_WIDE, &count);
    int r = cli_window(cli, options->last_us, options->from, options->to, &request.from_us,
                       &request.to_us, f);
    if (r < 0)
        return r;
    if (!options->to[0])
        request.to_us = 0; /* also what was made while we ask */
    render_table_init(&l.table, columns, count);
    buf_init(&l.line, LINE_LIMIT);
    buf_init(&wire, REQUEST_LIMIT);
    r = codec_put_incidents_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_INCIDENTS, &wire, on_incident, &l, f);
    if (r == 0)
        r = cli_write_table(cli, &l.table, f);
    if (r == 0 && cli->output != CLI_JSON && render_row_count(&l.table) == 0)
        cli_note(cli, "no incident in this time (--last 7d looks further back)");
    buf_done(&wire);
    buf_done(&l.line);
    render_table_done(&l.table);
    return r;
}

/* ---- show ---- */

static int on_part(void *owner, struct span message, struct failure *f)
{
    struct listing *l = owner;
    trawl_v1_IncidentPart part;
    int r = codec_get_incident_part(&part, message, f);
    if (r < 0)
        return r;
    if (l->cli->output == CLI_JSON)
        return part.which_body == trawl_v1_IncidentPart_line_tag
                   ? 0
                   : write_line(l, render_part_json(&l->line, &part), f);
    if (part.which_body == trawl_v1_IncidentPart_incident_tag)
        return text_copy(l->group, sizeof l->group, part.body.incident.group);
    if (part.which_body != trawl_v1_IncidentPart_line_tag)
        return 0;
    if (strstr(part.body.line, "trawl group"))
        l->group[0] = '\0';
    r = text_append_safe(&l->line, span_str(part.body.line), true);
    if (r == 0)
        r = buf_append_byte(&l->line, '\n');
    return write_line(l, r, f);
}

/* An incident that opened by itself leads to the group of exceptions that it is of. */
static int write_group(struct listing *l, struct failure *f)
{
    int r = buf_append_str(&l->line, "group ");
    if (r == 0)
        r = render_styled(&l->line, RENDER_PLAIN, false, l->group, 0);
    if (r == 0)
        r = buf_append_str(&l->line, "       trawl group ");
    if (r == 0)
        r = render_styled(&l->line, RENDER_PLAIN, false, render_short_id(l->group), 0);
    return write_line(l, r < 0 ? r : buf_append_byte(&l->line, '\n'), f);
}

int cmd_show(struct cli *cli, struct failure *f)
{
    struct listing l = {.cli = cli};
    buf_init(&l.line, LINE_LIMIT);
    int r = incident_call(cli, METHOD_OPS_SHOW, cli->words[0], on_part, &l, f);
    if (r == 0 && l.group[0])
        r = write_group(&l, f);
    buf_done(&l.line);
    return r;
}

/* ---- cancel ---- */

static int on_cancelled(void *owner, struct span message, struct failure *f)
{
    return codec_get_incident(owner, message, f);
}

int cmd_cancel(struct cli *cli, struct failure *f)
{
    trawl_v1_Incident incident = {.id = ""};
    struct buf text;
    int r = incident_call(cli, METHOD_OPS_CANCEL, cli->words[0], on_cancelled, &incident, f);
    if (r < 0)
        return r;
    buf_init(&text, LINE_LIMIT);
    if (cli->output == CLI_JSON)
        r = render_incident_json(&text, &incident);
    else {
        r = render_styled(&text, RENDER_PLAIN, false, incident.id, 0);
        if (r == 0)
            r = buf_printf(&text, "  cancelled; what was gathered stays: trawl show %s\n",
                           render_short_id(incident.id));
    }
    r = r < 0 ? fail(f, r, "%s", err_text(r)) : cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}

/* ---- events ---- */

/* Hosts answer one after the other; people and programs want one order in time. */
struct timeline {
    trawl_v1_Event *events;
    size_t count, capacity;
};

static int on_event(void *owner, struct span message, struct failure *f)
{
    struct timeline *t = owner;
    if (BUF_GROW(t->events, t->count, &t->capacity, FIRST_EVENTS))
        return ERR_NOMEM;
    int r = codec_get_event(&t->events[t->count], message, f);
    t->count += r == 0;
    return r;
}

static int by_time(const void *a, const void *b)
{
    const trawl_v1_Event *x = a, *y = b;
    if (x->wall_us != y->wall_us)
        return x->wall_us < y->wall_us ? -1 : 1;
    int r = strcmp(x->host, y->host);
    return r ? r : x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int show_events(struct cli *cli, struct timeline *t, struct failure *f)
{
    struct listing l = {.cli = cli};
    size_t count;
    const struct render_column *columns = render_event_columns(&count);
    int r = 0;
    if (t->count > 1)
        qsort(t->events, t->count, sizeof *t->events, by_time);
    render_table_init(&l.table, columns, count);
    buf_init(&l.line, LINE_LIMIT);
    for (size_t i = 0; r == 0 && i < t->count; i++) {
        if (cli->output == CLI_JSON)
            r = write_line(&l, render_event_json(&l.line, &t->events[i]), f);
        else
            render_event_row(&l.table, &t->events[i], cli->now_us);
    }
    if (r == 0)
        r = cli_write_table(cli, &l.table, f);
    if (r == 0 && t->count == 0 && cli->output != CLI_JSON)
        cli_note(cli, "no events in this time on these hosts");
    buf_done(&l.line);
    render_table_done(&l.table);
    return r;
}

int cmd_events(struct cli *cli, struct failure *f)
{
    const struct cmd_window_options *options = cli->options;
    trawl_v1_EventsRequest request = {.selector = ""};
    struct timeline timeline = {.events = NULL};
    struct buf wire;
    int r = cli_selector(cli, 0, false, request.selector, sizeof request.selector, f);
    if (r == 0)
        r = cli_window(cli, options->last_us, options->from, options->to, &request.from_us,
                       &request.to_us, f);
    if (r < 0)
        return r;
    buf_init(&wire, REQUEST_LIMIT);
    r = codec_put_events_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_EVENTS, &wire, on_event, &timeline, f);
    buf_done(&wire);
    if (r == 0)
        r = show_events(cli, &timeline, f);
    free(timeline.events);
    return r == ERR_NOTFOUND ? cli_explain_no_match(cli, request.selector, f) : r;
}
