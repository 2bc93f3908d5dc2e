/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl counters: what was sampled, as a summary, rows of time, plots, JSON or CSV; without a name
 * the list of what exists. Invariant: programs get the samples as they were stored unless --step or
 * --by asks for something else; people get rates of what only counts up. Called through the table.
 */
#include "cli/cmd.h"

#include <string.h>

#include "cli/names.h"
#include "cli/render_series.h"
#include "common/text.h"

#define LINE_LIMIT (64u << 20)
#define REQUEST_LIMIT (16 * 1024)

static const char *const BY[] = {"series", "host", NULL};

/* ---- names ---- */

struct naming {
    struct cli *cli;
    struct render_table table;
    struct buf line;
    struct names names; /* filled instead, when `silent` */
    bool silent;
};

static int on_name(void *owner, struct span message, struct failure *f)
{
    struct naming *n = owner;
    trawl_v1_CounterName name;
    int r = codec_get_counter_name(&name, message, f);
    if (r < 0)
        return r;
    if (n->silent)
        return names_add(&n->names, name.name);
    if (n->cli->output != CLI_JSON) {
        render_name_row(&n->table, &name);
        return 0;
    }
    r = render_name_json(&n->line, &name);
    return r < 0 ? r : cli_write(n->cli, &n->line, f);
}

static int ask_names(struct naming *n, const char *selector, struct failure *f)
{
    trawl_v1_HostsRequest request = {.selector = ""};
    struct buf wire;
    text_copy(request.selector, sizeof request.selector, selector);
    buf_init(&wire, REQUEST_LIMIT);
    int r = codec_put_hosts_request(&wire, &request);
    if (r == 0)
        r = cli_call(n->cli, METHOD_OPS_COUNTER_NAMES, &wire, on_name, n, f);
    buf_done(&wire);
    return r;
}

static int list_names(struct cli *cli, const char *selector, struct failure *f)
{
    struct naming n = {.cli = cli};
    size_t count;
    const struct render_column *columns = render_name_columns(&count);
    render_table_init(&n.table, columns, count);
    buf_init(&n.line, LINE_LIMIT);
    int r = ask_names(&n, selector, f);
    if (r == 0)
        r = cli_write_table(cli, &n.table, f);
    if (r == 0 && cli->output != CLI_JSON && render_row_count(&n.table) == 0)
        cli_note(cli, "no counter has been sampled yet on these hosts");
    render_table_done(&n.table);
    buf_done(&n.line);
    return r == ERR_NOTFOUND ? cli_explain_no_match(cli, selector, f) : r;
}

/* Which of what was asked for has no samples: the hosts, a name, or the time? */
static int explain(struct cli *cli, const trawl_v1_CountersRequest *request, struct failure *f)
{
    struct naming n = {.cli = cli, .silent = true};
    struct failure why = *f;
    int r = ask_names(&n, request->selector, f);
    if (r == ERR_NOTFOUND)
        r = cli_explain_no_match(cli, request->selector, f);
    for (pb_size_t i = 0; r == 0 && i < request->names_count; i++) {
        const char *name = request->names[i];
        if (!strpbrk(name, "*?") && !names_has(&n.names, name))
            r = names_fail(f, ERR_INVALID, "counter", name, names_list(&n.names));
    }
    names_done(&n.names);
    if (r < 0)
        return r;
    *f = why;
    return why.code;
}

/* ---- samples ---- */

static int on_samples(void *owner, struct span message, struct failure *f)
{
    trawl_v1_Samples samples;
    int r = codec_get_samples(&samples, message, f);
    if (r == 0)
        r = series_add(owner, &samples);
    if (r == ERR_LIMIT)
        return fail(f, r, "too many samples: ask for a shorter time");
    return r;
}

static int show_lines(struct cli *cli, const struct series_set *set, struct failure *f)
{
    struct buf line;
    int r = 0;
    buf_init(&line, LINE_LIMIT);
    for (size_t i = 0; r == 0 && i < set->count; i++) {
        r = cli->output == CLI_JSON ? render_series_json(&set->list[i], &line)
                                    : render_series_csv(&set->list[i], i == 0, &line);
        r = r < 0 ? fail(f, r, "cannot show '%s': %s", set->list[i].name, err_text(r))
                  : cli_write(cli, &line, f);
    }
    buf_done(&line);
    return r;
}

static int show_table(struct cli *cli, const struct series_set *set, struct failure *f)
{
    const struct cmd_counters_options *options = cli->options;
    struct buf text;
    int r;
    buf_init(&text, CLI_OUTPUT_LIMIT);
    if (options->plot)
        r = render_series_plot(set, cli->columns, cli->color, &text);
    else if (options->step_us)
        r = render_series_times(set, cli->now_us, cli->color, &text);
    else
        r = render_series_summary(set, cli->output == CLI_WIDE, cli->color, &text);
    r = r < 0 ? fail(f, r, "cannot show the samples: %s", err_text(r)) : cli_write(cli, &text, f);
    buf_done(&text);
    return r;
}

static int show(struct cli *cli, struct series_set *set, struct failure *f)
{
    const struct cmd_counters_options *options = cli->options;
    bool by_host = strcmp(options->by, "host") == 0;
    bool for_people = cli->output == CLI_TABLE || cli->output == CLI_WIDE;
    int r = 0;
    if (for_people || by_host || options->step_us)
        series_rates(set);
    if (by_host)
        r = series_sum_by_host(set);
    if (r == 0 && options->step_us && series_resample(set, options->step_us) < 0)
        r = fail(f, ERR_INVALID, "--step is finer than what was sampled");
    if (r < 0)
        return r;
    series_sort(set);
    return for_people ? show_table(cli, set, f) : show_lines(cli, set, f);
}

static int read_request(struct cli *cli, trawl_v1_CountersRequest *request, struct failure *f)
{
    const struct cmd_counters_options *options = cli->options;
    if ((size_t)cli->word_count > CLI_COUNT(request->names))
        return fail(f, ERR_INVALID, "more than %zu counters at once: use a glob such as 'cpu.*'",
                    CLI_COUNT(request->names));
    for (int i = 0; i < cli->word_count; i++)
        if (text_copy(request->names[request->names_count++], sizeof request->names[0],
                      cli->words[i]) < 0)
            return fail(f, ERR_INVALID, "unknown counter '%.80s...'", cli->words[i]);
    text_copy(request->instance, sizeof request->instance, options->instance);
    int r = cli_choose("grouping", options->by, BY, f);
    return r < 0 ? r
                 : cli_window(cli, options->last_us, options->from, options->to, &request->from_us,
                              &request->to_us, f);
}

int cmd_counters(struct cli *cli, struct failure *f)
{
    trawl_v1_CountersRequest request = {.names_count = 0};
    struct series_set set = {.list = NULL};
    struct buf wire;
    int r = cli_selector(cli, cli->word_count, false, request.selector, sizeof request.selector, f);
    if (r == 0)
        r = read_request(cli, &request, f);
    if (r < 0)
        return r;
    if (cli->word_count == 0)
        return list_names(cli, request.selector, f);
    buf_init(&wire, REQUEST_LIMIT);
    r = codec_put_counters_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_COUNTERS, &wire, on_samples, &set, f);
    buf_done(&wire);
    if (r == 0)
        r = show(cli, &set, f);
    else if (r == ERR_NOTFOUND)
        r = explain(cli, &request, f);
    series_done(&set);
    return r;
}
