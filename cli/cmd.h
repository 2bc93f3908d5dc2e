/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of the command table, with their options. Invariant: each struct of options begins
 * with struct cli_common, and the rows in options.c describe the rest. Included by options.c,
 * commands.c and the cmd_*.c.
 */
#ifndef TRAWL_CLI_CMD_H
#define TRAWL_CLI_CMD_H

#include <stddef.h>

#include "cli/cli.h"

#define CMD_WHAT_SIZE 256
#define CMD_TIME_SIZE 40

struct cmd_enroll_options {
    struct cli_common common;
    char label[2048];
    char host[PKI_NAME_SIZE];
};

struct cmd_top_options {
    struct cli_common common;
    char by[16];
    uint64_t rounds, limit;
};

struct cmd_counters_options {
    struct cli_common common;
    int64_t last_us, step_us;
    char from[CMD_TIME_SIZE], to[CMD_TIME_SIZE];
    char by[16], instance[64];
    bool plot;
};

struct cmd_window_options { /* events, incidents */
    struct cli_common common;
    int64_t last_us;
    char from[CMD_TIME_SIZE], to[CMD_TIME_SIZE];
};

struct cmd_capture_options {
    struct cli_common common;
    char process[64], unit[128], container[80], command[128], what[CMD_WHAT_SIZE],
        at[CMD_TIME_SIZE], into[64], note[256];
    char spread[64];
    uint64_t pid, port, canary, max_parallel, sample;
    int64_t last_us, for_us, pause_max_us, expire_us;
    bool fallback, live, allow_pause, dry_run, wait, no_wait;
};

struct cmd_fetch_options {
    struct cli_common common;
    char output[1024], host[1024], kind[256];
    uint64_t max_bytes;
    bool json;
};

struct cmd_exceptions_options {
    struct cli_common common;
    int64_t last_us;
    char from[CMD_TIME_SIZE], to[CMD_TIME_SIZE], group[32];
    bool follow;
};

struct cmd_groups_options {
    struct cli_common common;
    int64_t last_us;
    char from[CMD_TIME_SIZE], to[CMD_TIME_SIZE];
    bool resolved;
};

struct cmd_want_options {
    struct cli_common common;
    char what[CMD_WHAT_SIZE];
    uint64_t count;
};

struct cmd_brake_options { /* freeze, thaw */
    struct cli_common common;
    char note[256];
    bool status; /* of freeze */
};

struct cmd_rules_options {
    struct cli_common common;
    int64_t last_us;
    char from[CMD_TIME_SIZE], to[CMD_TIME_SIZE];
    bool any_counter;
};

struct cmd_symbols_options {
    struct cli_common common;
    bool force;
};

int cmd_hosts(struct cli *cli, struct failure *f);
int cmd_caps(struct cli *cli, struct failure *f);
int cmd_label(struct cli *cli, struct failure *f);
int cmd_enroll(struct cli *cli, struct failure *f);
int cmd_revoke(struct cli *cli, struct failure *f);
int cmd_top(struct cli *cli, struct failure *f);
int cmd_counters(struct cli *cli, struct failure *f);
int cmd_events(struct cli *cli, struct failure *f);
int cmd_capture(struct cli *cli, struct failure *f);
int cmd_incidents(struct cli *cli, struct failure *f);
int cmd_show(struct cli *cli, struct failure *f);
int cmd_watch(struct cli *cli, struct failure *f);
int cmd_cancel(struct cli *cli, struct failure *f);
int cmd_freeze(struct cli *cli, struct failure *f);
int cmd_thaw(struct cli *cli, struct failure *f);
int cmd_fetch(struct cli *cli, struct failure *f);
int cmd_exceptions(struct cli *cli, struct failure *f);
int cmd_groups(struct cli *cli, struct failure *f);
int cmd_group(struct cli *cli, struct failure *f);
int cmd_want(struct cli *cli, struct failure *f);
int cmd_resolve(struct cli *cli, struct failure *f);
int cmd_rules(struct cli *cli, struct failure *f);
int cmd_symbols(struct cli *cli, struct failure *f);
int cmd_context(struct cli *cli, struct failure *f);
int cmd_completion(struct cli *cli, struct failure *f);
int cmd_help(struct cli *cli, struct failure *f);
int cmd_version(struct cli *cli, struct failure *f);

#endif
