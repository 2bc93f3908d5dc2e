/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 of a process that writes to the store, many times at random instants, and after each
 * time: is everything it acknowledged there, once, and right? Called by tests/e2e/40_store_kill.sh.
 *
 *     store_kill DIR [TIMES] [--ack-early]      exit 0: nothing lost, doubled or wrong
 *
 * The writer keeps several chains: record n of a chain is committed together with "n" -> "n + 1" of
 * the chain's counter, which is expected to be n; so a record that is lost, doubled, reordered or
 * half written breaks its chain. Beside them it writes an artifact. With --ack-early it
 * acknowledges when a call was accepted, not when it was done: the control, which must be found
 * losing records.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "collector/store.h"
#include "common/port.h"
#include "common/text.h"

#define CHAINS 8
#define IN_FLIGHT 300
#define VALUE_MAX 700

static const char *directory;
static bool ack_early;
static int wake_pipe[2];

static void woken(void *context)
{
    (void)context;
    ssize_t n = write(wake_pipe[1], "w", 1);
    (void)n; /* a full pipe wakes too */
}

static struct store *open_store(void)
{
    struct failure f = {0, ""};
    struct store_settings settings = {
        .directory = directory,
        .fleet = "kill",
        .records_max_bytes = UINT64_C(4) << 30,
        .pieces_max_bytes = UINT64_C(4) << 30,
        .group_us = 2000,
        .group_ops = 1000,
        .queue_bytes = 64 << 20,
        .wake = woken,
    };
    struct store *store = NULL;
    if (store_open(&store, &settings, &f) < 0) {
        fprintf(stderr, "store_kill: %s\n", f.text);
        exit(3);
    }
    return store;
}

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    return x ^ x >> 16;
}

/* What record `n` of a chain holds. */
static struct span content(unsigned chain, uint64_t n, uint8_t out[VALUE_MAX])
{
    uint32_t seed = mix((uint32_t)n * CHAINS + chain + 1);
    size_t size = 16 + seed % (VALUE_MAX - 16);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(seed + i * 131);
    return span_of(out, size);
}

static struct span piece_content(uint32_t piece, uint8_t out[STORE_PIECE_SIZE])
{
    memset(out, (int)(mix(piece + 1) & 0xff), STORE_PIECE_SIZE);
    memcpy(out + 1000, &piece, sizeof piece);
    return span_of(out, STORE_PIECE_SIZE);
}

static void record_key(uint64_t n, uint8_t out[9])
{
    out[0] = 'r';
    for (int i = 0; i < 8; i++)
        out[1 + i] = (uint8_t)(n >> (56 - 8 * i));
}

static void chain_part(unsigned chain, char out[32])
{
    text_format(out, 32, "kill/%u", chain);
}

/* ---- the writer, to be killed ---- */

struct chain {
    uint64_t next, acked;
};
static struct chain chains[CHAINS];
static uint32_t next_piece, acked_pieces;
static unsigned in_flight;

static void acknowledge(char kind, unsigned chain, uint64_t n)
{
    char line[64];
    text_format(line, sizeof line, "%c %u %llu\n", kind, chain, (unsigned long long)n);
    if (write(1, line, strlen(line)) < 0)
        _exit(4);
}

static void record_done(void *context, const struct failure *why)
{
    struct chain *chain = context;
    in_flight--;
    if (why->code) {
        fprintf(stderr, "store_kill: %s\n", why->text);
        _exit(5);
    }
    if (!ack_early)
        acknowledge('r', (unsigned)(chain - chains), chain->acked);
    chain->acked++;
}

static void piece_done(void *context, const struct failure *why)
{
    (void)context;
    in_flight--;
    if (why->code) {
        fprintf(stderr, "store_kill: %s\n", why->text);
        _exit(5);
    }
    if (!ack_early)
        acknowledge('p', 0, acked_pieces);
    acked_pieces++;
}

static void got_number(void *context, int err, struct span value)
{
    uint64_t *out = context;
    *out = 0;
    if (err == 0 && value.size_bytes == sizeof *out)
        memcpy(out, value.data, sizeof *out);
    else if (err != ERR_NOTFOUND)
        _exit(6);
}

/* The counter goes from n to n + 1 together with record n. */
static int submit_record(struct store *store, unsigned no)
{
    struct chain *chain = &chains[no];
    char part[32];
    uint8_t key[9], value[VALUE_MAX];
    uint64_t n = chain->next, after = n + 1;
    chain_part(no, part);
    record_key(n, key);
    struct span counter = span_str("n");
    struct store_op ops[] = {
        {STORE_EXPECT, counter, span_of(&n, sizeof n)},
        {STORE_EXPECT_ABSENT, span_of(key, sizeof key), span_of(NULL, 0)},
        {STORE_PUT, counter, span_of(&after, sizeof after)},
        {STORE_PUT, span_of(key, sizeof key), content(no, n, value)},
    };
    if (n == 0)
        ops[0] = (struct store_op){STORE_EXPECT_ABSENT, counter, span_of(NULL, 0)};
    int r = kv_commit(store, part, ops, 4, record_done, chain);
    if (r < 0)
        return r;
    if (ack_early)
        acknowledge('r', no, n);
    chain->next++;
    in_flight++;
    return 0;
}

static int submit_piece(struct store *store)
{
    static uint8_t bytes[STORE_PIECE_SIZE];
    int r = blob_write(store, "kill/blob", next_piece, piece_content(next_piece, bytes), piece_done,
                       NULL);
    if (r < 0)
        return r;
    if (ack_early)
        acknowledge('p', 0, next_piece);
    next_piece++;
    in_flight++;
    return 0;
}

static void resume(struct store *store)
{
    struct blob_state state = {.pieces = 0};
    char part[32];
    for (unsigned i = 0; i < CHAINS; i++) {
        chain_part(i, part);
        kv_get(store, part, span_str("n"), got_number, &chains[i].next);
        chains[i].acked = chains[i].next;
    }
    blob_state(store, "kill/blob", &state);
    next_piece = acked_pieces = state.pieces;
}

static _Noreturn void write_until_killed(void)
{
    struct store *store = open_store();
    resume(store);
    for (unsigned i = 0;; i++) {
        while (in_flight >= IN_FLIGHT) {
            char bytes[256];
            struct pollfd wait = {.fd = wake_pipe[0], .events = POLLIN};
            if (poll(&wait, 1, 10000) != 1 || read(wake_pipe[0], bytes, sizeof bytes) < 0)
                _exit(7);
            store_poll(store);
        }
        if (submit_record(store, i % CHAINS) < 0)
            _exit(8);
        if (i % 100 == 0 && submit_piece(store) < 0)
            _exit(9);
    }
}

/* ---- the judge ---- */

struct seen {
    unsigned chain;
    uint64_t count, counter; /* records 0 to count - 1 are there */
    unsigned wrong;
    uint8_t last[9];
    size_t last_size;
};

static int seen_row(void *context, struct span key, struct span value)
{
    struct seen *seen = context;
    uint8_t expected_key[9], expected[VALUE_MAX];
    if (key.size_bytes > sizeof seen->last)
        return 1;
    memcpy(seen->last, key.data, key.size_bytes);
    seen->last_size = key.size_bytes;
    if (key.data[0] == 'n') {
        memcpy(&seen->counter, value.data, sizeof seen->counter);
        return 0;
    }
    record_key(seen->count, expected_key);
    if (!span_equal(key, span_of(expected_key, sizeof expected_key)) ||
        !span_equal(value, content(seen->chain, seen->count, expected)))
        seen->wrong++;
    seen->count++;
    return 0;
}

/* A scan ends after 100 ms: goes on behind the last key until nothing more comes. */
static int scan_all(struct store *store, struct seen *seen)
{
    char part[32];
    uint64_t before;
    int r;
    chain_part(seen->chain, part);
    do {
        before = seen->count;
        uint8_t from[10] = {0};
        memcpy(from, seen->last, seen->last_size);
        r = kv_scan(store, part, span_of(from, seen->last_size ? seen->last_size + 1 : 0),
                    span_of(NULL, 0), SIZE_MAX, seen_row, seen);
    } while (r == 0 && seen->count > before);
    return r;
}

static int check_chain(struct store *store, unsigned no)
{
    struct seen seen = {.chain = no};
    int r = scan_all(store, &seen);
    if (r == 0 && seen.wrong == 0 && seen.counter == seen.count && seen.count >= chains[no].acked)
        return 0;
    printf("  chain %u: %llu acknowledged, %llu there, counter %llu, %u wrong, scan %d\n", no,
           (unsigned long long)chains[no].acked, (unsigned long long)seen.count,
           (unsigned long long)seen.counter, seen.wrong, r);
    return 1;
}

struct piece_check {
    uint32_t piece;
    unsigned wrong;
};

static void got_piece(void *context, int err, struct span value)
{
    static uint8_t expected[STORE_PIECE_SIZE];
    struct piece_check *check = context;
    if (err || !span_equal(value, piece_content(check->piece, expected)))
        check->wrong++;
}

static int check_pieces(struct store *store)
{
    struct blob_state state = {.pieces = 0};
    struct piece_check check = {0, 0};
    blob_state(store, "kill/blob", &state);
    for (check.piece = 0; check.piece < state.pieces; check.piece++)
        blob_read(store, "kill/blob", check.piece, got_piece, &check);
    if (check.wrong == 0 && state.pieces >= acked_pieces)
        return 0;
    printf("  artifact: %u pieces acknowledged, %u there, %u wrong\n", acked_pieces, state.pieces,
           check.wrong);
    return 1;
}

static int check_all(void)
{
    struct store *store = open_store();
    int bad = check_pieces(store);
    for (unsigned i = 0; i < CHAINS; i++)
        bad += check_chain(store, i);
    store_close(store);
    return bad;
}

/* ---- killing ---- */

/* "r <chain> <n>": records up to n are acknowledged. */
static void take_ack(struct span line)
{
    struct span kind, number;
    uint64_t chain, n;
    if (text_take_until(&line, ' ', &kind) < 0 || text_take_until(&line, ' ', &number) < 0 ||
        text_take_u64(&number, &chain) < 0 || text_take_u64(&line, &n) < 0 || chain >= CHAINS)
        exit(10);
    if (kind.data[0] == 'p')
        acked_pieces = (uint32_t)n + 1;
    else
        chains[chain].acked = n + 1;
}

/* Reads what was acknowledged until the pipe ends; kills the writer at its instant. */
static uint64_t read_acks(int fd, pid_t writer, uint64_t kill_us)
{
    char bytes[65536];
    size_t size = 0;
    uint64_t lines = 0;
    bool killed = false;
    for (;;) {
        uint64_t now = port_mono_us();
        if (!killed && now >= kill_us) {
            kill(writer, SIGKILL);
            killed = true;
        }
        /* The last millisecond is spun, so that the instant is any one. */
        int wait_ms = killed ? 100 : (int)((kill_us - now) / 1000);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, wait_ms) <= 0)
            continue;
        ssize_t n = read(fd, bytes + size, sizeof bytes - size);
        if (n <= 0)
            return lines;
        size += (size_t)n;
        for (char *end; (end = memchr(bytes, '\n', size)); lines++) {
            size_t length = (size_t)(end - bytes);
            take_ack(span_of(bytes, length));
            size -= length + 1;
            memmove(bytes, end + 1, size);
        }
    }
}

static uint64_t random_below(uint64_t limit)
{
    uint64_t x;
    port_random(&x, sizeof x);
    return x % limit;
}

/* One life of the writer; returns the number of acknowledgements. */
static uint64_t live_and_die(int round)
{
    int out[2];
    if (pipe(out) < 0)
        exit(11);
    fflush(stdout);
    pid_t writer = fork();
    if (writer < 0)
        exit(11);
    if (writer == 0) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        write_until_killed();
    }
    close(out[1]);
    /* Every fifth dies while it opens, or soon after. */
    uint64_t life_us = round % 5 == 4 ? random_below(15000) : 10000 + random_below(150000);
    uint64_t lines = read_acks(out[0], writer, port_mono_us() + life_us);
    close(out[0]);
    int status;
    waitpid(writer, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        printf("  the writer ended by itself: status 0x%x\n", (unsigned)status);
        exit(12);
    }
    return lines;
}

static int run(int times)
{
    uint64_t acked = 0;
    int bad = 0, kills = 0;
    while (kills < times && !(ack_early && bad)) { /* one is enough for the control */
        acked += live_and_die(kills++);
        if (check_all() > 0) {
            printf("  after kill %d\n", kills);
            bad++;
        }
    }
    printf("%d kills, %llu acknowledged, %d with something lost, doubled or wrong\n", kills,
           (unsigned long long)acked, bad);
    return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
    uint64_t times = 50;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ack-early") == 0)
            ack_early = true;
        else if (!directory)
            directory = argv[i];
        else if (text_u64_in(argv[i], 1, 100000, &times) < 0)
            return 2;
    }
    struct failure f;
    if (!directory || pipe(wake_pipe) < 0) {
        fprintf(stderr, "usage: store_kill DIR [TIMES] [--ack-early]\n");
        return 2;
    }
    fcntl(wake_pipe[1], F_SETFL, O_NONBLOCK);
    if (store_create(directory, "kill", &f) < 0) {
        fprintf(stderr, "store_kill: %s\n", f.text);
        return 2;
    }
    return run((int)times);
}
