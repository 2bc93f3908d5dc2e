/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of C++ as people write them, from what the compiler makes of them (Itanium C++ ABI, 5.1).
 * Invariant: bounded in output, stack and time, whatever the name is, for names come from the
 * process. The only home of libiberty. Worker only; called by throws*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_DEMANGLE_H
#define TRAWL_AGENT_OS_LINUX_DEMANGLE_H

#include <stddef.h>

/* A type as std::type_info::name() gives it ("St13runtime_error", a '*' before it is skipped). What
 * is no such name is copied as it is. */
void demangle_type(const char *name, char *out, size_t size_bytes);
/* A symbol ("_Z3fooi": "foo(int)"); others are copied as they are. */
void demangle_symbol(const char *name, char *out, size_t size_bytes);

#endif
