/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that the kernel killed for want of memory (kernel: mm/oom_kill.c, mm/memcontrol.c, from
 * 4.18 on). Who asked, what the limit was and which cgroup it was stand in the lines before
 * "Killed process", which ends the story. Called by kernel_fault.c.
 */
#include <string.h>

#include "agent/os/linux/kernel_fault_linux.h"
#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define STORY_US UINT64_C(10000000) /* lines further apart do not belong together */
#define SIGNAL_KILL 9

static void begin_story(struct fault_oom *oom, uint64_t mono_us)
{
    *oom = (struct fault_oom){.since_us = mono_us ? mono_us : 1, .uid = UINT32_MAX};
}

/* "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0" */
static bool take_asker(struct fault_oom *oom, uint64_t mono_us, const char *line)
{
    const char *end = strstr(line, " invoked oom-killer: ");
    if (!end)
        return false;
    begin_story(oom, mono_us);
    (void)text_copy_span(oom->asked_by, sizeof oom->asked_by, span_of(line, (size_t)(end - line)));
    return true;
}

/* "memory: usage 20480kB, limit 20480kB, failcnt 140" */
static bool take_limit(struct fault_oom *oom, const char *line)
{
    uint64_t number;
    const char *at = fault_skip(line, "memory: usage ");
    at = at ? fault_after(at, "limit ") : NULL;
    if (!at || !fault_number(&at, &number))
        return false;
    (void)text_format(oom->limit, sizeof oom->limit, "%llu kB", (unsigned long long)number);
    return true;
}

/* Until 4.20: "Task in /a/b killed as a result of limit of /a" */
static bool take_old_cgroups(struct fault_oom *oom, const char *line)
{
    static const char middle[] = " killed as a result of limit of ";
    const char *at = fault_skip(line, "Task in ");
    const char *end = at ? strstr(at, middle) : NULL;
    if (!end)
        return false;
    (void)text_copy_span(oom->cgroup, sizeof oom->cgroup, span_of(at, (size_t)(end - at)));
    (void)text_copy(oom->limit_cgroup, sizeof oom->limit_cgroup, end + sizeof middle - 1);
    (void)text_copy(oom->constraint, sizeof oom->constraint, "CONSTRAINT_MEMCG");
    return true;
}

static void take_value(char *out, size_t size_bytes, const char *line, const char *key)
{
    const char *at = fault_after(line, key);
    if (at)
        fault_copy_until(out, size_bytes, at, ",");
}

/* Since 5.0: "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,
 * oom_memcg=/a,task_memcg=/a/b,task=python3,pid=17264,uid=0" */
static bool take_summary(struct fault_oom *oom, uint64_t mono_us, const char *line)
{
    uint64_t uid;
    if (!fault_skip(line, "oom-kill:constraint="))
        return false;
    if (!oom->since_us || mono_us - oom->since_us > STORY_US)
        begin_story(oom, mono_us);
    take_value(oom->constraint, sizeof oom->constraint, line, "oom-kill:constraint=");
    take_value(oom->limit_cgroup, sizeof oom->limit_cgroup, line, ",oom_memcg=");
    take_value(oom->cgroup, sizeof oom->cgroup, line, ",task_memcg=");
    const char *at = fault_after(line, ",uid=");
    if (at && fault_number(&at, &uid) && uid <= UINT32_MAX)
        oom->uid = (uint32_t)uid;
    return true;
}

/* "Tasks in /a are going to be killed due to memory.oom.group set" */
static bool take_group(struct fault_oom *oom, const char *line)
{
    const char *at = fault_skip(line, "Tasks in ");
    const char *end = at ? strstr(at, " are going to be killed due to memory.oom.group") : NULL;
    if (!end)
        return false;
    (void)text_copy_span(oom->whole_group, sizeof oom->whole_group,
                         span_of(at, (size_t)(end - at)));
    return true;
}

/* ---- the end of the story ---- */

static void tag_memory(struct os_exception *e, const char *line)
{
    static const char *const keys[] = {"anon-rss:", "file-rss:", "shmem-rss:", "total-vm:"};
    char value[96] = "";
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        size_t used = strlen(value);
        const char *at = fault_after(line, keys[i]);
        uint64_t kb;
        if (at && fault_number(&at, &kb))
            (void)text_format(value + used, sizeof value - used, "%s%.*s %llu kB", used ? ", " : "",
                              (int)strlen(keys[i]) - 1, keys[i], (unsigned long long)kb);
    }
    fault_tag(e, "memory", value);
}

static void find_unit(struct os_exception *e, const char *cgroup)
{
    char text[128];
    if (text_format(text, sizeof text, "0::%s\n", cgroup) == 0 &&
        proc_cgroup_unit(span_str(text), e->unit, sizeof e->unit))
        e->unit[0] = '\0';
}

/* Behind "Killed process ": "17264 (python3) total-vm:221368kB, ..., UID:0 pgtables:..."; some
 * kernels have ", UID 0, total-vm:". A name may hold parentheses. */
static bool take_victim(struct os_exception *e, const char *at)
{
    uint64_t pid, uid;
    const char *memory = strstr(at, "total-vm:");
    if (!memory || !fault_number(&at, &pid) || pid > UINT32_MAX || at[0] != ' ' || at[1] != '(')
        return false;
    const char *end = memory;
    while (end > at + 1 && *end != ')')
        end--;
    if (*end != ')')
        return false;
    e->pid = (uint32_t)pid;
    (void)text_copy_span(e->process, sizeof e->process, span_of(at + 2, (size_t)(end - at - 2)));
    const char *user = fault_after(memory, " UID:");
    if (!user)
        user = fault_after(end, ", UID ");
    if (user && fault_number(&user, &uid) && uid <= UINT32_MAX)
        e->uid = (uint32_t)uid;
    return true;
}

static void tell_kill(struct os_kernel_fault *f, uint64_t mono_us, const char *line)
{
    struct os_exception *e = &f->one;
    const struct fault_oom *oom = &f->oom;
    bool is_group = strstr(line, "emory cgroup out of memory") || oom->limit_cgroup[0];
    e->signal = SIGNAL_KILL;
    if (e->uid == UINT32_MAX)
        e->uid = oom->uid;
    (void)text_copy(e->template_text, sizeof e->template_text,
                    is_group ? "killed: a cgroup is at its limit of memory"
                             : "killed: this host is out of memory");
    fault_tag(e, "cgroup", oom->cgroup);
    if (strcmp(oom->cgroup, oom->limit_cgroup) != 0)
        fault_tag(e, "limit_of", oom->limit_cgroup);
    fault_tag(e, "limit", oom->limit);
    fault_tag(e, "asked_by", oom->asked_by);
    fault_tag(e, "constraint", oom->constraint);
    fault_tag(e, "whole_group", oom->whole_group);
    tag_memory(e, line);
    find_unit(e, oom->cgroup);
    fault_tell(f, e, mono_us);
}

bool fault_feed_oom(struct os_kernel_fault *f, uint64_t mono_us, const char *line)
{
    struct fault_oom *oom = &f->oom;
    if (oom->since_us && mono_us - oom->since_us > STORY_US)
        begin_story(oom, mono_us);
    if (take_asker(oom, mono_us, line)) {
        fault_flush_report(f);
        return true;
    }
    const char *killed = fault_after(line, "Killed process ");
    if (killed) {
        fault_begin(&f->one, OS_OOM_KILL, "oom-kill", mono_us, line);
        if (take_victim(&f->one, killed)) {
            tell_kill(f, mono_us, line);
            if (!oom->whole_group[0])
                *oom = (struct fault_oom){.uid = UINT32_MAX};
            return true;
        }
    }
    return take_summary(oom, mono_us, line) ||
           (oom->since_us &&
            (take_limit(oom, line) || take_old_cgroups(oom, line) || take_group(oom, line)));
}
