/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of evidence by name, and what a request for a capture may ask. In one place, so that
 * the command line refuses in the words in which the collector would. Pure.
 */
#ifndef TRAWL_PROTO_KINDS_H
#define TRAWL_PROTO_KINDS_H

#include "common/err.h"
#include "proto/codec.h"

#define KINDS_WORDS "triage stacks stacks0 profile mini core counters events logs net throws crash"
#define KINDS_PAUSE_DEFAULT_US 50000
#define KINDS_PAUSE_HARD_US 250000      /* more only with allow_pause */
#define KINDS_PAUSE_LONGEST_US 30000000 /* a watchdog restarts what stays silent for longer */
#define KINDS_FOR_DEFAULT_US 10000000   /* of a profile, of throws */
#define KINDS_FOR_PROFILE_US 60000000
#define KINDS_FOR_MAX_US 600000000

extern const char *const KINDS[]; /* in the order of KINDS_WORDS; NULL at the end */

/*
 * Fills in what is not asked (kinds, pause, the time of a profile or throws) and refuses what
 * cannot be meant: ERR_INVALID names the limit and the option that changes it.
 */
int kinds_complete(trawl_v1_CaptureRequest *request, struct failure *f);

#endif
