/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the files of `follow` share the work: follow.c looks for logs and turns the wheel,
 * follow_file.c reads one file, follow_place.c remembers how far, follow_journal.c reads the
 * journal, follow_entry.c takes its entries apart. Private to follow*.c.
 */
#ifndef TRAWL_AGENT_FOLLOW_PRIVATE_H
#define TRAWL_AGENT_FOLLOW_PRIVATE_H

#include "agent/follow.h"
#include "agent/os/log_follow.h"
#include "agent/os/unit_result.h"
#include "agent/trace.h"
#include "common/port.h"

/* ---- follow_place.c: how far we are, in a mapped file ---- */

struct follow_place {
    uint64_t device, inode; /* inode 0: free */
    int64_t born_us;
    uint64_t offset, used_us;
    uint64_t emptied; /* so often it began anew: the same offset is another place then */
};

struct follow_places {
    struct port_map map;
    bool is_first; /* nothing was remembered: we have never followed here */
};

int follow_places_open(struct follow_places *places, const char *directory, struct failure *f);
void follow_places_close(struct follow_places *places);
/* That of this file, or a new one (offset UINT64_MAX) in place of the one not used for longest. */
struct follow_place *follow_places_get(struct follow_places *places, const struct os_log *log,
                                       int64_t wall_us);
/* Of the journal; OS_JOURNAL_CURSOR_SIZE bytes. */
char *follow_places_cursor(struct follow_places *places);

/* ---- follow_file.c: one file ---- */

#define FOLLOW_TAIL 64
#define FOLLOW_PIECE 65536

struct follow_file {
    struct os_log log; /* inode 0: free */
    int fd;
    struct trace *trace;
    const struct source_context *context;
    struct follow_place *place;
    uint64_t base, offset;     /* where the first byte fed stood; where to read next */
    uint8_t tail[FOLLOW_TAIL]; /* what stands before `offset`: else it is another file now */
    size_t tail_bytes;
    char process[64];
    uint32_t pid; /* 0: none, or several write it */
    uint64_t start_ticks;
    uint64_t grew_mono_us;
    bool is_seen; /* in the present round of looking */
    bool is_many; /* several processes have it open */
};

/* Takes fd. from_end: when no place is remembered. ERR_NOMEM. */
int follow_file_open(struct follow_file *file, int fd, const struct os_log *log,
                     struct follow_places *places, bool from_end,
                     const struct source_context *context);
void follow_file_close(struct follow_file *file);
/* Reads what there is, until `deadline_mono_us`. Whether there may be more. */
bool follow_file_read(struct follow_file *file, uint64_t deadline_mono_us);
void follow_file_tick(struct follow_file *file);

/* ---- follow_entry.c: the journal's format, pure ---- */

#define FOLLOW_ENTRY_MAX ((size_t)256 * 1024)

/* Every text is terminated; empty or 0: the entry has no such field. */
struct follow_entry {
    struct span message; /* whole, within what was parsed */
    char comm[64], unit[128], cursor[OS_JOURNAL_CURSOR_SIZE];
    uint32_t pid;
    struct os_unit_record unit_record; /* with its time and the message's beginning */
};
/* Takes one field off, or the empty line behind an entry (*is_whole). ERR_AGAIN: it is not there as
 * a whole yet. ERR_CORRUPT: longer than FOLLOW_ENTRY_MAX. */
int follow_entry_take(struct span *s, struct follow_entry *entry, bool *is_whole);

/* ---- follow_journal.c ---- */

struct follow_journal;
/* Takes fd. */
int follow_journal_open(struct follow_journal **out, int fd, char *cursor,
                        const struct source_context *context);
void follow_journal_close(struct follow_journal *journal);
/* ERR_CLOSED: it has ended. */
int follow_journal_read(struct follow_journal *journal, uint64_t deadline_mono_us);
void follow_journal_tick(struct follow_journal *journal);

/* Reports with an id that is the same whenever this trace is told. */
void follow_report(const struct source_context *context, struct os_exception *e,
                   const uint64_t *where, size_t count);

#endif
