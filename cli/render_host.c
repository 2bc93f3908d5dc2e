/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How hosts look. Invariant: what is not known is a gap or null, never 0. Pure; called by the
 * commands about hosts.
 */
#include "cli/render_host.h"

#include <stdlib.h>
#include <string.h>

#include "cli/jsonl.h"
#include "common/text.h"

#define LABELS_LIMIT (8 * 1024)
#define SECOND_US INT64_C(1000000)
#define SOON_US (7 * 86400 * SECOND_US)

static const char *render_host_state(trawl_v1_HostState state)
{
    switch (state) {
    case trawl_v1_HostState_ONLINE:
        return "online";
    case trawl_v1_HostState_STALE:
        return "stale";
    case trawl_v1_HostState_OFFLINE:
        return "offline";
    case trawl_v1_HostState_REVOKED:
        return "revoked";
    case trawl_v1_HostState_HOST_UNKNOWN:
        break;
    }
    return "unknown";
}

static enum render_style state_style(trawl_v1_HostState state)
{
    switch (state) {
    case trawl_v1_HostState_ONLINE:
        return RENDER_GOOD;
    case trawl_v1_HostState_STALE:
        return RENDER_WARN;
    case trawl_v1_HostState_OFFLINE:
        return RENDER_BAD;
    case trawl_v1_HostState_REVOKED:
    case trawl_v1_HostState_HOST_UNKNOWN:
        break;
    }
    return RENDER_DIM;
}

/* ---- hosts ---- */

const struct render_column *render_host_columns(bool wide, size_t *count)
{
    static const struct render_column columns[] = {
        {"NAME", false}, {"STATE", false},   {"SEEN", false},
        {"SKEW", false}, {"VERSION", false}, {"LABELS", false},
    };
    static const struct render_column wide_columns[] = {
        {"NAME", false},    {"STATE", false},       {"SEEN", false},   {"SKEW", false},
        {"VERSION", false}, {"ADDRESS", false},     {"OS", false},     {"KERNEL", false},
        {"CPUS", true},     {"CERTIFICATE", false}, {"LABELS", false},
    };
    *count =
        wide ? sizeof wide_columns / sizeof wide_columns[0] : sizeof columns / sizeof columns[0];
    return wide ? wide_columns : columns;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const trawl_v1_Label *const *)a)->key,
                  (*(const trawl_v1_Label *const *)b)->key);
}

int render_labels(struct buf *out, const trawl_v1_Host *host)
{
    const trawl_v1_Label *sorted[sizeof host->labels / sizeof host->labels[0]] = {NULL};
    for (pb_size_t i = 0; i < host->labels_count; i++)
        sorted[i] = &host->labels[i];
    qsort(sorted, host->labels_count, sizeof(const trawl_v1_Label *), by_key);
    int r = 0;
    for (pb_size_t i = 0; r == 0 && i < host->labels_count; i++)
        r = buf_printf(out, "%s%s=%s", i ? " " : "", sorted[i]->key, sorted[i]->value);
    return r;
}

/* The first of the facts' names that the host has. */
static const char *fact(const trawl_v1_Host *host, const char *key, const char *other)
{
    for (pb_size_t i = 0; i < host->facts_count; i++)
        if (strcmp(host->facts[i].key, key) == 0)
            return host->facts[i].value;
    return other ? fact(host, other, NULL) : RENDER_GAP;
}

static void certificate_cell(struct render_table *t, const trawl_v1_Host *host, int64_t now_us)
{
    char text[32];
    int64_t not_after_us = render_seconds_us(host->certificate_not_after_s);
    int64_t left_us = render_difference(not_after_us, now_us);
    if (host->certificate_not_after_s == 0) {
        render_cell(t, RENDER_PLAIN, RENDER_GAP);
        return;
    }
    text_put_time(not_after_us, text, sizeof text);
    render_cellf(t,
                 left_us < 0         ? RENDER_BAD
                 : left_us < SOON_US ? RENDER_WARN
                                     : RENDER_PLAIN,
                 "%s %.10s", left_us < 0 ? "expired" : "until", text);
}

void render_host_row(struct render_table *t, const trawl_v1_Host *host, bool wide, int64_t now_us)
{
    char seen[RENDER_TEXT_SIZE], skew[RENDER_TEXT_SIZE];
    struct buf labels;
    render_ago(host->last_seen_us, now_us, seen);
    if (host->skew_known)
        render_skew(host->skew_us, host->skew_error_us, skew);
    render_cell(t, RENDER_PLAIN, host->name);
    render_cell(t, state_style(host->state), render_host_state(host->state));
    render_cell(t, RENDER_PLAIN, host->last_seen_us ? seen : "never");
    render_cell(t, RENDER_PLAIN, host->skew_known ? skew : RENDER_GAP);
    render_cell(t, RENDER_PLAIN, host->version);
    if (wide) {
        render_cell(t, RENDER_PLAIN, host->address);
        render_cell(t, RENDER_PLAIN, fact(host, "os", NULL));
        render_cell(t, RENDER_PLAIN, fact(host, "kernel", NULL));
        render_cell(t, RENDER_PLAIN, fact(host, "cpus", "cpu_count"));
        certificate_cell(t, host, now_us);
    }
    buf_init(&labels, LABELS_LIMIT);
    (void)render_labels(&labels, host);
    render_cell(t, RENDER_PLAIN, buf_str(&labels));
    buf_done(&labels);
}

int render_host_json(struct buf *out, const trawl_v1_Host *host)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "name", host->name);
    jsonl_str(&j, "state", render_host_state(host->state));
    jsonl_time(&j, "last_seen", host->last_seen_us);
    if (host->skew_known) {
        jsonl_int(&j, "skew_us", host->skew_us);
        jsonl_int(&j, "skew_error_us", host->skew_error_us);
    } else {
        jsonl_null(&j, "skew_us");
        jsonl_null(&j, "skew_error_us");
    }
    jsonl_str(&j, "version", host->version);
    jsonl_str(&j, "address", host->address);
    jsonl_object(&j, "labels");
    for (pb_size_t i = 0; i < host->labels_count; i++)
        jsonl_member(&j, host->labels[i].key, host->labels[i].value);
    jsonl_end(&j);
    jsonl_object(&j, "facts");
    for (pb_size_t i = 0; i < host->facts_count; i++)
        jsonl_member(&j, host->facts[i].key, host->facts[i].value);
    jsonl_end(&j);
    jsonl_time(&j, "enrolled", host->enrolled_us);
    jsonl_time(&j, "certificate_not_after", render_seconds_us(host->certificate_not_after_s));
    return jsonl_line(&j);
}

/* ---- capabilities ---- */

const struct render_column *render_capability_columns(size_t *count)
{
    static const struct render_column columns[] = {
        {"HOST", false}, {"CAN", false}, {"", false}, {"REASON", false}};
    *count = sizeof columns / sizeof columns[0];
    return columns;
}

void render_capability_row(struct render_table *t, const trawl_v1_Capability *capability)
{
    render_cell(t, RENDER_PLAIN, capability->host);
    render_cell(t, RENDER_PLAIN, capability->name);
    render_cell(t, capability->available ? RENDER_GOOD : RENDER_BAD,
                capability->available ? "yes" : "no");
    render_cell(t, RENDER_PLAIN, capability->reason[0] ? capability->reason : " ");
}

int render_capability_json(struct buf *out, const trawl_v1_Capability *capability)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "host", capability->host);
    jsonl_str(&j, "name", capability->name);
    jsonl_bool(&j, "available", capability->available);
    jsonl_str(&j, "reason", capability->reason);
    return jsonl_line(&j);
}

/* ---- top ---- */

const struct render_column *render_top_columns(size_t *count)
{
    static const struct render_column columns[] = {
        {"HOST", false},   {"PROCESS", false}, {"PID", true},     {"CPU", true},  {"MEMORY", true},
        {"THREADS", true}, {"READ/S", true},   {"WRITE/S", true}, {"LOAD", true},
    };
    *count = sizeof columns / sizeof columns[0];
    return columns;
}

/* `missing` is a list of "field" or "field: reason"; "read" stands for read_bytes_s too. */
bool render_top_lacks(const trawl_v1_TopRow *row, const char *field)
{
    size_t length = strlen(field);
    for (const char *at = strstr(row->missing, field); at; at = strstr(at + 1, field)) {
        bool begins = at == row->missing || strchr(" ,;", at[-1]);
        if (begins && (at[length] == '\0' || strchr(" :,;_", at[length])))
            return true;
    }
    return false;
}

static bool is_host_row(const trawl_v1_TopRow *row)
{
    return !row->process[0] && row->pid == 0;
}

static void size_cell(struct render_table *t, const trawl_v1_TopRow *row, const char *field,
                      uint64_t bytes)
{
    char text[32];
    text_put_size(bytes, text, sizeof text);
    render_cell(t, RENDER_PLAIN, render_top_lacks(row, field) ? RENDER_GAP : text);
}

/* The collector may have no such figure of a host as a whole: then 0 says nothing. */
static void rate_cell(struct render_table *t, const trawl_v1_TopRow *row, bool is_host,
                      const char *field, uint64_t bytes)
{
    if (is_host && bytes == 0)
        render_cell(t, RENDER_PLAIN, " ");
    else
        size_cell(t, row, field, bytes);
}

static void count_cell(struct render_table *t, const trawl_v1_TopRow *row, const char *field,
                       uint32_t count)
{
    if (render_top_lacks(row, field))
        render_cell(t, RENDER_PLAIN, RENDER_GAP);
    else
        render_cellf(t, RENDER_PLAIN, "%u", count);
}

static void cpu_cell(struct render_table *t, const trawl_v1_TopRow *row, enum render_style style)
{
    if (render_top_lacks(row, "cpu"))
        render_cell(t, RENDER_PLAIN, RENDER_GAP);
    else
        render_cellf(t, style, "%u.%u %%", row->cpu_permille / 10, row->cpu_permille % 10);
}

void render_top_row(struct render_table *t, const trawl_v1_TopRow *row)
{
    bool is_host = is_host_row(row);
    enum render_style style = is_host ? RENDER_BOLD : RENDER_PLAIN;
    render_cell(t, style, row->host);
    if (is_host && row->cores)
        render_cellf(t, style, "(host, %u cores)", row->cores);
    else
        render_cell(t, style, is_host ? "(host)" : row->process);
    if (is_host)
        render_cell(t, RENDER_PLAIN, " ");
    else
        render_cellf(t, RENDER_PLAIN, "%u", row->pid);
    cpu_cell(t, row, style);
    size_cell(t, row, "memory", row->memory_bytes);
    if (is_host && row->threads == 0)
        render_cell(t, RENDER_PLAIN, " ");
    else
        count_cell(t, row, "threads", row->threads);
    rate_cell(t, row, is_host, "read", row->read_bytes_s);
    rate_cell(t, row, is_host, "write", row->write_bytes_s);
    if (!is_host)
        render_cell(t, RENDER_PLAIN, " ");
    else if (render_top_lacks(row, "load"))
        render_cell(t, RENDER_PLAIN, RENDER_GAP);
    else
        render_cellf(t, RENDER_PLAIN, "%u.%02u", row->load_milli / 1000,
                     row->load_milli % 1000 / 10);
}

static void number(struct jsonl *j, const trawl_v1_TopRow *row, const char *key, const char *field,
                   uint64_t value)
{
    if (render_top_lacks(row, field))
        jsonl_null(j, key);
    else
        jsonl_u64(j, key, value);
}

int render_top_json(struct buf *out, const trawl_v1_TopRow *row)
{
    bool is_host = is_host_row(row);
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_u64(&j, "round", row->round);
    jsonl_time(&j, "at", row->at_us);
    jsonl_str(&j, "host", row->host);
    if (is_host) {
        jsonl_null(&j, "process");
        number(&j, row, "cores", "cores", row->cores);
        number(&j, row, "load_milli", "load", row->load_milli);
    } else {
        jsonl_str(&j, "process", row->process);
        jsonl_u64(&j, "pid", row->pid);
    }
    number(&j, row, "cpu_permille", "cpu", row->cpu_permille);
    number(&j, row, "memory_bytes", "memory", row->memory_bytes);
    if (!is_host || row->threads)
        number(&j, row, "threads", "threads", row->threads);
    if (!is_host || row->read_bytes_s || row->write_bytes_s) {
        number(&j, row, "read_bytes_s", "read", row->read_bytes_s);
        number(&j, row, "write_bytes_s", "write", row->write_bytes_s);
    }
    jsonl_str(&j, "missing", row->missing);
    return jsonl_line(&j);
}
