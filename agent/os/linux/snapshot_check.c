/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes may be made to call clone(2), decided by reading alone. Invariant: nothing here
 * touches the process; what cannot be read is a reason to refuse. Called by snapshot.c.
 */
#include <stdio.h>
#include <string.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/snapshot.h"
#include "common/text.h"

#define OTHERWISE "--live takes a core without a snapshot"

static int check_seccomp(struct span status, pid_t tid, struct failure *f)
{
    struct span value;
    uint64_t mode = 0;
    if (proc_find_key(status, "Seccomp:", &value) == 0 && text_take_u64(&value, &mode) == 0 &&
        mode == 0)
        return 0;
    return fail(f, ERR_REFUSED,
                "no snapshot is possible: thread %d runs under a seccomp filter, which might kill "
                "the process for a call it did not ask for; " OTHERWISE,
                tid);
}

static int check_shadow_stack(struct span status, pid_t tid, struct failure *f)
{
    struct span value, feature;
    if (proc_find_key(status, "x86_Thread_features:", &value) != 0)
        return 0;
    while (proc_take_field(&value, &feature) == 0) {
        if (span_equal(feature, span_str("shstk")))
            return fail(f, ERR_REFUSED,
                        "no snapshot is possible: thread %d has a shadow stack, which would kill "
                        "the process for a return it did not make; " OTHERWISE,
                        tid);
    }
    return 0;
}

/* A process that has unshared the pid namespace of its children: the twin would be the first of
 * them, and no other could be born after its end. */
static int check_children(pid_t pid, pid_t tid, struct failure *f)
{
    char leaf[64], own[64], children[64];
    snprintf(leaf, sizeof leaf, "task/%d/ns/pid", tid);
    int rc = proc_link_pid("", (uint32_t)pid, leaf, own, sizeof own, f);
    if (rc == ERR_GONE) /* it ended, or this kernel has no pid namespaces */
        return 0;
    if (rc)
        return rc;
    snprintf(leaf, sizeof leaf, "task/%d/ns/pid_for_children", tid);
    rc = proc_link_pid("", (uint32_t)pid, leaf, children, sizeof children, NULL);
    if (rc == 0 && strcmp(own, children) == 0)
        return 0;
    return fail(f, ERR_REFUSED,
                "no snapshot is possible: children of thread %d are born into another pid "
                "namespace; " OTHERWISE,
                tid);
}

static int check_thread(pid_t pid, pid_t tid, struct failure *f)
{
    char leaf[64], data[PROC_TEXT_SIZE];
    struct span status;
    snprintf(leaf, sizeof leaf, "task/%d/status", tid);
    int rc = proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &status, f);
    if (rc == 0)
        rc = check_seccomp(status, tid, f);
    if (rc == 0)
        rc = check_shadow_stack(status, tid, f);
    return rc ? rc : check_children(pid, tid, f);
}

int snapshot_check(const struct stop *stop, struct failure *f)
{
    size_t left = 0;
    for (size_t i = 0; i < stop->count; i++) {
        int rc = check_thread((pid_t)stop->process.pid, stop->threads[i].tid, f);
        if (rc && rc != ERR_GONE)
            return rc;
        left += rc == 0;
    }
    return left ? 0 : fail(f, ERR_GONE, "process ended");
}
