/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of os_crash_describe() share: the stacks that were made of the copy, and what was
 * found out for the head of "txt" and "json". Invariant: whatever fails, what is known so far is
 * given. Private to crash_describe*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_DESCRIBE_H
#define TRAWL_AGENT_OS_LINUX_CRASH_DESCRIBE_H

#include "agent/os/linux/crash_linux.h"
#include "agent/os/linux/json_text.h"
#include "agent/os/linux/stacks_linux.h"

#define CRASH_WHERE_SIZE 320
#define CRASH_TEXT_MAX (16u << 20)

struct describing {
    struct os_crash *crash;
    struct os_exception *exception;
    struct os_result *result;
    struct stacks_job job;
    bool has_stacks;              /* job.set is there: every thread unwound, grouped, named */
    char where[CRASH_WHERE_SIZE]; /* of the fault address, in words; "": it has none */
    char abort_text[256];         /* what the C library said when it gave up; "": nothing */
    char sender[96];              /* who sent the signal; "": nobody did */
    siginfo_t first; /* the fault that its own handler was called for; si_signo 0: none */
};

/* The registers that people read, by name, in the order in which they are shown. */
struct crash_register {
    const char *name;
    size_t offset; /* in struct user_regs_struct */
};
#define CRASH_REGISTERS 20
extern const struct crash_register crash_registers[CRASH_REGISTERS];
uint64_t crash_register_value(const struct user_regs_struct *regs, size_t index);

/* What lies at the address of the fault. */
void crash_put_where(const struct os_crash *crash, uint64_t address, char *out, size_t size_bytes);
/* "SEGV_MAPERR", NULL: no name for it. */
const char *crash_code_name(int signal, int code);

/* Everything above the stacks of all threads, for people; in crash_describe_text.c. ERR_LIMIT,
 * ERR_NOMEM. */
int crash_put_head(const struct describing *d, struct buf *out);
/* The same as members of the object; in crash_describe_json.c. */
void crash_put_members(const void *context, struct json_text *out);

/* Finds the frame that the kernel made for a signal handler of the thread that failed, and what the
 * signal was: who writes a report and dies of the signal again hides it. In crash_describe_first.c.
 */
void crash_find_first(struct describing *d);

/* Memory that was copied, as it was; in crash_describe.c. A python_read_fn. */
bool crash_read_copy(void *context, uint64_t address, void *out, size_t size_bytes);

#endif
