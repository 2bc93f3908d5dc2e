/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What group commit gives: records a second and time to the acknowledgement through store.h with
 * some calls in flight, against plain LMDB with one commit a record, on the same disk in the same
 * run. Prints ratios; not pass or fail. Run by hand: bench_store [DIR] [SECONDS].
 */
#include <lmdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collector/store.h"
#include "common/port.h"
#include "common/text.h"

#define VALUE_BYTES 1200
#define SLOTS_MAX 4000
#define SAMPLES_MAX (1u << 22)

static char root[256];
static uint64_t run_us = 2000000;
static int wake_pipe[2];
static uint8_t value[STORE_PIECE_SIZE];

static void check(int rc, const char *what)
{
    if (rc) {
        fprintf(stderr, "bench_store: %s: %d\n", what, rc);
        exit(1);
    }
}

/* ---- latencies ---- */

static uint32_t *samples;
static size_t sample_count;

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void add_sample(uint64_t us)
{
    if (sample_count < SAMPLES_MAX)
        samples[sample_count++] = (uint32_t)us;
}

static double percentile(double p)
{
    if (sample_count == 0)
        return 0;
    qsort(samples, sample_count, sizeof *samples, by_size);
    return samples[(size_t)((double)(sample_count - 1) * p)] / 1000.0;
}

static void report(const char *name, uint64_t count, uint64_t us, double plain)
{
    double rate = (double)count * 1e6 / (double)us;
    printf("%-34s %9.0f/s   ack p50 %7.2f ms  p99 %7.2f ms", name, rate, percentile(0.5),
           percentile(0.99));
    if (plain > 0)
        printf("   %6.1f x plain", rate / plain);
    printf("\n");
    sample_count = 0;
}

/* ---- plain LMDB ---- */

static double plain_lmdb(void)
{
    char path[300];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    text_format(path, sizeof path, "%s/plain", root);
    check(mkdir(path, 0700), "mkdir");
    check(mdb_env_create(&env), "mdb_env_create");
    check(mdb_env_set_mapsize(env, 1u << 30), "mdb_env_set_mapsize");
    check(mdb_env_open(env, path, 0, 0600), "mdb_env_open");
    uint64_t start = port_mono_us(), now = start, count = 0;
    for (; now - start < run_us; count++) {
        uint8_t key[16] = {0};
        memcpy(key, &count, sizeof count);
        MDB_val k = {sizeof key, key}, v = {VALUE_BYTES, value};
        check(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
        check(mdb_dbi_open(txn, NULL, 0, &dbi), "mdb_dbi_open");
        check(mdb_put(txn, dbi, &k, &v, 0), "mdb_put");
        check(mdb_txn_commit(txn), "mdb_txn_commit");
        uint64_t done = port_mono_us();
        add_sample(done - now);
        now = done;
    }
    mdb_env_close(env);
    report("plain LMDB, one commit a record", count, now - start, 0);
    return (double)count * 1e6 / (double)(now - start);
}

/* ---- the store ---- */

struct slot {
    uint64_t start_us;
    bool busy;
};
static struct slot slots[SLOTS_MAX];
static uint64_t done_count;

static void woken(void *context)
{
    (void)context;
    ssize_t n = write(wake_pipe[1], "w", 1);
    (void)n;
}

static void slot_done(void *context, const struct failure *why)
{
    struct slot *slot = context;
    check(why->code, why->text);
    add_sample(port_mono_us() - slot->start_us);
    slot->busy = false;
    done_count++;
}

static struct store *open_store(const char *name)
{
    static char path[300];
    struct failure f;
    text_format(path, sizeof path, "%s/%s", root, name);
    struct store_settings settings = {
        .directory = path,
        .fleet = "bench",
        .records_max_bytes = UINT64_C(4) << 30,
        .pieces_max_bytes = UINT64_C(8) << 30,
        .group_us = 10000,
        .group_ops = 1000,
        .queue_bytes = 64u << 20,
        .wake = woken,
    };
    struct store *store = NULL;
    if (store_create(path, "bench", &f) < 0 || store_open(&store, &settings, &f) < 0) {
        fprintf(stderr, "bench_store: %s\n", f.text);
        exit(1);
    }
    return store;
}

static void await_wake(struct store *store)
{
    char bytes[64];
    struct pollfd ready = {.fd = wake_pipe[0], .events = POLLIN};
    if (poll(&ready, 1, 10000) != 1 || read(wake_pipe[0], bytes, sizeof bytes) < 0)
        check(1, "no wake in 10 s");
    store_poll(store);
}

static int submit(struct store *store, bool pieces, uint64_t no, struct slot *slot)
{
    uint8_t key[16] = {0};
    for (int i = 0; i < 8; i++)
        key[i] = (uint8_t)(no >> (56 - 8 * i));
    struct store_op op = {STORE_PUT, span_of(key, sizeof key), span_of(value, VALUE_BYTES)};
    slot->start_us = port_mono_us();
    slot->busy = true;
    if (pieces)
        return blob_write(store, "blob", (uint32_t)no, span_of(value, sizeof value), slot_done,
                          slot);
    return kv_commit(store, "bench", &op, 1, slot_done, slot);
}

static void with_store(bool pieces, unsigned in_flight, double plain)
{
    char name[64];
    text_format(name, sizeof name, "store, %u %s in flight", in_flight,
                pieces ? "pieces" : "calls");
    struct store *store = open_store(name);
    uint64_t start = port_mono_us(), no = 0;
    done_count = 0;
    while (port_mono_us() - start < run_us) {
        for (unsigned i = 0; i < in_flight; i++) {
            if (!slots[i].busy)
                check(submit(store, pieces, no++, &slots[i]), "submit");
        }
        await_wake(store);
    }
    while (done_count < no)
        await_wake(store);
    uint64_t us = port_mono_us() - start;
    report(name, done_count, us, pieces ? 0 : plain);
    if (pieces)
        printf("%-34s %9.0f MB/s\n", "", (double)done_count * sizeof value / (double)us);
    struct store_stat stat;
    store_stat(store, &stat);
    if (!pieces)
        printf("%-34s %9.1f records a transaction\n", "", (double)stat.ops / (double)stat.commits);
    store_close(store);
}

static void remove_root(void)
{
    char path[400];
    static const char *const names[] = {"records/data.mdb", "records/lock.mdb", "pieces/data.mdb",
                                        "pieces/lock.mdb",  "trawl-store",      "lock",
                                        "ballast",          "records",          "pieces",
                                        "data.mdb",         "lock.mdb",         ""};
    static const char *const stores[] = {"plain",
                                         "store, 1 calls in flight",
                                         "store, 16 calls in flight",
                                         "store, 256 calls in flight",
                                         "store, 4000 calls in flight",
                                         "store, 100 pieces in flight"};
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
            text_format(path, sizeof path, "%s/%s/%s", root, stores[i], names[k]);
            remove(path);
        }
    }
    rmdir(root);
}

int main(int argc, char **argv)
{
    uint64_t seconds = 2;
    if (argc > 2 && text_u64_in(argv[2], 1, 600, &seconds) < 0)
        return 2;
    run_us = seconds * 1000000;
    text_format(root, sizeof root, "%s/bench-store-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    if (!samples || !mkdtemp(root) || pipe(wake_pipe) < 0)
        return 1;
    atexit(remove_root);
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)(i * 131 + i / 256);
    printf("records of %d bytes, %s\n", VALUE_BYTES, root);
    double plain = plain_lmdb();
    static const unsigned in_flight[] = {1, 16, 256, 4000};
    for (size_t i = 0; i < sizeof in_flight / sizeof in_flight[0]; i++)
        with_store(false, in_flight[i], plain);
    with_store(true, 100, plain);
    free(samples);
    return 0;
}
