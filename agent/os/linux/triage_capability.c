/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of capabilities(7). Pure. Called by triage_head.c.
 */
#include "agent/os/linux/triage_linux.h"

/* In the order of linux/capability.h, which only grows. */
static const char *const names[] = {"chown",
                                    "dac_override",
                                    "dac_read_search",
                                    "fowner",
                                    "fsetid",
                                    "kill",
                                    "setgid",
                                    "setuid",
                                    "setpcap",
                                    "linux_immutable",
                                    "net_bind_service",
                                    "net_broadcast",
                                    "net_admin",
                                    "net_raw",
                                    "ipc_lock",
                                    "ipc_owner",
                                    "sys_module",
                                    "sys_rawio",
                                    "sys_chroot",
                                    "sys_ptrace",
                                    "sys_pacct",
                                    "sys_admin",
                                    "sys_boot",
                                    "sys_nice",
                                    "sys_resource",
                                    "sys_time",
                                    "sys_tty_config",
                                    "mknod",
                                    "lease",
                                    "audit_write",
                                    "audit_control",
                                    "setfcap",
                                    "mac_override",
                                    "mac_admin",
                                    "syslog",
                                    "wake_alarm",
                                    "block_suspend",
                                    "audit_read",
                                    "perfmon",
                                    "bpf",
                                    "checkpoint_restore"};
#define NAMES (sizeof names / sizeof names[0])
#define NEARLY_ALL 36 /* fewer than all, but more than one wants to read */

void triage_put_capabilities(uint64_t set, char *out, size_t size_bytes)
{
    unsigned count = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < 64; i++)
        count += (unsigned)(set >> i & 1);
    if (count == 0 || count >= NAMES) {
        triage_add(out, size_bytes, count == 0 ? "none" : "all");
        return;
    }
    bool missing = count >= NEARLY_ALL;
    if (missing)
        triage_add(out, size_bytes, "all but ");
    for (unsigned i = 0, shown = 0; i < NAMES; i++)
        if ((set >> i & 1) != missing)
            triage_add(out, size_bytes, "%s%s", shown++ ? ", " : "", names[i]);
}
