/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl-agent: the table of sub-commands, help, exit codes. Everything else is in the modules it
 * calls.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/crash_command.h"
#include "agent/crash_handler.h"
#include "agent/crash_listen.h"
#include "agent/emit.h"
#include "common/log.h"
#include "common/text.h"

#define EXIT_USAGE 2

struct command {
    const char *name;
    int (*run)(const struct settings *settings, struct failure *f);
    const char *help;
    const char *example;
};

static int print_version(const struct settings *settings, struct failure *f)
{
    (void)settings;
    (void)f;
    printf("trawl-agent %s\n", TRAWL_VERSION);
    return 0;
}

static int print_sample(const struct settings *settings, struct failure *f)
{
    struct buf out;
    (void)settings;
    (void)f;
    buf_init(&out, 65536);
    int e = settings_sample(&out);
    if (!e)
        e = buf_append_str(&out,
                           "\n# and, as " POLICY_PATH ", what the owner of the host allows:\n");
    if (!e)
        e = policy_sample(&out);
    fputs(buf_str(&out), stdout);
    buf_done(&out);
    return e;
}

static int print_help(const struct settings *settings, struct failure *f);

/* Its words are its own: see main(). */
static int emit_nothing(const struct settings *settings, struct failure *f)
{
    (void)settings;
    return fail(f, ERR_INVALID, "emit comes before its options: trawl-agent emit --type TYPE ...");
}

static const struct command commands[] = {
    {"run", agent_run, "stream counters and events, carry out captures; joins first if needed",
     "trawl-agent run --collector collector.example --join TOKEN"},
    {"join", agent_join, "only join the fleet, for a later run",
     "trawl-agent join --collector collector.example --join TOKEN --name web-1"},
    {"self-test", agent_self_test, "what the agent costs here and what this host can give",
     "trawl-agent self-test -o json"},
    {"emit", emit_nothing, "report an exception to the agent of this host ('emit --help')",
     "trawl-agent emit --type backup-failed --message \"no space on /srv\" --tag job=nightly"},
    {"crash-handler", NULL, "install, remove or show what the kernel runs at a crash",
     "trawl-agent crash-handler install"},
    {"crash-listen", crash_listen, "take crashes from the kernel by socket ('crash-listen --help')",
     "trawl-agent crash-listen"},
    {"sample-config", print_sample, "print a commented settings file and policy file",
     "trawl-agent sample-config > /etc/trawl/agent.conf"},
    {"version", print_version, "print the version", "trawl-agent version"},
    {"help", print_help, "print this", "trawl-agent help"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static int print_help(const struct settings *settings, struct failure *f)
{
    struct buf out;
    (void)settings;
    (void)f;
    buf_init(&out, 65536);
    (void)buf_append_str(&out, "usage: trawl-agent COMMAND [SETTING...]\n\ncommands\n");
    for (size_t i = 0; i < COMMANDS; i++)
        (void)buf_printf(&out, "  %-14s %s\n", commands[i].name, commands[i].help);
    (void)buf_append_str(&out, "\nsettings\n");
    (void)settings_help(&out);
    (void)buf_append_str(&out, "\nexamples\n");
    for (size_t i = 0; i + 1 < COMMANDS; i++)
        (void)buf_printf(&out, "  %s\n", commands[i].example);
    fputs(buf_str(&out), stdout);
    buf_done(&out);
    return 0;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[COMMANDS + 1] = {0};
    for (size_t i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *nearest = text_nearest(name, names);
    fprintf(stderr,
            "trawl-agent: unknown command '%s'%s%s%s; there are: run, join, self-test, "
            "crash-handler, crash-listen, emit, sample-config, version, help\n",
            name, nearest ? ", did you mean '" : "", nearest ? nearest : "", nearest ? "'" : "");
    return EXIT_USAGE;
}

/* Flags that stand for commands; they may stand alone anywhere. */
static const char *command_flag(int argc, char **argv)
{
    static const char *const flags[][2] = {
        {"--self-test", "self-test"}, {"--version", "version"}, {"--help", "help"}, {"-h", "help"}};
    for (int i = 1; i < argc; i++)
        for (size_t j = 0; j < sizeof flags / sizeof flags[0]; j++)
            if (strcmp(argv[i], flags[j][0]) == 0) {
                for (int k = i; k + 1 <= argc; k++)
                    argv[k] = argv[k + 1];
                return flags[j][1];
            }
    return NULL;
}

/* Commands that say themselves what they do, wherever the question stands. */
static bool has_own_help(int argc, char **argv)
{
    void (*help)(void) = strcmp(argv[1], "crash-handler") == 0  ? crash_command_help
                         : strcmp(argv[1], "crash-listen") == 0 ? crash_listen_help
                                                                : NULL;
    for (int i = 2; help && i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            help();
            return true;
        }
    return false;
}

/* The token is a secret and the command line is public: no longer than needed. */
static void hide_token(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value = NULL;
        if (strcmp(argv[i], "--join") == 0 && i + 1 < argc)
            value = argv[i + 1];
        else if (strncmp(argv[i], "--join=", 7) == 0)
            value = argv[i] + 7;
        if (value && value[0] != '@')
            memset(value, 'x', strlen(value));
    }
}

static int report(const struct failure *f, int e)
{
    if (e)
        log_error("%s", f->text[0] ? f->text : err_text(e));
    return err_exit_code(e);
}

int main(int argc, char **argv)
{
    static struct settings settings;
    struct failure f = {0};
    char *words[128];
    if (argc >= (int)(sizeof words / sizeof words[0])) {
        fprintf(stderr, "trawl-agent: too many arguments\n");
        return EXIT_USAGE;
    }
    /* The kernel calls: no settings are read, there is no time. */
    if (argc > 1 && strcmp(argv[1], "crash") == 0)
        return crash_handler_main(argc, argv);
    if (argc > 1 && has_own_help(argc, argv))
        return 0;
    for (int i = 0; i <= argc; i++)
        words[i] = argv[i];
    const char *name = command_flag(argc, words);
    int count = name ? argc - 1 : argc;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    int e = 0;
    if (argc > 1 && strcmp(argv[1], "emit") == 0)
        return report(&f, emit_run(argc - 2, argv + 2, &f));
    e = settings_read(&settings, &count, words, &f);
    if (e) {
        fprintf(stderr, "trawl-agent: %s\ntry 'trawl-agent --help'\n", f.text);
        return err_exit_code(e);
    }
    hide_token(argc, argv);
    if (!name && count > 1)
        name = words[1];
    if (!name) {
        (void)print_help(NULL, NULL);
        return EXIT_USAGE;
    }
    if (strcmp(name, "crash-handler") == 0)
        return report(&f, crash_command(&settings, count, words, &f));
    const struct command *command = find_command(name);
    return command && command->run ? report(&f, command->run(&settings, &f))
                                   : unknown_command(name);
}
