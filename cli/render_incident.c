/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How captures look. Invariant: JSON has every field that the message has, with null for what is
 * not known; texts stand as they came, the cause's own sentence. Pure; called by the commands.
 */
#include "cli/render_incident.h"

#include <string.h>

#include "common/text.h"

#define TEXT_LIMIT (8 * 1024)
#define STATE_WIDTH 9

/* ---- names ---- */

static const char *const STATES[RENDER_STATE_COUNT] = {
    [trawl_v1_State_STATE_UNKNOWN] = "unknown",
    [trawl_v1_State_QUEUED] = "queued",
    [trawl_v1_State_SENT] = "sent",
    [trawl_v1_State_RUNNING] = "running",
    [trawl_v1_State_DONE] = "done",
    [trawl_v1_State_PARTIAL] = "partial",
    [trawl_v1_State_REFUSED] = "refused",
    [trawl_v1_State_FAILED] = "failed",
    [trawl_v1_State_EXPIRED] = "expired",
    [trawl_v1_State_CANCELLED] = "cancelled",
    [trawl_v1_State_GONE] = "gone",
};

const char *render_state(trawl_v1_State state)
{
    return (unsigned)state < RENDER_STATE_COUNT ? STATES[state] : STATES[0];
}

bool render_state_is_final(trawl_v1_State state)
{
    return state >= trawl_v1_State_DONE && (unsigned)state < RENDER_STATE_COUNT;
}

static enum render_style state_style(trawl_v1_State state)
{
    switch (state) {
    case trawl_v1_State_DONE:
        return RENDER_GOOD;
    case trawl_v1_State_REFUSED:
    case trawl_v1_State_FAILED:
    case trawl_v1_State_EXPIRED:
        return RENDER_BAD;
    case trawl_v1_State_PARTIAL:
    case trawl_v1_State_CANCELLED:
    case trawl_v1_State_GONE:
    case trawl_v1_State_QUEUED:
        return RENDER_WARN;
    case trawl_v1_State_SENT:
    case trawl_v1_State_RUNNING:
    case trawl_v1_State_STATE_UNKNOWN:
        break;
    }
    return RENDER_PLAIN;
}

static const char *render_event_type(trawl_v1_EventType type)
{
    static const char *const names[] = {
        "unknown",         "agent started",  "agent stopped",  "process started",
        "process exited",  "kernel message", "collector lost", "collector back",
        "capture started", "capture ended",  "data gap",       "rule fired",
        "rule held back",  "rule over",      "rule blind",     "rule sees",
    };
    return (unsigned)type < sizeof names / sizeof names[0] ? names[type] : names[0];
}

const char *render_short_id(const char *id)
{
    const char *dash = strrchr(id, '-');
    return dash && dash[1] ? dash + 1 : id;
}

/* ---- for people ---- */

const struct render_column *render_incident_columns(bool wide, size_t *count)
{
    static const struct render_column columns[] = {
        {"INCIDENT", false}, {"CREATED", false}, {"CAUSE", false}, {"TARGETS", false},
        {"ARTIFACTS", true}, {"SIZE", true},     {"NOTE", false},
    };
    static const struct render_column wide_columns[] = {
        {"INCIDENT", false}, {"CREATED", false}, {"CAUSE", false},        {"TARGETS", false},
        {"ARTIFACTS", true}, {"SIZE", true},     {"LONGEST PAUSE", true}, {"SELECTOR", false},
        {"WHAT", false},     {"NOTE", false},
    };
    *count =
        wide ? sizeof wide_columns / sizeof wide_columns[0] : sizeof columns / sizeof columns[0];
    return wide ? wide_columns : columns;
}

int render_counts(struct buf *out, const uint32_t *counts)
{
    static const trawl_v1_State order[] = {
        trawl_v1_State_DONE,   trawl_v1_State_PARTIAL, trawl_v1_State_REFUSED,
        trawl_v1_State_FAILED, trawl_v1_State_EXPIRED, trawl_v1_State_CANCELLED,
        trawl_v1_State_GONE,   trawl_v1_State_RUNNING, trawl_v1_State_SENT,
        trawl_v1_State_QUEUED,
    };
    const char *comma = "";
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof order / sizeof order[0]; i++) {
        if (counts[order[i]] == 0)
            continue;
        r = buf_printf(out, "%s%u %s", comma, counts[order[i]], render_state(order[i]));
        comma = ", ";
    }
    return r < 0 || comma[0] ? r : buf_append_str(out, "no targets");
}

static void counts_of(const trawl_v1_Incident *incident, uint32_t counts[RENDER_STATE_COUNT])
{
    memset(counts, 0, RENDER_STATE_COUNT * sizeof *counts);
    for (pb_size_t i = 0; i < incident->states_count; i++)
        if ((unsigned)incident->states[i].state < RENDER_STATE_COUNT)
            counts[incident->states[i].state] += incident->states[i].count;
}

static void what_cell(struct render_table *t, const trawl_v1_Incident *incident)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    for (pb_size_t i = 0; i < incident->what_count; i++)
        (void)buf_printf(&text, "%s%s", i ? "," : "", incident->what[i]);
    render_cell(t, RENDER_PLAIN, buf_str(&text));
    buf_done(&text);
}

void render_incident_row(struct render_table *t, const trawl_v1_Incident *incident, bool wide,
                         int64_t now_us)
{
    char created[RENDER_TEXT_SIZE], size[32], pause[32];
    uint32_t counts[RENDER_STATE_COUNT];
    struct buf text;
    render_clock(incident->created_us, now_us, created);
    text_put_size(incident->size_bytes, size, sizeof size);
    text_put_duration((int64_t)incident->longest_pause_us, pause, sizeof pause);
    counts_of(incident, counts);
    buf_init(&text, TEXT_LIMIT);
    (void)render_counts(&text, counts);
    render_cell(t, RENDER_PLAIN, incident->id);
    render_cell(t, RENDER_PLAIN, created);
    render_cell(t, RENDER_PLAIN, incident->cause);
    render_cell(t, incident->finished ? RENDER_PLAIN : RENDER_WARN, buf_str(&text));
    render_cellf(t, RENDER_PLAIN, "%u", incident->artifacts);
    render_cell(t, RENDER_PLAIN, size);
    if (wide) {
        render_cell(t, RENDER_PLAIN, pause);
        render_cell(t, RENDER_PLAIN, incident->selector);
        what_cell(t, incident);
    }
    render_cell(t, RENDER_PLAIN, incident->note[0] ? incident->note : " ");
    buf_done(&text);
}

const struct render_column *render_event_columns(size_t *count)
{
    static const struct render_column columns[] = {
        {"TIME", false}, {"HOST", false}, {"EVENT", false}, {"PROCESS", false}, {"TEXT", false}};
    *count = sizeof columns / sizeof columns[0];
    return columns;
}

static void put_process(const char *process, uint32_t pid, char *out, size_t size_bytes)
{
    if (process[0] && pid)
        text_format(out, size_bytes, "%s[%u]", process, pid);
    else if (pid)
        text_format(out, size_bytes, "[%u]", pid);
    else
        text_copy(out, size_bytes, process);
}

void render_event_row(struct render_table *t, const trawl_v1_Event *event, int64_t now_us)
{
    char when[RENDER_TEXT_SIZE], process[96];
    render_clock(event->wall_us, now_us, when);
    put_process(event->process, event->pid, process, sizeof process);
    render_cell(t, RENDER_PLAIN, when);
    render_cell(t, RENDER_PLAIN, event->host);
    render_cell(t, RENDER_PLAIN, render_event_type(event->type));
    render_cell(t, RENDER_PLAIN, process[0] ? process : " ");
    render_cell(t, RENDER_PLAIN, event->text[0] ? event->text : " ");
}

int render_target_line(struct buf *out, const trawl_v1_Target *target, size_t host_width,
                       bool color)
{
    int r = buf_append_str(out, "  ");
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, color, target->host, host_width);
    if (r == 0)
        r = buf_append_str(out, "   ");
    if (r == 0)
        r = render_styled(out, state_style(target->state), color, render_state(target->state),
                          target->reason[0] ? STATE_WIDTH : 0);
    if (r == 0 && target->reason[0])
        r = buf_append_byte(out, ' ');
    if (r == 0)
        r = render_styled(out, RENDER_PLAIN, color, target->reason, 0);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

/* ---- for programs ---- */

static void process_member(struct jsonl *j, const trawl_v1_ProcessSelector *process)
{
    jsonl_object(j, "process");
    if (process->name[0])
        jsonl_str(j, "name", process->name);
    if (process->pid)
        jsonl_u64(j, "pid", process->pid);
    if (process->unit[0])
        jsonl_str(j, "unit", process->unit);
    if (process->port)
        jsonl_u64(j, "port", process->port);
    if (process->container[0])
        jsonl_str(j, "container", process->container);
    if (process->command[0])
        jsonl_str(j, "command", process->command);
    jsonl_end(j);
}

void render_incident_members(struct jsonl *j, const trawl_v1_Incident *incident)
{
    uint32_t counts[RENDER_STATE_COUNT];
    counts_of(incident, counts);
    jsonl_str(j, "id", incident->id);
    jsonl_str(j, "cause", incident->cause);
    jsonl_str(j, "note", incident->note);
    jsonl_time(j, "created", incident->created_us);
    jsonl_time(j, "from", incident->from_us);
    jsonl_time(j, "to", incident->to_us);
    jsonl_time(j, "expires", incident->expires_us);
    jsonl_bool(j, "finished", incident->finished);
    jsonl_str(j, "stopped", incident->stopped);
    jsonl_str(j, "selector", incident->selector);
    if (incident->has_process)
        process_member(j, &incident->process);
    jsonl_strs(j, "what", incident->what[0], sizeof incident->what[0], incident->what_count);
    jsonl_object(j, "states");
    for (unsigned s = trawl_v1_State_QUEUED; s < RENDER_STATE_COUNT; s++)
        if (counts[s])
            jsonl_u64(j, STATES[s], counts[s]);
    jsonl_end(j);
    jsonl_u64(j, "processes", incident->processes);
    jsonl_u64(j, "artifacts", incident->artifacts);
    jsonl_u64(j, "size_bytes", incident->size_bytes);
    jsonl_u64(j, "longest_pause_us", incident->longest_pause_us);
    jsonl_u64(j, "pause_max_us", incident->pause_max_us);
    jsonl_bool(j, "fallback", incident->fallback);
    jsonl_bool(j, "live", incident->live);
    jsonl_bool(j, "allow_pause", incident->allow_pause);
    jsonl_u64(j, "canary", incident->canary);
    jsonl_u64(j, "max_parallel", incident->max_parallel);
    jsonl_u64(j, "last_us", incident->last_us);
    jsonl_u64(j, "for_us", incident->for_us);
    jsonl_time(j, "at", incident->at_us);
    jsonl_str(j, "group", incident->group);
    jsonl_str(j, "rule", incident->rule);
}

void render_target_members(struct jsonl *j, const trawl_v1_Target *target)
{
    jsonl_str(j, "incident", target->incident);
    jsonl_str(j, "host", target->host);
    jsonl_u64(j, "capture", target->capture);
    jsonl_str(j, "state", render_state(target->state));
    jsonl_str(j, "reason", target->reason);
    jsonl_time(j, "updated", target->updated_us);
    jsonl_u64(j, "processes", target->processes);
    jsonl_u64(j, "artifacts", target->artifacts);
    jsonl_u64(j, "longest_pause_us", target->longest_pause_us);
    jsonl_int(j, "at_error_us", target->at_error_us);
    jsonl_u64(j, "wave", target->wave);
    jsonl_time(j, "host_last_seen", target->host_last_seen_us);
}

static void stack_members(struct jsonl *j, const trawl_v1_StackGroup *stack)
{
    jsonl_hex(j, "signature", stack->signature.bytes, stack->signature.size);
    jsonl_str(j, "process", stack->process);
    jsonl_u64(j, "count", stack->count);
    if (stack->hosts)
        jsonl_u64(j, "hosts", stack->hosts);
    jsonl_str(j, "frames", stack->frames);
}

void render_artifact_members(struct jsonl *j, const trawl_v1_Artifact *artifact)
{
    jsonl_str(j, "host", artifact->host);
    jsonl_u64(j, "no", artifact->no);
    jsonl_str(j, "kind", artifact->kind);
    jsonl_str(j, "process", artifact->process);
    jsonl_u64(j, "pid", artifact->pid);
    jsonl_str(j, "file", artifact->file);
    jsonl_time(j, "host_time", artifact->wall_us);
    jsonl_time(j, "time",
               artifact->wall_us ? render_difference(artifact->wall_us, artifact->skew_us) : 0);
    jsonl_int(j, "skew_us", artifact->skew_us);
    jsonl_int(j, "skew_error_us", artifact->skew_error_us);
    jsonl_bool(j, "paused", artifact->paused);
    jsonl_u64(j, "pause_us", artifact->pause_us);
    jsonl_u64(j, "expected_pause_us", artifact->expected_us);
    jsonl_u64(j, "threads", artifact->threads);
    jsonl_bool(j, "sealed", artifact->sealed);
    jsonl_u64(j, "size_bytes", artifact->size_bytes);
    jsonl_hex(j, "sha256", artifact->sha256.bytes, artifact->sha256.size);
    jsonl_str(j, "encoding", artifact->encoding);
    if (artifact->encoding[0] && artifact->plain_bytes)
        jsonl_u64(j, "plain_bytes", artifact->plain_bytes);
    jsonl_str(j, "missing", artifact->missing);
    jsonl_list(j, "stacks");
    for (pb_size_t i = 0; i < artifact->stacks_count; i++) {
        jsonl_object(j, NULL);
        stack_members(j, &artifact->stacks[i]);
        jsonl_end(j);
    }
    jsonl_end(j);
}

static void render_event_members(struct jsonl *j, const trawl_v1_Event *event)
{
    jsonl_time(j, "time", event->wall_us);
    jsonl_int(j, "skew_us", event->skew_us);
    jsonl_int(j, "skew_error_us", event->skew_error_us);
    jsonl_str(j, "host", event->host);
    jsonl_word(j, "event", render_event_type(event->type));
    jsonl_str(j, "process", event->process);
    jsonl_u64(j, "pid", event->pid);
    jsonl_str(j, "text", event->text);
    if (event->rule[0])
        jsonl_str(j, "rule", event->rule);
}

int render_incident_json(struct buf *out, const trawl_v1_Incident *incident)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    render_incident_members(&j, incident);
    return jsonl_line(&j);
}

int render_event_json(struct buf *out, const trawl_v1_Event *event)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    render_event_members(&j, event);
    return jsonl_line(&j);
}

int render_target_json(struct buf *out, const trawl_v1_Target *target)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "type", "target");
    render_target_members(&j, target);
    return jsonl_line(&j);
}

static void part_members(struct jsonl *j, const trawl_v1_IncidentPart *part)
{
    switch (part->which_body) {
    case trawl_v1_IncidentPart_incident_tag:
        jsonl_str(j, "type", "incident");
        render_incident_members(j, &part->body.incident);
        break;
    case trawl_v1_IncidentPart_target_tag:
        jsonl_str(j, "type", "target");
        render_target_members(j, &part->body.target);
        break;
    case trawl_v1_IncidentPart_artifact_tag:
        jsonl_str(j, "type", "artifact");
        render_artifact_members(j, &part->body.artifact);
        break;
    case trawl_v1_IncidentPart_stack_tag:
        jsonl_str(j, "type", "stack");
        stack_members(j, &part->body.stack);
        break;
    case trawl_v1_IncidentPart_event_tag:
        jsonl_str(j, "type", "event");
        render_event_members(j, &part->body.event);
        break;
    case trawl_v1_IncidentPart_line_tag:
        jsonl_str(j, "type", "line");
        jsonl_str(j, "line", part->body.line);
        break;
    case trawl_v1_IncidentPart_end_tag:
        jsonl_str(j, "type", "end");
        break;
    default:
        jsonl_str(j, "type", "unknown");
    }
}

int render_part_json(struct buf *out, const trawl_v1_IncidentPart *part)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    part_members(&j, part);
    return jsonl_line(&j);
}
