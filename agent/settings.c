/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of settings and what follows from it. Called by main.
 */
#include "agent/settings.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/crash_config.h"
#include "agent/os/privilege.h"
#include "agent/policy.h"
#include "agent/spool.h"
#include "common/conf.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define MIB ((uint64_t)1 << 20)
#define AT(member) offsetof(struct settings, member), sizeof(((struct settings *)0)->member)

static const struct conf_row rows[] = {
    {"collector", CONF_STRING, AT(collector), 0, 0, "", "HOST[:PORT]",
     "the collector to send to (port 7443)", false},
    {"join", CONF_STRING, AT(join), 0, 0, "", "TOKEN",
     "join the fleet first, with a token of 'trawl enroll'; @FILE reads it from a file", true},
    {"name", CONF_STRING, AT(name), 0, 0, "", "NAME",
     "name to join under (default: this machine's host name)", false},
    {"state-dir", CONF_STRING, AT(state_dir), 0, 0, "", "DIR",
     "key, certificate and rings (default: /var/lib/trawl-agent, or the user's own)", false},
    {"user", CONF_STRING, AT(user), 0, 0, "nobody", "USER", "user to become when started as root",
     false},
    {"follow", CONF_LIST, AT(follow), 0, 0, "", "NAME,...",
     "processes whose counters are always kept, and whose end, restart and standstill are told",
     false},
    {"follow-logs", CONF_LIST, AT(follow_logs), 0, 0, "", "PATTERN,...",
     "log files in which error traces are looked for: /var/log/shop/*.log", false},
    {"follow-own-logs", CONF_BOOL, AT(follow_own_logs), 0, 0, "yes", NULL,
     "leave the log files that followed processes have open alone (follow-own-logs = no)", false},
    {"journal", CONF_BOOL, AT(journal), 0, 0, "yes", NULL,
     "leave the journal alone: no error traces and results of units are looked for there (journal "
     "= no)",
     false},
    {"probe", CONF_LIST, AT(probe), 0, 0, "", "PROBE,...",
     "what must answer: tcp:HOST:PORT, http://HOST:PORT/PATH or unit-watchdog:UNIT, each with "
     "every=5s timeout=2s failures=3",
     false},
    {"busiest", CONF_U64, AT(busiest), 0, 64, "8", "N",
     "how many of the busiest processes to follow besides", false},
    {"throws", CONF_LIST, AT(throws), 0, 0, "", "NAME,...",
     "processes whose C++ exceptions are counted as they are thrown (at most 4 at a time)", false},
    {"intake", CONF_STRING, AT(intake), 0, 0, "", "PATH|no",
     "socket where applications report exceptions (default: " SETTINGS_INTAKE
     ", or exceptions.sock in a state directory of one's own)",
     false},
    {"ring-size", CONF_SIZE_BYTES, AT(ring_bytes), MIB, 4096 * MIB, "16M", "SIZE",
     "disk for counters and events that wait or can be looked back at", false},
    {"evidence-size", CONF_SIZE_BYTES, AT(evidence_bytes), MIB, 1024 * 1024 * MIB, "256M", "SIZE",
     "disk for captured evidence that waits to be sent", false},
    {"upload-rate", CONF_SIZE_BYTES, AT(upload_bytes_per_s), 65536, 1024 * 1024 * MIB, "32M",
     "SIZE", "bytes of evidence sent per second at most", false},
    {"capture-cpu", CONF_U64, AT(capture_cpu_percent), 1, 100, "50", "PERCENT",
     "of one core, at most, while a core dump is read and packed", false},
    {"crash-handler", CONF_BOOL, AT(crash_handler), 0, 0, "no", NULL,
     "put the crash handler into the kernel's core pattern at start, take it out at stop", false},
    {"crash-size", CONF_SIZE_BYTES, AT(crash_bytes), MIB, 1024 * 1024 * MIB, "64M", "SIZE",
     "disk for evidence of crashes", false},
    {"crash-core-max", CONF_SIZE_BYTES, AT(crash_core_bytes), MIB, 1024 * 1024 * MIB, "4G", "SIZE",
     "largest whole core of a crash that is kept when somebody wants one", false},
    {"crash-file", CONF_STRING, AT(crash_file), 0, 0, CRASH_CONFIG_PATH, "FILE",
     "where the crash handler finds what it needs; only root may be able to write there", false},
    {"crash-socket", CONF_STRING, AT(crash_socket), 0, 0, CRASH_SOCKET_PATH, "PATH",
     "where 'crash-listen' takes crashes from the kernel, when 'crash-handler install --socket' "
     "was done (Linux 6.16)",
     false},
    {"log-level", CONF_STRING, AT(log_level), 0, 0, "info", "LEVEL", "error, warn, info or debug",
     false},
    {"policy", CONF_STRING, AT(policy), 0, 0, POLICY_PATH, "FILE",
     "what the owner of this host allows", true},
    {"config", CONF_STRING, AT(config), 0, 0, "", "FILE",
     "settings file (default: " SETTINGS_FILE ", if there is one)", true},
    {"format", CONF_STRING, AT(format), 0, 0, "table", "table|json",
     "output of self-test and of crash-handler status", true},
    {"socket", CONF_BOOL, AT(socket), 0, 0, "no", NULL,
     "crash-handler install: let the kernel connect to 'crash-listen' instead of running a program",
     true},
    {"force", CONF_BOOL, AT(force), 0, 0, "no", NULL,
     "crash-handler remove: also when somebody else has changed the core pattern", true},
};
#define ROWS (sizeof rows / sizeof rows[0])

static const struct conf_short shorts[] = {{'o', "format"}};
#define SHORTS (sizeof shorts / sizeof shorts[0])

int settings_help(struct buf *out)
{
    return conf_help(rows, ROWS, shorts, SHORTS, out);
}

int settings_sample(struct buf *out)
{
    return conf_sample(rows, ROWS, out);
}

static int get_environment(const char *name, char *out, size_t size_bytes)
{
    size_t size = size_bytes;
    return uv_os_getenv(name, out, &size) == 0 && out[0] ? 0 : ERR_NOTFOUND;
}

/* As root the system's place; otherwise the user's, by the XDG base directory specification. */
static int default_state_dir(struct settings *s, struct failure *f)
{
    char base[STATE_PATH_SIZE - 64];
    size_t size = sizeof base;
    int e;
    if (s->state_dir[0])
        return 0;
    if (os_is_privileged())
        return text_copy(s->state_dir, sizeof s->state_dir, SETTINGS_STATE);
    if (!get_environment("XDG_STATE_HOME", base, sizeof base))
        e = text_format(s->state_dir, sizeof s->state_dir, "%s/trawl-agent", base);
    else if (uv_os_homedir(base, &size) == 0)
        e = text_format(s->state_dir, sizeof s->state_dir, "%s/.local/state/trawl-agent", base);
    else
        return fail(f, ERR_INVALID, "no home directory for the state: name one with --state-dir");
    return e ? fail(f, e, "path of the state directory is too long") : 0;
}

/* Only the agent that is the host's own takes the place that everybody knows. */
void settings_intake(const struct settings *s, char *out, size_t size_bytes)
{
    if (strcmp(s->intake, "no") == 0)
        out[0] = '\0';
    else if (s->intake[0])
        (void)text_copy(out, size_bytes, s->intake);
    else if (strcmp(s->state_dir, SETTINGS_STATE) == 0)
        (void)text_copy(out, size_bytes, SETTINGS_INTAKE);
    else
        (void)text_format(out, size_bytes, "%s/exceptions.sock", s->state_dir);
}

static int read_file(struct settings *s, const char *config, struct failure *f)
{
    if (config[0])
        return conf_file(rows, ROWS, s, config, f);
    int e = conf_file(rows, ROWS, s, SETTINGS_FILE, f);
    return e == ERR_NOTFOUND ? 0 : e;
}

static int set_log_level(const struct settings *s, struct failure *f)
{
    enum log_level level;
    if (log_level_parse(s->log_level, &level))
        return fail(f, ERR_INVALID, "unknown log level '%s'; there are: error, warn, info, debug",
                    s->log_level);
    log_set_level(level);
    return 0;
}

/* Flags are read twice: the first time only to learn which file to read before them. */
int settings_read(struct settings *settings, int *argc, char **argv, struct failure *f)
{
    int count = *argc;
    char **words = calloc((size_t)count + 1, sizeof *words);
    char config[sizeof settings->config];
    if (!words)
        return fail(f, ERR_NOMEM, "out of memory");
    memcpy(words, argv, (size_t)count * sizeof *words);
    conf_defaults(rows, ROWS, settings);
    int e = conf_args(rows, ROWS, shorts, SHORTS, settings, &count, words, f);
    free(words);
    if (e)
        return e;
    text_copy(config, sizeof config, settings->config);
    conf_defaults(rows, ROWS, settings);
    e = read_file(settings, config, f);
    if (!e)
        e = conf_args(rows, ROWS, shorts, SHORTS, settings, argc, argv, f);
    if (!e)
        e = set_log_level(settings, f);
    return e ? e : default_state_dir(settings, f);
}

static int bad_address(const char *text, struct failure *f)
{
    return fail(f, ERR_INVALID,
                "collector '%s' is not an address: HOST, HOST:PORT or [ADDRESS]:PORT", text);
}

int settings_address(const char *text, char *host, size_t size_bytes, uint16_t *port,
                     struct failure *f)
{
    const char *colon = strrchr(text, ':');
    struct span name = span_str(text);
    uint64_t number = SETTINGS_DEFAULT_PORT;
    bool is_bracketed = text[0] == '[';
    if (is_bracketed) {
        const char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return bad_address(text, f);
        name = span_of(text + 1, (size_t)(end - text - 1));
        colon = end[1] ? end + 1 : NULL;
    } else if (colon && strchr(text, ':') != colon) {
        colon = NULL; /* a bare address of version 6 */
    } else if (colon) {
        name = span_of(text, (size_t)(colon - text));
    }
    if (name.size_bytes == 0 || text_copy_span(host, size_bytes, name) ||
        (colon && text_u64_in(colon + 1, 1, 65535, &number)))
        return bad_address(text, f);
    *port = (uint16_t)number;
    return 0;
}
