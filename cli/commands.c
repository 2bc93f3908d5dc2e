/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command table, and the options of each command. Invariant: what is in no row does not exist:
 * parser, help and completion are made from here. A row's offset is into the struct of its own
 * command in cmd.h. Read by command.c and cmd_completion.c.
 */
#include "cli/cmd.h"
#include "cli/command.h"

#define SECOND_US INT64_C(1000000)
#define DAY_US (86400 * SECOND_US)
#define ROWS(rows, type) rows, CLI_COUNT(rows), NULL, 0, sizeof(struct type), NULL
#define ROWS_SHORTS(rows, shorts, type) \
    rows, CLI_COUNT(rows), shorts, CLI_COUNT(shorts), sizeof(struct type), NULL
#define NO_ROWS NULL, 0, NULL, 0, 0, NULL

#define ENROLL(member) CLI_OPTIONS(cmd_enroll_options, member)
static const struct conf_row ENROLL_ROWS[] = {
    {"label", CONF_LIST, ENROLL(label), 0, 0, NULL, "KEY=VALUE",
     "label the host gets when it joins (repeat for more)", true},
    {"host", CONF_STRING, ENROLL(host), 0, 0, NULL, "NAME",
     "only a host of this name may use the token", true},
};

#define TOP(member) CLI_OPTIONS(cmd_top_options, member)
static const struct conf_row TOP_ROWS[] = {
    {"by", CONF_STRING, TOP(by), 0, 0, "cpu", "ORDER", "cpu, rss, read, write or threads", true},
    {"rounds", CONF_U64, TOP(rounds), 0, 1000000, NULL, "N",
     "end after N rounds (default: follow on a terminal, else 1)", true},
    {"limit", CONF_U64, TOP(limit), 1, 9999, "20", "N", "processes shown", true},
};
static const struct conf_short TOP_SHORTS[] = {{'n', "rounds"}};

#define COUNTERS(member) CLI_OPTIONS(cmd_counters_options, member)
static const struct conf_row COUNTERS_ROWS[] = {
    {"last", CONF_DURATION_US, COUNTERS(last_us), SECOND_US, 30 * DAY_US, "5m", "TIME",
     "look back this long", true},
    {"from", CONF_STRING, COUNTERS(from), 0, 0, NULL, "TIME", "begin: 14:02, -10m, RFC 3339", true},
    {"to", CONF_STRING, COUNTERS(to), 0, 0, NULL, "TIME", "end (default: now)", true},
    {"step", CONF_DURATION_US, COUNTERS(step_us), SECOND_US, DAY_US, NULL, "TIME",
     "rows of time: the mean over each step", true},
    {"by", CONF_STRING, COUNTERS(by), 0, 0, "series", "GROUPING",
     "series, or host: the sum over a host's instances", true},
    {"instance", CONF_STRING, COUNTERS(instance), 0, 0, NULL, "GLOB",
     "only these instances (cpu0, eth0, a process)", true},
    {"plot", CONF_BOOL, COUNTERS(plot), 0, 0, NULL, NULL, "a small plot per series", true},
};

#define WINDOW(member) CLI_OPTIONS(cmd_window_options, member)
static const struct conf_row EVENTS_ROWS[] = {
    {"last", CONF_DURATION_US, WINDOW(last_us), SECOND_US, 365 * DAY_US, "10m", "TIME",
     "look back this long", true},
    {"from", CONF_STRING, WINDOW(from), 0, 0, NULL, "TIME", "begin: 14:02, -10m, RFC 3339", true},
    {"to", CONF_STRING, WINDOW(to), 0, 0, NULL, "TIME", "end (default: now)", true},
};
static const struct conf_row INCIDENTS_ROWS[] = {
    {"last", CONF_DURATION_US, WINDOW(last_us), SECOND_US, 3650 * DAY_US, "1d", "TIME",
     "look back this long", true},
    {"from", CONF_STRING, WINDOW(from), 0, 0, NULL, "TIME", "begin: 14:02, -10m, RFC 3339", true},
    {"to", CONF_STRING, WINDOW(to), 0, 0, NULL, "TIME", "end (default: now)", true},
};

#define CAPTURE(member) CLI_OPTIONS(cmd_capture_options, member)
static const struct conf_row CAPTURE_ROWS[] = {
    {"process", CONF_STRING, CAPTURE(process), 0, 0, NULL, "NAME", "processes of this name", true},
    {"pid", CONF_U64, CAPTURE(pid), 1, 1u << 31, NULL, "N", "the process with this number", true},
    {"unit", CONF_STRING, CAPTURE(unit), 0, 0, NULL, "UNIT", "processes of this service", true},
    {"port", CONF_U64, CAPTURE(port), 1, 65535, NULL, "N", "who listens on this TCP port", true},
    {"container", CONF_STRING, CAPTURE(container), 0, 0, NULL, "ID",
     "processes in this container: its ID or how that begins, or its name (LXC, machined)", true},
    {"command", CONF_STRING, CAPTURE(command), 0, 0, NULL, "GLOB",
     "processes with this command line, '*checkout.jar*'", true},
    {"what", CONF_LIST, CAPTURE(what), 0, 0, "triage,stacks,counters,events,logs", "KIND,...",
     "triage, stacks, stacks0, profile, mini, core, counters, events, logs, net, throws; memory "
     "(mini, "
     "core) only when named",
     true},
    {"last", CONF_DURATION_US, CAPTURE(last_us), 0, DAY_US, "60s", "TIME", "look back this long",
     true},
    {"for", CONF_DURATION_US, CAPTURE(for_us), 0, 600 * SECOND_US, NULL, "TIME",
     "and observe this long; a profile or throws take this long (then 10s unless given)", true},
    {"at", CONF_STRING, CAPTURE(at), 0, 0, NULL, "TIME",
     "same instant on all hosts: +2s, 14:02, RFC 3339 (default: at once)", true},
    {"pause-max", CONF_DURATION_US, CAPTURE(pause_max_us), 1, 3600 * SECOND_US, "50ms", "TIME",
     "refuse where a process would stand still longer (above 250ms: --allow-pause)", true},
    {"allow-pause", CONF_BOOL, CAPTURE(allow_pause), 0, 0, NULL, NULL,
     "a pause may be longer than 250 ms, and a core may hold the process while it is read", true},
    {"live", CONF_BOOL, CAPTURE(live), 0, 0, NULL, NULL,
     "core: read the heap while the process runs, no snapshot (stacks stay consistent)", true},
    {"fallback", CONF_BOOL, CAPTURE(fallback), 0, 0, NULL, NULL,
     "where a kind is refused take the next of core, live core, mini, stacks, stacks0, triage",
     true},
    {"sample", CONF_U64, CAPTURE(sample), 1, 10000, NULL, "N",
     "only N of the hosts, those that are online first; the same again for the same selector",
     true},
    {"spread", CONF_STRING, CAPTURE(spread), 0, 0, NULL, "LABEL",
     "with --sample: evenly over the values of this label", true},
    {"canary", CONF_U64, CAPTURE(canary), 0, 1000, NULL, "N",
     "N hosts first; the rest only if they do well", true},
    {"max-parallel", CONF_U64, CAPTURE(max_parallel), 1, 10000, "20", "N", "hosts at once", true},
    {"expire", CONF_DURATION_US, CAPTURE(expire_us), SECOND_US, 7 * DAY_US, "1h", "TIME",
     "how long the order is kept for hosts that are offline", true},
    {"into", CONF_STRING, CAPTURE(into), 0, 0, NULL, "INCIDENT", "add to this incident", true},
    {"note", CONF_STRING, CAPTURE(note), 0, 0, NULL, "TEXT", "why, for those who read it later",
     true},
    {"dry-run", CONF_BOOL, CAPTURE(dry_run), 0, 0, NULL, NULL, "only show which hosts match", true},
    {"wait", CONF_BOOL, CAPTURE(wait), 0, 0, NULL, NULL, "wait for hosts that are offline as well",
     true},
    {"no-wait", CONF_BOOL, CAPTURE(no_wait), 0, 0, NULL, NULL, "return at once", true},
};
static const struct conf_short CAPTURE_SHORTS[] = {{'m', "note"}};

#define FETCH(member) CLI_OPTIONS(cmd_fetch_options, member)
static const struct conf_row FETCH_ROWS[] = {
    {"output", CONF_STRING, FETCH(output), 0, 0, ".", "DIR", "directory to write INC-.../ into",
     true},
    {"host", CONF_LIST, FETCH(host), 0, 0, NULL, "HOST", "only these hosts (names or globs)", true},
    {"kind", CONF_LIST, FETCH(kind), 0, 0, NULL, "KIND", "only these kinds", true},
    {"max-size", CONF_SIZE_BYTES, FETCH(max_bytes), 1, (uint64_t)1 << 50, "64G", "SIZE",
     "refuse a file that would be larger when it is unpacked", true},
    {"json", CONF_BOOL, FETCH(json), 0, 0, NULL, NULL, "an object per artifact, for programs",
     true},
};
static const struct conf_short FETCH_SHORTS[] = {{'o', "output"}};

#define EXCEPTIONS(member) CLI_OPTIONS(cmd_exceptions_options, member)
static const struct conf_row EXCEPTIONS_ROWS[] = {
    {"follow", CONF_BOOL, EXCEPTIONS(follow), 0, 0, NULL, NULL,
     "and then as they happen, until Ctrl-C", true},
    {"group", CONF_STRING, EXCEPTIONS(group), 0, 0, NULL, "GROUP", "only those of this group",
     true},
    {"last", CONF_DURATION_US, EXCEPTIONS(last_us), SECOND_US, 3650 * DAY_US, "1h", "TIME",
     "look back this long", true},
    {"from", CONF_STRING, EXCEPTIONS(from), 0, 0, NULL, "TIME", "begin: 14:02, -10m, RFC 3339",
     true},
    {"to", CONF_STRING, EXCEPTIONS(to), 0, 0, NULL, "TIME", "end (default: now)", true},
};
static const struct conf_short EXCEPTIONS_SHORTS[] = {{'f', "follow"}};

#define GROUPS(member) CLI_OPTIONS(cmd_groups_options, member)
static const struct conf_row GROUPS_ROWS[] = {
    {"resolved", CONF_BOOL, GROUPS(resolved), 0, 0, NULL, NULL, "those that are resolved, too",
     true},
    {"last", CONF_DURATION_US, GROUPS(last_us), SECOND_US, 3650 * DAY_US, "1d", "TIME",
     "seen within this time", true},
    {"from", CONF_STRING, GROUPS(from), 0, 0, NULL, "TIME", "begin: 14:02, -10m, RFC 3339", true},
    {"to", CONF_STRING, GROUPS(to), 0, 0, NULL, "TIME", "end (default: now)", true},
};

#define WANT(member) CLI_OPTIONS(cmd_want_options, member)
static const struct conf_row WANT_ROWS[] = {
    {"what", CONF_LIST, WANT(what), 0, 0, NULL, "KIND,...",
     "kinds of evidence, as of trawl capture; core: the whole memory", true},
    {"count", CONF_U64, WANT(count), 0, 1000, "1", "N", "of the next N; 0: nothing more is wanted",
     true},
};
static const struct conf_short WANT_SHORTS[] = {{'n', "count"}};

#define BRAKE(member) CLI_OPTIONS(cmd_brake_options, member)
static const struct conf_row FREEZE_ROWS[] = {
    {"note", CONF_STRING, BRAKE(note), 0, 0, NULL, "TEXT", "why, for those who meet it", true},
    {"status", CONF_BOOL, BRAKE(status), 0, 0, NULL, NULL,
     "change nothing: only say how it is, and how many hosts obey", true},
};
static const struct conf_row THAW_ROWS[] = {
    {"note", CONF_STRING, BRAKE(note), 0, 0, NULL, "TEXT", "why, for those who meet it", true},
};
static const struct conf_short BRAKE_SHORTS[] = {{'m', "note"}};

#define RULES(member) CLI_OPTIONS(cmd_rules_options, member)
static const struct conf_row RULES_ROWS[] = {
    {"last", CONF_DURATION_US, RULES(last_us), SECOND_US, 30 * DAY_US, "1h", "TIME",
     "test: look back this long", true},
    {"from", CONF_STRING, RULES(from), 0, 0, NULL, "TIME", "test: begin: 14:02, -10m, RFC 3339",
     true},
    {"to", CONF_STRING, RULES(to), 0, 0, NULL, "TIME", "test: end (default: now)", true},
    {"any-counter", CONF_BOOL, RULES(any_counter), 0, 0, NULL, NULL,
     "set: take names of counters that no host has sent so far", true},
};
static const char *const RULES_WORDS[] = {"set", "list", "get", "rm", "test", NULL};

#define SYMBOLS(member) CLI_OPTIONS(cmd_symbols_options, member)
static const struct conf_row SYMBOLS_ROWS[] = {
    {"force", CONF_BOOL, SYMBOLS(force), 0, 0, NULL, NULL,
     "send also what the collector seems to have; the better table stays", true},
};
static const char *const SYMBOLS_WORDS[] = {"add", "list", NULL};

static const char *const CONTEXT_WORDS[] = {"list", "show", "add", "use", NULL};
static const char *const SHELLS[] = {"bash", "zsh", "fish", NULL};

const struct command COMMANDS[] = {
    {"hosts", cmd_hosts, "[HOST...]", 0, CLI_WORDS_ANY,
     "list hosts: state, last seen, clock skew, version, labels",
     "  trawl hosts -l role=web\n"
     "  trawl hosts 'web-*' -o wide\n"
     "  trawl hosts -o json | jq -r 'select(.state == \"offline\").name'\n",
     COMMAND_LIST, NO_ROWS},
    {"caps", cmd_caps, "[HOST...]", 0, CLI_WORDS_ANY,
     "show what each host can give, what it cannot and why",
     "  trawl caps web-07\n"
     "  trawl caps -l role=web -o json\n",
     COMMAND_LIST, NO_ROWS},
    {"top", cmd_top, "[HOST...]", 0, CLI_WORDS_ANY, "live view of hosts and their processes",
     "  trawl top -l role=web --by rss\n"
     "  trawl top -n 1 --limit 50\n",
     COMMAND_LIST, ROWS_SHORTS(TOP_ROWS, TOP_SHORTS, cmd_top_options)},
    {"counters", cmd_counters, "[NAME...]", 0, CLI_WORDS_ANY,
     "show sampled counters; without a name list them",
     "  trawl counters\n"
     "  trawl counters cpu.busy memory.used -l role=web --last 1h\n"
     "  trawl counters 'disk.*' --last 10m --step 10s\n"
     "  trawl counters process.rss --instance redis-server --plot\n"
     "  trawl counters cpu.user --by host -o csv > cpu.csv\n",
     COMMAND_LIST | TAKES_CSV, ROWS(COUNTERS_ROWS, cmd_counters_options)},
    {"events", cmd_events, "[HOST...]", 0, CLI_WORDS_ANY,
     "list events: process starts and exits, kernel messages, gaps",
     "  trawl events -l role=web --last 1h\n"
     "  trawl events web-07 --from 14:02 --to 14:10 -o json\n",
     COMMAND_LIST, ROWS(EVENTS_ROWS, cmd_window_options)},
    {"exceptions", cmd_exceptions, "[HOST...]", 0, CLI_WORDS_ANY,
     "list what went wrong by itself: crashes, OOM kills, error traces",
     "  trawl exceptions --follow\n"
     "  trawl exceptions -l role=web --last 1d -o wide\n"
     "  trawl exceptions web-07 --group 7F2QK --from 14:02 --to 14:10\n"
     "  trawl exceptions -f -o json | jq -r 'select(.signal == 11).group'\n",
     COMMAND_LIST, ROWS_SHORTS(EXCEPTIONS_ROWS, EXCEPTIONS_SHORTS, cmd_exceptions_options)},
    {"groups", cmd_groups, "[HOST...]", 0, CLI_WORDS_ANY,
     "list groups of exceptions with one cause: how often, where, since when",
     "  trawl groups\n"
     "  trawl groups -l role=web --last 7d --resolved\n"
     "  trawl groups -o json | jq -r 'select(.state == \"new\").id'\n",
     COMMAND_LIST, ROWS(GROUPS_ROWS, cmd_groups_options)},
    {"group", cmd_group, "GROUP", 1, 1,
     "show a group: counts, hosts, versions, its newest sample with frames, incidents",
     "  trawl group 7F2QK\n"
     "  trawl group G-7F2QK -o json | jq 'select(.part == \"sample\").frames'\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"want", cmd_want, "GROUP", 1, 1, "make the next exceptions of a group give more evidence",
     "  trawl want 7F2QK --what core\n"
     "  trawl want 7F2QK --what core,profile -n 3\n"
     "  trawl want 7F2QK -n 0\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, ROWS_SHORTS(WANT_ROWS, WANT_SHORTS, cmd_want_options)},
    {"resolve", cmd_resolve, "GROUP", 1, 1,
     "mark a group as resolved; seen again it is told as regressed", "  trawl resolve 7F2QK\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"capture", cmd_capture, "[HOST...]", 0, CLI_WORDS_ANY,
     "gather evidence on many hosts at once, under one incident",
     "  trawl capture -l role=web --process redis-server --last 60s\n"
     "  trawl capture 'web-*' --what stacks --at +2s --canary 1 -m 'checkout hangs'\n"
     "  trawl capture web-07 --pid 4711 --what core --fallback\n"
     "  trawl capture -l role=db --process postgres --what profile,net --for 10s\n"
     "  trawl capture '*' --dry-run\n",
     COMMAND_LIST, ROWS_SHORTS(CAPTURE_ROWS, CAPTURE_SHORTS, cmd_capture_options)},
    {"incidents", cmd_incidents, "", 0, 0, "list incidents",
     "  trawl incidents --last 7d\n"
     "  trawl incidents -o json | jq -r .id\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, ROWS(INCIDENTS_ROWS, cmd_window_options)},
    {"show", cmd_show, "INCIDENT", 1, 1,
     "show an incident: states, commonest stacks, timeline, what is missing",
     "  trawl show K7F2Q\n"
     "  trawl show INC-261123-K7F2Q -o json | jq 'select(.type == \"target\")'\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"watch", cmd_watch, "[INCIDENT]", 0, 1,
     "follow an incident until it has ended (default: newest)",
     "  trawl watch\n"
     "  trawl watch K7F2Q\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"fetch", cmd_fetch, "INCIDENT", 1, 1,
     "fetch what was captured, verified; run again to go on where it stopped",
     "  trawl fetch K7F2Q\n"
     "  trawl fetch K7F2Q -o /tmp --host 'web-*' --kind stacks\n",
     TAKES_COLLECTOR, ROWS_SHORTS(FETCH_ROWS, FETCH_SHORTS, cmd_fetch_options)},
    {"cancel", cmd_cancel, "INCIDENT", 1, 1, "stop a capture; what was gathered stays",
     "  trawl cancel K7F2Q\n", TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"freeze", cmd_freeze, "", 0, 0,
     "fleet brake: no agent captures anything until thawed; what runs ends",
     "  trawl freeze -m 'checkout is being moved'\n"
     "  trawl freeze --status\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, ROWS_SHORTS(FREEZE_ROWS, BRAKE_SHORTS, cmd_brake_options)},
    {"thaw", cmd_thaw, "", 0, 0, "release the fleet brake", "  trawl thaw\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, ROWS_SHORTS(THAW_ROWS, BRAKE_SHORTS, cmd_brake_options)},
    {"label", cmd_label, "HOST KEY=VALUE... [KEY-...]", 2, CLI_WORDS_ANY,
     "put labels on a host, or take them off (KEY-)",
     "  trawl label web-07 role=web dc=east\n"
     "  trawl label web-07 canary-\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"enroll", cmd_enroll, "", 0, 0, "make a token with which one new host may join",
     "  trawl enroll --label role=web\n"
     "  trawl enroll --host web-07 -o json | jq -r .token\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, ROWS(ENROLL_ROWS, cmd_enroll_options)},
    {"revoke", cmd_revoke, "HOST", 1, 1, "refuse a host's certificate from now on",
     "  trawl revoke web-07\n", TAKES_OUTPUT | TAKES_COLLECTOR, NO_ROWS},
    {"rules", cmd_rules, "set FILE | list | get | rm NAME... | test FILE", 1, CLI_WORDS_ANY,
     "rules by which agents ask for evidence by themselves; test: when they would have",
     "  trawl rules set fleet.rules\n"
     "  trawl rules list\n"
     "  trawl rules get > fleet.rules\n"
     "  trawl rules rm redis-memory\n"
     "  trawl rules test fleet.rules --last 1h -l role=cache\n",
     COMMAND_LIST, RULES_ROWS, CLI_COUNT(RULES_ROWS), NULL, 0, sizeof(struct cmd_rules_options),
     RULES_WORDS},
    {"symbols", cmd_symbols, "add PATH... | list", 1, CLI_WORDS_ANY,
     "give the collector symbols, by which frames get functions and lines",
     "  trawl symbols add ./build/server\n"
     "  trawl symbols add server.debug libcheckout.so.1.debug\n"
     "  trawl symbols add /usr/lib/debug/.build-id\n"
     "  trawl symbols add ./build -o json | jq -r 'select(.state == \"refused\").text'\n"
     "  trawl symbols list -o wide\n",
     TAKES_OUTPUT | TAKES_COLLECTOR, SYMBOLS_ROWS, CLI_COUNT(SYMBOLS_ROWS), NULL, 0,
     sizeof(struct cmd_symbols_options), SYMBOLS_WORDS},
    {"context", cmd_context, "[list | show [NAME] | add NAME DIR | use NAME]", 0, 3,
     "which collector, and who we are there",
     "  trawl context add prod ./trawl-data/admin\n"
     "  trawl context use prod\n"
     "  trawl --context staging hosts\n",
     TAKES_OUTPUT, NULL, 0, NULL, 0, 0, CONTEXT_WORDS},
    {"completion", cmd_completion, "bash | zsh | fish", 1, 1, "print a completion script",
     "  trawl completion bash > ~/.local/share/bash-completion/completions/trawl\n"
     "  trawl completion zsh > ~/.zfunc/_trawl\n"
     "  trawl completion fish > ~/.config/fish/completions/trawl.fish\n",
     0, NULL, 0, NULL, 0, 0, SHELLS},
    {"help", cmd_help, "[COMMAND]", 0, 1, "this list, or the options of a command",
     "  trawl help capture\n", 0, NO_ROWS},
    {"version", cmd_version, "", 0, 0, "print the version", "  trawl version\n", 0, NO_ROWS},
    {.name = NULL},
};
