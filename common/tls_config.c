/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every session of one side has in common: certificates, the fixed version, suites and curves.
 * Invariant: a configuration never changes once it was given out, and one that demands certificates
 * cannot be made without a fleet of its own to compare them with. Called by whoever listens or
 * connects, through tls.h.
 */
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/tls_mbed.h"

/* ChaCha20 first: 1.2 to 1.35 times faster than AES-GCM between our own parts (FACTS.md). */
static const int suites[] = {
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    0,
};

static const uint16_t groups[] = {
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
    MBEDTLS_SSL_IANA_TLS_GROUP_NONE,
};

static const uint16_t signatures[] = {
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256,
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP384R1_SHA384,
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP521R1_SHA512,
    MBEDTLS_TLS1_3_SIG_NONE,
};

const mbedtls_x509_crt_profile tls_profile = {
    .allowed_mds = MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA256) |
                   MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA384) |
                   MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA512),
    .allowed_pks = MBEDTLS_X509_ID_FLAG(MBEDTLS_PK_ECKEY) | MBEDTLS_X509_ID_FLAG(MBEDTLS_PK_ECDSA),
    .allowed_curves = MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP256R1),
    .rsa_min_bitlen = 0,
};

static int load_ca(struct tls_config *c, const struct tls_settings *s, struct failure *f)
{
    if (s->side == TLS_JOIN_CLIENT)
        return 0;
    return pki_parse_certs(&c->ca, s->ca_pem, f);
}

static int load_own(struct tls_config *c, const struct tls_settings *s, struct failure *f)
{
    struct pki_identity own;
    if (s->side == TLS_JOIN_CLIENT)
        return 0;
    int err = pki_parse_certs(&c->own, s->cert_pem, f);
    if (!err)
        err = pki_parse_key(&c->key, s->key_pem, f);
    if (!err)
        err = pki_identity_of(&c->own, &own, f);
    if (err)
        return err;
    if (mbedtls_pk_check_pair(&c->own.pk, &c->key, pki_random, NULL))
        return fail(f, ERR_INVALID, "our key does not fit our certificate");
    /* Else mbedTLS would find "no common suite" with every peer, and each peer refuse us. */
    if (!tls_has_usage(&c->own, tls_is_client(c) ? TLS_USAGE_CLIENT : TLS_USAGE_SERVER))
        return fail(f, ERR_INVALID, "our certificate, '%s/%s', is not meant for a %s", own.role,
                    own.name, tls_is_client(c) ? "client" : "server");
    memcpy(c->fleet, own.fleet, sizeof c->fleet);
    /* Behind our certificate in the same chain, so that a joining client sees whom to trust. */
    return s->side == TLS_JOIN_SERVER ? pki_parse_certs(&c->own, s->ca_pem, f) : 0;
}

static void fix_protocol(mbedtls_ssl_config *ssl)
{
    /* Minimum = maximum. 1.2, because a refused client certificate reaches the peer as an alert it
     * can read; in 1.3 it sees "bad record mac". */
    mbedtls_ssl_conf_min_tls_version(ssl, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(ssl, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_ciphersuites(ssl, suites);
    mbedtls_ssl_conf_groups(ssl, groups);
    mbedtls_ssl_conf_sig_algs(ssl, signatures);
    mbedtls_ssl_conf_cert_profile(ssl, &tls_profile);
    mbedtls_ssl_conf_extended_master_secret(ssl, MBEDTLS_SSL_EXTENDED_MS_ENABLED);
    mbedtls_ssl_conf_legacy_renegotiation(ssl, MBEDTLS_SSL_LEGACY_NO_RENEGOTIATION);
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(ssl, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
    mbedtls_ssl_conf_rng(ssl, pki_random, NULL);
}

static int set_up(struct tls_config *c, const struct tls_settings *s, struct failure *f)
{
    bool client = tls_is_client(c);
    int ret =
        mbedtls_ssl_config_defaults(&c->ssl, client ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER,
                                    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (ret)
        return pki_fail(f, ERR_NOMEM, ret, "cannot set up TLS");
    fix_protocol(&c->ssl);
    mbedtls_ssl_conf_authmode(&c->ssl, s->side == TLS_JOIN_SERVER ? MBEDTLS_SSL_VERIFY_NONE
                                                                  : MBEDTLS_SSL_VERIFY_REQUIRED);
    /* Empty for TLS_JOIN_CLIENT, so that mbedTLS trusts nobody: tls_verify() finds the CA. */
    mbedtls_ssl_conf_ca_chain(&c->ssl, &c->ca, NULL);
#if defined(MBEDTLS_SSL_SESSION_TICKETS)
    /* Resumption skips every certificate check. A server without callbacks gives none out. */
    if (client)
        mbedtls_ssl_conf_session_tickets(&c->ssl, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
#endif
    if (s->side != TLS_JOIN_CLIENT)
        ret = mbedtls_ssl_conf_own_cert(&c->ssl, &c->own, &c->key);
    if (!ret && s->alpn) {
        if (text_copy(c->alpn, sizeof c->alpn, s->alpn))
            return fail(f, ERR_INVALID, "ALPN name is too long");
        c->alpn_list[0] = c->alpn;
        ret = mbedtls_ssl_conf_alpn_protocols(&c->ssl, c->alpn_list);
    }
    return ret ? pki_fail(f, ERR_NOMEM, ret, "cannot set up TLS") : 0;
}

int tls_config_open(struct tls_config **out, const struct tls_settings *settings, struct failure *f)
{
    int err = pki_start(f);
    if (err)
        return err;
    struct tls_config *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "cannot set up TLS: out of memory");
    mbedtls_ssl_config_init(&c->ssl);
    mbedtls_x509_crt_init(&c->ca);
    mbedtls_x509_crt_init(&c->own);
    mbedtls_pk_init(&c->key);
    c->side = settings->side;
    c->is_revoked = settings->is_revoked;
    c->context = settings->context;
    memcpy(c->ca_fingerprint, settings->ca_fingerprint, sizeof c->ca_fingerprint);
    err = load_ca(c, settings, f);
    if (!err)
        err = load_own(c, settings, f);
    if (!err)
        err = set_up(c, settings, f);
    if (err) {
        tls_config_close(c);
        return err;
    }
    *out = c;
    return 0;
}

void tls_config_close(struct tls_config *config)
{
    if (!config)
        return;
    mbedtls_ssl_config_free(&config->ssl);
    mbedtls_pk_free(&config->key);
    mbedtls_x509_crt_free(&config->own);
    mbedtls_x509_crt_free(&config->ca);
    free(config);
}
