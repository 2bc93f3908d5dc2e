/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the owner's file by way of common/conf, and the questions asked of it. Called by capture
 * and by the broker.
 */
#include "agent/policy.h"

#include <stddef.h>
#include <string.h>
#include <uv.h>

#include "agent/os/take.h"
#include "common/conf.h"
#include "common/port.h"
#include "common/text.h"

#define HOUR_US UINT64_C(3600000000)
#define WRITABLE_BY_OTHERS 022

#define AT(member) offsetof(struct policy, member), sizeof(((struct policy *)0)->member)

static const struct conf_row rows[] = {
    {"capture", CONF_BOOL, AT(capture), 0, 0, "yes", NULL, "take part in captures at all", false},
    {"kinds", CONF_LIST, AT(kinds), 0, 0, "", "KIND,...",
     "kinds of evidence that may be taken; empty: all", false},
    {"processes", CONF_LIST, AT(processes), 0, 0, "", "GLOB,...",
     "names of processes that may be captured; empty: all", false},
    {"never", CONF_LIST, AT(never), 0, 0, "", "GLOB,...",
     "names of processes that must not be captured", false},
    {"pause-max", CONF_DURATION_US, AT(pause_max_us), 1, 60000000, "1s", "TIME",
     "longest time that a process may be held", false},
    {"allow-pause", CONF_BOOL, AT(allow_pause), 0, 0, "yes", NULL,
     "no: never above 250 ms, and no core that holds its process, also when the order says "
     "--allow-pause",
     false},
    {"window-max", CONF_DURATION_US, AT(window_max_us), 1000000, UINT64_C(604800000000), "1d",
     "TIME", "how far a capture may look back or ahead", false},
    {"captures-per-hour", CONF_U64, AT(captures_per_hour), 0, POLICY_HOUR_MAX, "120", "N",
     "at most so many captures in any hour", false},
    {"max-processes", CONF_U64, AT(max_processes), 1, 16, "16", "N",
     "at most so many processes in one capture", false},
    {"crash-memory", CONF_STRING, AT(crash_memory), 0, 0, "dumpable", "WHICH",
     "whose memory the crash handler may read: none; dumpable (not setuid programs and those that "
     "forbid it); all",
     false},
};
#define ROWS (sizeof rows / sizeof rows[0])

void policy_defaults(struct policy *policy)
{
    conf_defaults(rows, ROWS, policy);
}

int policy_sample(struct buf *out)
{
    return conf_sample(rows, ROWS, out);
}

/* Only root or the user we run as may be able to change the file. */
static int check_owner(const char *path, const uv_stat_t *st, struct failure *f)
{
    uv_passwd_t self;
    /* Root's own needs no look at who we are: the crash handler has no time for it. */
    bool is_known = st->st_uid != 0 && uv_os_get_passwd(&self) == 0;
    bool is_ours = st->st_uid == 0 || (is_known && (int64_t)st->st_uid == (int64_t)self.uid);
    if (is_known)
        uv_os_free_passwd(&self);
    if (is_ours && !(st->st_mode & WRITABLE_BY_OTHERS))
        return 0;
    return fail(
        f, ERR_REFUSED,
        "this host's policy file '%s' can be changed by others than root: nothing is captured "
        "until it belongs to root with mode 0644",
        path);
}

int policy_load(struct policy *policy, const char *path, struct failure *f)
{
    uv_fs_t request;
    struct failure why;
    policy_defaults(policy);
    int e = uv_fs_stat(NULL, &request, path, NULL);
    uv_stat_t st = request.statbuf;
    uv_fs_req_cleanup(&request);
    if (e == UV_ENOENT || e == UV_ENOTDIR)
        return 0;
    policy->capture = false;
    if (e)
        return fail(f, ERR_REFUSED, "this host's policy file '%s' cannot be read: %s", path,
                    uv_strerror(e));
    e = check_owner(path, &st, f);
    if (e)
        return e;
    policy_defaults(policy);
    e = conf_file(rows, ROWS, policy, path, &why);
    if (!e)
        return 0;
    policy->capture = false;
    return fail(f, ERR_REFUSED, "this host's policy file cannot be understood: %s", why.text);
}

/* Whether `text` fits one of the globs in a list joined by ','. */
static bool is_listed(const char *list, const char *text)
{
    struct span rest = span_str(list), item;
    char glob[128];
    while (!text_take_until(&rest, ',', &item)) {
        while (item.size_bytes > 0 && item.data[0] == ' ')
            item = span_of(item.data + 1, item.size_bytes - 1);
        if (!text_copy_span(glob, sizeof glob, item) && glob[0] && text_glob(glob, text))
            return true;
    }
    return false;
}

int policy_allows_kind(const struct policy *policy, const char *kind, struct failure *f)
{
    if (!policy->capture)
        return fail(f, ERR_REFUSED, "this host's policy allows no captures");
    if (policy->kinds[0] && !is_listed(policy->kinds, kind))
        return fail(f, ERR_REFUSED, "this host's policy does not allow kind '%s'", kind);
    return 0;
}

int policy_allows_process(const struct policy *policy, const char *name, struct failure *f)
{
    if (is_listed(policy->never, name) ||
        (policy->processes[0] && !is_listed(policy->processes, name)))
        return fail(f, ERR_REFUSED, "this host's policy does not allow process '%s'", name);
    return 0;
}

bool policy_allows_crash_memory(const struct policy *policy, uint32_t dumpable)
{
    if (!policy->capture)
        return false;
    if (strcmp(policy->crash_memory, "all") == 0)
        return true;
    return strcmp(policy->crash_memory, "dumpable") == 0 && dumpable == 1;
}

uint32_t policy_pause_max_us(const struct policy *policy, uint32_t asked_us)
{
    return asked_us < (uint64_t)policy->pause_max_us ? asked_us : (uint32_t)policy->pause_max_us;
}

int policy_allows_pause(const struct policy *policy, uint32_t asked_us, bool allow_pause,
                        struct failure *f)
{
    if (allow_pause && !policy->allow_pause)
        return fail(f, ERR_REFUSED,
                    "this host's policy does not allow --allow-pause: no process is held for "
                    "longer than %d ms here",
                    OS_PAUSE_HARD_US / 1000);
    if (asked_us == 0)
        return fail(f, ERR_REFUSED, "the order allows no pause at all (0)");
    if (asked_us > OS_PAUSE_HARD_US && !allow_pause)
        return fail(f, ERR_REFUSED,
                    "a process could be held for %u ms, the limit is %d ms: only --allow-pause "
                    "goes beyond it",
                    asked_us / 1000, OS_PAUSE_HARD_US / 1000);
    return 0;
}

int policy_hour_take(struct policy_hour *hour, const struct policy *policy, uint64_t order,
                     uint64_t mono_us, struct failure *f)
{
    if (order && order == hour->last_order)
        return 0;
    while (hour->count > 0 && mono_us - hour->at_us[hour->first] >= HOUR_US) {
        hour->first = (hour->first + 1) % POLICY_HOUR_MAX;
        hour->count--;
    }
    if (hour->count >= policy->captures_per_hour)
        return fail(f, ERR_REFUSED, "this host's policy allows %llu captures an hour",
                    (unsigned long long)policy->captures_per_hour);
    hour->at_us[(hour->first + hour->count) % POLICY_HOUR_MAX] = mono_us;
    hour->count++;
    hour->last_order = order;
    return 0;
}
