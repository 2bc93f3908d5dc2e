/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines: what is understood, and what is said of what is not (golden text: every class of
 * error names the word, suggests, lists what exists). Completion scripts are checked by the shells
 * that are there.
 */
#define _GNU_SOURCE
#include "cli/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/completion.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/cli/golden.h"
#include "tests/unit/common/scratch.h"

#define LIMIT (1 << 20)
#define WORDS_MAX 24
#define NOW INT64_C(1795442525000000)

/* A line split at blanks, as argv. */
struct words {
    char text[512];
    char *argv[WORDS_MAX];
    int argc;
};

static void split(struct words *w, const char *line)
{
    text_copy(w->text, sizeof w->text, line);
    w->argc = 0;
    for (char *at = strtok(w->text, " "); at && w->argc < WORDS_MAX - 1; at = strtok(NULL, " "))
        w->argv[w->argc++] = at;
    w->argv[w->argc] = NULL;
}

static int parse(const char *text, struct command_line *line, struct failure *f)
{
    static struct words w;
    split(&w, text);
    return command_parse(COMMANDS, w.argc, w.argv, line, f);
}

TEST(every_row_has_help_an_example_and_a_function)
{
    for (const struct command *c = COMMANDS; c->name; c++) {
        struct buf out;
        char start[64];
        buf_init(&out, LIMIT);
        CHECK(c->run != NULL);
        CHECK(c->help[0] >= 'a' && c->help[0] <= 'z');
        CHECK(c->options_size == 0 || c->options_size >= sizeof(struct cli_common));
        text_format(start, sizeof start, "  trawl %s", c->name);
        CHECK(strncmp(c->example, "  trawl ", 8) == 0);
        CHECK(strstr(c->example, c->name) != NULL);
        CHECK_EQ_INT(command_help(c, &out), 0);
        CHECK(strstr(buf_str(&out), c->example) != NULL);
        CHECK(strstr(buf_str(&out), "--help") != NULL);
        buf_done(&out);
    }
}

TEST(options_may_stand_before_the_command_and_behind_arguments)
{
    struct command_line line;
    struct failure f = {.code = 0};
    CHECK_EQ_INT(parse("trawl --context prod -o json hosts web-1 -l role=web web-2", &line, &f), 0);
    const struct cli_common *common = line.options;
    CHECK_EQ_STR(line.command->name, "hosts");
    CHECK_EQ_STR(common->context, "prod");
    CHECK_EQ_STR(common->select, "role=web");
    CHECK_EQ_INT(line.output, CLI_JSON);
    CHECK_EQ_INT(line.word_count, 2);
    CHECK_EQ_STR(line.words[0], "web-1");
    CHECK_EQ_STR(line.words[1], "web-2");
    CHECK(common->color);
    command_line_done(&line);
}

TEST(a_capture_has_its_defaults)
{
    struct command_line line;
    struct failure f = {.code = 0};
    CHECK_EQ_INT(parse("trawl capture -l a=b", &line, &f), 0);
    const struct cmd_capture_options *o = line.options;
    CHECK_EQ_INT(o->last_us, 60000000);
    CHECK_EQ_INT(o->pause_max_us, 50000);
    CHECK_EQ_INT(o->expire_us, INT64_C(3600000000));
    CHECK_EQ_INT(o->max_parallel, 20);
    CHECK_EQ_STR(o->what, "triage,stacks,counters,events,logs");
    command_line_done(&line);
}

TEST(a_capture_takes_what_it_is_given)
{
    struct command_line line;
    struct failure f = {.code = 0};
    CHECK_EQ_INT(parse("trawl capture web-* --what stacks --what logs -m why --no-wait "
                       "--no-color --pause-max 5ms --canary 2 --at +2s --dry-run",
                       &line, &f),
                 0);
    const struct cmd_capture_options *o = line.options;
    CHECK_EQ_STR(o->what, "stacks,logs");
    CHECK_EQ_STR(o->note, "why");
    CHECK(o->no_wait && !o->wait && o->dry_run && !o->common.color);
    CHECK_EQ_INT(o->pause_max_us, 5000);
    CHECK_EQ_INT(o->canary, 2);
    CHECK_EQ_STR(o->at, "+2s");
    command_line_done(&line);
}

TEST(the_letter_o_is_the_directory_of_fetch)
{
    struct command_line line;
    struct failure f = {.code = 0};
    CHECK_EQ_INT(parse("trawl fetch K7F2Q -o out --host a --host b", &line, &f), 0);
    const struct cmd_fetch_options *o = line.options;
    CHECK_EQ_STR(o->output, "out");
    CHECK_EQ_STR(o->host, "a,b");
    command_line_done(&line);
}

TEST(help_and_version_are_found_without_a_command)
{
    struct command_line line;
    struct failure f = {.code = 0};
    CHECK_EQ_INT(parse("trawl", &line, &f), 0);
    CHECK_EQ_STR(line.command->name, "help");
    command_line_done(&line);
    CHECK_EQ_INT(parse("trawl --version", &line, &f), 0);
    CHECK_EQ_STR(line.command->name, "version");
    command_line_done(&line);
    CHECK_EQ_INT(parse("trawl --help", &line, &f), 0);
    CHECK(line.help);
    command_line_done(&line);
    CHECK_EQ_INT(parse("trawl show --help", &line, &f), 0);
    CHECK(line.help);
    CHECK_EQ_STR(line.command->name, "show");
    command_line_done(&line);
}

/* ---- whole runs ---- */

/* Output and errors together, as on a terminal; the exit status at the end. */
static void run(const char *text, struct buf *out)
{
    static struct words w;
    char *printed = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&printed, &size);
    REQUIRE(stream != NULL);
    struct cli cli = {
        .commands = COMMANDS,
        .out = stream,
        .err = stream,
        .columns = 80,
        .now_us = NOW,
        .env = {.home = "/nowhere"},
    };
    split(&w, text);
    int status = command_run(&cli, w.argc, w.argv);
    fclose(stream);
    CHECK_EQ_INT(buf_printf(out, "$ %s\n%s[%d]\n", text, printed, status), 0);
    free(printed);
}

TEST(what_is_not_understood_is_named_with_what_exists)
{
    static const char *const lines[] = {
        "trawl host",
        "trawl frobnicate",
        "trawl diff K7F2Q",
        "trawl hosts --lable x",
        "trawl --contxt x hosts",
        "trawl hosts -x",
        "trawl hosts -l",
        "trawl hosts -o yaml",
        "trawl hosts -o jsn",
        "trawl hosts -o csv",
        "trawl counters -o cvs",
        "trawl capture",
        "trawl capture web --what mini --live",
        "trawl capture web --what stack",
        "trawl capture web --what stacks,,logs",
        "trawl capture web --last 60",
        "trawl capture web --last 9d",
        "trawl capture web --pause-max 1s",
        "trawl capture web --pid 0",
        "trawl capture web --port 70000",
        "trawl capture web --pid 4 --port 80",
        "trawl capture web --wait --no-wait",
        "trawl capture web --at soon",
        "trawl capture web --at -5m",
        "trawl capture web --no-last",
        "trawl capture web --dry-run=maybe",
        "trawl counters cpu.user --by hosts",
        "trawl counters cpu.user --from 14:10 --to 14:05",
        "trawl counters cpu.user --from yesterday",
        "trawl top --by mem",
        "trawl show",
        "trawl show a b",
        "trawl show INC/../x",
        "trawl show INC-261123-K7F2Q-and-far-too-much",
        "trawl version 2",
        "trawl label web-1",
        "trawl label web-1 role",
        "trawl label web-1 ro/le=x",
        "trawl label web-1 role=",
        "trawl label web-1 role=a/b",
        "trawl enroll --label role",
        "trawl enroll --host a/b",
        "trawl context frob",
        "trawl context add onlyname",
        "trawl context use a b",
        "trawl completion tcsh",
        "trawl help hst",
        "trawl exceptions --folow",
        "trawl exceptions --follow --to 14:10",
        "trawl exceptions --group ../x",
        "trawl groups --last 1",
        "trawl group",
        "trawl group 7F2/",
        "trawl want 7F2QK",
        "trawl want 7F2QK --what coer",
        "trawl want 7F2QK --what core -n -1",
        "trawl resolve",
        "trawl hosts",
        "trawl --context prod hosts",
        "trawl --context ./prod hosts",
        "trawl --context p$rod hosts",
    };
    struct buf out;
    buf_init(&out, LIMIT);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        run(lines[i], &out);
    golden_check("errors", buf_str(&out));
    buf_done(&out);
}

TEST(the_help_of_the_program_and_of_capture)
{
    struct buf out;
    buf_init(&out, LIMIT);
    run("trawl", &out);
    run("trawl capture --help", &out);
    run("trawl help fetch", &out);
    run("trawl exceptions --help", &out);
    run("trawl groups --help", &out);
    run("trawl group --help", &out);
    run("trawl want --help", &out);
    run("trawl resolve --help", &out);
    golden_check("help", buf_str(&out));
    buf_done(&out);
}

/* ---- completion ---- */

typedef int (*completion_fn)(const struct command *commands, struct buf *out);

/* "SHELL -n FILE"; 127 when there is no such shell. */
static int check_syntax(const char *shell, completion_fn make)
{
    char path[SCRATCH_PATH_SIZE];
    struct buf out;
    struct failure f;
    buf_init(&out, LIMIT);
    REQUIRE(make(COMMANDS, &out) == 0);
    scratch(shell, path);
    REQUIRE(port_write_file(path, buf_span(&out), false, &f) == 0);
    buf_done(&out);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        execlp(shell, shell, "-n", path, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WEXITSTATUS(status);
}

TEST(every_completion_names_every_command)
{
    static const completion_fn makers[] = {completion_bash, completion_zsh, completion_fish};
    for (size_t i = 0; i < 3; i++) {
        struct buf out;
        buf_init(&out, LIMIT);
        CHECK_EQ_INT(makers[i](COMMANDS, &out), 0);
        for (const struct command *c = COMMANDS; c->name; c++)
            CHECK(strstr(buf_str(&out), c->name) != NULL);
        CHECK(strstr(buf_str(&out), "pause-max") != NULL);
        buf_done(&out);
    }
}

TEST(bash_takes_its_completion)
{
    int status = check_syntax("bash", completion_bash);
    if (status == 127)
        SKIP("no bash here");
    CHECK_EQ_INT(status, 0);
}

TEST(zsh_takes_its_completion)
{
    int status = check_syntax("zsh", completion_zsh);
    if (status == 127)
        SKIP("no zsh here");
    CHECK_EQ_INT(status, 0);
}

TEST(fish_takes_its_completion)
{
    int status = check_syntax("fish", completion_fish);
    if (status == 127)
        SKIP("no fish here");
    CHECK_EQ_INT(status, 0);
}

/* What bash offers for a line, its words sorted. */
TEST(bash_completes_commands_options_and_values)
{
    char path[SCRATCH_PATH_SIZE], script[2048], line[512] = "";
    struct buf out;
    struct failure f;
    if (access("/bin/bash", X_OK) != 0)
        SKIP("no bash here");
    buf_init(&out, LIMIT);
    REQUIRE(completion_bash(COMMANDS, &out) == 0);
    scratch("trawl.bash", path);
    REQUIRE(port_write_file(path, buf_span(&out), false, &f) == 0);
    buf_done(&out);
    text_format(script, sizeof script,
                "bash -c '. %s; c() { COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); "
                "_trawl; echo \"${COMPREPLY[*]}\"; }; c trawl inc; c trawl hosts --out; "
                "c trawl capture --what s; c trawl context us' > %s.out",
                path, path);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    text_format(script, sizeof script, "%s.out", path);
    FILE *file = fopen(script, "r");
    REQUIRE(file != NULL);
    line[fread(line, 1, sizeof line - 1, file)] = '\0';
    fclose(file);
    CHECK_EQ_STR(line, "incidents\n--output\nstacks stacks0\nuse\n");
}
