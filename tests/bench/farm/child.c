/* SPDX-License-Identifier: Apache-2.0 */
/* Children by uv_spawn: no fork after the cryptography has begun. */
#include "child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/port.h"
#include "common/text.h"

#define ARGUMENTS_MAX 24
#define REPORT_MS 250

static void on_exit_status(uv_process_t *process, int64_t status, int number)
{
    struct child *child = process->data;
    child->has_ended = true;
    child->exit_status = status;
    child->signal = number;
    uv_close((uv_handle_t *)process, NULL);
}

void child_start(struct farm *farm, struct child *child, const char *program,
                 const char *const *arguments, const char *output)
{
    char path[FARM_PATH];
    char *words[ARGUMENTS_MAX + 2] = {path};
    text_format(path, sizeof path, "%s/%s", farm->options.bin, program);
    for (size_t i = 0; arguments[i] && i < ARGUMENTS_MAX; i++)
        words[i + 1] = (char *)arguments[i];
    int file = open(output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    uv_stdio_container_t streams[3] = {{.flags = UV_IGNORE},
                                       {.flags = UV_INHERIT_FD, .data.fd = file},
                                       {.flags = UV_INHERIT_FD, .data.fd = file}};
    uv_process_options_t options = {
        .exit_cb = on_exit_status, .file = path, .args = words, .stdio_count = 3, .stdio = streams};
    *child = (struct child){.process.data = child};
    int n = uv_spawn(farm->loop, &child->process, &options);
    close(file);
    if (n)
        farm_die("cannot run '%s': %s", path, uv_strerror(n));
}

static bool has_ended(void *context)
{
    const struct child *child = context;
    return child->has_ended;
}

bool child_wait(struct farm *farm, struct child *child, unsigned limit_s)
{
    return farm_wait(farm, has_ended, child, limit_s);
}

/* ---- the collector ---- */

static bool serves(void *context)
{
    struct collector_process *c = context;
    char line[512];
    bool found = false;
    if (c->child.has_ended)
        farm_die("the collector ended: see '%s'", c->log);
    FILE *log = fopen(c->log, "r");
    while (log && !found && fgets(line, sizeof line, log))
        found = strstr(line, "serving on") != NULL;
    if (log)
        fclose(log);
    return found;
}

void collector_start(struct farm *farm, struct collector_process *c)
{
    char data[FARM_PATH], port[16], report[16];
    text_format(data, sizeof data, "%s/data", farm->directory);
    text_format(c->log, sizeof c->log, "%s/collector.log", farm->directory);
    text_format(port, sizeof port, "%u", (unsigned)farm->port);
    text_format(report, sizeof report, "%ums", REPORT_MS);
    const char *const arguments[] = {"run",        "--data",        data,   "--listen",
                                     FARM_ADDRESS, "--port",        port,   "--join-port",
                                     "0",          "--loop-report", report, NULL};
    c->log_read = 0;
    child_start(farm, &c->child, "trawl-collector", arguments, c->log);
    if (!farm_wait(farm, serves, c, 60))
        farm_die("the collector does not serve: see '%s'", c->log);
}

void collector_stop(struct farm *farm, struct collector_process *c)
{
    if (!c->child.has_ended)
        uv_process_kill(&c->child.process, SIGTERM);
    if (!child_wait(farm, &c->child, 60))
        farm_wrong(farm, "the collector does not stop");
    else if (c->child.exit_status || c->child.signal)
        farm_wrong(farm, "the collector ended with status %lld, signal %d",
                   (long long)c->child.exit_status, c->child.signal);
}

static uint64_t number_behind(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    uint64_t value = 0;
    for (at = at ? at + strlen(name) : ""; *at == ' ' || *at == '\t'; at++)
        ;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

static void read_proc(const struct collector_process *c, const char *name, struct buf *out)
{
    char path[64];
    text_format(path, sizeof path, "/proc/%d/%s", (int)c->child.process.pid, name);
    buf_clear(out);
    (void)port_read_file(path, out, NULL);
}

/* Fields 14 and 15 of stat, behind the name in brackets: proc(5). */
static uint64_t cpu_us(const char *stat)
{
    const char *at = strrchr(stat, ')');
    uint64_t ticks = 0;
    for (int field = 2; at && field < 15; field++) {
        at = strchr(at + 1, ' ');
        if (at && field >= 13)
            ticks += number_behind(at, " ");
    }
    return ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

struct usage collector_usage(const struct collector_process *c)
{
    struct usage usage = {0};
    struct buf text;
    buf_init(&text, 16384);
    read_proc(c, "status", &text);
    usage.rss_bytes = number_behind(buf_str(&text), "VmRSS:") * 1024;
    usage.private_bytes = number_behind(buf_str(&text), "RssAnon:") * 1024;
    usage.peak_bytes = number_behind(buf_str(&text), "VmHWM:") * 1024;
    read_proc(c, "stat", &text);
    usage.cpu_us = cpu_us(buf_str(&text));
    buf_done(&text);
    return usage;
}

static double decimal_behind(const char *line, const char *name)
{
    const char *at = strstr(line, name);
    return at ? strtod(at + strlen(name), NULL) : 0;
}

struct turns collector_turns(struct farm *farm, struct collector_process *c)
{
    struct turns turns = {0, 0};
    char line[512];
    farm_wait_ms(farm, 2 * REPORT_MS);
    FILE *log = fopen(c->log, "r");
    if (!log || fseek(log, c->log_read, SEEK_SET)) {
        farm_wrong(farm, "cannot read '%s'", c->log);
        return turns;
    }
    while (fgets(line, sizeof line, log)) {
        double longest = decimal_behind(line, "longest turn ");
        double busy = decimal_behind(line, "busy ");
        turns.longest_ms = longest > turns.longest_ms ? longest : turns.longest_ms;
        turns.busy_percent = busy > turns.busy_percent ? busy : turns.busy_percent;
    }
    c->log_read = ftell(log);
    fclose(log);
    return turns;
}
