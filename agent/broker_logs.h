/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log files opened for the agent, which may read less than the broker. Invariant: the agent names
 * no path: only a place in the list that the broker makes of its own copy of the settings, or a
 * process whose name they hold and the policy does not forbid. Private to broker.c.
 */
#ifndef TRAWL_AGENT_BROKER_LOGS_H
#define TRAWL_AGENT_BROKER_LOGS_H

#include "agent/broker.h"
#include "agent/broker_wire.h"
#include "agent/policy.h"

struct broker_logs {
    struct os_log_list list; /* as of the last request for index 0 */
    int journal_pid;         /* 0: none runs */
};

/* *fd -1: none goes with the reply. */
int broker_logs_open(struct broker_logs *logs, const struct broker_settings *settings,
                     const struct policy *policy, struct broker_open_log *request,
                     struct broker_log *out, int *fd, struct failure *f);
void broker_logs_done(struct broker_logs *logs);

#endif
