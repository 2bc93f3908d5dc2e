/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsers of /proc's formats. Invariant: nothing outside the given span is looked at, and a record
 * that is cut or not as the kernel writes it is ERR_CORRUPT, never a zero. Reading is in
 * procfs_read.c. Pure.
 */
#include "agent/os/linux/procfs.h"

#include <string.h>
#include <sys/socket.h>

#include "common/text.h"

#define PF_KTHREAD 0x00200000u
#define KTHREADD_PID 2
#define UNIX_ACCEPTS 0x00010000u /* __SO_ACCEPTCON */

/* ---- pieces ---- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

static struct span after(struct span s, size_t bytes)
{
    return span_of(s.data + bytes, s.size_bytes - bytes);
}

int proc_take_field(struct span *s, struct span *out)
{
    size_t begin = 0;
    while (begin < s->size_bytes && is_blank(s->data[begin]))
        begin++;
    size_t end = begin;
    while (end < s->size_bytes && !is_blank(s->data[end]))
        end++;
    if (begin == end)
        return ERR_NOTFOUND;
    *out = span_of(s->data + begin, end - begin);
    *s = after(*s, end);
    return 0;
}

int proc_take_number(struct span *s, uint64_t *out)
{
    struct span rest = *s, field;
    uint64_t value;
    if (proc_take_field(&rest, &field) < 0 || text_take_u64(&field, &value) < 0 ||
        field.size_bytes > 0)
        return ERR_CORRUPT;
    *out = value;
    *s = rest;
    return 0;
}

int proc_take_line(struct span *s, struct span *out)
{
    return text_take_until(s, '\n', out);
}

bool proc_starts_with(struct span s, const char *prefix)
{
    size_t length = strlen(prefix);
    return s.size_bytes >= length && (length == 0 || memcmp(s.data, prefix, length) == 0);
}

bool proc_ends_with(struct span s, const char *suffix)
{
    size_t length = strlen(suffix);
    return s.size_bytes >= length &&
           (length == 0 || memcmp(s.data + s.size_bytes - length, suffix, length) == 0);
}

struct span proc_base_name(struct span path)
{
    size_t begin = path.size_bytes;
    while (begin > 0 && path.data[begin - 1] != '/')
        begin--;
    return begin == 0 ? path : after(path, begin);
}

int proc_find_key(struct span text, const char *key, struct span *out)
{
    struct span line;
    while (proc_take_line(&text, &line) == 0) {
        if (!proc_starts_with(line, key))
            continue;
        line = after(line, strlen(key));
        while (line.size_bytes > 0 && is_blank(line.data[0]))
            line = after(line, 1);
        *out = line;
        return 0;
    }
    return ERR_NOTFOUND;
}

int proc_parse_inode(struct span target, const char *prefix, uint64_t *out)
{
    uint64_t inode;
    if (!proc_starts_with(target, prefix))
        return ERR_CORRUPT;
    target = after(target, strlen(prefix));
    if (!proc_starts_with(target, ":["))
        return ERR_CORRUPT;
    target = after(target, 2);
    if (text_take_u64(&target, &inode) < 0 || !span_equal(target, span_str("]")))
        return ERR_CORRUPT;
    *out = inode;
    return 0;
}

/* ---- stat ---- */

static int take_u32(struct span *s, uint32_t *out)
{
    uint64_t value;
    if (proc_take_number(s, &value) < 0 || value > UINT32_MAX)
        return ERR_CORRUPT;
    *out = (uint32_t)value;
    return 0;
}

static int skip_fields(struct span *s, int count)
{
    struct span field;
    for (; count > 0; count--)
        if (proc_take_field(s, &field) < 0)
            return ERR_CORRUPT;
    return 0;
}

/* pid (comm): comm may hold blanks, parentheses and newlines, but nothing after it holds a ')'. */
static int take_pid_and_name(struct span *s, struct proc_stat *out)
{
    struct span rest = *s;
    uint64_t pid;
    if (text_take_u64(&rest, &pid) < 0 || pid > UINT32_MAX || !proc_starts_with(rest, " ("))
        return ERR_CORRUPT;
    rest = after(rest, 2);
    size_t length = rest.size_bytes;
    while (length > 0 && rest.data[length - 1] != ')')
        length--;
    if (length == 0)
        return ERR_CORRUPT;
    out->pid = (uint32_t)pid;
    (void)text_copy_span(out->name, sizeof out->name, span_of(rest.data, length - 1));
    *s = after(rest, length);
    return 0;
}

/* Fields 3 to 24, in the order of proc(5). */
int proc_parse_stat(struct span text, struct proc_stat *out)
{
    struct proc_stat stat = {0};
    struct span state;
    if (take_pid_and_name(&text, &stat) < 0 || proc_take_field(&text, &state) < 0 ||
        state.size_bytes != 1)
        return ERR_CORRUPT;
    stat.state = (char)state.data[0];
    if (take_u32(&text, &stat.parent) < 0 || skip_fields(&text, 4) < 0 ||
        take_u32(&text, &stat.flags) < 0 || proc_take_number(&text, &stat.minor_faults) < 0 ||
        skip_fields(&text, 1) < 0 || proc_take_number(&text, &stat.major_faults) < 0 ||
        skip_fields(&text, 1) < 0 || proc_take_number(&text, &stat.user_ticks) < 0 ||
        proc_take_number(&text, &stat.system_ticks) < 0 || skip_fields(&text, 4) < 0 ||
        take_u32(&text, &stat.threads) < 0 || skip_fields(&text, 1) < 0 ||
        proc_take_number(&text, &stat.start_ticks) < 0 ||
        proc_take_number(&text, &stat.virtual_bytes) < 0 ||
        proc_take_number(&text, &stat.rss_pages) < 0)
        return ERR_CORRUPT;
    *out = stat;
    return 0;
}

bool proc_is_kernel_thread(const struct proc_stat *stat)
{
    return (stat->flags & PF_KTHREAD) || stat->pid == KTHREADD_PID || stat->parent == KTHREADD_PID;
}

/* A leader that called pthread_exit() is shown as Z while its other threads live on. */
bool proc_has_ended(const struct proc_stat *stat)
{
    return (stat->state == 'Z' && stat->threads <= 1) || stat->state == 'X' || stat->state == 'x';
}

/* ---- io, schedstat ---- */

static int find_number(struct span text, const char *key, uint64_t *out)
{
    struct span value;
    if (proc_find_key(text, key, &value) < 0)
        return ERR_CORRUPT;
    return proc_take_number(&value, out);
}

int proc_parse_io(struct span text, uint64_t *read_bytes, uint64_t *write_bytes)
{
    uint64_t reads, writes;
    if (find_number(text, "read_bytes:", &reads) < 0 ||
        find_number(text, "write_bytes:", &writes) < 0)
        return ERR_CORRUPT;
    *read_bytes = reads;
    *write_bytes = writes;
    return 0;
}

int proc_parse_schedstat(struct span text, struct proc_schedstat *out)
{
    struct proc_schedstat s;
    if (proc_take_number(&text, &s.run_ns) < 0 || proc_take_number(&text, &s.wait_ns) < 0 ||
        proc_take_number(&text, &s.switches) < 0)
        return ERR_CORRUPT;
    *out = s;
    return 0;
}

/* ---- sockets ---- */

/* Words of eight hexadecimal digits, each a 32-bit number of the host as it lies in memory. */
static int take_address(struct span *field, struct proc_socket *out, uint8_t *address,
                        uint16_t *port)
{
    size_t words = 0;
    while (words < 4 && field->size_bytes >= 8 && field->data[0] != ':') {
        struct span digits = span_of(field->data, 8);
        uint64_t value;
        if (text_take_hex(&digits, &value) < 0 || digits.size_bytes > 0)
            return ERR_CORRUPT;
        uint32_t word = (uint32_t)value;
        memcpy(address + 4 * words, &word, 4);
        words++;
        *field = after(*field, 8);
    }
    uint64_t number;
    if ((words != 1 && words != 4) || !proc_starts_with(*field, ":"))
        return ERR_CORRUPT;
    *field = after(*field, 1);
    if (text_take_hex(field, &number) < 0 || number > UINT16_MAX || field->size_bytes > 0)
        return ERR_CORRUPT;
    out->family = words == 1 ? AF_INET : AF_INET6;
    *port = (uint16_t)number;
    return 0;
}

static int take_hex_pair(struct span *line, uint64_t *first, uint64_t *second)
{
    struct span field;
    if (proc_take_field(line, &field) < 0 || text_take_hex(&field, first) < 0 ||
        !proc_starts_with(field, ":"))
        return ERR_CORRUPT;
    field = after(field, 1);
    return text_take_hex(&field, second) < 0 || field.size_bytes > 0 ? ERR_CORRUPT : 0;
}

/* "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 123 ..." */
int proc_parse_socket(struct span line, struct proc_socket *out)
{
    struct proc_socket s = {0};
    struct span number, local, remote, state;
    uint64_t value;
    if (proc_take_field(&line, &number) < 0 || !proc_ends_with(number, ":") ||
        proc_take_field(&line, &local) < 0 || proc_take_field(&line, &remote) < 0 ||
        take_address(&local, &s, s.local, &s.local_port) < 0 ||
        take_address(&remote, &s, s.remote, &s.remote_port) < 0 ||
        proc_take_field(&line, &state) < 0 || text_take_hex(&state, &value) < 0 || value > 255)
        return ERR_CORRUPT;
    s.state = (uint8_t)value;
    if (take_hex_pair(&line, &s.send_queue, &s.receive_queue) < 0 || skip_fields(&line, 4) < 0 ||
        proc_take_number(&line, &s.inode) < 0)
        return ERR_CORRUPT;
    *out = s;
    return 0;
}

static int take_hex(struct span *line, uint64_t *out)
{
    struct span field;
    if (proc_take_field(line, &field) < 0 || text_take_hex(&field, out) < 0 || field.size_bytes > 0)
        return ERR_CORRUPT;
    return 0;
}

/* "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/x" */
int proc_parse_unix_socket(struct span line, struct proc_unix_socket *out)
{
    struct proc_unix_socket s = {0};
    uint64_t flags, type, state;
    if (skip_fields(&line, 3) < 0 || take_hex(&line, &flags) < 0 || take_hex(&line, &type) < 0 ||
        take_hex(&line, &state) < 0 || type > UINT32_MAX || state > UINT32_MAX ||
        proc_take_number(&line, &s.inode) < 0)
        return ERR_CORRUPT;
    s.type = (uint32_t)type;
    s.state = (uint32_t)state;
    s.listens = flags & UNIX_ACCEPTS;
    while (line.size_bytes > 0 && line.data[0] == ' ')
        line = after(line, 1);
    s.path = line;
    *out = s;
    return 0;
}

/* ---- kernel messages ---- */

static int take_until_comma(struct span *s, uint64_t *out)
{
    struct span field;
    if (text_take_until(s, ',', &field) < 0 || text_take_u64(&field, out) < 0 ||
        field.size_bytes > 0)
        return ERR_CORRUPT;
    return 0;
}

int proc_parse_kernel_message(struct span record, struct proc_kernel_message *out)
{
    struct span prefix, text;
    uint64_t level, sequence, time_us;
    if (text_take_until(&record, ';', &prefix) < 0 || take_until_comma(&prefix, &level) < 0 ||
        take_until_comma(&prefix, &sequence) < 0 || take_until_comma(&prefix, &time_us) < 0)
        return ERR_CORRUPT;
    if (proc_take_line(&record, &text) < 0)
        text = record; /* an empty message */
    *out = (struct proc_kernel_message){(int)(level & 7), level >> 3 == 0, sequence, time_us, text};
    return 0;
}
