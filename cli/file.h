/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain file calls of libuv, blocking, with failures as sentences that name the path. Used by the
 * files of fetch (transfer.c, unpack.c).
 */
#ifndef TRAWL_CLI_FILE_H
#define TRAWL_CLI_FILE_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/pki.h"

/* "cannot VERB 'PATH': ..."; ERR_FULL, ERR_DENIED or ERR_IO by libuv's status. */
int file_fail(struct failure *f, int status, const char *verb, const char *path);
/* Mode 0600. The file, or a negative error of libuv. */
int file_open_read(const char *path);
int file_open_part(const char *path); /* read and written, made when it is not there */
int file_open_new(const char *path);  /* written, emptied */
void file_remove(const char *path);
int64_t file_size(int file); /* or a negative error of libuv */
int file_truncate(int file, uint64_t size_bytes);
int file_sync(int file);
int file_rename(const char *from, const char *to);
/* Bytes read (0 at the end), or a negative error of libuv. */
int file_read(int file, void *out, size_t size_bytes, uint64_t at);
/* All of them, or a negative error of libuv. */
int file_write(int file, struct span bytes, uint64_t at);
/* Feeds the first `size_bytes` of the file to the hash. 0 or an error of libuv. */
int file_hash(int file, uint64_t size_bytes, struct pki_sha256 *hash);
/* XXH64 of the first `size_bytes` of the file. 0 or an error of libuv. */
int file_sum(int file, uint64_t size_bytes, uint64_t *out);
/* Bytes that may still be written on the disk that holds `path`; UINT64_MAX when not known. */
uint64_t file_free_bytes(const char *path);

#endif
