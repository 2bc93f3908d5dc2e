/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How units of systemd failed, out of what systemd (PID 1) writes into the journal. Invariant:
 * pure; of a unit only what its last records said is remembered, for at most OS_UNITS units. Fed by
 * whoever follows the journal (agent/follow_journal.c).
 */
#ifndef TRAWL_AGENT_OS_UNIT_RESULT_H
#define TRAWL_AGENT_OS_UNIT_RESULT_H

#include "agent/os/exception.h"
#include "common/buf.h"
#include "common/err.h"

#define OS_UNITS 64

/* The fields of one record that matter (systemd.journal-fields(7); systemd: sd-messages.h and
 * src/core/unit.c); empty: it has no such field. */
struct os_unit_record {
    char message_id[40];
    char unit[128]; /* UNIT= or USER_UNIT= */
    char result[32];
    char exit_code[16]; /* "exited", "killed", "dumped" */
    char exit_status[16];
    char restarts[16]; /* N_RESTARTS= */
    char message[256];
    char pid[16]; /* _PID= */
    uint64_t wall_us;
};

struct os_unit_results;
int os_unit_results_open(struct os_unit_results **out); /* ERR_NOMEM */
void os_unit_results_close(struct os_unit_results *results);
/* True: *out tells of a unit that has failed. Records of others than PID 1 are passed by. */
bool os_unit_result_feed(struct os_unit_results *results, const struct os_unit_record *record,
                         struct os_exception *out);

#endif
