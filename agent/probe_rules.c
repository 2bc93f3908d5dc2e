/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of probes and their answers. See probe_rules.h. */
#include "agent/probe_rules.h"

#include <string.h>
#include <uv.h>

#include "common/text.h"

#define EVERY_US INT64_C(5000000)
#define EVERY_WATCHDOG_US INT64_C(30000000)
#define TIMEOUT_US INT64_C(2000000)
#define FAILURES 3
#define LEAST_US INT64_C(100000)
#define MOST_US INT64_C(3600000000)

/* ---- the rule ---- */

static int bad(const char *text, const char *why, struct failure *f)
{
    return fail(f, ERR_INVALID, "probe '%.200s': %s", text, why);
}

static int parse_address(struct probe_rule *r, struct span at, uint16_t fallback, const char *text,
                         struct failure *f)
{
    char port[8];
    uint64_t number = fallback;
    struct sockaddr_storage address;
    const char *data = (const char *)at.data;
    size_t length = at.size_bytes;
    size_t colon = length;
    while (colon > 0 && data[colon - 1] != ':' && data[colon - 1] != ']')
        colon--;
    bool has_port = colon > 0 && data[colon - 1] == ':';
    size_t end = has_port ? colon - 1 : length;
    if (has_port && (text_copy_span(port, sizeof port, span_of(data + colon, length - colon)) ||
                     text_u64_in(port, 1, 65535, &number)))
        return bad(text, "its port is no number from 1 to 65535", f);
    if (!number)
        return bad(text, "a port is missing", f);
    bool is_bracketed = end > 1 && data[0] == '[' && data[end - 1] == ']';
    struct span host = is_bracketed ? span_of(data + 1, end - 2) : span_of(data, end);
    if (text_copy_span(r->host, sizeof r->host, host) ||
        (uv_ip4_addr(r->host, 1, (struct sockaddr_in *)&address) &&
         uv_ip6_addr(r->host, 1, (struct sockaddr_in6 *)&address)))
        return bad(text, "its host is no address (names are not looked up)", f);
    r->port = (uint16_t)number;
    return 0;
}

static bool is_unit(const char *name)
{
    static const char fine[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@";
    return name[0] && name[0] != '-' && name[strspn(name, fine)] == '\0';
}

static bool is_path(const char *path)
{
    for (const char *at = path; *at; at++)
        if (*at <= ' ' || *at > '~')
            return false;
    return true;
}

static int parse_target(struct probe_rule *r, const char *text, struct failure *f)
{
    if (strncmp(r->name, "tcp:", 4) == 0) {
        r->kind = PROBE_TCP;
        return parse_address(r, span_str(r->name + 4), 0, text, f);
    }
    if (strncmp(r->name, "http://", 7) == 0) {
        const char *host = r->name + 7;
        size_t length = strcspn(host, "/");
        r->kind = PROBE_HTTP;
        (void)text_copy(r->path, sizeof r->path, host[length] ? host + length : "/");
        if (!is_path(r->path))
            return bad(text, "its path holds what no address may hold", f);
        return parse_address(r, span_of(host, length), 80, text, f);
    }
    if (strncmp(r->name, "unit-watchdog:", 14) == 0) {
        r->kind = PROBE_WATCHDOG;
        r->every_us = EVERY_WATCHDOG_US;
        r->failures = 1;
        (void)text_copy(r->unit, sizeof r->unit, r->name + 14);
        return is_unit(r->unit) ? 0 : bad(text, "that is no name of a unit", f);
    }
    return bad(text, "there are tcp:HOST:PORT, http://HOST[:PORT]/PATH, unit-watchdog:UNIT", f);
}

static int parse_option(struct probe_rule *r, const char *option, const char *text,
                        struct failure *f)
{
    int e = 0;
    if (strncmp(option, "every=", 6) == 0)
        e = text_duration_us(option + 6, &r->every_us);
    else if (strncmp(option, "timeout=", 8) == 0)
        e = text_duration_us(option + 8, &r->timeout_us);
    else if (strncmp(option, "failures=", 9) == 0)
        e = text_u64_in(option + 9, 1, 1000, &r->failures);
    else if (strncmp(option, "send=", 5) == 0 && r->kind == PROBE_TCP)
        e = text_copy(r->send, sizeof r->send, option + 5);
    else
        return bad(text, "its options are every=5s timeout=2s failures=3, for tcp also send=TEXT",
                   f);
    if (e || r->every_us < LEAST_US || r->every_us > MOST_US || r->timeout_us < LEAST_US ||
        r->timeout_us > MOST_US)
        return bad(text, "times are from 100ms to 1h, failures from 1 to 1000", f);
    return 0;
}

int probe_rule_parse(const char *text, struct probe_rule *out, struct failure *f)
{
    struct probe_rule r = {.every_us = EVERY_US, .timeout_us = TIMEOUT_US, .failures = FAILURES};
    struct span rest, word;
    char option[96];
    while (*text == ' ')
        text++;
    rest = span_str(text);
    if (text_take_until(&rest, ' ', &word) || text_copy_span(r.name, sizeof r.name, word))
        return bad(text, "it is empty or too long", f);
    int e = parse_target(&r, text, f);
    while (!e && text_take_until(&rest, ' ', &word) == 0) {
        if (word.size_bytes == 0)
            continue;
        e = text_copy_span(option, sizeof option, word) ? bad(text, "an option is too long", f)
                                                        : parse_option(&r, option, text, f);
    }
    if (!e)
        *out = r;
    return e;
}

/* ---- hysteresis ---- */

enum probe_change probe_feed(struct probe_state *s, const struct probe_rule *rule, bool alive,
                             uint64_t began_mono_us)
{
    if (alive) {
        bool was_hung = s->is_hung;
        uint64_t first_us = s->first_mono_us;
        *s = (struct probe_state){.first_mono_us = was_hung ? first_us : 0};
        return was_hung ? PROBE_RECOVERED : PROBE_SAME;
    }
    if (s->failures++ == 0)
        s->first_mono_us = began_mono_us;
    if (s->is_hung || s->failures < rule->failures)
        return PROBE_SAME;
    s->is_hung = true;
    return PROBE_HUNG;
}

/* ---- answers ---- */

int probe_http_status(const char *data, size_t size_bytes)
{
    static const char begin[] = "HTTP/1.";
    const size_t length = sizeof begin - 1;
    size_t compared = size_bytes < length ? size_bytes : length;
    if (memcmp(data, begin, compared) != 0)
        return ERR_CORRUPT;
    if (size_bytes < length + 5)
        return 0;
    const char *at = data + length + 2;
    if (data[length + 1] != ' ')
        return ERR_CORRUPT;
    for (int i = 0; i < 3; i++)
        if (at[i] < '0' || at[i] > '9')
            return ERR_CORRUPT;
    int status = (at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0');
    return status >= 100 && status <= 599 ? status : ERR_CORRUPT;
}

/* "2min 30s", "3s", "infinity", "30000000": as systemctl writes a span, or in microseconds. */
static bool parse_span_us(struct span value, uint64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t us;
    } units[] = {{"us", 1},
                 {"ms", 1000},
                 {"s", 1000000},
                 {"min", 60000000},
                 {"h", UINT64_C(3600000000)},
                 {"d", UINT64_C(86400000000)},
                 {"", 1}};
    struct span word;
    *out = 0;
    while (text_take_until(&value, ' ', &word) == 0) {
        uint64_t number;
        size_t i = 0;
        if (text_take_u64(&word, &number) || number > UINT32_MAX)
            return false;
        while (i < sizeof units / sizeof units[0] && !span_equal(word, span_str(units[i].unit)))
            i++;
        if (i == sizeof units / sizeof units[0])
            return false;
        *out += number * units[i].us;
    }
    return true;
}

int probe_watchdog_parse(const char *text, struct probe_watchdog *out)
{
    struct probe_watchdog w = {0};
    struct span rest = span_str(text), line, key;
    bool is_active = false;
    while (text_take_until(&rest, '\n', &line) == 0) {
        uint64_t number;
        if (text_take_until(&line, '=', &key))
            continue;
        struct span value = line;
        if (span_equal(key, span_str("ActiveState")))
            is_active = span_equal(line, span_str("active"));
        else if (span_equal(key, span_str("MainPID")) && text_take_u64(&value, &number) == 0 &&
                 number <= UINT32_MAX)
            w.pid = (uint32_t)number;
        else if (span_equal(key, span_str("WatchdogUSec")) && !parse_span_us(line, &w.limit_us))
            w.limit_us = 0;
        else if (span_equal(key, span_str("WatchdogTimestampMonotonic")) &&
                 text_take_u64(&value, &number) == 0)
            w.fed_mono_us = number;
    }
    if (!is_active || !w.limit_us || !w.fed_mono_us)
        return ERR_NOTFOUND;
    *out = w;
    return 0;
}
