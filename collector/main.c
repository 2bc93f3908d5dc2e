/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl-collector: the table of sub-commands, their flags and help. Exit status: 0, 2 for wrong
 * usage, or the error's own (common/err.def).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/authority.h"
#include "collector/collector.h"
#include "collector/symbols_child.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define USAGE_EXIT 2
#define DAY_S 86400ll
#define MAX_ADDRESSES 16

struct command {
    const char *name;
    const char *arguments;
    const char *help;
    const char *example;
    int (*run)(const struct command *command, int argc, char **argv, struct failure *f);
};

static int usage(const struct command *command, const struct conf_row *rows, size_t count)
{
    struct buf text;
    buf_init(&text, 64 * 1024);
    buf_printf(&text, "usage: trawl-collector %s %s\n%s\n\n", command->name, command->arguments,
               command->help);
    conf_help(rows, count, NULL, 0, &text);
    buf_printf(&text, "\nexample:\n  %s\n", command->example);
    fputs(buf_str(&text), stdout);
    buf_done(&text);
    return 0;
}

static int no_words_left(int argc, char **argv, struct failure *f)
{
    return argc > 0 ? fail(f, ERR_INVALID, "unexpected word '%s': see --help", argv[0]) : 0;
}

/* ---- init ---- */

struct init_settings {
    char fleet[64], name[64], address[512];
    uint64_t port;
    bool help;
};

#define INIT(member) \
    offsetof(struct init_settings, member), sizeof(((struct init_settings *)0)->member)
static const struct conf_row init_rows[] = {
    {"fleet", CONF_STRING, INIT(fleet), 0, 0, "fleet", "NAME", "name of the fleet", true},
    {"name", CONF_STRING, INIT(name), 0, 0, "collector", "NAME", "name of this collector", true},
    {"address", CONF_LIST, INIT(address), 0, 0, NULL, "HOST",
     "how agents and people reach it (name or address, may be repeated; default: this host's name, "
     "localhost, 127.0.0.1)",
     true},
    {"port", CONF_U64, INIT(port), 1, 65535, "7443", "PORT", "port written into contexts", true},
    {"help", CONF_BOOL, INIT(help), 0, 0, NULL, NULL, "this text", true},
};
#define INIT_ROWS (sizeof(init_rows) / sizeof(init_rows[0]))

/* Splits in place at commas; the list ends with NULL. */
static size_t split(char *text, const char **out, size_t max)
{
    size_t count = 0;
    for (char *at = text; at && *at && count + 1 < max;) {
        char *comma = strchr(at, ',');
        if (comma)
            *comma++ = '\0';
        out[count++] = at;
        at = comma;
    }
    out[count] = NULL;
    return count;
}

static int create(const char *directory, struct init_settings *s, struct failure *f)
{
    const char *addresses[MAX_ADDRESSES + 1];
    char host[64] = "localhost";
    size_t count = split(s->address, addresses, MAX_ADDRESSES + 1);
    if (!count) {
        port_host_name(host, sizeof(host));
        addresses[count++] = "127.0.0.1";
        addresses[count++] = host;
        if (strcmp(host, "localhost") != 0)
            addresses[count++] = "localhost";
        addresses[count] = NULL;
    }
    struct authority_init init = {directory, s->fleet,          s->name,
                                  addresses, (uint16_t)s->port, port_wall_us() / 1000000};
    int e = pki_start(f);
    return e ? e : authority_create(&init, f);
}

static int run_init(const struct command *command, int argc, char **argv, struct failure *f)
{
    struct init_settings s;
    conf_defaults(init_rows, INIT_ROWS, &s);
    int e = conf_args(init_rows, INIT_ROWS, NULL, 0, &s, &argc, argv, f);
    if (e)
        return e;
    if (s.help)
        return usage(command, init_rows, INIT_ROWS);
    if (argc != 1)
        return fail(f, ERR_INVALID,
                    "init needs one directory: 'trawl-collector init ./trawl-data'");
    e = create(argv[0], &s, f);
    if (e)
        return e;
    printf(
        "fleet '%s' made in %s\n"
        "  serve:          trawl-collector run --data %s\n"
        "  be its admin:   trawl context add %s %s/admin\n"
        "  add a host:     trawl enroll      (then, on the host, trawl-agent run --collector ... "
        "--join TOKEN)\n",
        s.fleet, argv[0], argv[0], s.fleet, argv[0]);
    return 0;
}

/* ---- run ---- */

static int read_settings(struct settings *s, int *argc, char **argv, struct failure *f)
{
    struct settings flags;
    char path[600];
    conf_defaults(settings_rows, settings_count, &flags);
    char **words = calloc((size_t)*argc + 1, sizeof(char *));
    if (!words)
        return fail(f, ERR_NOMEM, "out of memory");
    memcpy(words, argv, (size_t)*argc * sizeof(char *));
    int count = *argc;
    int e = conf_args(settings_rows, settings_count, NULL, 0, &flags, &count, words, f);
    free(words);
    if (e)
        return e;
    conf_defaults(settings_rows, settings_count, s);
    text_format(path, sizeof(path), "%s/collector.conf", flags.data);
    if (flags.config[0])
        text_copy(path, sizeof(path), flags.config);
    if (flags.config[0] || port_exists(path))
        e = conf_file(settings_rows, settings_count, s, path, f);
    return e ? e : conf_args(settings_rows, settings_count, NULL, 0, s, argc, argv, f);
}

/* With no settings at all `run` makes its directory: the first start needs no manual. */
static int make_default_directory(const struct settings *s, struct failure *f)
{
    struct init_settings init;
    if (strcmp(s->data, "./trawl-data") != 0 || port_exists(s->data))
        return 0;
    conf_defaults(init_rows, INIT_ROWS, &init);
    init.port = s->port;
    int e = create(s->data, &init, f);
    if (!e)
        log_info("made a new fleet in %s; be its admin: trawl context add fleet %s/admin", s->data,
                 s->data);
    return e;
}

static int run_run(const struct command *command, int argc, char **argv, struct failure *f)
{
    struct settings s = {.help = false};
    enum log_level level;
    int e = read_settings(&s, &argc, argv, f);
    if (!e && s.help)
        return usage(command, settings_rows, settings_count);
    if (!e)
        e = no_words_left(argc, argv, f);
    if (!e && log_level_parse(s.log_level, &level))
        e = fail(f, ERR_INVALID, "unknown log level '%s': error, warn, info and debug exist",
                 s.log_level);
    if (e)
        return e;
    log_set_level(level);
    e = make_default_directory(&s, f);
    return e ? e : collector_run(&s, f);
}

/* ---- issue ---- */

struct issue_settings {
    char data[512], role[16], out[512], address[320];
    uint64_t days;
    bool help;
};

#define ISSUE(member) \
    offsetof(struct issue_settings, member), sizeof(((struct issue_settings *)0)->member)
static const struct conf_row issue_rows[] = {
    {"data", CONF_STRING, ISSUE(data), 0, 0, "./trawl-data", "DIR", "data directory", true},
    {"role", CONF_STRING, ISSUE(role), 0, 0, NULL, "ROLE", "sre, developer or admin", true},
    {"out", CONF_STRING, ISSUE(out), 0, 0, NULL, "DIR",
     "where to write the context (default: ./NAME.context)", true},
    {"address", CONF_STRING, ISSUE(address), 0, 0, NULL, "HOST:PORT",
     "collector written into it (default: as in DIR/admin)", true},
    {"days", CONF_U64, ISSUE(days), 1, 3650, "365", "N", "lifetime of the certificate", true},
    {"help", CONF_BOOL, ISSUE(help), 0, 0, NULL, NULL, "this text", true},
};
#define ISSUE_ROWS (sizeof(issue_rows) / sizeof(issue_rows[0]))

struct context_settings {
    char collector[320];
};
static const struct conf_row context_rows[] = {
    {"collector", CONF_STRING, offsetof(struct context_settings, collector), 320, 0, 0, NULL,
     "HOST", "", false},
};

static int check_role(const char *role, struct failure *f)
{
    static const char *const roles[] = {"sre", "developer", "admin"};
    for (size_t i = 0; i < 3; i++)
        if (!strcmp(role, roles[i]))
            return 0;
    return fail(f, ERR_INVALID, "%s '%s': --role sre, developer or admin would be right",
                *role ? "unknown role" : "no role given", role);
}

static int fill_issue(struct issue_settings *s, const char *name, struct failure *f)
{
    char path[700];
    struct context_settings context;
    if (!s->out[0])
        text_format(s->out, sizeof(s->out), "./%.100s.context", name);
    if (s->address[0])
        return 0;
    conf_defaults(context_rows, 1, &context);
    text_format(path, sizeof(path), "%s/admin/context.conf", s->data);
    int e = conf_file(context_rows, 1, &context, path, f);
    text_copy(s->address, sizeof(s->address), context.collector);
    return e;
}

static int run_issue(const struct command *command, int argc, char **argv, struct failure *f)
{
    struct issue_settings s;
    struct authority *authority = NULL;
    conf_defaults(issue_rows, ISSUE_ROWS, &s);
    int e = conf_args(issue_rows, ISSUE_ROWS, NULL, 0, &s, &argc, argv, f);
    if (!e && s.help)
        return usage(command, issue_rows, ISSUE_ROWS);
    if (!e && argc != 1)
        e = fail(f, ERR_INVALID, "issue needs one name: 'trawl-collector issue --role sre alice'");
    if (!e)
        e = check_role(s.role, f);
    if (!e)
        e = pki_start(f);
    if (!e)
        e = authority_open(&authority, s.data, f);
    if (!e)
        e = fill_issue(&s, argv[0], f);
    if (!e)
        e = authority_issue_context(authority, s.role, argv[0], s.address, port_wall_us() / 1000000,
                                    (int64_t)s.days * DAY_S, s.out, f);
    authority_close(authority);
    if (!e)
        printf("%s '%s': context in %s (holds a private key: hand it over safely)\n"
               "  use it:  trawl context add NAME %s\n",
               s.role, argv[0], s.out, s.out);
    return e;
}

/* ---- the rest ---- */

static int run_sample(const struct command *command, int argc, char **argv, struct failure *f)
{
    (void)command;
    struct buf text;
    buf_init(&text, 64 * 1024);
    int e = no_words_left(argc, argv, f);
    if (!e)
        e = conf_sample(settings_rows, settings_count, &text);
    if (!e)
        fputs(buf_str(&text), stdout);
    buf_done(&text);
    return e;
}

static int run_version(const struct command *command, int argc, char **argv, struct failure *f)
{
    (void)command, (void)argc, (void)argv, (void)f;
    printf("trawl-collector %s\n", TRAWL_VERSION);
    return 0;
}

static const struct command commands[] = {
    {"init", "DIR [options]", "Make a fleet: its CA, the collector's certificate, a first admin.",
     "trawl-collector init --address collector.example ./trawl-data", run_init},
    {"run", "[options]", "Serve agents and people until SIGTERM.",
     "trawl-collector run --data ./trawl-data", run_run},
    {"issue", "--role ROLE NAME [options]", "Make a certificate and context for a person.",
     "trawl-collector issue --data ./trawl-data --role sre alice", run_issue},
    {"sample", "", "Print a settings file with every setting and its default.",
     "trawl-collector sample > trawl-data/collector.conf", run_sample},
    {"version", "", "Print the version.", "trawl-collector version", run_version},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int help(void)
{
    printf("usage: trawl-collector COMMAND [options]\n\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].help);
    printf("\n'trawl-collector COMMAND --help' tells the options of one.\n");
    return 0;
}

static int unknown(const char *name)
{
    const char *names[COMMANDS + 1] = {NULL};
    for (size_t i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = text_nearest(name, names);
    fprintf(stderr,
            "trawl-collector: unknown command '%s'%s%s%s; init, run, issue, sample and "
            "version exist\n",
            name, near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
    return USAGE_EXIT;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], SYMBOLS_CHILD_COMMAND))
        symbols_child_main();
    if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help"))
        return argc < 2 ? (help(), USAGE_EXIT) : help();
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, argv[1]) != 0)
            continue;
        struct failure f = {0};
        if (!commands[i].run(&commands[i], argc - 2, argv + 2, &f))
            return 0;
        fprintf(stderr, "trawl-collector: %s\n", f.text);
        return err_exit_code(f.code);
    }
    return unknown(argv[1]);
}
