/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The beginning that all of run, join and self-test share: everything that needs privileges, in the
 * one order that is safe, then the privileges are dropped. Called by agent.c and selftest.c.
 */
#include "agent/agent.h"

#include <stdlib.h>
#include <string.h>

#include "agent/broker.h"
#include "agent/crash_command.h"
#include "agent/join.h"
#include "agent/os/privilege.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

/* The loop's pool does handshakes and name resolution only; more threads would only cost memory. */
#define POOL_THREADS "2"

static int drop(const struct settings *s, struct failure *f)
{
    struct failure why = {0};
    if (strcmp(s->user, "root") == 0) {
        log_warn("started as root and told to stay root (--user root)");
        return 0;
    }
    int e = os_give_directory(s->state_dir, s->user, &why);
    if (!e)
        e = os_drop_privileges(s->user, &why);
    return e ? fail(f, e, "cannot become user '%s': %s; choose another with --user", s->user,
                    why.text)
             : 0;
}

/* As the user that we are now: the directory may lie where that user cannot go. */
static int check_state_dir(const struct settings *s, struct failure *f)
{
    struct failure why = {0};
    char path[STATE_PATH_SIZE];
    if (text_format(path, sizeof path, "%s/.probe", s->state_dir))
        return fail(f, ERR_LIMIT, "path too long: '%s'", s->state_dir);
    int e = port_write_file(path, span_str("probe\n"), true, &why);
    uv_fs_t request;
    uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
    if (!e)
        return 0;
    return fail(f, e,
                "state directory '%s' cannot be written by user '%s': %s; choose another with "
                "--state-dir",
                s->state_dir, os_is_privileged() ? "root" : s->user, why.text);
}

static void add_cap(void *context, const char *name, bool available, const char *reason)
{
    struct agent_start *start = context;
    struct failure f = {0};
    if (start->cap_count == AGENT_CAPS_MAX)
        return;
    struct agent_cap *cap = &start->caps[start->cap_count++];
    text_copy(cap->name, sizeof cap->name, name);
    text_copy(cap->reason, sizeof cap->reason, reason ? reason : "");
    cap->available = available;
    /* What the owner forbids is a capability that is not there. */
    bool is_kind = strchr(name, '.') == NULL && strchr(name, '_') == NULL;
    if (is_kind && available && policy_allows_kind(&start->policy, name, &f)) {
        cap->available = false;
        text_copy(cap->reason, sizeof cap->reason, f.text);
    }
}

/* Where everybody may reach it, though only we can make it: before the privileges are gone. Without
 * it the agent runs all the same, and says so when it cannot listen there. */
static void make_intake_dir(const struct settings *s)
{
    char path[STATE_PATH_SIZE];
    uv_fs_t request;
    settings_intake(s, path, sizeof path);
    if (strcmp(path, SETTINGS_INTAKE) != 0)
        return;
    bool is_made = uv_fs_mkdir(NULL, &request, SETTINGS_INTAKE_DIR, 0755, NULL) == 0;
    uv_fs_req_cleanup(&request);
    if (is_made) { /* whatever the umask says */
        uv_fs_chmod(NULL, &request, SETTINGS_INTAKE_DIR, 0755, NULL);
        uv_fs_req_cleanup(&request);
    }
    if (strcmp(s->user, "root") != 0)
        (void)os_give_directory(SETTINGS_INTAKE_DIR, s->user, NULL);
}

/* Without it, everything else still works. */
static void install_crash_handler(const struct settings *s)
{
    struct failure f = {0};
    if (crash_install(s, true, &f))
        log_warn("crashes are not noticed by a crash handler: %s", f.text);
}

int agent_prepare(struct agent_start *start, const struct settings *s, bool with_broker,
                  struct failure *f)
{
    static struct broker_settings broker; /* the broker's process keeps a copy of it */
    *start = (struct agent_start){.broker_fd = -1, .was_privileged = os_is_privileged()};
    broker.policy_path = s->policy;
    broker.crash_file = s->crash_file;
    broker.capture_cpu_percent = (uint32_t)s->capture_cpu_percent;
    broker.follow_logs = s->follow_logs;
    broker.follow = s->follow;
    broker.follow_own_logs = s->follow_own_logs;
    broker.journal = s->journal;
    (void)uv_os_setenv("UV_THREADPOOL_SIZE", POOL_THREADS);
    (void)policy_load(&start->policy, s->policy, &start->policy_failure);
    int e = port_make_dirs(s->state_dir, f);
    if (e)
        return fail(f, e, "%s; choose another state directory with --state-dir", f->text);
    os_host_caps(start->was_privileged, add_cap, start);
    if (s->crash_handler)
        install_crash_handler(s);
    if (with_broker) {
        e = os_broker_fork(broker_run, &broker, &start->broker_fd, f);
        if (e)
            return e;
        (void)os_kernel_log_open(&start->kernel_log, &start->kernel_failure);
    }
    if (start->was_privileged && with_broker)
        make_intake_dir(s);
    if (start->was_privileged)
        e = drop(s, f);
    if (!e)
        e = check_state_dir(s, f);
    return e ? e : pki_start(f);
}

/* ---- joining ---- */

static void remove_file(const struct state *state, const char *name)
{
    char path[STATE_PATH_SIZE];
    uv_fs_t request;
    if (state_path(state, name, path, NULL))
        return;
    uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

int agent_join(const struct settings *s, struct failure *f)
{
    struct agent_start start;
    struct state state;
    bool was_lost;
    if (!s->collector[0] || !s->join[0])
        return fail(f, ERR_INVALID,
                    "joining needs --collector HOST and --join TOKEN ('trawl enroll' makes one)");
    int e = agent_prepare(&start, s, false, f);
    if (!e)
        e = state_open(&state, s->state_dir, &was_lost, f);
    if (e)
        return e;
    if (identity_exists(s->state_dir))
        return fail(
            f, ERR_EXISTS,
            "this host has joined already ('%s'): 'trawl-agent run' needs no token; to join "
            "another fleet, remove that directory first",
            s->state_dir);
    e = join_run(s->collector, s->join, s->name, s->state_dir, f);
    if (e) {
        remove_file(&state, "state.conf");
        remove_file(&state, "lock");
    }
    return e;
}

/* ---- lists ---- */

int agent_names_init(struct agent_names *names, const char *list)
{
    size_t length = strlen(list), count = 2;
    for (const char *at = list; *at; at++)
        count += *at == ',';
    names->text = malloc(length + 1);
    names->list = calloc(count, sizeof *names->list);
    if (!names->text || !names->list) {
        agent_names_done(names);
        return ERR_NOMEM;
    }
    memcpy(names->text, list, length + 1);
    size_t used = 0;
    for (char *at = names->text; *at;) {
        char *end = at + strcspn(at, ",");
        bool is_last = *end == '\0';
        *end = '\0';
        if (*at)
            names->list[used++] = at;
        at = is_last ? end : end + 1;
    }
    return 0;
}

void agent_names_done(struct agent_names *names)
{
    free(names->text);
    free((void *)names->list);
    *names = (struct agent_names){0};
}
