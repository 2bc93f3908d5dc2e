/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts an artifact into the store of a collector that does not run, sealed or not: the state in
 * which a collector leaves it that died at the worst instant. Its record is never made. Called by
 * tests/e2e/43_upload.py.
 *
 *   bench_store_put DIR FLEET INC-.../HOST/NO sealed|open <BYTES
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collector/store.h"
#include "common/pki.h"

static int failures;

static void on_done(void *context, const struct failure *why)
{
    (void)context;
    if (!why->code)
        return;
    fprintf(stderr, "%s\n", why->text);
    failures++;
}

static void on_wake(void *context)
{
    (void)context; /* store_close() waits for everything */
}

static uint64_t put_pieces(struct store *store, const char *id, struct pki_sha256 *hash)
{
    static uint8_t piece[STORE_PIECE_SIZE];
    uint64_t size_bytes = 0;
    size_t size;
    for (uint32_t no = 0; (size = fread(piece, 1, sizeof piece, stdin)) > 0; no++) {
        struct span bytes = span_of(piece, size);
        pki_sha256_add(hash, bytes);
        size_bytes += size;
        failures += blob_write(store, id, no, bytes, on_done, NULL) != 0;
    }
    return size_bytes;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s DIR FLEET INC-.../HOST/NO sealed|open <BYTES\n", argv[0]);
        return 2;
    }
    struct store_settings settings = {.directory = argv[1],
                                      .fleet = argv[2],
                                      .records_max_bytes = UINT64_C(8) << 30,
                                      .pieces_max_bytes = UINT64_C(32) << 30,
                                      .group_us = 1000,
                                      .group_ops = 100,
                                      .queue_bytes = 64 << 20,
                                      .wake = on_wake};
    struct store *store;
    struct failure f;
    if (store_open(&store, &settings, &f)) {
        fprintf(stderr, "%s\n", f.text);
        return 1;
    }
    uint8_t sum[32];
    struct pki_sha256 *hash = pki_sha256_open();
    uint64_t size_bytes = put_pieces(store, argv[3], hash);
    pki_sha256_close(hash, sum);
    if (!strcmp(argv[4], "sealed"))
        failures += blob_seal(store, argv[3], sum, size_bytes, on_done, NULL) != 0;
    store_close(store);
    return failures > 0;
}
