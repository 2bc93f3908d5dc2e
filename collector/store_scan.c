/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scan to its end, whatever the storage engine. Invariant: one kv_scan() is bounded in time, so
 * that it is asked for more behind the last row until none comes. Called by who reads whole lists.
 */
#include "collector/store.h"

#include <string.h>

#define ROWS_AT_ONCE 1000

struct scan_on {
    store_row_fn row;
    void *context;
    uint8_t last[STORE_KEY_MAX + 1]; /* the last row's key, and then the first one behind it */
    size_t last_bytes;
    size_t rows;
    int stopped;
};

static int on_row(void *context, struct span key, struct span value)
{
    struct scan_on *s = context;
    s->rows++;
    memcpy(s->last, key.data, key.size_bytes);
    s->last_bytes = key.size_bytes;
    s->stopped = s->row(s->context, key, value);
    return s->stopped;
}

int kv_scan_all(struct store *store, const char *partition, struct span from, struct span prefix,
                store_row_fn row, void *context)
{
    struct scan_on s = {.row = row, .context = context};
    do {
        s.rows = 0;
        int e = kv_scan(store, partition, from, prefix, ROWS_AT_ONCE, on_row, &s);
        if (e < 0)
            return e;
        s.last[s.last_bytes] = 0;
        from = span_of(s.last, s.last_bytes + 1);
    } while (s.rows && !s.stopped);
    return s.stopped;
}
