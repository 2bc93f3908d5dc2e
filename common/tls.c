/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS sessions between two byte queues: what came from the network waits in `in`, what goes to it
 * in `out`; mbedTLS reads and writes those as if they were the socket. Invariant: nothing is
 * encrypted for, or believed from, a peer before tls_handshake() returned 0. Called by conn.c.
 */
#include "common/tls.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/tls_mbed.h"

#define IN_LIMIT (256 * 1024)
#define OUT_LIMIT (4 * 1024 * 1024)
/* Header, nonce, tag and padding of one record, generously. */
#define RECORD_OVERHEAD 64
#define RECORD_SIZE MBEDTLS_SSL_OUT_CONTENT_LEN
/* An empty queue larger than this is given back: most connections are idle most of the time. */
#define KEEP_BYTES 4096

/* ---- the two queues ---- */

static void forget(struct buf *b, size_t *at)
{
    if (*at < b->size_bytes)
        return;
    *at = 0;
    if (b->capacity_bytes > KEEP_BYTES)
        buf_done(b);
    else
        buf_clear(b);
}

static int on_send(void *context, const unsigned char *data, size_t size_bytes)
{
    struct tls *tls = context;
    if (buf_append(&tls->out, data, size_bytes))
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    return (int)size_bytes;
}

static int on_receive(void *context, unsigned char *data, size_t size_bytes)
{
    struct tls *tls = context;
    size_t waiting = tls->in.size_bytes - tls->in_at;
    if (waiting == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (size_bytes > waiting)
        size_bytes = waiting;
    memcpy(data, tls->in.data + tls->in_at, size_bytes);
    tls->in_at += size_bytes;
    forget(&tls->in, &tls->in_at);
    return (int)size_bytes;
}

int tls_feed(struct tls *tls, struct span cipher)
{
    if (tls->in_at > 0) {
        buf_consume(&tls->in, tls->in_at);
        tls->in_at = 0;
    }
    return buf_append_span(&tls->in, cipher);
}

struct span tls_pending(const struct tls *tls)
{
    struct span s = {NULL, tls->out.size_bytes - tls->out_at};
    if (s.size_bytes)
        s.data = tls->out.data + tls->out_at;
    return s;
}

void tls_sent(struct tls *tls, size_t bytes)
{
    assert(bytes <= tls->out.size_bytes - tls->out_at);
    tls->out_at += bytes;
    forget(&tls->out, &tls->out_at);
}

/* ---- a session ---- */

int tls_open(struct tls **out, struct tls_config *config, const char *server_name,
             struct failure *f)
{
    bool client = tls_is_client(config);
    if (client && (!server_name || !server_name[0]))
        return fail(f, ERR_INVALID, "no server name to check the peer's certificate against");
    struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return fail(f, ERR_NOMEM, "cannot open a TLS session: out of memory");
    tls->config = config;
    buf_init(&tls->in, IN_LIMIT);
    buf_init(&tls->out, OUT_LIMIT);
    mbedtls_ssl_init(&tls->ssl);
    int ret = mbedtls_ssl_setup(&tls->ssl, &config->ssl);
    if (!ret && client) {
        ret = text_copy(tls->server_name, sizeof tls->server_name, server_name)
                  ? MBEDTLS_ERR_SSL_BAD_INPUT_DATA
                  : mbedtls_ssl_set_hostname(&tls->ssl, server_name);
    }
    if (ret) {
        tls_close(tls);
        return pki_fail(f, ret == MBEDTLS_ERR_SSL_BAD_INPUT_DATA ? ERR_INVALID : ERR_NOMEM, ret,
                        "cannot open a TLS session");
    }
    mbedtls_ssl_set_verify(&tls->ssl, tls_verify, tls);
    mbedtls_ssl_set_bio(&tls->ssl, tls, on_send, on_receive, NULL);
    *out = tls;
    return 0;
}

void tls_close(struct tls *tls)
{
    if (!tls)
        return;
    mbedtls_ssl_free(&tls->ssl);
    buf_done(&tls->in);
    buf_done(&tls->out);
    free(tls);
}

static int check_alpn(struct tls *tls, struct failure *f)
{
    if (!tls->config->alpn[0] || mbedtls_ssl_get_alpn_protocol(&tls->ssl))
        return 0;
    mbedtls_ssl_send_alert_message(&tls->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                   MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL);
    return fail(f, ERR_PROTOCOL, "peer does not offer the protocol '%s'", tls->config->alpn);
}

int tls_handshake(struct tls *tls, struct failure *f)
{
    if (tls->established)
        return 0;
    int ret = mbedtls_ssl_handshake(&tls->ssl);
    if (ret == MBEDTLS_ERR_SSL_WANT_READ || ret == MBEDTLS_ERR_SSL_WANT_WRITE)
        return ERR_AGAIN;
    if (ret) {
        /* mbedTLS leaves the peer in the dark here; RFC 5246, 7.4.6 allows this alert. */
        if (ret == MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE)
            mbedtls_ssl_send_alert_message(&tls->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                           MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
        return tls_handshake_failure(tls, ret, f);
    }
    int err = check_alpn(tls, f);
    if (err)
        return err;
    /* Whoever had to show a certificate was judged by tls_verify(), or we would not be here. */
    assert(tls->verified || tls->config->side == TLS_JOIN_SERVER);
    tls->peer = tls->claimed;
    tls->established = true;
    return 0;
}

const struct pki_identity *tls_peer(const struct tls *tls)
{
    return &tls->peer;
}

int tls_write(struct tls *tls, struct span plain, struct failure *f)
{
    assert(tls->established);
    size_t records = plain.size_bytes / RECORD_SIZE + 1;
    size_t waiting = tls->out.size_bytes - tls->out_at;
    if (plain.size_bytes > OUT_LIMIT ||
        waiting + plain.size_bytes + records * RECORD_OVERHEAD > OUT_LIMIT)
        return fail(f, ERR_LIMIT, "over %d bytes wait to be sent", OUT_LIMIT);
    if (tls->out_at > 0) {
        buf_consume(&tls->out, tls->out_at);
        tls->out_at = 0;
    }
    while (plain.size_bytes > 0) {
        int ret = mbedtls_ssl_write(&tls->ssl, plain.data, plain.size_bytes);
        if (ret <= 0)
            return tls_session_failure(tls, ret, f);
        plain.data += ret;
        plain.size_bytes -= (size_t)ret;
    }
    return 0;
}

int tls_read(struct tls *tls, struct buf *out, struct failure *f)
{
    assert(tls->established);
    uint8_t *room;
    size_t left = out->limit_bytes - out->size_bytes;
    size_t size = left < MBEDTLS_SSL_IN_CONTENT_LEN ? left : MBEDTLS_SSL_IN_CONTENT_LEN;
    int err = size ? buf_reserve(out, size, &room) : ERR_LIMIT;
    if (err)
        return fail(f, err, "cannot take bytes from the peer: %s", err_text(err));
    int ret = mbedtls_ssl_read(&tls->ssl, room, size);
    if (ret > 0) {
        buf_commit(out, (size_t)ret);
        return 0;
    }
    if (ret == 0 || ret == MBEDTLS_ERR_SSL_WANT_READ || ret == MBEDTLS_ERR_SSL_WANT_WRITE)
        return ERR_AGAIN;
    return tls_session_failure(tls, ret, f);
}

void tls_goodbye(struct tls *tls)
{
    if (tls->established)
        mbedtls_ssl_close_notify(&tls->ssl);
}
