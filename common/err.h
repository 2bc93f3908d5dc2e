/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: 0 or a negative `enum err`. Foreign codes (errno, libuv, mbedTLS, LMDB) are translated in
 * the file that includes the library. Text is made once, where the cause is known, with fail(), and
 * travels unchanged to the person who reads it. Everyone includes this file; it includes nothing.
 */
#ifndef TRAWL_COMMON_ERR_H
#define TRAWL_COMMON_ERR_H

#include <stdarg.h>
#include <stddef.h>

enum err {
    ERR_NONE = 0,
#define ERR(name, value, exit_code, grpc, text) ERR_##name = value,
#include "common/err.def"
#undef ERR
};

/* Room for one sentence; longer text is cut at the end, never overrun. */
#define FAILURE_TEXT_SIZE 320

/* What went wrong: a code for programs, a sentence for people. Valid when `code` is not 0. */
struct failure {
    int code; /* enum err */
    char text[FAILURE_TEXT_SIZE];
};

#if defined(__clang__)
#define TRAWL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#elif defined( \
    __GNUC__) /* gnu_printf: C99 conversions (%zu) also where "printf" means Microsoft's */
#define TRAWL_PRINTF(fmt, args) __attribute__((format(gnu_printf, fmt, args)))
#else
#define TRAWL_PRINTF(fmt, args)
#endif

/*
 * Records a failure and returns `code`, so that `return fail(f, ERR_IO, "...")` is the idiom.
 * `f` may be NULL (the text is dropped). The text is lower case, without a full stop, the failure
 * first, the subject in single quotes: "cannot open '/x': permission denied".
 */
int fail(struct failure *f, int code, const char *format, ...) TRAWL_PRINTF(3, 4);
int fail_va(struct failure *f, int code, const char *format, va_list args) TRAWL_PRINTF(3, 0);

/* As fail(), with ": " and the system's text for `errno_value` (errno(3)) appended. */
int fail_errno(struct failure *f, int code, int errno_value, const char *format, ...)
    TRAWL_PRINTF(4, 5);

/* The code that fits a value of errno best: EACCES -> ERR_DENIED, ENOSPC -> ERR_FULL, ... */
int err_from_errno(int errno_value);

/* Constant texts and numbers of an error; an unknown value gives "unknown error", 1 and 2
 * (UNKNOWN). */
const char *err_name(int code); /* "ERR_IO" */
const char *err_text(int code);
int err_exit_code(int code);   /* process exit status */
int err_grpc_status(int code); /* https://grpc.io/docs/guides/status-codes/ */
int err_from_grpc(int status); /* the nearest error for a gRPC status */

#endif
