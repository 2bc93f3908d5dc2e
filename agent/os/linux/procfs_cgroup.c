/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which unit and which container a process is in, by the text of its /proc/PID/cgroup (cgroups(7)).
 * Pure. Container engines put the container's ID into the path: alone ("/docker/ID", the cgroupfs
 * driver), or in a scope with their name in front ("docker-ID.scope", "cri-containerd-ID.scope",
 * "crio-ID.scope", "libpod-ID.scope"); LXC and machined put its name ("lxc.payload.NAME",
 * "machine-NAME.scope"). Called by process.c and the readers of /proc.
 */
#include "agent/os/linux/procfs.h"

#include <string.h>

#include "common/text.h"

/* ---- units ---- */

/* "0::/path" or "1:name=systemd:/path": the path where systemd keeps its units. */
static int unit_path(struct span text, struct span *out)
{
    struct span line, number, controllers;
    bool found = false;
    while (proc_take_line(&text, &line) == 0) {
        if (text_take_until(&line, ':', &number) < 0 ||
            text_take_until(&line, ':', &controllers) < 0)
            continue;
        bool v2 = controllers.size_bytes == 0 && line.size_bytes > 1;
        if (span_equal(controllers, span_str("name=systemd")) || (v2 && !found)) {
            *out = line;
            found = true;
        }
    }
    return found ? 0 : ERR_NOTFOUND;
}

static bool is_unit(struct span name)
{
    static const char *const suffixes[] = {".service", ".scope", ".socket", ".mount", ".swap"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (proc_ends_with(name, suffixes[i]) && name.size_bytes > strlen(suffixes[i]))
            return true;
    return false;
}

int proc_cgroup_unit(struct span text, char *out, size_t size_bytes)
{
    struct span path, component;
    if (unit_path(text, &path) < 0)
        return ERR_NOTFOUND;
    while (text_take_until(&path, '/', &component) == 0)
        if (is_unit(component))
            return text_copy_span(out, size_bytes, component);
    return ERR_NOTFOUND;
}

bool proc_cgroup_has_unit(struct span text, const char *unit)
{
    char name[PROC_UNIT_SIZE], wanted[PROC_UNIT_SIZE];
    struct span path, component;
    if (unit_path(text, &path) < 0)
        return false;
    if (text_format(wanted, sizeof wanted, "%s.service", unit) < 0)
        return false;
    while (text_take_until(&path, '/', &component) == 0) {
        if (!is_unit(component) || text_copy_span(name, sizeof name, component) < 0)
            continue;
        if (text_glob(unit, name) || text_glob(wanted, name))
            return true;
    }
    return false;
}

/* ---- containers ---- */

#define ID_CHARACTERS 64
#define ID_ASKED_LEAST 4 /* a shorter beginning would match by accident */

static bool is_id(struct span text)
{
    for (size_t i = 0; i < text.size_bytes; i++) {
        uint8_t c = text.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return text.size_bytes == ID_CHARACTERS;
}

static bool is_of_id(struct span id, struct span asked)
{
    return is_id(id) && asked.size_bytes >= ID_ASKED_LEAST && asked.size_bytes <= id.size_bytes &&
           memcmp(id.data, asked.data, asked.size_bytes) == 0;
}

/* Of "prefix-ID": "ID". */
static struct span behind_dash(struct span text)
{
    size_t at = text.size_bytes;
    while (at > 0 && text.data[at - 1] != '-')
        at--;
    return span_of(text.data + at, text.size_bytes - at);
}

static bool is_container(struct span component, struct span asked)
{
    static const char *const prefixes[] = {"lxc.payload.", "lxc-", "machine-"};
    if (proc_ends_with(component, ".scope"))
        component.size_bytes -= strlen(".scope");
    if (is_of_id(component, asked) || is_of_id(behind_dash(component), asked))
        return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t length = strlen(prefixes[i]);
        if (proc_starts_with(component, prefixes[i]) &&
            span_equal(span_of(component.data + length, component.size_bytes - length), asked))
            return true;
    }
    return false;
}

bool proc_cgroup_has_container(struct span text, const char *container)
{
    struct span line, number, controllers, component;
    while (proc_take_line(&text, &line) == 0) {
        if (text_take_until(&line, ':', &number) < 0 ||
            text_take_until(&line, ':', &controllers) < 0)
            continue;
        while (text_take_until(&line, '/', &component) == 0)
            if (is_container(component, span_str(container)))
                return true;
    }
    return false;
}
