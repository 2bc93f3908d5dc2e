/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host can give, or why it cannot. Invariant: nothing is claimed that was not tried or
 * read just now. Called by the agent at start.
 */
#include "agent/os/host.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/throws_probe.h"
#include "common/text.h"

#define REASON_SIZE 160
#define CAP_SYS_PTRACE 19 /* capabilities(7) */

struct caps {
    bool broker;
    bool traces; /* we may look into processes of others ourselves */
    void (*each)(void *context, const char *name, bool available, const char *reason);
    void *context;
};

static bool has_capability(int number)
{
    char data[PROC_TEXT_SIZE];
    struct span text, value;
    uint64_t set;
    if (proc_read("/proc/self/status", data, sizeof data, &text, NULL) < 0 ||
        proc_find_key(text, "CapEff:", &value) < 0 || text_take_hex(&value, &set) < 0)
        return false;
    return set >> number & 1;
}

static void give_cap(const struct caps *caps, const char *name, bool available, const char *reason)
{
    caps->each(caps->context, name, available, reason);
}

/* Available, but perhaps only for some processes. */
static void give_own_only(const struct caps *caps, const char *name)
{
    char reason[REASON_SIZE];
    if (caps->broker || caps->traces) {
        give_cap(caps, name, true, "");
        return;
    }
    (void)text_format(reason, sizeof reason,
                      "only for processes of uid %u: others need root or CAP_SYS_PTRACE",
                      (unsigned)geteuid());
    give_cap(caps, name, true, reason);
}

static bool read_number(const char *path, uint64_t *value)
{
    char data[32];
    struct span text;
    return proc_read(path, data, sizeof data, &text, NULL) == 0 &&
           proc_take_number(&text, value) == 0;
}

/* ---- kinds that look into a process by ptrace(2) ---- */

/* Why no process can be traced at all; false: some can. Yama lets a process be traced only by its
 * parents, from level 1 on. */
static bool cannot_trace(const struct caps *caps, char *reason)
{
    uint64_t level = 0;
    struct utsname name;
    if (uname(&name) == 0 && strcmp(name.machine, "x86_64") != 0) {
        (void)text_format(reason, REASON_SIZE, "not on this machine ('%s'): only on x86_64",
                          name.machine);
        return true;
    }
    if (caps->broker || caps->traces ||
        !read_number("/proc/sys/kernel/yama/ptrace_scope", &level) || level == 0)
        return false;
    (void)text_format(reason, REASON_SIZE,
                      "needs root or CAP_SYS_PTRACE (kernel.yama.ptrace_scope is %llu)",
                      (unsigned long long)level);
    return true;
}

static void give_traced(const struct caps *caps, const char *name)
{
    char reason[REASON_SIZE];
    if (cannot_trace(caps, reason))
        give_cap(caps, name, false, reason);
    else
        give_own_only(caps, name);
}

/* proc(5): with mode 2 a copy of a process counts as memory, though nothing of it is copied. */
static void give_core(const struct caps *caps)
{
    char reason[REASON_SIZE];
    uint64_t mode = 0;
    bool is_strict = read_number("/proc/sys/vm/overcommit_memory", &mode) && mode == 2;
    if (cannot_trace(caps, reason) || !is_strict || !(caps->broker || caps->traces))
        give_traced(caps, "core");
    else
        give_cap(caps, "core", true,
                 "a large process may have no room for its snapshot (vm.overcommit_memory is 2): "
                 "then --live");
}

/* ---- kinds that ask the kernel ---- */

/* perf_event_open(2) on ourselves, by the clock, as the profile of others is taken. */
static int try_perf(void)
{
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_SOFTWARE;
    attr.size = sizeof attr;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    attr.exclude_kernel = 1;
    attr.disabled = 1;
    long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0)
        return errno;
    close((int)fd);
    return 0;
}

static void give_profile(const struct caps *caps)
{
    char reason[REASON_SIZE];
    int error = try_perf();
    if (error == 0) {
        give_own_only(caps, "profile");
        return;
    }
    (void)text_format(reason, sizeof reason, "without perf events (%s): fewer samples, %s",
                      error == EACCES || error == EPERM ? "not permitted" : "not in this kernel",
                      caps->broker || caps->traces ? "of every process"
                                                   : "only of processes of the same user");
    give_cap(caps, "profile", true, reason);
}

/* The broker, as root, may; whether the kernel can is tried all the same. */
static void give_throws(const struct caps *caps)
{
    struct failure f = {0, ""};
    if (throws_probe_try(&f) == 0)
        give_own_only(caps, "throws");
    else
        give_cap(caps, "throws", false, f.text);
}

/* sock_diag(7) */
static void give_net(const struct caps *caps)
{
    char reason[REASON_SIZE];
    struct failure f;
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd >= 0) {
        close(fd);
        give_own_only(caps, "net");
        return;
    }
    fail_errno(&f, ERR_UNSUPPORTED, errno, "cannot ask the kernel for sockets (sock_diag)");
    (void)text_copy(reason, sizeof reason, f.text);
    give_cap(caps, "net", false, reason);
}

/* Whether a file can be read right now, else why not. */
static bool can_read(const char *path, char *reason)
{
    char data[256];
    struct span text;
    struct failure f;
    if (proc_read(path, data, sizeof data, &text, &f) == 0)
        return true;
    (void)text_copy(reason, REASON_SIZE, f.text);
    return false;
}

static void give_process_io(const struct caps *caps)
{
    char reason[REASON_SIZE];
    if (!can_read("/proc/self/io", reason))
        give_cap(caps, "counters.process_io", false, reason);
    else
        give_own_only(caps, "counters.process_io");
}

static void give_pressure(const struct caps *caps)
{
    char reason[REASON_SIZE];
    if (can_read("/proc/pressure/cpu", reason))
        give_cap(caps, "counters.pressure", true, "");
    else
        give_cap(caps, "counters.pressure", false, reason);
}

/* With a broker it was opened before privileges were dropped. */
static void give_kernel_log(const struct caps *caps)
{
    struct failure f;
    struct os_kernel_log *log = NULL;
    if (caps->broker && access("/dev/kmsg", F_OK) == 0) {
        give_cap(caps, "kernel_log", true, "");
    } else if (os_kernel_log_open(&log, &f) < 0) {
        give_cap(caps, "kernel_log", false, f.text);
    } else {
        os_kernel_log_close(log);
        give_cap(caps, "kernel_log", true, "");
    }
}

void os_host_caps(bool broker,
                  void (*each)(void *context, const char *name, bool available, const char *reason),
                  void *context)
{
    struct caps caps = {broker, has_capability(CAP_SYS_PTRACE), each, context};
    give_own_only(&caps, "triage");
    give_traced(&caps, "stacks");
    give_own_only(&caps, "stacks0");
    give_traced(&caps, "mini");
    give_core(&caps);
    give_profile(&caps);
    give_throws(&caps);
    give_net(&caps);
    give_cap(&caps, "counters", true, "");
    give_cap(&caps, "events", true, "");
    give_own_only(&caps, "logs");
    give_process_io(&caps);
    give_pressure(&caps);
    give_kernel_log(&caps);
}
