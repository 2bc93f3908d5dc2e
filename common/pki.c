/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ground that keys and certificates stand on: the one random generator of the process, names as
 * SPIFFE URIs, SHA-256, calendar arithmetic. Invariant: nothing random is made before pki_start().
 * Used by pki_read.c, pki_issue.c and tls*.c, and through pki.h by everyone.
 */
#include "common/pki.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/cipher.h>
#include <mbedtls/constant_time.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/md.h>
#include <mbedtls/pem.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/sha256.h>
#include <psa/crypto.h>

#include "common/pki_mbed.h"
#include "common/text.h"

/* Both lock themselves (MBEDTLS_THREADING_C); made once by pki_start() and never freed. */
static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context generator;
static bool started;

int pki_start(struct failure *f)
{
    static const unsigned char purpose[] = "trawl pki";
    if (started)
        return 0;
    if (psa_crypto_init() != PSA_SUCCESS)
        return fail(f, ERR_IO, "cannot start the cryptography library");
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&generator);
    int ret = mbedtls_ctr_drbg_seed(&generator, mbedtls_entropy_func, &entropy, purpose,
                                    sizeof purpose - 1);
    if (ret) {
        mbedtls_ctr_drbg_free(&generator);
        mbedtls_entropy_free(&entropy);
        return pki_fail(f, ERR_IO, ret, "no random bytes from the operating system");
    }
    started = true;
    return 0;
}

int pki_random(void *unused, unsigned char *out, size_t size_bytes)
{
    (void)unused;
    assert(started);
    while (size_bytes > 0) {
        size_t part =
            size_bytes < MBEDTLS_CTR_DRBG_MAX_REQUEST ? size_bytes : MBEDTLS_CTR_DRBG_MAX_REQUEST;
        int ret = mbedtls_ctr_drbg_random(&generator, out, part);
        if (ret)
            return ret;
        out += part;
        size_bytes -= part;
    }
    return 0;
}

static bool is_nomem(int mbed_code)
{
    /* A code is the sum of a module's own and, in the low seven bits, that of what it called. */
    static const int own[] = {MBEDTLS_ERR_X509_ALLOC_FAILED, MBEDTLS_ERR_PK_ALLOC_FAILED,
                              MBEDTLS_ERR_ECP_ALLOC_FAILED,  MBEDTLS_ERR_PEM_ALLOC_FAILED,
                              MBEDTLS_ERR_MD_ALLOC_FAILED,   MBEDTLS_ERR_CIPHER_ALLOC_FAILED};
    int high = -(-mbed_code & 0xff80), low = -(-mbed_code & 0x7f);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (high == own[i])
            return true;
    return low == MBEDTLS_ERR_ASN1_ALLOC_FAILED || low == MBEDTLS_ERR_MPI_ALLOC_FAILED;
}

int pki_fail(struct failure *f, int code, int mbed_code, const char *what)
{
    char words[160];
    if (is_nomem(mbed_code))
        return fail(f, ERR_NOMEM, "%s: out of memory", what);
    mbedtls_strerror(mbed_code, words, sizeof words);
    return fail(f, code, "%s: %s", what, words);
}

/* ---- names ---- */

/* Moves one name, up to `stop` or the end, from the front of `*s` into `out`. */
static int take_name(struct span *s, char stop, char out[PKI_NAME_SIZE])
{
    size_t length = 0;
    while (length < s->size_bytes && s->data[length] != (uint8_t)stop)
        length++;
    if (length >= PKI_NAME_SIZE || (stop && length == s->size_bytes))
        return ERR_INVALID;
    memcpy(out, s->data, length);
    out[length] = '\0';
    if (strlen(out) != length || !text_is_name(out))
        return ERR_INVALID;
    size_t taken = length + (stop ? 1 : 0);
    s->data += taken;
    s->size_bytes -= taken;
    return 0;
}

int pki_uri_parse(struct span uri, struct pki_identity *out, struct failure *f)
{
    static const char scheme[] = "spiffe://";
    size_t scheme_bytes = sizeof scheme - 1;
    struct pki_identity id = {0};

    if (uri.size_bytes <= scheme_bytes || memcmp(uri.data, scheme, scheme_bytes) != 0)
        return fail(f, ERR_INVALID, "not a name of the form 'spiffe://FLEET/ROLE/NAME'");
    struct span rest = {uri.data + scheme_bytes, uri.size_bytes - scheme_bytes};
    if (take_name(&rest, '/', id.fleet) || take_name(&rest, '/', id.role) ||
        take_name(&rest, '\0', id.name) || rest.size_bytes != 0)
        return fail(f, ERR_INVALID, "not a name of the form 'spiffe://FLEET/ROLE/NAME'");
    *out = id;
    return 0;
}

int pki_uri_text(const struct pki_identity *identity, char *out, size_t size_bytes)
{
    return text_format(out, size_bytes, "spiffe://%s/%s/%s", identity->fleet, identity->role,
                       identity->name);
}

/* ---- SHA-256, comparing, wiping ---- */

struct pki_sha256 {
    mbedtls_sha256_context context;
};

/* The built-in SHA-256 cannot fail; an accelerator could: then nothing may go on as if hashed. */
static void must(int ret)
{
    if (ret)
        abort();
}

void pki_sha256(struct span data, uint8_t out[32])
{
    must(mbedtls_sha256(data.data, data.size_bytes, out, 0));
}

struct pki_sha256 *pki_sha256_open(void)
{
    struct pki_sha256 *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    mbedtls_sha256_init(&h->context);
    must(mbedtls_sha256_starts(&h->context, 0));
    return h;
}

void pki_sha256_add(struct pki_sha256 *h, struct span data)
{
    must(mbedtls_sha256_update(&h->context, data.data, data.size_bytes));
}

void pki_sha256_close(struct pki_sha256 *h, uint8_t out[32])
{
    if (!h)
        return;
    if (out)
        must(mbedtls_sha256_finish(&h->context, out));
    mbedtls_sha256_free(&h->context);
    free(h);
}

int pki_equal(const void *a, const void *b, size_t size_bytes)
{
    return mbedtls_ct_memcmp(a, b, size_bytes) == 0;
}

void pki_wipe(void *data, size_t size_bytes)
{
    if (size_bytes)
        mbedtls_platform_zeroize(data, size_bytes);
}

/* ---- the calendar ---- */

/* Days from 1970-01-01; years begin in March, so that the leap day is the last of its year. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

int64_t pki_seconds_of(const struct pki_date *date)
{
    return days_of(date->year, date->month, date->day) * 86400 + date->hour * 3600 +
           date->minute * 60 + date->second;
}

struct pki_date pki_date_of(int64_t seconds)
{
    int64_t days = seconds / 86400, rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_from_march = (5 * day_of_year + 2) / 153;
    int month = (int)(month_from_march < 10 ? month_from_march + 3 : month_from_march - 9);
    return (struct pki_date){
        .year = (int)(year_of_era + era * 400 + (month <= 2)),
        .month = month,
        .day = (int)(day_of_year - (153 * month_from_march + 2) / 5 + 1),
        .hour = (int)(rest / 3600),
        .minute = (int)(rest / 60 % 60),
        .second = (int)(rest % 60),
    };
}
