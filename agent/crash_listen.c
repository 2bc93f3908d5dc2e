/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crash listener. Each crash is handled by a child, by what crash_handler.c does for the pipe;
 * the listener only accepts. When it stops in order, the core pattern is as it was before, and when
 * it starts again, it is put back. See crash_listen.h.
 */
#include "agent/crash_listen.h"

#include <stdio.h>
#include <unistd.h>

#include "agent/crash_command.h"
#include "agent/crash_config.h"
#include "agent/crash_handler.h"
#include "agent/os/privilege.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define AT_ONCE_MAX 32
#define REST_US UINT64_C(30000000)
#define SAY_AGAIN_US UINT64_C(60000000)

struct listener {
    const char *config_path;
    char path[OS_CRASH_SOCKET_SIZE];
    uint64_t said_us;
    bool is_inherited;
};

static int crashed(void *context, const struct os_crash_arguments *arguments, int connection)
{
    const struct listener *l = context;
    return crash_handler_serve(arguments, connection, l->config_path);
}

static void refused(void *context, const char *why)
{
    (void)context;
    log_warn("%s", why);
}

static void filled(void *context)
{
    struct listener *l = context;
    if (l->said_us && port_mono_us() - l->said_us < SAY_AGAIN_US)
        return;
    l->said_us = port_mono_us();
    log_warn("%d crashes at once: more wait until one of them was looked at", AT_ONCE_MAX);
}

/* The init system's socket, or one of our own. */
static int take_socket(struct listener *l, const char *path, int *fd, struct failure *f)
{
    int rc = os_crash_socket_inherit(fd, l->path, f);
    if (rc != ERR_NOTFOUND) {
        l->is_inherited = rc == 0;
        return rc == 0 ? os_crash_socket_check(l->path, f) : rc;
    }
    if (text_copy(l->path, sizeof l->path, path))
        return fail(f, ERR_INVALID, "path of the crash socket is too long: '%s'", path);
    return 0;
}

static int open_all(struct listener *l, const struct settings *s, int *fd, int *lock,
                    struct failure *f)
{
    if (!os_is_privileged())
        return fail(f, ERR_DENIED, "only root can take crashes from the kernel");
    if (os_core_pattern_socket(s->root) == OS_CORE_SOCKET_NONE)
        return crash_no_socket(f);
    int rc = take_socket(l, s->crash_socket, fd, f);
    if (rc == 0)
        rc = os_crash_socket_lock(l->path, lock, f);
    if (rc == 0 && !l->is_inherited)
        rc = os_crash_socket_listen(l->path, fd, f);
    return rc;
}

static void begin(const struct listener *l)
{
    struct failure f = {0};
    if (crash_resume(l->config_path, l->path, &f))
        log_warn("crashes do not come here: %s", f.text);
    log_info("listens at %s for crashes", l->path);
}

/* First the pattern, then the socket: no crash finds nobody. */
static void end(struct listener *l, struct os_crash_server *server)
{
    struct failure f = {0};
    if (crash_suspend(l->config_path, l->path, &f))
        log_warn("the core pattern stays as it is: %s", f.text);
    if (os_crash_serve_rest(server, REST_US))
        log_warn("%u crashes are still being looked at: they are finished without us",
                 server->running);
    close(server->listener);
    if (!l->is_inherited)
        (void)unlink(l->path);
}

int crash_listen(const struct settings *s, struct failure *f)
{
    struct listener l = {.config_path = s->crash_file};
    struct os_crash_server server = {.listener = -1,
                                     .at_once_max = AT_ONCE_MAX,
                                     .crashed = crashed,
                                     .refused = refused,
                                     .filled = filled,
                                     .context = &l};
    int lock = -1;
    int rc = open_all(&l, s, &server.listener, &lock, f);
    if (rc == 0) {
        os_crash_serve_prepare();
        begin(&l);
        rc = os_crash_serve(&server, f);
        end(&l, &server);
    }
    if (lock >= 0)
        close(lock);
    return rc;
}

void crash_listen_help(void)
{
    fputs(
        "usage: trawl-agent crash-listen [--crash-socket PATH] [--crash-file FILE]\n\n"
        "Takes crashes from the kernel over a unix socket (Linux 6.16 and later), as root, with "
        "the\n"
        "agent alive or dead, and does for each what 'trawl-agent crash' does when the kernel "
        "runs\n"
        "it. It is meant to be kept running by the init system (deploy/systemd), which can also\n"
        "hold the socket for it (LISTEN_FDS), so that crashes wait while it starts anew.\n\n"
        "  trawl-agent crash-listen &\n"
        "  trawl-agent crash-handler install --socket\n\n"
        "When it stops in order (SIGTERM), what was in kernel.core_pattern before is put back, "
        "and\n"
        "when it starts again, it lets the crashes come to it again. 'crash-handler remove' ends\n"
        "that. While it is dead, crashes leave no evidence: 'crash-handler status' says so.\n",
        stdout);
}
