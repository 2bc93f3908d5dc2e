/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel messages, one after the other, to whoever knows their kind. See kernel_fault.h. Invariant:
 * a line costs a few searches and no memory.
 */
#include "agent/os/kernel_fault.h"

#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/kernel_fault_linux.h"
#include "common/text.h"

int os_kernel_fault_open(struct os_kernel_fault **out, os_kernel_fault_fn told, void *context)
{
    struct os_kernel_fault *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    f->told = told;
    f->context = context;
    *out = f;
    return 0;
}

void os_kernel_fault_close(struct os_kernel_fault *f)
{
    free(f);
}

/* ---- along a line ---- */

const char *fault_after(const char *line, const char *word)
{
    const char *at = strstr(line, word);
    return at ? at + strlen(word) : NULL;
}

const char *fault_skip(const char *line, const char *word)
{
    size_t length = strlen(word);
    return strncmp(line, word, length) == 0 ? line + length : NULL;
}

bool fault_number(const char **at, uint64_t *out)
{
    struct span s = span_str(*at);
    if (text_take_u64(&s, out))
        return false;
    *at = (const char *)s.data;
    return true;
}

bool fault_hex(const char **at, uint64_t *out)
{
    const char *digits = fault_skip(*at, "0x");
    struct span s = span_str(digits ? digits : *at);
    if (text_take_hex(&s, out))
        return false;
    *at = (const char *)s.data;
    return true;
}

void fault_copy_until(char *out, size_t size_bytes, const char *at, const char *stops)
{
    (void)text_copy_span(out, size_bytes, span_of(at, strcspn(at, stops)));
}

/* ---- exceptions ---- */

void fault_tag(struct os_exception *e, const char *key, const char *value)
{
    if (!value[0] || e->tag_count == OS_EXCEPTION_TAGS)
        return;
    struct os_tag *tag = &e->tags[e->tag_count++];
    (void)text_copy(tag->key, sizeof tag->key, key);
    (void)text_copy(tag->value, sizeof tag->value, value);
}

void fault_begin(struct os_exception *e, enum os_exception_source source, const char *type,
                 uint64_t mono_us, const char *line)
{
    *e = (struct os_exception){.source = source, .mono_us = mono_us, .uid = UINT32_MAX};
    (void)text_copy(e->type, sizeof e->type, type);
    while (*line == ' ')
        line++;
    (void)text_copy(e->message, sizeof e->message, line);
}

void fault_tell(struct os_kernel_fault *f, const struct os_exception *e, uint64_t last_us)
{
    f->told(f->context, e, last_us);
}

/* ---- feeding ---- */

static bool take_escape(const char *text, char *out)
{
    uint8_t byte;
    char digits[3] = {0};
    if (text[0] != '\\' || text[1] != 'x' || !text[2] || !text[3])
        return false;
    memcpy(digits, text + 2, 2);
    if (text_parse_hex(digits, &byte, 1) || byte == 0)
        return false;
    *out = (char)byte;
    return true;
}

/* /dev/kmsg writes what cannot be printed, and the backslash, as \xNN. */
static void copy_line(char *out, size_t size_bytes, const char *text)
{
    size_t used = 0;
    while (*text && used + 1 < size_bytes) {
        bool is_escape = take_escape(text, &out[used]);
        if (!is_escape)
            out[used] = *text;
        text += is_escape ? 4 : 1;
        used++;
    }
    out[used] = '\0';
}

void os_kernel_fault_feed(struct os_kernel_fault *f, int priority, uint64_t mono_us,
                          const char *text)
{
    char line[FAULT_LINE_SIZE];
    copy_line(line, sizeof line, text);
    if (f->is_cut_here)
        (void)fault_feed_report(f, mono_us, line); /* what a warning says may look like another's */
    else if (!fault_feed_trap(f, mono_us, line) && !fault_feed_oom(f, mono_us, line) &&
             !fault_feed_device(f, priority, mono_us, line))
        (void)fault_feed_report(f, mono_us, line);
}

void os_kernel_fault_flush(struct os_kernel_fault *f, uint64_t mono_us)
{
    if (f->fault[0] && mono_us - f->fault_us > OS_KERNEL_FAULT_QUIET_US)
        fault_flush_trap(f);
    if (f->is_open && mono_us - f->last_us > OS_KERNEL_FAULT_QUIET_US)
        fault_flush_report(f);
    fault_flush_devices(f, mono_us);
}
