/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making keys, requests and certificates. Invariant: a certificate says only what our caller said;
 * of a request nothing but its public key is used, and that only when the request proves that its
 * sender holds the private key. Called by the collector (its CA) and by whoever joins a fleet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/ecp.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/x509_csr.h>

#include "common/pki_mbed.h"
#include "common/text.h"

#define KEY_PEM_SIZE 1024
#define REQUEST_SIZE 1024
#define REQUEST_LIMIT (8 * 1024)
#define CERT_PEM_SIZE (16 * 1024)
#define DN_SIZE 256
#define SERIAL_SIZE 20
#define NAMES_MAX 32
#define DNS_NAME_MAX 253
#define CA_BACKDATE_S 300
#define DAYS_MAX 36500
/* The calendar of a certificate ends with the year 9999. */
#define YEAR_MAX 9999

int pki_key_new(struct buf *key_pem, struct failure *f)
{
    unsigned char pem[KEY_PEM_SIZE];
    mbedtls_pk_context key;
    int err = 0;

    mbedtls_pk_init(&key);
    int ret = mbedtls_pk_setup(&key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
    if (!ret)
        ret = mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(key), pki_random, NULL);
    if (!ret)
        ret = mbedtls_pk_write_key_pem(&key, pem, sizeof pem);
    if (ret)
        err = pki_fail(f, ERR_IO, ret, "cannot make a key");
    else if ((err = buf_append_str(key_pem, (char *)pem)))
        fail(f, err, "cannot make a key: %s", err_text(err));
    pki_wipe(pem, sizeof pem);
    mbedtls_pk_free(&key);
    return err;
}

int pki_request_new(const char *name, struct span key_pem, struct buf *request_der,
                    struct failure *f)
{
    unsigned char der[REQUEST_SIZE];
    char subject[DN_SIZE];
    mbedtls_pk_context key;
    mbedtls_x509write_csr request;

    if (!text_is_name(name))
        return fail(f, ERR_INVALID, "cannot request a certificate: bad name");
    mbedtls_pk_init(&key);
    mbedtls_x509write_csr_init(&request);
    int err = pki_parse_key(&key, key_pem, f);
    if (err)
        goto out;
    snprintf(subject, sizeof subject, "CN=%s", name);
    mbedtls_x509write_csr_set_md_alg(&request, MBEDTLS_MD_SHA256);
    mbedtls_x509write_csr_set_key(&request, &key);
    int ret = mbedtls_x509write_csr_set_subject_name(&request, subject);
    if (!ret)
        ret = mbedtls_x509write_csr_der(&request, der, sizeof der, pki_random, NULL);
    if (ret < 0) {
        err = pki_fail(f, ERR_INVALID, ret, "cannot request a certificate");
        goto out;
    }
    /* It is written at the end of the room. */
    err = buf_append(request_der, der + sizeof der - (size_t)ret, (size_t)ret);
    if (err)
        fail(f, err, "cannot request a certificate: %s", err_text(err));
out:
    mbedtls_x509write_csr_free(&request);
    mbedtls_pk_free(&key);
    return err;
}

/* ---- writing a certificate ---- */

struct cert_plan {
    const char *subject, *issuer;
    mbedtls_pk_context *subject_key, *issuer_key;
    int64_t not_before_s, not_after_s;
    const mbedtls_x509_san_list *names; /* NULL: none */
    const char *usage;                  /* OID of the extended key usage; NULL: a CA */
    size_t usage_bytes;
};

static int date_text(int64_t seconds, char out[15])
{
    struct pki_date d = pki_date_of(seconds);
    if (d.year < 1970 || d.year > YEAR_MAX)
        return MBEDTLS_ERR_X509_INVALID_DATE;
    int64_t number = d.year;
    const int parts[] = {d.month, d.day, d.hour, d.minute, d.second};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        number = number * 100 + parts[i];
    snprintf(out, 15, "%014lld", (long long)number);
    return 0;
}

static int set_validity(mbedtls_x509write_cert *cert, const struct cert_plan *plan)
{
    char from[15], to[15];
    if (plan->not_after_s <= plan->not_before_s)
        return MBEDTLS_ERR_X509_INVALID_DATE;
    int ret = date_text(plan->not_before_s, from);
    if (!ret)
        ret = date_text(plan->not_after_s, to);
    return ret ? ret : mbedtls_x509write_crt_set_validity(cert, from, to);
}

/* Positive and of a fixed length: the top bit is clear and the next one set. */
static int set_serial(mbedtls_x509write_cert *cert)
{
    unsigned char serial[SERIAL_SIZE];
    int ret = pki_random(NULL, serial, sizeof serial);
    if (ret)
        return ret;
    serial[0] = (unsigned char)((serial[0] & 0x3f) | 0x40);
    return mbedtls_x509write_crt_set_serial_raw(cert, serial, sizeof serial);
}

static int set_usage(mbedtls_x509write_cert *cert, const struct cert_plan *plan)
{
    if (!plan->usage) {
        int ret = mbedtls_x509write_crt_set_basic_constraints(cert, 1, 0);
        return ret ? ret
                   : mbedtls_x509write_crt_set_key_usage(cert, MBEDTLS_X509_KU_KEY_CERT_SIGN |
                                                                   MBEDTLS_X509_KU_CRL_SIGN);
    }
    /* The library only reads the OID, but its list type holds non-const bytes. */
    unsigned char oid[16];
    if (plan->usage_bytes > sizeof oid)
        return MBEDTLS_ERR_X509_BAD_INPUT_DATA;
    memcpy(oid, plan->usage, plan->usage_bytes);
    mbedtls_asn1_sequence list = {
        .buf = {.tag = MBEDTLS_ASN1_OID, .len = plan->usage_bytes, .p = oid}};
    int ret = mbedtls_x509write_crt_set_basic_constraints(cert, 0, -1);
    if (!ret)
        ret = mbedtls_x509write_crt_set_key_usage(cert, MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    return ret ? ret : mbedtls_x509write_crt_set_ext_key_usage(cert, &list);
}

static int set_all(mbedtls_x509write_cert *cert, const struct cert_plan *plan)
{
    mbedtls_x509write_crt_set_version(cert, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(cert, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(cert, plan->subject_key);
    mbedtls_x509write_crt_set_issuer_key(cert, plan->issuer_key);
    int ret = mbedtls_x509write_crt_set_subject_name(cert, plan->subject);
    if (!ret)
        ret = mbedtls_x509write_crt_set_issuer_name(cert, plan->issuer);
    if (!ret)
        ret = set_validity(cert, plan);
    if (!ret)
        ret = set_serial(cert);
    if (!ret)
        ret = set_usage(cert, plan);
    if (!ret)
        ret = mbedtls_x509write_crt_set_subject_key_identifier(cert);
    if (!ret)
        ret = mbedtls_x509write_crt_set_authority_key_identifier(cert);
    if (!ret && plan->names)
        ret = mbedtls_x509write_crt_set_subject_alternative_name(cert, plan->names);
    return ret;
}

static int write_cert(const struct cert_plan *plan, struct buf *cert_pem, struct failure *f)
{
    mbedtls_x509write_cert cert;
    unsigned char *pem = malloc(CERT_PEM_SIZE);
    if (!pem)
        return fail(f, ERR_NOMEM, "cannot make a certificate: out of memory");
    mbedtls_x509write_crt_init(&cert);
    int ret = set_all(&cert, plan);
    if (!ret)
        ret = mbedtls_x509write_crt_pem(&cert, pem, CERT_PEM_SIZE, pki_random, NULL);
    int err = 0;
    if (ret == MBEDTLS_ERR_X509_INVALID_DATE)
        err = fail(f, ERR_INVALID, "cannot make a certificate: bad validity");
    else if (ret)
        err = pki_fail(f, ERR_INVALID, ret, "cannot make a certificate");
    else if ((err = buf_append_str(cert_pem, (char *)pem)))
        fail(f, err, "cannot make a certificate: %s", err_text(err));
    mbedtls_x509write_crt_free(&cert);
    free(pem);
    return err;
}

int pki_ca_new(const char *fleet, struct span key_pem, int64_t now_s, int days,
               struct buf *cert_pem, struct failure *f)
{
    char subject[DN_SIZE];
    mbedtls_pk_context key;

    if (!text_is_name(fleet))
        return fail(f, ERR_INVALID, "cannot make a CA: bad fleet name");
    if (days < 1 || days > DAYS_MAX)
        return fail(f, ERR_INVALID, "cannot make a CA: validity of %d days, not 1 to %d", days,
                    DAYS_MAX);
    mbedtls_pk_init(&key);
    int err = pki_parse_key(&key, key_pem, f);
    if (!err) {
        snprintf(subject, sizeof subject, "CN=%s CA,O=%s", fleet, fleet);
        struct cert_plan plan = {
            .subject = subject,
            .issuer = subject,
            .subject_key = &key,
            .issuer_key = &key,
            .not_before_s = now_s - CA_BACKDATE_S,
            .not_after_s = now_s + (int64_t)days * 86400,
        };
        err = write_cert(&plan, cert_pem, f);
    }
    mbedtls_pk_free(&key);
    return err;
}

/* ---- signing a request ---- */

/* The request must be signed by the key it carries: who sends it holds the private key. */
static int check_request(mbedtls_x509_csr *csr, struct failure *f)
{
    unsigned char hash[MBEDTLS_MD_MAX_SIZE];
    const mbedtls_md_info_t *md = mbedtls_md_info_from_type(csr->MBEDTLS_PRIVATE(sig_md));
    mbedtls_pk_type_t type = csr->MBEDTLS_PRIVATE(sig_pk);

    if (!pki_is_p256(&csr->pk))
        return fail(f, ERR_INVALID, "bad certificate request: key is not ECDSA P-256");
    if (type != MBEDTLS_PK_ECDSA || !md || mbedtls_md_get_size(md) < 32)
        return fail(f, ERR_INVALID, "bad certificate request: weak signature");
    int ret = mbedtls_md(md, csr->cri.p, csr->cri.len, hash);
    if (!ret)
        ret = mbedtls_pk_verify(&csr->pk, mbedtls_md_get_type(md), hash, mbedtls_md_get_size(md),
                                csr->MBEDTLS_PRIVATE(sig).p, csr->MBEDTLS_PRIVATE(sig).len);
    if (ret)
        return pki_fail(f, ERR_INVALID, ret, "bad certificate request: its signature does not fit");
    return 0;
}

static int parse_request(mbedtls_x509_csr *csr, struct span der, struct failure *f)
{
    if (der.size_bytes == 0 || der.size_bytes > REQUEST_LIMIT)
        return fail(f, ERR_INVALID, "bad certificate request: %zu bytes", der.size_bytes);
    int ret = mbedtls_x509_csr_parse_der(csr, der.data, der.size_bytes);
    if (ret)
        return pki_fail(f, ERR_INVALID, ret, "bad certificate request");
    return check_request(csr, f);
}

/* A CA that signs must be one, and the key must be its own. */
static int parse_ca(mbedtls_x509_crt *ca, mbedtls_pk_context *key, struct span cert_pem,
                    struct span key_pem, struct failure *f)
{
    int err = pki_parse_certs(ca, cert_pem, f);
    if (!err)
        err = pki_parse_key(key, key_pem, f);
    if (err)
        return err;
    if (!mbedtls_x509_crt_get_ca_istrue(ca))
        return fail(f, ERR_INVALID, "cannot sign: the certificate is not a CA's");
    int ret = mbedtls_pk_check_pair(&ca->pk, key, pki_random, NULL);
    if (ret)
        return pki_fail(f, ERR_INVALID, ret, "cannot sign: the key does not fit the CA");
    return 0;
}

/* The SAN list of a certificate under construction. mbedTLS writes a list from its end, so each
 * item is chained before the one added last, and the certificate has them in the order in which
 * they came. */
struct san {
    mbedtls_x509_san_list items[NAMES_MAX + 1];
    unsigned char addresses[NAMES_MAX][16];
    char uri[PKI_URI_SIZE];
    size_t count;
    const mbedtls_x509_san_list *list;
};

static void san_add(struct san *san, int type, const void *data, size_t size_bytes)
{
    mbedtls_x509_san_list *item = &san->items[san->count];
    memset(item, 0, sizeof *item);
    item->node.type = type;
    /* The writer only reads it. */
    item->node.san.unstructured_name.p = (unsigned char *)data;
    item->node.san.unstructured_name.len = size_bytes;
    item->next = san->count ? &san->items[san->count - 1] : NULL;
    san->list = item;
    san->count++;
}

static bool is_dns_name(const char *name)
{
    size_t length =
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
    return length > 0 && length <= DNS_NAME_MAX && name[length] == '\0' && name[0] != '.' &&
           name[0] != '-';
}

static int san_fill(struct san *san, const struct pki_issue *issue, struct failure *f)
{
    const struct pki_identity *id = &issue->identity;
    san->count = 0;
    san->list = NULL;
    if (!text_is_name(id->fleet) || !text_is_name(id->role) || !text_is_name(id->name) ||
        pki_uri_text(id, san->uri, sizeof san->uri))
        return fail(f, ERR_INVALID, "cannot sign: bad fleet, role or name");
    san_add(san, MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER, san->uri, strlen(san->uri));
    for (size_t i = 0; issue->dns_names && issue->dns_names[i]; i++) {
        const char *name = issue->dns_names[i];
        if (i >= NAMES_MAX)
            return fail(f, ERR_LIMIT, "cannot sign: over %d names", NAMES_MAX);
        size_t bytes = mbedtls_x509_crt_parse_cn_inet_pton(name, san->addresses[i]);
        if (bytes)
            san_add(san, MBEDTLS_X509_SAN_IP_ADDRESS, san->addresses[i], bytes);
        else if (is_dns_name(name))
            san_add(san, MBEDTLS_X509_SAN_DNS_NAME, name, strlen(name));
        else
            return fail(f, ERR_INVALID,
                        "cannot sign: name %zu is neither a host name nor an address", i + 1);
    }
    return 0;
}

static int sign_with(mbedtls_x509_crt *ca, mbedtls_pk_context *ca_key, mbedtls_x509_csr *csr,
                     const struct pki_issue *issue, struct buf *cert_pem, struct failure *f)
{
    const struct pki_identity *id = &issue->identity;
    bool collector = strcmp(id->role, "collector") == 0;
    char subject[DN_SIZE], issuer[DN_SIZE];
    struct san san;

    int err = san_fill(&san, issue, f);
    if (err)
        return err;
    snprintf(subject, sizeof subject, "CN=%s,O=%s", id->name, id->fleet);
    if (mbedtls_x509_dn_gets(issuer, sizeof issuer, &ca->subject) < 0)
        return fail(f, ERR_INVALID, "cannot sign: the CA's own name is too long");
    struct cert_plan plan = {
        .subject = subject,
        .issuer = issuer,
        .subject_key = &csr->pk,
        .issuer_key = ca_key,
        .not_before_s = id->not_before_s,
        .not_after_s = id->not_after_s,
        .names = san.list,
        .usage = collector ? MBEDTLS_OID_SERVER_AUTH : MBEDTLS_OID_CLIENT_AUTH,
        .usage_bytes = collector ? MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH)
                                 : MBEDTLS_OID_SIZE(MBEDTLS_OID_CLIENT_AUTH),
    };
    return write_cert(&plan, cert_pem, f);
}

int pki_sign(struct span ca_cert_pem, struct span ca_key_pem, struct span request_der,
             const struct pki_issue *issue, struct buf *cert_pem, struct failure *f)
{
    mbedtls_x509_crt ca;
    mbedtls_pk_context ca_key;
    mbedtls_x509_csr csr;

    mbedtls_x509_crt_init(&ca);
    mbedtls_pk_init(&ca_key);
    mbedtls_x509_csr_init(&csr);
    int err = parse_ca(&ca, &ca_key, ca_cert_pem, ca_key_pem, f);
    if (!err)
        err = parse_request(&csr, request_der, f);
    if (!err)
        err = sign_with(&ca, &ca_key, &csr, issue, cert_pem, f);
    mbedtls_x509_csr_free(&csr);
    mbedtls_pk_free(&ca_key);
    mbedtls_x509_crt_free(&ca);
    return err;
}
