/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler's file: lines "key=value", the value as it is up to the end of the line, since a core
 * pattern may hold any character. Called by crash_handler (with no time to lose) and crash_command.
 */
#include "agent/crash_config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/crash_spool.h"
#include "common/port.h"
#include "common/text.h"

#define FILE_BYTES_MAX 4096

static int set(struct crash_config *c, struct span key, struct span value)
{
    char text[256];
    if (text_copy_span(text, sizeof text, value))
        return ERR_CORRUPT;
    if (span_equal(key, span_str("spool")))
        return text_copy(c->spool, sizeof c->spool, text);
    if (span_equal(key, span_str("policy")))
        return text_copy(c->policy, sizeof c->policy, text);
    if (span_equal(key, span_str("previous")))
        return text_copy(c->previous, sizeof c->previous, text);
    if (span_equal(key, span_str("pattern")))
        return text_copy(c->pattern, sizeof c->pattern, text);
    if (span_equal(key, span_str("size")))
        return text_u64(text, &c->size_bytes);
    if (span_equal(key, span_str("core-max")))
        return text_u64(text, &c->core_bytes);
    if (span_equal(key, span_str("by-agent")))
        c->by_agent = strcmp(text, "yes") == 0;
    if (span_equal(key, span_str("socket")))
        return text_copy(c->socket, sizeof c->socket, text);
    return 0; /* of a newer version */
}

static int parse(struct crash_config *c, struct span text)
{
    struct span line, key;
    memset(c, 0, sizeof *c);
    c->size_bytes = CRASH_SPOOL_BYTES;
    c->core_bytes = CRASH_CORE_BYTES;
    while (text_take_until(&text, '\n', &line) == 0) {
        if (line.size_bytes == 0 || line.data[0] == '#')
            continue;
        if (text_take_until(&line, '=', &key) || set(c, key, line))
            return ERR_CORRUPT;
    }
    return c->spool[0] == '/' ? 0 : ERR_CORRUPT;
}

int crash_config_read(struct crash_config *config, const char *path, struct failure *f)
{
    char data[FILE_BYTES_MAX];
    struct stat st;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '%s'", path);
    bool is_safe = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & 022) &&
                   (st.st_uid == 0 || st.st_uid == geteuid());
    ssize_t got = read(fd, data, sizeof data);
    close(fd);
    if (!is_safe)
        return fail(f, ERR_DENIED, "'%s' can be changed by others than root: it is not believed",
                    path);
    if (got < 0 || got == (ssize_t)sizeof data || parse(config, span_of(data, (size_t)got)))
        return fail(f, ERR_CORRUPT, "'%s' cannot be understood", path);
    return 0;
}

int crash_config_write(const struct crash_config *c, const char *path, struct failure *f)
{
    char above[256];
    struct buf text;
    const char *slash = strrchr(path, '/');
    if (!slash || path[0] != '/' ||
        text_copy_span(above, sizeof above, span_of(path, (size_t)(slash - path))))
        return fail(f, ERR_INVALID, "'%s' is no absolute path", path);
    if (above[0] && mkdir(above, 0755) != 0 && errno != EEXIST)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make '%s'", above);
    buf_init(&text, FILE_BYTES_MAX - 1);
    int rc =
        buf_printf(&text,
                   "# written by 'trawl-agent crash-handler install'; read at every crash\n"
                   "spool=%s\npolicy=%s\nprevious=%s\npattern=%s\nsize=%llu\ncore-max=%llu\n"
                   "by-agent=%s\nsocket=%s\n",
                   c->spool, c->policy, c->previous, c->pattern, (unsigned long long)c->size_bytes,
                   (unsigned long long)c->core_bytes, c->by_agent ? "yes" : "no", c->socket);
    rc = rc ? fail(f, rc, "cannot write '%s'", path)
            : port_write_file(path, buf_span(&text), true, f);
    buf_done(&text);
    return rc;
}
