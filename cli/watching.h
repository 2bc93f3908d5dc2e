/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a capture until there is nothing more to wait for, through losses of the connection,
 * with progress on the terminal. Invariant: it only looks; ending it ends nothing on the hosts.
 * Used by `trawl capture` and `trawl watch`.
 */
#ifndef TRAWL_CLI_WATCHING_H
#define TRAWL_CLI_WATCHING_H

#include "cli/cli.h"
#include "cli/follow.h"

enum watching_end {
    WATCHING_ENDED,      /* every target has */
    WATCHING_OFFLINE,    /* what is open waits for hosts that are not there */
    WATCHING_INTERRUPTED /* Ctrl-C */
};

struct watching_settings {
    const char *incident;
    bool known;            /* the collector has been there: its loss is borne from the start */
    bool wait_for_offline; /* does not end with WATCHING_OFFLINE */
    /* Told of each part as it comes; may be NULL. `changed` as of follow_part(). */
    int (*part)(void *owner, const trawl_v1_IncidentPart *part, const struct follow_target *changed,
                struct failure *f);
    void *owner;
};

/* `follow` was initialised by the caller and holds what is known afterwards, sorted by host. */
int watching_run(struct cli *cli, const struct watching_settings *settings, struct follow *follow,
                 enum watching_end *end, struct failure *f);

#endif
