/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds arbitrary bytes to every parser of /proc, of kernel messages, system calls and times in
 * logs. The first byte chooses: 0 the records of processes, 1 lines of logs, 2 a system call, from
 * 8 on a file of counters. Wanted: no crash, no undefined behaviour, nothing read outside the
 * input, values only for slots that were defined, each once a sample.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/counters_linux.h"
#include "agent/os/linux/logs_linux.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/triage_linux.h"
#include "common/buf.h"
#include "common/text.h"

#define FIRST_FILE 8
#define SERIES_MAX 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- records ---- */

static void parse_records(struct span text)
{
    struct proc_stat stat;
    struct proc_schedstat schedstat;
    struct proc_socket socket;
    struct proc_unix_socket unix_socket;
    struct proc_kernel_message message;
    struct span line, value;
    uint64_t reads, writes, inode;
    char unit[PROC_UNIT_SIZE];
    if (proc_parse_stat(text, &stat) == 0) {
        assert(memchr(stat.name, '\0', sizeof stat.name));
        (void)proc_is_kernel_thread(&stat);
        (void)proc_has_ended(&stat);
    }
    (void)proc_parse_schedstat(text, &schedstat);
    (void)proc_parse_io(text, &reads, &writes);
    (void)proc_parse_kernel_message(text, &message);
    (void)proc_parse_inode(text, "socket", &inode);
    (void)proc_find_key(text, "Uid:", &value);
    if (proc_cgroup_unit(text, unit, sizeof unit) == 0)
        assert(unit[0] != '\0');
    (void)proc_cgroup_has_unit(text, "a*");
    (void)proc_cgroup_has_container(text, "0123");
    while (proc_take_line(&text, &line) == 0) {
        (void)proc_parse_socket(line, &socket);
        (void)proc_parse_unix_socket(line, &unix_socket);
    }
}

/* ---- logs and system calls ---- */

static void parse_logs(struct span text)
{
    struct buf out;
    buf_init(&out, 512);
    struct logs_window window = {.from_us = 0, .to_us = INT64_C(2000000000000000), .out = &out};
    logs_window_text(&window, text);
    assert(window.taken <= window.timed + text.size_bytes);
    buf_done(&out);
}

static bool target_of(void *context, uint64_t fd, char *out, size_t size_bytes)
{
    (void)context;
    return fd % 2 == 0 && text_copy(out, size_bytes, "target") == 0;
}

/* Any address holds the input itself, as often as it fits. */
static int read_memory(void *context, uint64_t address, void *out, size_t size_bytes)
{
    const struct span *input = context;
    for (size_t i = 0; i < size_bytes; i++)
        ((uint8_t *)out)[i] = input->data[(address + i) % input->size_bytes];
    return address % 3 == 0 ? ERR_DENIED : 0;
}

static void parse_syscall(struct span text)
{
    char small[16], large[256];
    struct triage_call call;
    struct span input = text;
    bool writes;
    struct triage_eyes eyes = {target_of, text.size_bytes > 0 ? read_memory : NULL, &input};
    if (triage_parse_call(text, &call) < 0)
        return;
    (void)triage_describe_call(&call, &eyes, small, sizeof small);
    (void)triage_describe_call(&call, &eyes, large, sizeof large);
    assert(triage_call_file(&call, &eyes, &writes) >= -1);
    (void)triage_call_kind(&call);
}

/* ---- counters ---- */

struct slots {
    int count;
    uint32_t set[SERIES_MAX]; /* sample that last set it */
    bool retired[SERIES_MAX];
    uint32_t sample;
};

static int define(void *context, const struct os_counter *counter)
{
    struct slots *s = context;
    assert(counter->name && counter->instance && counter->unit && counter->scale >= 1);
    return s->count < SERIES_MAX ? s->count++ : ERR_LIMIT;
}

static void set(struct slots *s, int slot)
{
    assert(slot >= 0 && slot < s->count && !s->retired[slot]);
    assert(s->set[slot] != s->sample);
    s->set[slot] = s->sample;
}

static void value(void *context, int slot, int64_t v)
{
    assert(v >= 0);
    set(context, slot);
}

static void gap(void *context, int slot, const char *reason)
{
    assert(reason[0] != '\0');
    set(context, slot);
}

static void retire(void *context, int slot)
{
    struct slots *s = context;
    assert(slot >= 0 && slot < s->count && !s->retired[slot]);
    s->retired[slot] = true;
}

static void parse_file(struct os_counters *c, struct counter_file *file, struct slots *slots,
                       struct span text)
{
    c->stamp = ++slots->sample;
    file->type->parse(c, file, text);
    for (size_t i = 0; i < COUNTER_GROUPS_MAX; i++)
        if (file->groups[i].type)
            group_end(c, &file->groups[i], "not in the input");
}

/* The whole, then its halves, then nothing: what was seen once may be missing the next time. */
static void parse_counters(size_t number, struct span text)
{
    static struct slots slots;
    struct os_counter_settings settings = {.root = "/nonexistent"};
    struct os_counter_sink sink = {define, value, gap, retire, &slots};
    struct os_counters *c;
    slots = (struct slots){0};
    if (os_counters_open(&c, &settings, &sink, NULL) < 0)
        return;
    struct counter_file *file = &c->files[number % c->file_count];
    size_t half = text.size_bytes / 2;
    parse_file(c, file, &slots, text);
    parse_file(c, file, &slots, span_of(text.data, half));
    parse_file(c, file, &slots, span_of(text.data + half, text.size_bytes - half));
    parse_file(c, file, &slots, text);
    parse_file(c, file, &slots, span_of(text.data, 0));
    os_counters_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct span text = span_of(data + 1, size - 1);
    switch (data[0]) {
    case 0:
        parse_records(text);
        break;
    case 1:
        parse_logs(text);
        break;
    case 2:
        parse_syscall(text);
        break;
    default:
        if (data[0] >= FIRST_FILE)
            parse_counters(data[0] - FIRST_FILE, text);
    }
    return 0;
}
