/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Artifacts as rows of the pieces' environment. Invariant: every piece takes exactly 65,520 bytes,
 * 16 pages with LMDB's header, so that whatever was deleted has room for whatever comes; its length
 * and checksum therefore stand in a small row beside it. Called by the writer thread (put, seal,
 * delete) and by reads on the loop's thread.
 */
#include <inttypes.h>
#include <string.h>

#include "collector/store_lmdb.h"
#include "common/text.h"

#define STATE_SIZE (4 + 8 + 1 + 32) /* pieces, size_bytes, sealed, sha256 */
#define CHECK_SIZE (4 + 8)          /* length, checksum */

/* "<id>\0<kind>" and for pieces the number, big-endian. */
static int piece_key(struct row_key *out, const char *id, char kind, uint32_t piece)
{
    uint8_t key[5] = {(uint8_t)kind, (uint8_t)(piece >> 24), (uint8_t)(piece >> 16),
                      (uint8_t)(piece >> 8), (uint8_t)piece};
    return row_key_make(out, id, span_of(key, kind == 's' ? 1 : sizeof key));
}

/* ---- the state row ---- */

static int state_parse(struct span s, struct blob_state *out)
{
    struct span sealed, sha256;
    int r = span_take_u32(&s, &out->pieces);
    if (r == 0)
        r = span_take_u64(&s, &out->size_bytes);
    if (r == 0)
        r = span_take(&s, 1, &sealed);
    if (r == 0)
        r = span_take(&s, sizeof out->sha256, &sha256);
    if (r != 0)
        return ERR_CORRUPT;
    out->sealed = sealed.data[0] != 0;
    memcpy(out->sha256, sha256.data, sizeof out->sha256);
    return 0;
}

int piece_state_get(struct lmdb_env *e, struct MDB_txn *txn, const char *id, struct blob_state *out)
{
    struct row_key key;
    struct span value;
    struct blob_state state;
    if (piece_key(&key, id, 's', 0) < 0)
        return ERR_NOTFOUND;
    int r = row_get(e, txn, row_key_span(&key), &value);
    if (r == 0)
        r = state_parse(value, &state);
    if (r == 0)
        *out = state;
    return r;
}

static int state_put(struct lmdb_env *e, struct MDB_txn *txn, const char *id,
                     const struct blob_state *state)
{
    uint8_t bytes[STATE_SIZE];
    struct row_key key;
    int r = piece_key(&key, id, 's', 0);
    if (r < 0)
        return r;
    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(state->pieces >> (8 * i));
    for (size_t i = 0; i < 8; i++)
        bytes[4 + i] = (uint8_t)(state->size_bytes >> (8 * i));
    bytes[12] = state->sealed;
    memcpy(bytes + 13, state->sha256, sizeof state->sha256);
    return row_put(e, txn, row_key_span(&key), span_of(bytes, sizeof bytes));
}

/* ---- pieces ---- */

struct piece_check {
    uint32_t size_bytes;
    uint64_t hash;
};

static uint64_t hash_of(struct span bytes, uint32_t piece)
{
    return xxh64(bytes, UINT64_C(0x7069656365) << 32 | piece);
}

static int check_get(struct lmdb_env *e, struct MDB_txn *txn, const char *id, uint32_t piece,
                     struct piece_check *out)
{
    struct row_key key;
    struct span value;
    if (piece_key(&key, id, 'c', piece) < 0)
        return ERR_NOTFOUND;
    int r = row_get(e, txn, row_key_span(&key), &value);
    if (r < 0)
        return r;
    if (value.size_bytes != CHECK_SIZE || span_take_u32(&value, &out->size_bytes) < 0 ||
        span_take_u64(&value, &out->hash) < 0 || out->size_bytes > STORE_PIECE_SIZE)
        return ERR_CORRUPT;
    return 0;
}

static int check_put(struct lmdb_env *e, struct MDB_txn *txn, const struct job *job)
{
    uint8_t bytes[CHECK_SIZE];
    struct row_key key;
    uint64_t hash = hash_of(job->bytes, job->piece);
    int r = piece_key(&key, job->name, 'c', job->piece);
    if (r < 0)
        return r;
    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(job->bytes.size_bytes >> (8 * i));
    for (size_t i = 0; i < 8; i++)
        bytes[4 + i] = (uint8_t)(hash >> (8 * i));
    return row_put(e, txn, row_key_span(&key), span_of(bytes, sizeof bytes));
}

int piece_get(struct lmdb_env *e, struct MDB_txn *txn, const char *id, uint32_t piece,
              struct span *value)
{
    struct piece_check check;
    struct row_key key;
    struct span raw;
    int r = check_get(e, txn, id, piece, &check);
    if (r < 0)
        return r;
    r = piece_key(&key, id, 'p', piece);
    if (r == 0)
        r = raw_get(e, txn, row_key_span(&key), &raw);
    /* The two rows were written together: one alone is damage. */
    if (r == 0 && raw.size_bytes == STORE_PIECE_SIZE) {
        raw.size_bytes = check.size_bytes;
        if (hash_of(raw, piece) == check.hash) {
            *value = raw;
            return 0;
        }
    }
    if (r < 0 && r != ERR_NOTFOUND && r != ERR_CORRUPT)
        return r;
    atomic_fetch_add(&e->damaged, 1);
    return ERR_CORRUPT;
}

/* The length a piece of a present artifact has: all but the last are full. */
static uint64_t present_bytes(const struct blob_state *state, uint32_t piece)
{
    if (piece + UINT64_C(1) < state->pieces)
        return STORE_PIECE_SIZE;
    return state->size_bytes - (uint64_t)piece * STORE_PIECE_SIZE;
}

static int refuse(struct job *job, int code, const char *reason)
{
    return fail(&job->why, code, "cannot store piece %u of '%s': %s", (unsigned)job->piece,
                job->name, reason);
}

/* A piece of a sealed artifact is only accepted when it is what is there. */
static void put_again(struct lmdb_env *e, struct MDB_txn *txn, struct job *job)
{
    struct span value;
    int r = piece_get(e, txn, job->name, job->piece, &value);
    if (r == 0 && !span_equal(value, job->bytes))
        r = ERR_CONFLICT;
    if (r < 0)
        refuse(job, r == ERR_NOTFOUND ? ERR_CONFLICT : r, "the artifact is sealed");
}

/* May this piece come now? Changes `state` to what is true with it. */
static int admit(struct job *job, struct blob_state *state)
{
    if (job->piece > state->pieces)
        return refuse(job, ERR_CONFLICT, "pieces before it are missing");
    bool last = job->piece + UINT64_C(1) >= state->pieces;
    if (!last && job->bytes.size_bytes != STORE_PIECE_SIZE)
        return refuse(job, ERR_CONFLICT, "it is not the last, and short");
    if (job->piece == state->pieces) {
        if (state->size_bytes != (uint64_t)state->pieces * STORE_PIECE_SIZE)
            return refuse(job, ERR_CONFLICT, "the one before it is short");
        state->pieces++;
    } else {
        state->size_bytes -= present_bytes(state, job->piece);
    }
    state->size_bytes += job->bytes.size_bytes;
    return 0;
}

/* The present state; none is an empty one. A damaged one refuses the job. */
static int state_for(struct lmdb_env *e, struct MDB_txn *txn, struct job *job,
                     struct blob_state *out)
{
    *out = (struct blob_state){.pieces = 0};
    int r = piece_state_get(e, txn, job->name, out);
    if (r == 0 || r == ERR_NOTFOUND)
        return 0;
    return fail(&job->why, r, "cannot read the state of '%s' in '%s': %s", job->name, e->path,
                err_text(r));
}

int piece_put(struct lmdb_env *e, struct MDB_txn *txn, struct job *job)
{
    struct blob_state state;
    struct row_key key;
    if (state_for(e, txn, job, &state) < 0)
        return 0;
    if (state.sealed) {
        put_again(e, txn, job);
        return 0;
    }
    if (admit(job, &state) < 0)
        return 0;
    int r = piece_key(&key, job->name, 'p', job->piece);
    if (r == 0)
        r = raw_put(e, txn, row_key_span(&key), job->bytes, STORE_PIECE_SIZE);
    if (r == 0)
        r = check_put(e, txn, job);
    return r < 0 ? r : state_put(e, txn, job->name, &state);
}

/* False: it is sealed so already, or job->why says why it cannot be. */
static bool may_seal(const struct blob_state *state, struct job *job)
{
    if (state->size_bytes != job->size_bytes)
        fail(&job->why, ERR_CONFLICT, "cannot seal '%s': it has %" PRIu64 " bytes, not %" PRIu64,
             job->name, state->size_bytes, job->size_bytes);
    else if (state->sealed && memcmp(state->sha256, job->sha256, sizeof job->sha256) != 0)
        fail(&job->why, ERR_CONFLICT, "cannot seal '%s': it is sealed with another hash",
             job->name);
    else
        return !state->sealed;
    return false;
}

int piece_seal(struct lmdb_env *e, struct MDB_txn *txn, struct job *job)
{
    struct blob_state state;
    if (state_for(e, txn, job, &state) < 0 || !may_seal(&state, job))
        return 0;
    state.sealed = true;
    memcpy(state.sha256, job->sha256, sizeof state.sha256);
    return state_put(e, txn, job->name, &state);
}

/* The state goes first: what is half deleted is not there any more. */
int piece_delete(struct lmdb_env *e, struct MDB_txn *txn, const char *id, int limit)
{
    struct row_key key;
    int r = piece_key(&key, id, 's', 0);
    if (r == 0)
        r = row_delete(e, txn, row_key_span(&key));
    if (r < 0)
        return r;
    int length = (int)strlen(id) + 1;
    return rows_delete(e, txn, span_of(key.bytes, (size_t)length), limit);
}
