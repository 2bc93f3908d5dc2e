/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting the crash handler into the kernel's core pattern and taking it out again. See
 * crash_command.h.
 */
#include "agent/crash_command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "agent/crash_config.h"
#include "agent/crash_status.h"
#include "agent/crash_spool.h"
#include "agent/os/privilege.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define SPECIFIERS "%P %p %I %i %u %g %d %s %t %c"
#define WORD_CRASH " crash "

/* ---- whose pattern it is ---- */

/* "@PATH", "@@PATH"; NULL: it leads to no socket. */
const char *crash_socket_of(const char *pattern)
{
    return pattern[0] != '@' ? NULL : pattern[1] == '@' ? pattern + 2 : pattern + 1;
}

/* "|.../trawl-agent crash ...": also of another version, or from another place; or the socket that
 * `c`, when it is known, names. */
bool crash_is_ours(const char *pattern, const struct crash_config *c)
{
    const char *end = strstr(pattern, WORD_CRASH), *path = crash_socket_of(pattern);
    if (path)
        return strcmp(path, c && c->socket[0] ? c->socket : CRASH_SOCKET_PATH) == 0;
    return pattern[0] == '|' && end && end - pattern >= (ptrdiff_t)strlen("trawl-agent") &&
           strncmp(end - strlen("trawl-agent"), "trawl-agent", strlen("trawl-agent")) == 0;
}

int crash_no_socket(struct failure *f)
{
    return fail(f, ERR_UNSUPPORTED,
                "this kernel hands no crash to a socket (Linux 6.16 and later do): "
                "'crash-handler install' without --socket works here");
}

static int make_socket_pattern(const struct settings *s, struct crash_config *c, struct failure *f)
{
    enum os_core_socket kind = os_core_pattern_socket(s->root);
    if (kind == OS_CORE_SOCKET_NONE)
        return crash_no_socket(f);
    if (text_copy(c->socket, sizeof c->socket, s->crash_socket))
        return fail(f, ERR_INVALID, "path of the crash socket is too long: '%s'", s->crash_socket);
    if (!os_crash_socket_is_served(s->root, c->socket))
        return fail(f, ERR_REFUSED,
                    "nobody listens at '%s', and crashes would leave nothing: start "
                    "'trawl-agent crash-listen' first (--crash-socket names another place)",
                    c->socket);
    int rc = os_crash_socket_check(c->socket, f);
    if (rc == 0)
        rc = text_format(c->pattern, sizeof c->pattern, "%s%s",
                         kind == OS_CORE_SOCKET_ASKS ? "@@" : "@", c->socket);
    return rc;
}

static int make_pipe_pattern(const char *config_path, char out[OS_CORE_PATTERN_SIZE],
                             struct failure *f)
{
    char exe[1024];
    size_t size = sizeof exe;
    if (uv_exepath(exe, &size))
        return fail(f, ERR_IO, "cannot find out where this program lies");
    int rc = os_check_only_root(exe, f);
    if (rc)
        return fail(f, rc,
                    "%s; copy trawl-agent to where only root can write (/usr/local/bin) and "
                    "install from there",
                    f->text);
    if (strchr(exe, ' ') || strchr(exe, '%') || strchr(config_path, ' ') ||
        strchr(config_path, '%'))
        return fail(f, ERR_INVALID, "a core pattern cannot name a path with blanks or '%%'");
    rc = text_format(out, OS_CORE_PATTERN_SIZE, "|%s crash %s %s%s", exe, config_path, SPECIFIERS,
                     os_core_pattern_has_pidfd() ? " %F" : "");
    return rc ? fail(f, ERR_LIMIT,
                     "the core pattern would be longer than the %d bytes that the kernel takes: "
                     "copy trawl-agent to a shorter path than '%s', or shorten --crash-file",
                     OS_CORE_PATTERN_SIZE - 1, exe)
              : 0;
}

/* ---- install ---- */

static int make_spool(const struct settings *s, const char *path, struct failure *f)
{
    struct crash_spool spool;
    int rc = port_make_dirs(s->state_dir, f);
    if (rc == 0)
        rc = crash_spool_make(&spool, path, f);
    if (rc)
        return rc;
    crash_spool_close(&spool);
    return strcmp(s->user, "root") == 0 ? 0 : os_give_directory(s->state_dir, s->user, f);
}

/* What stands there now becomes what was there before, unless it is ours already. */
static int note_previous(struct crash_config *c, const char *config_path, const char *now,
                         bool by_agent, struct failure *f)
{
    struct crash_config old;
    int rc = crash_config_read(&old, config_path, f);
    if (crash_is_ours(now, rc ? c : &old)) {
        if (rc)
            return fail(f, ERR_REFUSED,
                        "a crash handler of trawl-agent is there already, but not what was there "
                        "before it (%s): say so with 'crash-handler remove --force', or name its "
                        "file with --crash-file",
                        f->text);
        text_copy(c->previous, sizeof c->previous, old.previous);
        c->by_agent = old.by_agent && by_agent;
        return 0;
    }
    if (now[0] == '@')
        return fail(f, ERR_UNSUPPORTED,
                    "crashes go to the socket '%s': a handler behind a socket cannot be given the "
                    "core afterwards",
                    now);
    c->by_agent = by_agent;
    return text_copy(c->previous, sizeof c->previous, now);
}

/* The setting of the agent leaves alone what was installed for a listener. */
static bool has_listener(const struct settings *s, const char *now, int *rc, struct failure *f)
{
    struct crash_config c;
    if (crash_config_read(&c, s->crash_file, NULL) || !c.socket[0])
        return false;
    if (strcmp(now, c.pattern) != 0 && strcmp(now, c.previous) != 0)
        return false;
    *rc = strcmp(now, c.pattern) == 0
              ? 0
              : fail(f, ERR_REFUSED,
                     "they are the business of the listener at '%s', which is stopped: start "
                     "'trawl-agent crash-listen', or 'crash-handler remove' first",
                     c.socket);
    return true;
}

int crash_install(const struct settings *s, bool by_agent, struct failure *f)
{
    struct crash_config c = {.size_bytes = s->crash_bytes, .core_bytes = s->crash_core_bytes};
    char now[OS_CORE_PATTERN_SIZE];
    if (!os_is_privileged())
        return fail(f, ERR_DENIED, "only root can change the kernel's core pattern");
    int rc = os_core_pattern_read(s->root, now, f);
    if (rc == 0 && by_agent && has_listener(s, now, &rc, f))
        return rc;
    if (rc == 0)
        rc = s->socket ? make_socket_pattern(s, &c, f)
                       : make_pipe_pattern(s->crash_file, c.pattern, f);
    if (rc == 0 && (text_format(c.spool, sizeof c.spool, "%s/crash", s->state_dir) ||
                    text_copy(c.policy, sizeof c.policy, s->policy)))
        rc = fail(f, ERR_LIMIT, "path of the state directory is too long");
    if (rc == 0)
        rc = note_previous(&c, s->crash_file, now, by_agent, f);
    if (rc == 0)
        rc = make_spool(s, c.spool, f);
    if (rc == 0)
        rc = crash_config_write(&c, s->crash_file, f);
    if (rc == 0)
        rc = os_check_only_root(s->crash_file, f);
    if (rc == 0 && strcmp(now, c.pattern) != 0)
        rc = os_core_pattern_write(s->root, c.pattern, f);
    return rc;
}

/* ---- remove ---- */

static void forget(const char *config_path)
{
    (void)unlink(config_path);
}

static int remove_from(const char *root, const char *config_path, bool force, bool only_by_agent,
                       struct failure *f)
{
    struct crash_config c;
    struct failure why = {0};
    char now[OS_CORE_PATTERN_SIZE];
    int rc = os_core_pattern_read(root, now, f);
    if (rc)
        return rc;
    int known = crash_config_read(&c, config_path, &why);
    if (only_by_agent && (known || !c.by_agent || strcmp(now, c.pattern) != 0))
        return 0;
    if (known && !crash_is_ours(now, NULL))
        return 0; /* not installed */
    if (!known && strcmp(now, c.previous) == 0) {
        forget(config_path); /* its listener is stopped, or it was put back by hand */
        return 0;
    }
    if (known && !force)
        return fail(f, ERR_REFUSED,
                    "what was there before is not known (%s): 'crash-handler remove --force' puts "
                    "the kernel's own 'core' there",
                    why.text);
    if (!known && strcmp(now, c.pattern) != 0 && !crash_is_ours(now, &c) && !force)
        return fail(f, ERR_CONFLICT,
                    "somebody else has changed the core pattern to '%s': it is left as it is; "
                    "--force puts '%s' there",
                    now, c.previous);
    rc = os_core_pattern_write(root, known ? "core" : c.previous, f);
    if (rc == 0)
        forget(config_path);
    return rc;
}

int crash_remove(const char *config_path, bool force, bool only_by_agent, struct failure *f)
{
    return remove_from("", config_path, force, only_by_agent, f);
}

/* ---- the listener comes and goes ---- */

/* `from` becomes `to`, when it stands there. */
static int turn(const char *from, const char *to, struct failure *f)
{
    char now[OS_CORE_PATTERN_SIZE];
    int rc = os_core_pattern_read("", now, f);
    if (rc || strcmp(now, to) == 0)
        return rc;
    if (strcmp(now, from) != 0)
        return fail(f, ERR_CONFLICT, "somebody else has changed the core pattern to '%s'", now);
    return os_core_pattern_write("", to, f);
}

/* What is installed for this listener. */
static bool is_for(struct crash_config *c, const char *config_path, const char *socket)
{
    return crash_config_read(c, config_path, NULL) == 0 && strcmp(c->socket, socket) == 0;
}

int crash_resume(const char *config_path, const char *socket, struct failure *f)
{
    struct crash_config c;
    return is_for(&c, config_path, socket) ? turn(c.previous, c.pattern, f) : 0;
}

int crash_suspend(const char *config_path, const char *socket, struct failure *f)
{
    struct crash_config c;
    return is_for(&c, config_path, socket) ? turn(c.pattern, c.previous, f) : 0;
}

/* ---- the command ---- */

static int install(const struct settings *s, struct failure *f)
{
    struct crash_config c;
    int rc = crash_install(s, false, f);
    if (rc == 0)
        rc = crash_config_read(&c, s->crash_file, f);
    if (rc == 0)
        printf("installed; before it was '%s', kept in %s\n", c.previous, s->crash_file);
    return rc;
}

static int take_out(const struct settings *s, struct failure *f)
{
    char now[OS_CORE_PATTERN_SIZE];
    if (!os_is_privileged())
        return fail(f, ERR_DENIED, "only root can change the kernel's core pattern");
    int rc = remove_from(s->root, s->crash_file, s->force, false, f);
    if (rc == 0)
        rc = os_core_pattern_read(s->root, now, f);
    if (rc == 0)
        printf("the core pattern is '%s'\n", now);
    return rc;
}

static const char help[] =
    "usage: trawl-agent crash-handler install [--socket]|remove|status [SETTING...]\n\n"
    "  install   let the kernel run 'trawl-agent crash' for every process that dies of a signal;\n"
    "            what was in kernel.core_pattern before is kept and served as well;\n"
    "            with --socket the kernel connects to 'trawl-agent crash-listen' instead, which\n"
    "            must be running (Linux 6.16 and later; see 'crash-listen --help')\n"
    "  remove    put back what was there before; refuses when somebody else has changed it\n"
    "            meanwhile (--force puts it back all the same)\n"
    "  status    what stands there, who listens, and what waits to be told (-o json)\n\n"
    "A crashed process is let go as soon as its registers and stacks are copied, in some\n"
    "milliseconds. With a program that was there before, it stays until that program has read its\n"
    "core, as long as it did without us. A core file is written only when the process' core limit\n"
    "allows it. The handler works with the agent stopped; what it finds waits in STATE/crash.\n\n"
    "settings (all of them: 'trawl-agent help')\n"
    "  --socket              install: by socket instead of by pipe\n"
    "  --crash-socket PATH   where the listener is (" CRASH_SOCKET_PATH ")\n"
    "  --crash-file FILE     what the handler reads (" CRASH_CONFIG_PATH ")\n"
    "  --crash-size SIZE     disk for evidence of crashes (64M)\n"
    "  --crash-core-max SIZE largest whole core that is kept (4G)\n"
    "  --state-dir DIR       evidence waits in DIR/crash (" SETTINGS_STATE ")\n"
    "  --policy FILE         what the owner of this host allows\n"
    "  --force               remove: also what somebody else has changed\n"
    "  -o json               status: for programs\n\n"
    "examples\n"
    "  trawl-agent crash-handler install\n"
    "  trawl-agent crash-listen & trawl-agent crash-handler install --socket\n"
    "  trawl-agent crash-handler status -o json\n"
    "  trawl-agent crash-handler remove\n";

void crash_command_help(void)
{
    fputs(help, stdout);
}

int crash_command(const struct settings *s, int count, char **words, struct failure *f)
{
    const char *what = count > 2 ? words[2] : "";
    if (count == 3 && strcmp(what, "install") == 0)
        return install(s, f);
    if (count == 3 && strcmp(what, "remove") == 0)
        return take_out(s, f);
    if (count == 3 && strcmp(what, "status") == 0)
        return crash_status(s, f);
    if (count == 3 && strcmp(what, "help") == 0) {
        crash_command_help();
        return 0;
    }
    fputs(help, stderr);
    return fail(f, ERR_INVALID, "crash-handler does one of: install, remove, status");
}
