/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom we believe, and the one sentence about why not. mbedTLS checks signatures and dates and
 * calls tls_verify(); the rules of a fleet are checked here: one SPIFFE name, our own fleet, the
 * role and usage that fit the side, not revoked. Invariant: whatever is refused sets both a flag
 * (so that the handshake fails, and the peer gets the alert that fits) and a text; the first reason
 * in the order "who signed it, who is it, when, what may it" wins. Used by tls.c.
 */
#include <string.h>

#include <mbedtls/oid.h>
#include <mbedtls/ssl.h>

#include "common/text.h"
#include "common/tls_mbed.h"

#define NAMES_TEXT_SIZE 120

/* ---- judging a certificate ---- */

struct verdict {
    struct tls *tls;
    const mbedtls_x509_crt *crt;
    uint32_t flags;         /* what mbedTLS found, for the leaf and above */
    char who[PKI_URI_SIZE]; /* "" when the certificate names nobody */
};

/* Each of these returns 0, or the flag that makes mbedTLS send the right alert, with tls->refusal
 * set. */
#define REFUSE(v_, flag_, code_, ...) \
    ((void)fail(&(v_)->tls->refusal, (code_), __VA_ARGS__), (flag_))

static bool is_self_signed(const mbedtls_x509_crt *crt)
{
    return crt->issuer_raw.len == crt->subject_raw.len &&
           memcmp(crt->issuer_raw.p, crt->subject_raw.p, crt->issuer_raw.len) == 0;
}

static uint32_t check_signer(struct verdict *v)
{
    if (!(v->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED))
        return 0;
    const char *who = v->who[0] ? v->who : "nobody we can read";
    if (is_self_signed(v->crt))
        return REFUSE(v, MBEDTLS_X509_BADCERT_NOT_TRUSTED, ERR_IDENTITY,
                      "certificate is self-signed, not signed by this fleet's CA (it names '%s')",
                      who);
    return REFUSE(v, MBEDTLS_X509_BADCERT_NOT_TRUSTED, ERR_IDENTITY,
                  "certificate not signed by this fleet's CA (it names '%s')", who);
}

static uint32_t check_dates(struct verdict *v)
{
    const struct pki_identity *id = &v->tls->claimed;
    if (v->flags & MBEDTLS_X509_BADCERT_EXPIRED) {
        bool ca = v->tls->chain_flags & MBEDTLS_X509_BADCERT_EXPIRED;
        struct pki_date d = pki_date_of(ca ? v->tls->ca_not_after_s : id->not_after_s);
        if (ca)
            return REFUSE(v, MBEDTLS_X509_BADCERT_EXPIRED, ERR_EXPIRED,
                          "the fleet's CA certificate expired %04d-%02d-%02d", d.year, d.month,
                          d.day);
        return REFUSE(v, MBEDTLS_X509_BADCERT_EXPIRED, ERR_EXPIRED,
                      "certificate of '%s' expired %04d-%02d-%02d", v->who, d.year, d.month, d.day);
    }
    if (v->flags & MBEDTLS_X509_BADCERT_FUTURE) {
        struct pki_date d = pki_date_of(id->not_before_s);
        return REFUSE(v, MBEDTLS_X509_BADCERT_FUTURE, ERR_CLOCK,
                      "certificate of '%s' is not valid before %04d-%02d-%02d %02d:%02d:%02d UTC; "
                      "check the clocks of both hosts",
                      v->who, d.year, d.month, d.day, d.hour, d.minute, d.second);
    }
    return 0;
}

/* What is left of mbedTLS's findings: weak algorithms, a CA that is none, and the like. */
static uint32_t check_form(struct verdict *v)
{
    uint32_t known = MBEDTLS_X509_BADCERT_NOT_TRUSTED | MBEDTLS_X509_BADCERT_EXPIRED |
                     MBEDTLS_X509_BADCERT_FUTURE | MBEDTLS_X509_BADCERT_CN_MISMATCH;
    uint32_t rest = v->flags & ~known;
    if (rest == 0)
        return 0;
    return REFUSE(v, rest, ERR_IDENTITY,
                  "certificate of '%s' is not ECDSA P-256 with SHA-256 (findings %#x)", v->who,
                  rest);
}

bool tls_has_usage(const mbedtls_x509_crt *crt, enum tls_usage usage)
{
    const char *oid = usage == TLS_USAGE_SERVER ? MBEDTLS_OID_SERVER_AUTH : MBEDTLS_OID_CLIENT_AUTH;
    /* The check alone passes a certificate that does not restrict its usage at all. */
    return mbedtls_x509_crt_has_ext_type(crt, MBEDTLS_X509_EXT_EXTENDED_KEY_USAGE) &&
           mbedtls_x509_crt_check_extended_key_usage(crt, oid, strlen(oid)) == 0;
}

static uint32_t check_role(struct verdict *v)
{
    const struct tls_config *c = v->tls->config;
    const struct pki_identity *id = &v->tls->claimed;
    bool client = tls_is_client(c);

    if (c->side != TLS_JOIN_CLIENT && strcmp(id->fleet, c->fleet) != 0)
        return REFUSE(v, MBEDTLS_X509_BADCERT_OTHER, ERR_FOREIGN,
                      "certificate of '%s' belongs to another fleet, ours is '%s'", v->who,
                      c->fleet);
    if (client && strcmp(id->role, "collector") != 0)
        return REFUSE(v, MBEDTLS_X509_BADCERT_OTHER, ERR_IDENTITY,
                      "certificate of '%s' is not a collector's", v->who);
    if (!tls_has_usage(v->crt, client ? TLS_USAGE_SERVER : TLS_USAGE_CLIENT))
        return REFUSE(v, MBEDTLS_X509_BADCERT_EXT_KEY_USAGE, ERR_IDENTITY,
                      "certificate of '%s' is not meant for a %s (extended key usage)", v->who,
                      client ? "server" : "client");
    return 0;
}

static uint32_t check_revoked(struct verdict *v)
{
    const struct tls_config *c = v->tls->config;
    const char *serial = v->tls->claimed.serial_hex;
    if (!c->is_revoked || !c->is_revoked(c->context, serial))
        return 0;
    return REFUSE(v, MBEDTLS_X509_BADCERT_REVOKED, ERR_IDENTITY,
                  "certificate of '%s' is revoked (serial %s)", v->who, serial);
}

/* "a, b, 10.0.0.7": the names that a certificate is good for, cut where the room ends. */
static void put_names(const mbedtls_x509_crt *crt, char *out, size_t size_bytes)
{
    struct buf b;
    buf_init(&b, 4096);
    for (const mbedtls_x509_sequence *san = &crt->subject_alt_names; san; san = san->next) {
        int type = san->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK;
        const unsigned char *p = san->buf.p;
        if (!p || (type != MBEDTLS_X509_SAN_DNS_NAME && type != MBEDTLS_X509_SAN_IP_ADDRESS))
            continue;
        if (b.size_bytes)
            (void)buf_append_str(&b, ", ");
        if (type == MBEDTLS_X509_SAN_DNS_NAME)
            (void)text_append_safe(&b, span_of(p, san->buf.len), false);
        else if (san->buf.len == 4)
            (void)buf_printf(&b, "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
        else
            for (size_t i = 0; i + 1 < san->buf.len; i += 2)
                (void)buf_printf(&b, "%s%x", i ? ":" : "", (unsigned)(p[i] << 8 | p[i + 1]));
    }
    (void)text_copy(out, size_bytes, b.size_bytes ? buf_str(&b) : "no name");
    buf_done(&b);
}

static uint32_t check_host(struct verdict *v)
{
    char names[NAMES_TEXT_SIZE];
    if (!(v->flags & MBEDTLS_X509_BADCERT_CN_MISMATCH))
        return 0;
    put_names(v->crt, names, sizeof names);
    return REFUSE(v, MBEDTLS_X509_BADCERT_CN_MISMATCH, ERR_IDENTITY,
                  "certificate of '%s' is not for '%s', but for: %s", v->who, v->tls->server_name,
                  names);
}

/* Remembers what was found about a certificate above the leaf. */
static void note_above(struct tls *tls, const mbedtls_x509_crt *crt, uint32_t flags)
{
    tls->chain_flags |= flags;
    if (flags & MBEDTLS_X509_BADCERT_EXPIRED) {
        struct pki_date d = {crt->valid_to.year, crt->valid_to.mon, crt->valid_to.day,
                             crt->valid_to.hour, crt->valid_to.min, crt->valid_to.sec};
        tls->ca_not_after_s = pki_seconds_of(&d);
    }
}

/*
 * TLS_JOIN_CLIENT knows only the fingerprint of a CA: finds that CA among what the peer showed, and
 * lets mbedTLS check the leaf against it. The CA is parsed anew, because mbedTLS would also trust
 * whatever follows it in the peer's chain. Afterwards v->flags is what a client with the CA sees.
 */
static uint32_t check_fingerprint(struct verdict *v)
{
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    mbedtls_x509_crt ca;
    const mbedtls_x509_crt *shown = v->crt;
    for (; shown; shown = shown->next) {
        pki_sha256(span_of(shown->raw.p, shown->raw.len), fingerprint);
        if (mbedtls_x509_crt_get_ca_istrue(shown) &&
            pki_equal(fingerprint, v->tls->config->ca_fingerprint, sizeof fingerprint))
            break;
    }
    if (!shown)
        return REFUSE(v, MBEDTLS_X509_BADCERT_NOT_TRUSTED, ERR_IDENTITY,
                      "peer shows no CA certificate with the expected fingerprint");
    mbedtls_x509_crt_init(&ca);
    int ret = mbedtls_x509_crt_parse_der(&ca, shown->raw.p, shown->raw.len);
    if (!ret) {
        note_above(v->tls, &ca,
                   mbedtls_x509_time_is_past(&ca.valid_to) ? MBEDTLS_X509_BADCERT_EXPIRED : 0);
        /* Non-const in the interface only: nothing of the certificate is changed. */
        ret = mbedtls_x509_crt_verify_with_profile((mbedtls_x509_crt *)v->crt, &ca, NULL,
                                                   &tls_profile, v->tls->server_name, &v->flags,
                                                   NULL, NULL);
    }
    mbedtls_x509_crt_free(&ca);
    if (ret && ret != MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
        (void)pki_fail(&v->tls->refusal, ERR_IDENTITY, ret, "cannot check the peer's certificate");
        return MBEDTLS_X509_BADCERT_OTHER;
    }
    return 0;
}

static uint32_t judge(struct verdict *v)
{
    struct failure unreadable = {0};
    struct pki_identity id;
    uint32_t flag = 0;

    int err = pki_identity_of(v->crt, &id, &unreadable);
    if (!err) {
        v->tls->claimed = id;
        (void)pki_uri_text(&id, v->who, sizeof v->who);
    }
    if (v->tls->config->side == TLS_JOIN_CLIENT)
        flag = check_fingerprint(v);
    if (!flag)
        flag = check_signer(v);
    if (!flag && err)
        flag = REFUSE(v, MBEDTLS_X509_BADCERT_OTHER, ERR_IDENTITY, "%s", unreadable.text);
    static uint32_t (*const checks[])(struct verdict *) = {check_dates, check_form, check_role,
                                                           check_revoked, check_host};
    for (size_t i = 0; !flag && i < sizeof checks / sizeof checks[0]; i++)
        flag = checks[i](v);
    return flag;
}

int tls_verify(void *context, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    struct tls *tls = context;
    bool join = tls->config->side == TLS_JOIN_CLIENT;
    /* Called from the root down. A joining client has no root yet, and finds it at the leaf. */
    if (depth > 0) {
        if (join)
            *flags = 0;
        else
            note_above(tls, crt, *flags);
        return 0;
    }
    struct verdict v = {.tls = tls, .crt = crt, .flags = *flags | tls->chain_flags};
    *flags = judge(&v);
    if (*flags == 0)
        tls->verified = true;
    return 0;
}

/* ---- saying why a handshake failed ---- */

/* What the peer says with a fatal alert (RFC 5246, 7.2.2) about our certificate, or about us. */
static const struct {
    unsigned char alert;
    int code;
    const char *text;
} alerts[] = {
    {MBEDTLS_SSL_ALERT_MSG_BAD_CERT, ERR_IDENTITY,
     "peer refused our certificate: bad, or not for the name it asked for"},
    {MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT, ERR_IDENTITY,
     "peer refused our certificate: not meant for this end of a connection"},
    {MBEDTLS_SSL_ALERT_MSG_CERT_REVOKED, ERR_IDENTITY, "peer refused our certificate: revoked"},
    {MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED, ERR_EXPIRED, "peer refused our certificate: expired"},
    {MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, ERR_CLOCK,
     "peer refused our certificate: not valid there now; check the clocks of both hosts"},
    {MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA, ERR_IDENTITY,
     "peer refused our certificate: not signed by its fleet's CA"},
    {MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED, ERR_IDENTITY,
     "peer refused our certificate: its fleet or role is not accepted there"},
    {MBEDTLS_SSL_ALERT_MSG_NO_CERT, ERR_IDENTITY, "peer wants a certificate, and we showed none"},
    {MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION, ERR_VERSION,
     "peer speaks no TLS version that we speak (1.2)"},
    {MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL, ERR_PROTOCOL,
     "peer does not speak our application protocol"},
};

static int alert_failure(struct tls *tls, struct failure *f)
{
    unsigned char alert = tls->ssl.MBEDTLS_PRIVATE(in_msg)[1];
    for (size_t i = 0; i < sizeof alerts / sizeof alerts[0]; i++)
        if (alerts[i].alert == alert)
            return fail(f, alerts[i].code, "%s", alerts[i].text);
    if (tls->established)
        return fail(f, ERR_PROTOCOL, "peer broke off (TLS alert %u)", alert);
    if (alert == MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE) {
        /* Before its certificate there were only versions and suites to disagree about. */
        if (tls_is_client(tls->config) && !tls->verified)
            return fail(f, ERR_PROTOCOL, "peer has no cipher suite in common with us");
        if (tls->config->side == TLS_JOIN_CLIENT)
            return fail(f, ERR_IDENTITY, "peer wants a certificate, and we showed none");
    }
    return fail(f, ERR_PROTOCOL, "peer broke off the handshake (TLS alert %u)", alert);
}

/* Nothing of the peer's was understood yet. */
static bool at_start(const struct tls *tls)
{
    return tls->ssl.MBEDTLS_PRIVATE(state) <= MBEDTLS_SSL_SERVER_HELLO;
}

int tls_handshake_failure(struct tls *tls, int ret, struct failure *f)
{
    if (tls->refusal.code)
        return fail(f, tls->refusal.code, "%s", tls->refusal.text);
    switch (ret) {
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        return alert_failure(tls, f);
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
        return fail(f, ERR_IDENTITY, "peer showed no certificate");
    case MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION:
        return fail(f, ERR_VERSION, "peer offers only an older TLS version, not 1.2");
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
    case MBEDTLS_ERR_SSL_CONN_EOF:
        return fail(f, ERR_CLOSED, "peer closed the connection during the handshake");
    case MBEDTLS_ERR_SSL_NO_APPLICATION_PROTOCOL:
        return fail(f, ERR_PROTOCOL, "peer does not offer the protocol '%s'", tls->config->alpn);
    case MBEDTLS_ERR_SSL_ALLOC_FAILED:
        return fail(f, ERR_NOMEM, "TLS handshake failed: out of memory");
    case MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE:
        if (at_start(tls))
            return fail(f, ERR_PROTOCOL,
                        "peer has no cipher suite in common with us (TLS 1.2, ECDHE-ECDSA, P-256)");
        break;
    case MBEDTLS_ERR_SSL_INVALID_RECORD:
    case MBEDTLS_ERR_SSL_UNEXPECTED_RECORD:
    case MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE:
        if (at_start(tls))
            return fail(f, ERR_PROTOCOL, "peer does not speak TLS");
        break;
    default:
        break;
    }
    return pki_fail(f, ERR_PROTOCOL, ret, "TLS handshake failed");
}

int tls_session_failure(struct tls *tls, int ret, struct failure *f)
{
    switch (ret) {
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
    case MBEDTLS_ERR_SSL_CONN_EOF:
        return fail(f, ERR_CLOSED, "peer closed the connection");
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        return alert_failure(tls, f);
    case MBEDTLS_ERR_SSL_ALLOC_FAILED:
        return fail(f, ERR_NOMEM, "TLS failed: out of memory");
    default:
        return pki_fail(f, ERR_PROTOCOL, ret, "TLS failed");
    }
}
