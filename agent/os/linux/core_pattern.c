/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading, changing and expanding the core pattern. Expanding follows fs/coredump.c,
 * format_corename(): what it does with odd patterns is done here, too. Called by crash_chain.c and
 * agent/crash_command.c.
 */
#include "agent/os/core_pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define PATTERN_PATH "/proc/sys/kernel/core_pattern"
#define MODES_PATH "/proc/sys/kernel/core_modes" /* since Linux 6.16 */
#define ASKS_SINCE_MAJOR 6
#define ASKS_SINCE_MINOR 17
#define PIDFD_SINCE_MAJOR 6
#define PIDFD_SINCE_MINOR 16
#define PIDFD_IN_CHILD 3 /* fs/coredump.c, COREDUMP_PIDFD_NUMBER */
#define PATH_MOST 4096

int os_core_pattern_read(const char *root, char out[OS_CORE_PATTERN_SIZE], struct failure *f)
{
    char path[PROC_PATH_SIZE];
    struct span text;
    snprintf(path, sizeof path, "%s" PATTERN_PATH, root);
    int rc = proc_read(path, out, OS_CORE_PATTERN_SIZE - 1, &text, f);
    if (rc)
        return rc;
    size_t length = text.size_bytes;
    while (length > 0 && out[length - 1] == '\n')
        length--;
    out[length] = '\0';
    return 0;
}

int os_core_pattern_write(const char *root, const char *pattern, struct failure *f)
{
    char path[PROC_PATH_SIZE];
    size_t length = strlen(pattern);
    if (length >= OS_CORE_PATTERN_SIZE)
        return fail(f, ERR_LIMIT, "core pattern of %zu bytes is too long: the kernel takes %d",
                    length, OS_CORE_PATTERN_SIZE - 1);
    snprintf(path, sizeof path, "%s" PATTERN_PATH, root);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '%s'", path);
    /* An empty pattern is one, too: the kernel takes it with its newline. */
    char line[OS_CORE_PATTERN_SIZE + 1];
    snprintf(line, sizeof line, "%s\n", pattern);
    ssize_t put = write(fd, line, length + 1);
    int e = put == (ssize_t)length + 1 ? 0 : errno ? errno : EIO;
    close(fd);
    return e ? fail_errno(f, err_from_errno(e), e, "cannot write '%s'", path) : 0;
}

static bool is_kernel_since(uint64_t since_major, uint64_t since_minor)
{
    struct utsname name;
    uint64_t major, minor;
    if (uname(&name) != 0)
        return false;
    struct span text = span_str(name.release);
    if (text_take_u64(&text, &major) || text.size_bytes == 0 || text.data[0] != '.')
        return false;
    text = span_of(text.data + 1, text.size_bytes - 1);
    if (text_take_u64(&text, &minor))
        return false;
    return major > since_major || (major == since_major && minor >= since_minor);
}

bool os_core_pattern_has_pidfd(void)
{
    return is_kernel_since(PIDFD_SINCE_MAJOR, PIDFD_SINCE_MINOR);
}

/* Any text is taken as a pattern: what the kernel makes of it has to be known beforehand. */
enum os_core_socket os_core_pattern_socket(const char *root)
{
    char path[PROC_PATH_SIZE], data[256];
    struct span text, line;
    snprintf(path, sizeof path, "%s" MODES_PATH, root);
    if (proc_read(path, data, sizeof data, &text, NULL))
        return OS_CORE_SOCKET_NONE;
    while (text_take_until(&text, '\n', &line) == 0)
        if (span_equal(line, span_str("socket")))
            return is_kernel_since(ASKS_SINCE_MAJOR, ASKS_SINCE_MINOR) ? OS_CORE_SOCKET_ASKS
                                                                       : OS_CORE_SOCKET_PLAIN;
    return OS_CORE_SOCKET_NONE;
}

/* ---- who may change it ---- */

static int check_one(const char *path, struct failure *f)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot examine '%s'", path);
    if (st.st_uid != 0 || (!S_ISLNK(st.st_mode) && (st.st_mode & 022)))
        return fail(f, ERR_DENIED,
                    "'%s' can be changed by others than root: whoever changes it would become "
                    "root at the next crash",
                    path);
    return 0;
}

int os_check_only_root(const char *path, struct failure *f)
{
    char real[PATH_MOST];
    if (path[0] != '/' || !realpath(path, real))
        return fail(f, ERR_NOTFOUND, "cannot find '%s'", path);
    for (;;) {
        int rc = check_one(real, f);
        char *slash = strrchr(real, '/');
        if (rc || !slash || slash[1] == '\0')
            return rc;
        slash[slash == real] = '\0';
    }
}

/* ---- expanding ---- */

struct expansion {
    const struct os_core_words *words;
    struct os_core_name *out;
    size_t used;
    bool full, has_pid;
};

static void put(struct expansion *x, const char *text, size_t bytes)
{
    /* One byte stays for the zero. */
    if (bytes >= sizeof x->out->text - x->used) {
        x->full = true;
        return;
    }
    memcpy(x->out->text + x->used, text, bytes);
    x->used += bytes;
}

static void put_number(struct expansion *x, uint64_t number)
{
    char digits[24];
    put(x, digits, (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)number));
}

/* cn_esc_printf(): a name can lead to no other directory. */
static void put_escaped(struct expansion *x, const char *text)
{
    size_t from = x->used;
    char *at = x->out->text;
    put(x, text, strlen(text));
    size_t bytes = x->used - from;
    if ((bytes == 1 && at[from] == '.') || (bytes == 2 && at[from] == '.' && at[from + 1] == '.'))
        at[from] = '!';
    if (bytes == 0)
        put(x, "!", 1);
    for (size_t i = from; i < x->used; i++)
        if (at[i] == '/')
            at[i] = '!';
}

static void put_executable(struct expansion *x, bool whole)
{
    const char *path = x->words->executable, *slash = strrchr(path, '/');
    if (path[0])
        put_escaped(x, whole || !slash ? path : slash + 1);
    else {
        put_escaped(x, x->words->comm);
        put(x, " (path unknown)", strlen(" (path unknown)"));
    }
}

static void put_specifier(struct expansion *x, char letter, bool is_pipe)
{
    const struct os_crash_arguments *a = x->words->arguments;
    switch (letter) {
    case '%':
        put(x, "%", 1);
        break;
    case 'p':
        x->has_pid = true;
        put_number(x, a->inner_pid);
        break;
    case 'P':
        put_number(x, a->pid);
        break;
    case 'i':
        put_number(x, a->inner_tid);
        break;
    case 'I':
        put_number(x, a->tid);
        break;
    case 'u':
        put_number(x, a->uid);
        break;
    case 'g':
        put_number(x, a->gid);
        break;
    case 'd':
        put_number(x, a->dumpable);
        break;
    case 's':
        put_number(x, a->signal);
        break;
    case 't':
        put_number(x, (uint64_t)a->time_s);
        break;
    case 'c':
        put_number(x, a->core_limit);
        break;
    case 'C':
        put_number(x, x->words->cpu < 0 ? 0 : (uint64_t)x->words->cpu);
        break;
    case 'h':
        put_escaped(x, x->words->host);
        break;
    case 'e':
        put_escaped(x, x->words->comm);
        break;
    case 'E':
    case 'f':
        put_executable(x, letter == 'E');
        break;
    case 'F':
        if (is_pipe && a->pidfd >= 0)
            put_number(x, PIDFD_IN_CHILD);
        break;
    default:
        break; /* the kernel drops what it does not know */
    }
}

static int begin_word(struct expansion *x)
{
    struct os_core_name *out = x->out;
    if (out->count == OS_CORE_ARGUMENTS_MAX)
        return ERR_LIMIT;
    out->words[out->count++] = out->text + x->used;
    return 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int expand(struct expansion *x, const char *at, bool is_pipe)
{
    bool was_space = is_pipe;
    if (!is_pipe && begin_word(x))
        return ERR_LIMIT;
    for (; *at; at++) {
        if (is_pipe && is_space(*at)) {
            was_space = true;
            continue;
        }
        if (is_pipe && was_space) {
            if (x->out->count > 0)
                put(x, "", 1);
            if (begin_word(x))
                return ERR_LIMIT;
            was_space = false;
        }
        if (*at != '%') {
            put(x, at, 1);
        } else if (*++at) {
            put_specifier(x, *at, is_pipe);
        } else {
            break; /* a single % at the end */
        }
    }
    return 0;
}

int os_core_pattern_expand(const char *pattern, const struct os_core_words *words,
                           struct os_core_name *out)
{
    struct expansion x = {.words = words, .out = out};
    bool is_pipe = pattern[0] == '|';
    memset(out, 0, sizeof *out);
    int rc = expand(&x, pattern + is_pipe, is_pipe);
    if (!is_pipe && words->uses_pid && !x.has_pid) {
        put(&x, ".", 1);
        put_number(&x, words->arguments->inner_pid);
    }
    out->text[x.used] = '\0';
    if (rc || x.full)
        return ERR_LIMIT;
    if (is_pipe && (out->count == 0 || out->words[0][0] != '/'))
        return ERR_INVALID;
    return 0;
}
