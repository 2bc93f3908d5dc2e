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
#include "agent/crash_spool.h"
#include "agent/os/privilege.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define SPECIFIERS "%P %p %I %i %u %g %d %s %t %c"
#define WORD_CRASH " crash "

/* ---- whose pattern it is ---- */

/* "|.../trawl-agent crash ...": also of another version, or from another place. */
static bool is_ours(const char *pattern)
{
    const char *end = strstr(pattern, WORD_CRASH);
    return pattern[0] == '|' && end && end - pattern >= (ptrdiff_t)strlen("trawl-agent") &&
           strncmp(end - strlen("trawl-agent"), "trawl-agent", strlen("trawl-agent")) == 0;
}

static int make_pattern(const char *config_path, char out[OS_CORE_PATTERN_SIZE], struct failure *f)
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
    if (is_ours(now)) {
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

int crash_install(const struct settings *s, bool by_agent, struct failure *f)
{
    struct crash_config c = {.size_bytes = s->crash_bytes, .core_bytes = s->crash_core_bytes};
    char now[OS_CORE_PATTERN_SIZE];
    if (!os_is_privileged())
        return fail(f, ERR_DENIED, "only root can change the kernel's core pattern");
    int rc = os_core_pattern_read(s->root, now, f);
    if (rc == 0)
        rc = make_pattern(s->crash_file, c.pattern, f);
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
    if (known && !is_ours(now))
        return 0; /* not installed */
    if (known && !force)
        return fail(f, ERR_REFUSED,
                    "what was there before is not known (%s): 'crash-handler remove --force' puts "
                    "the kernel's own 'core' there",
                    why.text);
    if (!known && strcmp(now, c.pattern) != 0 && !is_ours(now) && !force)
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

/* ---- status ---- */

struct waiting {
    uint32_t to_tell, begun, told, counted;
};

static int add_one(void *context, const char *name)
{
    (void)name;
    ++*(uint32_t *)context;
    return 0;
}

static void count_waiting(const char *directory, struct waiting *w)
{
    struct crash_spool spool;
    memset(w, 0, sizeof *w);
    if (crash_spool_open(&spool, directory, NULL))
        return;
    (void)crash_spool_each(&spool, ".pb", add_one, &w->to_tell);
    (void)crash_spool_each(&spool, ".begun", add_one, &w->begun);
    (void)crash_spool_each(&spool, ".told", add_one, &w->told);
    w->counted = crash_table_waiting(&spool);
    crash_spool_close(&spool);
}

static void put_json(struct buf *out, const char *now, const struct crash_config *c,
                     const struct waiting *w)
{
    (void)buf_printf(out, "{\"installed\":%s,\"pattern\":", is_ours(now) ? "true" : "false");
    (void)text_append_json(out, span_str(now));
    (void)buf_append_str(out, ",\"previous\":");
    (void)text_append_json(out, span_str(c->previous));
    (void)buf_append_str(out, ",\"spool\":");
    (void)text_append_json(out, span_str(c->spool));
    (void)buf_printf(out,
                     ",\"by_agent\":%s,\"to_tell\":%u,\"counted\":%u,\"begun\":%u,\"told\":%u}\n",
                     c->by_agent ? "true" : "false", w->to_tell, w->counted, w->begun, w->told);
}

static void put_text(struct buf *out, const char *now, const struct crash_config *c,
                     const struct waiting *w)
{
    (void)buf_printf(out, "installed     %s\n", is_ours(now) ? "yes" : "no");
    (void)buf_printf(out, "core pattern  %s\n", now);
    if (is_ours(now))
        (void)buf_printf(out, "before        %s\n", c->previous);
    (void)buf_printf(out, "spool         %s\n", c->spool);
    (void)buf_printf(out, "waiting       %u to be told, %u only counted, %u begun\n", w->to_tell,
                     w->counted, w->begun);
}

static int print_status(const struct settings *s, struct failure *f)
{
    struct crash_config c = {.by_agent = false};
    struct waiting w;
    struct buf out;
    char now[OS_CORE_PATTERN_SIZE];
    int rc = os_core_pattern_read(s->root, now, f);
    if (rc)
        return rc;
    if (crash_config_read(&c, s->crash_file, NULL)) {
        memset(&c, 0, sizeof c);
        (void)text_format(c.spool, sizeof c.spool, "%s/crash", s->state_dir);
    }
    count_waiting(c.spool, &w);
    buf_init(&out, 8192);
    if (strcmp(s->format, "json") == 0)
        put_json(&out, now, &c, &w);
    else
        put_text(&out, now, &c, &w);
    fputs(buf_str(&out), stdout);
    buf_done(&out);
    return 0;
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
    "usage: trawl-agent crash-handler install|remove|status [SETTING...]\n\n"
    "  install   let the kernel run 'trawl-agent crash' for every process that dies of a signal;\n"
    "            what was in kernel.core_pattern before is kept and served as well\n"
    "  remove    put back what was there before; refuses when somebody else has changed it\n"
    "            meanwhile (--force puts it back all the same)\n"
    "  status    what stands there, and what waits to be told (-o json)\n\n"
    "A crashed process is let go as soon as its registers and stacks are copied, in some\n"
    "milliseconds. With a program that was there before, it stays until that program has read its\n"
    "core, as long as it did without us. A core file is written only when the process' core limit\n"
    "allows it. The handler works with the agent stopped; what it finds waits in STATE/crash.\n\n"
    "examples\n"
    "  trawl-agent crash-handler install\n"
    "  trawl-agent crash-handler status -o json\n"
    "  trawl-agent crash-handler remove\n";

int crash_command(const struct settings *s, int count, char **words, struct failure *f)
{
    const char *what = count > 2 ? words[2] : "";
    if (count == 3 && strcmp(what, "install") == 0)
        return install(s, f);
    if (count == 3 && strcmp(what, "remove") == 0)
        return take_out(s, f);
    if (count == 3 && strcmp(what, "status") == 0)
        return print_status(s, f);
    if (count == 3 && strcmp(what, "help") == 0) {
        fputs(help, stdout);
        return 0;
    }
    fputs(help, stderr);
    return fail(f, ERR_INVALID, "crash-handler does one of: install, remove, status");
}
