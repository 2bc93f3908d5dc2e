/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a capture that runs: its targets, as Operations.Watch tells of them. Pure.
 * Invariant: one entry per host, of the newest capture of the incident that was seen; an older
 * capture's targets do not count. Used by watching.c and the commands.
 */
#ifndef TRAWL_CLI_FOLLOW_H
#define TRAWL_CLI_FOLLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/render_incident.h"
#include "proto/codec.h"

/* A host that vanished with an order under way is given up by those who wait after this long. */
#define FOLLOW_VANISHED_US INT64_C(60000000)

struct follow_target {
    trawl_v1_Target record;
    bool offline;         /* says the roster */
    int64_t last_seen_us; /* its host; 0: not asked, or never */
};

struct follow {
    trawl_v1_Incident incident; /* id "" until the first part */
    struct follow_target *targets;
    size_t count, capacity;
    uint32_t capture;  /* the newest number seen */
    uint32_t expected; /* hosts of the capture; 0: not known */
    uint32_t artifacts;
    bool ended; /* the collector said that everything has */
};

void follow_init(struct follow *f, uint32_t expected);
void follow_done(struct follow *f);
/* Takes a part; `*changed` is the target whose state it changed, or NULL. ERR_NOMEM. */
int follow_part(struct follow *f, const trawl_v1_IncidentPart *part,
                const struct follow_target **changed);
/* Takes what the roster says of a host. */
void follow_host(struct follow *f, const trawl_v1_Host *host);
/* By host name. */
void follow_sort(struct follow *f);

bool follow_is_complete(const struct follow *f); /* every target is known and has ended */
/* Every target is known, some are open, and those wait for hosts that are not there. */
bool follow_waits_for_offline(const struct follow *f, int64_t now_us);
/* Every open target is queued (so that it is worth asking for their hosts). */
bool follow_has_open(const struct follow *f);
void follow_counts(const struct follow *f, uint32_t counts[RENDER_STATE_COUNT]);
uint32_t follow_ended_count(const struct follow *f);
uint64_t follow_longest_pause_us(const struct follow *f);
/* Hosts of open targets joined by ','; "*" when they do not fit. */
void follow_open_hosts(const struct follow *f, char *out, size_t size_bytes);
/* 0 all done; 3 some not, or some still open; 1 everything has ended and nothing was gathered. */
int follow_exit_code(const struct follow *f);

/* "[====>   ] 40/42   2.1 s    longest pause 0.6 ms" */
int follow_progress(const struct follow *f, int64_t elapsed_us, unsigned columns, struct buf *out);
/* One line per target that is not done, with the reason; for an open one why it is. */
int follow_lines(const struct follow *f, int64_t now_us, bool color, struct buf *out);

#endif
