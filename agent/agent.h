/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as a whole: which parts there are, in which order they start and stop. Called by main.
 */
#ifndef TRAWL_AGENT_AGENT_H
#define TRAWL_AGENT_AGENT_H

#include <uv.h>

#include "agent/os/host.h"
#include "agent/policy.h"
#include "agent/settings.h"

/*
 * What must happen while there are still privileges, one thread and no cryptography: the owner's
 * policy, the broker, the kernel log, the state directory; then privileges are gone. Shared by run,
 * join, self-test.
 */
#define AGENT_CAPS_MAX 24
struct agent_cap {
    char name[24];
    char reason[160];
    bool available;
};

struct agent_start {
    struct policy policy;
    struct failure policy_failure; /* code 0: the policy is fine */
    int broker_fd;
    bool was_privileged;
    struct agent_cap caps[AGENT_CAPS_MAX]; /* as found while privileged */
    size_t cap_count;
    struct os_kernel_log *kernel_log; /* NULL: none, why not in kernel_failure */
    struct failure kernel_failure;
};
int agent_prepare(struct agent_start *start, const struct settings *settings, bool with_broker,
                  struct failure *f);

/* Runs until SIGTERM or SIGINT. 0 after an orderly stop. */
int agent_run(const struct settings *settings, struct failure *f);
/* Joins only. */
int agent_join(const struct settings *settings, struct failure *f);
/* Samples for ten seconds and prints what it cost and what this host can give. */
int agent_self_test(const struct settings *settings, struct failure *f);

/* "redis-server,nginx" -> NULL-terminated pointers into a copy; free() both. */
struct agent_names {
    char *text;
    const char **list;
};
int agent_names_init(struct agent_names *names, const char *list);
void agent_names_done(struct agent_names *names);

#endif
