/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and their frames as table rows, streamed lines, a page and JSON. Pure. Invariant: all
 * of it came from hosts that may be hostile: it reaches a table or a line only through what makes
 * it safe. Used by the commands about exceptions and groups.
 */
#ifndef TRAWL_CLI_RENDER_EXCEPTION_H
#define TRAWL_CLI_RENDER_EXCEPTION_H

#include "cli/jsonl.h"
#include "cli/render.h"
#include "proto/codec.h"

#define RENDER_FRAME_SIZE 320 /* holds every frame as one line */

const char *render_source(trawl_v1_ExceptionSource source); /* "crash", "oom kill" */
/* The same as a word of JSON: "oom_kill". */
void render_source_member(struct jsonl *j, const char *key, trawl_v1_ExceptionSource source);

/* "bio_close (bio.c:42)", "redis-server+0x1f3a0", "app.py:17"; "" for a frame of nothing. */
void render_frame_short(const trawl_v1_Frame *frame, char out[RENDER_FRAME_SIZE]);
/* "0x1f3a0 in bio_close () at bio.c:42", as gdb says it; the module where no file is known. */
void render_frame_long(const trawl_v1_Frame *frame, char out[RENDER_FRAME_SIZE]);
bool render_frame_equal(const trawl_v1_Frame *a, const trawl_v1_Frame *b);
/*
 * Where it happened: the first frame that is not of a library or of a language's runtime, else the
 * first one. NULL without frames. For lists; what a group is made of says the collector.
 */
const trawl_v1_Frame *render_frame_of_application(const trawl_v1_Frame *frames, size_t count);

const struct render_column *render_exception_columns(bool wide, size_t *count);
#define RENDER_EXCEPTION_COLUMNS 16 /* at most */
/* Widths that fit most rows, for lines that come one by one. */
void render_exception_widths(bool wide, size_t widths[RENDER_EXCEPTION_COLUMNS]);
void render_exception_row(struct render_table *t, const trawl_v1_Exception *e, bool wide,
                          int64_t now_us);
/* All that is known of one, with numbered frames; those that `group` (may be NULL) is made of are
 * marked. */
int render_exception_page(struct buf *out, const trawl_v1_Exception *e, const trawl_v1_Group *group,
                          int64_t now_us, bool color);

/* "frames": a list. */
void render_frames_member(struct jsonl *j, const trawl_v1_Frame *frames, size_t count);
void render_exception_members(struct jsonl *j, const trawl_v1_Exception *e);
int render_exception_json(struct buf *out, const trawl_v1_Exception *e);

#endif
