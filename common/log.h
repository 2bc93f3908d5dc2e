/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of a program (never of a library): one line per event on standard error,
 * "2026-11-23T14:02:05.123Z warn  text". Texts from outside are printed terminal-safe. A secret is
 * never an argument. Thread-safe: one write(2) per line.
 */
#ifndef TRAWL_COMMON_LOG_H
#define TRAWL_COMMON_LOG_H

#include "common/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level); /* default LOG_LEVEL_INFO */
/* "error", "warn", "info", "debug"; ERR_INVALID otherwise. */
int log_level_parse(const char *text, enum log_level *out);

void log_error(const char *format, ...) TRAWL_PRINTF(1, 2);
void log_warn(const char *format, ...) TRAWL_PRINTF(1, 2);
void log_info(const char *format, ...) TRAWL_PRINTF(1, 2);
void log_debug(const char *format, ...) TRAWL_PRINTF(1, 2);

#endif
