/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables behind err.h, generated from err.def, and the making of failure texts. Invariant: a
 * text is always terminated and never cut inside a UTF-8 character. Called by everyone; no I/O.
 */
#include "common/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct err_row {
    int code;
    const char *name;
    const char *text;
    int exit_code;
    int grpc_status;
};

static const struct err_row rows[] = {
    {0, "ERR_NONE", "no error", 0, 0},
#define ERR(name, value, exit_code, grpc, text) {value, "ERR_" #name, text, exit_code, grpc},
#include "common/err.def"
#undef ERR
};

static const struct err_row unknown_row = {1, "ERR_UNKNOWN", "unknown error", 1, 2};

static const struct err_row *row_of(int code)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].code == code)
            return &rows[i];
    return &unknown_row;
}

const char *err_name(int code)
{
    return row_of(code)->name;
}

const char *err_text(int code)
{
    return row_of(code)->text;
}

int err_exit_code(int code)
{
    return row_of(code)->exit_code;
}

int err_grpc_status(int code)
{
    return row_of(code)->grpc_status;
}

/* Several errors share a status; this is the one a client can act on. Index: the status. */
int err_from_grpc(int status)
{
    static const int nearest[] = {
        0,               /* OK */
        ERR_CANCELLED,   /* CANCELLED */
        ERR_PROTOCOL,    /* UNKNOWN */
        ERR_INVALID,     /* INVALID_ARGUMENT */
        ERR_TIMEOUT,     /* DEADLINE_EXCEEDED */
        ERR_NOTFOUND,    /* NOT_FOUND */
        ERR_EXISTS,      /* ALREADY_EXISTS */
        ERR_DENIED,      /* PERMISSION_DENIED */
        ERR_LIMIT,       /* RESOURCE_EXHAUSTED */
        ERR_REFUSED,     /* FAILED_PRECONDITION */
        ERR_CONFLICT,    /* ABORTED */
        ERR_INVALID,     /* OUT_OF_RANGE */
        ERR_UNSUPPORTED, /* UNIMPLEMENTED */
        ERR_IO,          /* INTERNAL */
        ERR_UNREACHABLE, /* UNAVAILABLE */
        ERR_CORRUPT,     /* DATA_LOSS */
        ERR_IDENTITY,    /* UNAUTHENTICATED */
    };
    if (status < 0 || (size_t)status >= sizeof nearest / sizeof nearest[0])
        return ERR_PROTOCOL;
    return nearest[status];
}

int err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0:
        return 0;
    case ENOMEM:
        return ERR_NOMEM;
    case EMFILE:
    case ENFILE:
    case E2BIG:
    case EFBIG:
    case ENAMETOOLONG:
        return ERR_LIMIT;
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
    case EDOM:
    case ERANGE:
    case EILSEQ:
        return ERR_INVALID;
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return ERR_NOTFOUND;
    case EEXIST:
    case ENOTEMPTY:
        return ERR_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case EBUSY:
        return ERR_BUSY;
    case EAGAIN:
        return ERR_AGAIN;
    case ENOSPC:
#ifdef EDQUOT
    case EDQUOT:
#endif
        return ERR_FULL;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
        return ERR_CLOSED;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
        return ERR_UNREACHABLE;
    case EADDRINUSE:
        return ERR_INUSE;
    case ESRCH:
        return ERR_GONE;
    case ENOSYS:
    case ENOTSUP:
#if EOPNOTSUPP != ENOTSUP
    case EOPNOTSUPP:
#endif
        return ERR_UNSUPPORTED;
    default:
        return ERR_IO;
    }
}

/* vsnprintf cuts between bytes; this takes a half character away from the end of a cut text. */
static void drop_half_character(char *text)
{
    size_t length = strlen(text);
    size_t start = length;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t wanted = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (length - start < wanted)
        text[start - 1] = '\0';
}

int fail_va(struct failure *f, int code, const char *format, va_list args)
{
    if (!f)
        return code;
    /* Formatted aside first: an argument may be f->text itself, when a caller adds context. */
    char text[FAILURE_TEXT_SIZE];
    int length = vsnprintf(text, sizeof text, format, args);
    if (length < 0)
        text[0] = '\0';
    else if ((size_t)length >= sizeof text)
        drop_half_character(text);
    f->code = code;
    memcpy(f->text, text, sizeof text);
    return code;
}

int fail(struct failure *f, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_va(f, code, format, args);
    va_end(args);
    return code;
}

/* "Permission denied" -> "permission denied", but "RPC struct is bad" stays. */
static void put_errno_text(int errno_value, char *out, size_t size_bytes)
{
    const char *text = strerror(errno_value);
    snprintf(out, size_bytes, "%s", text ? text : "unknown error");
    bool word = out[0] >= 'A' && out[0] <= 'Z' && out[1] >= 'a' && out[1] <= 'z';
    if (word)
        out[0] = (char)(out[0] + ('a' - 'A'));
}

int fail_errno(struct failure *f, int code, int errno_value, const char *format, ...)
{
    if (!f)
        return code;
    va_list args;
    va_start(args, format);
    fail_va(f, code, format, args);
    va_end(args);
    char reason[128];
    put_errno_text(errno_value, reason, sizeof reason);
    return fail(f, code, "%s: %s", f->text, reason);
}
