/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fetched incident: what there is to fetch, under which names, and the manifest. Pure. Invariant:
 * every name that becomes a path was checked to be one plain component, and no two artifacts share
 * one; what cannot be named is not fetched, and the manifest says so. Used by cmd_fetch.c.
 */
#ifndef TRAWL_CLI_BUNDLE_H
#define TRAWL_CLI_BUNDLE_H

#include <stdbool.h>

#include "cli/names.h"
#include "common/buf.h"
#include "proto/codec.h"

#define BUNDLE_FILE_SIZE 160

enum bundle_state {
    BUNDLE_UNASKED, /* left out by --host or --kind */
    BUNDLE_WANTED,
    BUNDLE_FETCHED,
    BUNDLE_PRESENT, /* was there, and right */
    BUNDLE_FAILED
};

struct bundle_artifact {
    trawl_v1_Artifact record;
    char file[BUNDLE_FILE_SIZE]; /* in the host's directory; "" when it has no safe name */
    enum bundle_state state;
    struct failure why;   /* BUNDLE_FAILED */
    uint64_t plain_bytes; /* of the unpacked file, when it is stored packed and is there */
};

struct bundle {
    trawl_v1_Incident incident;
    trawl_v1_Target *targets;
    struct bundle_artifact *artifacts;
    size_t target_count, target_capacity, artifact_count, artifact_capacity;
    struct buf report; /* the lines of report.txt */
};

void bundle_init(struct bundle *b);
void bundle_done(struct bundle *b);
/* Takes a part of Operations.Show. ERR_NOMEM, ERR_LIMIT. */
int bundle_part(struct bundle *b, const trawl_v1_IncidentPart *part);
/*
 * All parts are there: gives names and decides what is wanted. `hosts` (globs) and `kinds` are
 * lists joined by ','; "" is all. ERR_INVALID or ERR_NOTFOUND names what does not exist.
 * ERR_CORRUPT: the incident's own ID cannot be a directory.
 */
int bundle_choose(struct bundle *b, const char *hosts, const char *kinds, struct failure *f);

/* One path component that means the same on every system: no separator, no "..", no leading dot. */
bool bundle_is_safe_name(const char *name);
const char *bundle_state_name(enum bundle_state state);
/* The manifest as JSON, a line per target and artifact. */
int bundle_manifest(const struct bundle *b, struct buf *out);

#endif
