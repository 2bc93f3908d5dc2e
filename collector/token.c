/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Join tokens, partition "tokens". Invariant: the secret itself is nowhere stored; a token turns
 * from fresh to used by one conditional commit, so that of two that use it at once only one wins.
 */
#include "collector/authority.h"

#include <stdlib.h>
#include <string.h>

#include "collector/collector.h"
#include "common/port.h"
#include "common/text.h"

#define SECRET_CHARS 26
#define LIFETIME_US (600 * 1000000ll)
#define ROW_MAX 8192

static void secret_key(const char *secret, uint8_t out[32])
{
    pki_sha256(span_str(secret), out);
}

/* Row: state byte ('f' fresh, 'u' used), expiry, EnrollRequest; a used one carries the host's name.
 */
static int put_row(struct buf *row, uint8_t state, int64_t expires_us,
                   const trawl_v1_EnrollRequest *request)
{
    int e = buf_append_byte(row, state);
    if (!e)
        e = buf_append_u64(row, (uint64_t)expires_us);
    return e ? e : codec_put_enroll_request(row, request);
}

int authority_token_new(struct collector *c, const trawl_v1_EnrollRequest *request, char *out,
                        size_t size_bytes, int64_t *expires_us, store_done_fn done, void *context,
                        struct failure *f)
{
    uint8_t bytes[SECRET_CHARS], key[32], fingerprint[PKI_FINGERPRINT_SIZE];
    char secret[SECRET_CHARS + 1], hex[2 * PKI_FINGERPRINT_SIZE + 1];
    if (!c->settings->join_port)
        return fail(f, ERR_UNSUPPORTED, "joining is closed on this collector (join-port = 0)");
    port_random(bytes, sizeof(bytes));
    text_put_base32(bytes, SECRET_CHARS, secret);
    secret_key(secret, key);
    authority_ca_fingerprint(c->authority, fingerprint);
    text_put_hex(fingerprint, sizeof(fingerprint), hex);
    int64_t until = c->clock->wall_us(c->clock) + LIFETIME_US;
    struct buf row;
    buf_init(&row, ROW_MAX);
    int e = put_row(&row, 'f', until, request);
    if (!e)
        e = text_format(out, size_bytes, "%u.%s.%s", (unsigned)c->settings->join_port, hex, secret);
    struct store_op op = {STORE_PUT, span_of(key, sizeof(key)), buf_span(&row)};
    if (!e)
        e = kv_commit(c->store, "tokens", &op, 1, done, context);
    buf_done(&row);
    pki_wipe(secret, sizeof(secret));
    pki_wipe(bytes, sizeof(bytes));
    if (e)
        return fail(f, e, "the token cannot be stored now: %s", err_text(e));
    *expires_us = until;
    return 0;
}

/* ---- taking ---- */

struct taking {
    struct collector *collector;
    uint8_t key[32];
    char host[64];
    trawl_v1_EnrollRequest request;
    token_taken_fn taken;
    void *context;
};

static void answer(struct taking *t, const struct failure *why)
{
    t->taken(t->context, why, &t->request);
    free(t);
}

static void on_used(void *context, const struct failure *why)
{
    struct failure f = *why;
    if (f.code == ERR_CONFLICT)
        fail(&f, ERR_USED,
             "join token was used already: each joins one host; 'trawl enroll' gives "
             "another");
    answer(context, &f);
}

static int check_row(struct taking *t, struct span row, struct failure *f)
{
    uint8_t state;
    uint64_t expires;
    struct clock *clock = t->collector->clock;
    if (span_take_u8(&row, &state) || span_take_u64(&row, &expires) ||
        codec_get_enroll_request(&t->request, row, f))
        return fail(f, ERR_CORRUPT,
                    "the stored join token is damaged: 'trawl enroll' gives another");
    if (state != 'f')
        return fail(f, ERR_USED,
                    "join token was used already: each joins one host; 'trawl enroll' "
                    "gives another");
    if (clock->wall_us(clock) > (int64_t)expires)
        return fail(f, ERR_EXPIRED,
                    "join token expired (it is good for ten minutes): 'trawl enroll' "
                    "gives another");
    if (t->request.host[0] && strcmp(t->request.host, t->host) != 0)
        return fail(f, ERR_DENIED, "join token was made for host '%s', not for '%s'",
                    t->request.host, t->host);
    return 0;
}

static void on_row(void *context, int err, struct span value)
{
    struct taking *t = context;
    struct failure f = {0};
    if (err) {
        fail(&f, ERR_NOTFOUND, "join token is not known here: was it made by this collector?");
        answer(t, &f);
        return;
    }
    if (check_row(t, value, &f)) {
        answer(t, &f);
        return;
    }
    struct buf row;
    buf_init(&row, ROW_MAX);
    text_copy(t->request.host, sizeof(t->request.host), t->host);
    int e = put_row(&row, 'u', 0, &t->request);
    struct span key = span_of(t->key, sizeof(t->key));
    struct store_op ops[] = {{STORE_EXPECT, key, value}, {STORE_PUT, key, buf_span(&row)}};
    if (!e)
        e = kv_commit(t->collector->store, "tokens", ops, 2, on_used, t);
    buf_done(&row);
    if (e) {
        fail(&f, e, "the collector cannot store now: %s", err_text(e));
        answer(t, &f);
    }
}

void authority_token_take(struct collector *c, const char *secret, const char *host,
                          token_taken_fn taken, void *context)
{
    struct failure f;
    struct taking *t = calloc(1, sizeof(*t));
    if (!t) {
        static const trawl_v1_EnrollRequest none;
        fail(&f, ERR_NOMEM, "out of memory");
        taken(context, &f, &none);
        return;
    }
    t->collector = c;
    t->taken = taken;
    t->context = context;
    text_copy(t->host, sizeof(t->host), host);
    secret_key(secret, t->key);
    kv_get(c->store, "tokens", span_of(t->key, sizeof(t->key)), on_row, t);
}
