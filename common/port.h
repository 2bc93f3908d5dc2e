/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few things of an operating system that more than one program needs and libuv does not give.
 * Same names in port_posix.c and port_windows.c; one of them is compiled.
 */
#ifndef TRAWL_COMMON_PORT_H
#define TRAWL_COMMON_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

uint64_t port_mono_us(void); /* CLOCK_BOOTTIME; QueryInterruptTimePrecise */
int64_t port_wall_us(void);  /* CLOCK_REALTIME; GetSystemTimePreciseAsFileTime */

/* Fills with random bytes of the operating system's generator. Aborts when there is none. */
void port_random(void *out, size_t size_bytes);

/* A file mapped shared for reading and writing; what was written survives the death of the process.
 */
struct port_map {
    uint8_t *data;
    size_t size_bytes;
    intptr_t handle; /* private */
};
/*
 * Opens or creates (mode 0600) `path`, makes it exactly `size_bytes` long with its blocks allocated
 * (so that a full disk is ERR_FULL here, not a signal later), locks it against a second process
 * (ERR_BUSY) and maps it. `*fresh` says that it was created or had another size (then all zeros).
 */
int port_map_open(struct port_map *map, const char *path, size_t size_bytes, bool *fresh,
                  struct failure *f);
void port_map_close(struct port_map *map); /* a zeroed struct is fine */

/* Whole small files. port_read_file: ERR_LIMIT when larger than b's limit; appends to `b`. */
int port_read_file(const char *path, struct buf *b, struct failure *f);
/*
 * Writes atomically: a temporary file beside `path`, fsync, rename, fsync of the directory.
 * `private_mode`: readable by the owner only (0600), else 0644. ERR_FULL, ERR_DENIED, ERR_IO.
 */
int port_write_file(const char *path, struct span data, bool private_mode, struct failure *f);
/* Creates the directory and missing parents, mode 0700. Fine when it exists. */
int port_make_dirs(const char *path, struct failure *f);
bool port_exists(const char *path);
/* ERR_UNSAFE_KEY (with the remedy in words) when others than the owner may read `path`. */
int port_check_private(const char *path, struct failure *f);
/* Takes an exclusive lock that lasts until the process ends. ERR_BUSY: another process holds it. */
int port_lock_file(const char *path, struct failure *f);
/* Closes a file descriptor of ours; nothing for a negative one. */
void port_close(int fd);
/* The machine's host name, lower case, without domain. */
int port_host_name(char *out, size_t size_bytes);

#endif
