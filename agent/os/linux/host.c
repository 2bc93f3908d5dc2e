/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts of the host. Invariant: a fact that cannot be read is left out. Called by the agent at
 * start.
 */
#include "agent/os/host.h"

#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define FACT_SIZE 128

/* ---- facts ---- */

struct facts {
    const char *root;
    void (*each)(void *context, const char *key, const char *value);
    void *context;
};

static void give(const struct facts *facts, const char *key, struct span value)
{
    char text[FACT_SIZE];
    while (value.size_bytes > 0 && value.data[value.size_bytes - 1] <= ' ')
        value.size_bytes--;
    if (value.size_bytes == 0)
        return;
    (void)text_copy_span(text, sizeof text, value);
    facts->each(facts->context, key, text);
}

static void give_number(const struct facts *facts, const char *key, uint64_t value)
{
    char text[FACT_SIZE];
    (void)text_format(text, sizeof text, "%llu", (unsigned long long)value);
    facts->each(facts->context, key, text);
}

/* Reads the beginning of "ROOT/PATH" into the caller's memory. */
static int read_text(const struct facts *facts, const char *path, char *data, size_t size_bytes,
                     struct span *out)
{
    char full[PROC_PATH_SIZE];
    (void)text_format(full, sizeof full, "%s%s", facts->root, path);
    return proc_read(full, data, size_bytes, out, NULL);
}

static bool exists(const struct facts *facts, const char *path)
{
    char full[PROC_PATH_SIZE];
    (void)text_format(full, sizeof full, "%s%s", facts->root, path);
    return access(full, F_OK) == 0;
}

static void give_file(const struct facts *facts, const char *key, const char *path)
{
    char data[FACT_SIZE];
    struct span text;
    if (read_text(facts, path, data, sizeof data, &text) == 0)
        give(facts, key, text);
}

/* os-release(5) */
static void give_os(const struct facts *facts)
{
    char data[PROC_TEXT_SIZE];
    struct span text, value;
    if (read_text(facts, "/etc/os-release", data, sizeof data, &text) < 0 &&
        read_text(facts, "/usr/lib/os-release", data, sizeof data, &text) < 0)
        return;
    if (proc_find_key(text, "PRETTY_NAME=", &value) < 0)
        return;
    if (value.size_bytes >= 2 && (value.data[0] == '"' || value.data[0] == '\''))
        value = span_of(value.data + 1, value.size_bytes - 2);
    give(facts, "os", value);
}

struct stat_facts {
    uint64_t cpus;
    uint64_t boot_s;
};

static int each_stat_line(void *context, struct span line)
{
    struct stat_facts *out = context;
    struct span key;
    if (proc_take_field(&line, &key) < 0)
        return 0;
    if (proc_starts_with(key, "cpu") && key.size_bytes > 3)
        out->cpus++;
    else if (span_equal(key, span_str("btime")))
        (void)proc_take_number(&line, &out->boot_s);
    return 0;
}

static void give_stat(const struct facts *facts)
{
    char path[PROC_PATH_SIZE], time[FACT_SIZE];
    struct stat_facts stat = {0};
    (void)text_format(path, sizeof path, "%s/proc/stat", facts->root);
    if (proc_each_line(path, each_stat_line, &stat, NULL) < 0)
        return;
    if (stat.cpus > 0)
        give_number(facts, "cpus", stat.cpus);
    if (stat.boot_s > 0 && stat.boot_s < INT64_MAX / 1000000) {
        text_put_time((int64_t)stat.boot_s * 1000000, time, sizeof time);
        facts->each(facts->context, "boot_time", time);
    }
}

static void give_memory(const struct facts *facts)
{
    char data[PROC_TEXT_SIZE];
    struct span text, value;
    uint64_t kib;
    if (read_text(facts, "/proc/meminfo", data, sizeof data, &text) == 0 &&
        proc_find_key(text, "MemTotal:", &value) == 0 && proc_take_number(&value, &kib) == 0 &&
        kib <= UINT64_MAX / 1024)
        give_number(facts, "memory_bytes", kib * 1024);
}

/* The flags of the first processor tell whether there is a hypervisor; firmware tells which. */
static int each_cpuinfo_line(void *context, struct span line)
{
    struct span flag;
    if (!proc_starts_with(line, "flags"))
        return 0;
    while (proc_take_field(&line, &flag) == 0)
        if (span_equal(flag, span_str("hypervisor")))
            *(bool *)context = true;
    return 1;
}

static void give_virtualization(const struct facts *facts)
{
    char path[PROC_PATH_SIZE], data[FACT_SIZE];
    struct span text;
    bool virtual = false;
    (void)text_format(path, sizeof path, "%s/proc/cpuinfo", facts->root);
    (void)proc_each_line(path, each_cpuinfo_line, &virtual, NULL);
    if (!virtual)
        return;
    if (read_text(facts, "/sys/hypervisor/type", data, sizeof data, &text) < 0 &&
        read_text(facts, "/sys/class/dmi/id/sys_vendor", data, sizeof data, &text) < 0)
        text = span_str("unknown hypervisor");
    give(facts, "virtualization", text);
}

static void give_container(const struct facts *facts)
{
    char data[FACT_SIZE];
    struct span text;
    if (read_text(facts, "/run/systemd/container", data, sizeof data, &text) == 0)
        give(facts, "container", text);
    else if (exists(facts, "/.dockerenv"))
        give(facts, "container", span_str("docker"));
    else if (exists(facts, "/run/.containerenv"))
        give(facts, "container", span_str("podman"));
}

static void give_uname(const struct facts *facts)
{
    struct utsname name;
    if (uname(&name) < 0)
        return;
    give(facts, "arch", span_str(name.machine));
    if (facts->root[0] == '\0')
        give(facts, "kernel", span_str(name.release));
    else
        give_file(facts, "kernel", "/proc/sys/kernel/osrelease");
}

void os_host_facts(const char *root,
                   void (*each)(void *context, const char *key, const char *value), void *context)
{
    struct facts facts = {root, each, context};
    char user[FACT_SIZE];
    give_os(&facts);
    give_uname(&facts);
    give_stat(&facts);
    give_memory(&facts);
    give_file(&facts, "boot_id", "/proc/sys/kernel/random/boot_id");
    give_file(&facts, "hostname", "/proc/sys/kernel/hostname");
    give_virtualization(&facts);
    give_container(&facts);
    if (exists(&facts, "/run/systemd/system"))
        give(&facts, "init", span_str("systemd"));
    if (exists(&facts, "/sys/fs/cgroup"))
        give(&facts, "cgroup",
             span_str(exists(&facts, "/sys/fs/cgroup/cgroup.controllers") ? "v2" : "v1"));
    (void)text_format(user, sizeof user, geteuid() == 0 ? "root" : "uid %u", (unsigned)geteuid());
    give(&facts, "agent_user", span_str(user));
}
