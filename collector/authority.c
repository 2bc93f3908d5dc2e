/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CA, certificates and the data directory. Invariant: a directory is either whole or not there:
 * it is made beside its place and renamed. Private keys are 0600, never logged, wiped after use.
 */
#include "collector/authority.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "collector/collector.h"
#include "common/port.h"
#include "common/text.h"

#define PEM_MAX 16384
#define PATH_SIZE 1024
#define CA_DAYS 3650
#define COLLECTOR_S (3650 * 86400ll)
#define ADMIN_S (365 * 86400ll)

struct authority {
    struct buf ca_pem, ca_key, cert_pem, key_pem;
    struct pki_identity self;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
};

static int path_of(char out[PATH_SIZE], const char *directory, const char *name, struct failure *f)
{
    if (text_format(out, PATH_SIZE, "%s/%s", directory, name))
        return fail(f, ERR_INVALID, "path '%.200s' is too long", directory);
    return 0;
}

static int write_in(const char *directory, const char *name, struct span data, bool secret,
                    struct failure *f)
{
    char path[PATH_SIZE];
    int e = path_of(path, directory, name, f);
    return e ? e : port_write_file(path, data, secret, f);
}

static int read_in(const char *directory, const char *name, bool secret, struct buf *out,
                   struct failure *f)
{
    char path[PATH_SIZE];
    int e = path_of(path, directory, name, f);
    if (!e && secret)
        e = port_check_private(path, f);
    return e ? e : port_read_file(path, out, f);
}

/* ---- signing ---- */

struct keypair {
    struct buf key, cert;
};

static void keypair_init(struct keypair *k)
{
    buf_init(&k->key, PEM_MAX);
    buf_init(&k->cert, PEM_MAX);
}

static void keypair_done(struct keypair *k)
{
    if (k->key.data)
        pki_wipe(k->key.data, k->key.capacity_bytes);
    buf_done(&k->key);
    buf_done(&k->cert);
}

/* A key with a certificate for role and name, signed by the CA. */
static int keypair_new(struct keypair *out, const struct keypair *ca, const struct pki_issue *issue,
                       struct failure *f)
{
    struct buf request;
    buf_init(&request, PEM_MAX);
    int e = pki_key_new(&out->key, f);
    if (!e)
        e = pki_request_new(issue->identity.name, buf_span(&out->key), &request, f);
    if (!e)
        e = pki_sign(buf_span(&ca->cert), buf_span(&ca->key), buf_span(&request), issue, &out->cert,
                     f);
    buf_done(&request);
    return e;
}

static struct pki_issue issue_for(const char *fleet, const char *role, const char *name,
                                  int64_t now_s, int64_t lifetime_s)
{
    struct pki_issue issue = {.dns_names = NULL};
    text_copy(issue.identity.fleet, sizeof(issue.identity.fleet), fleet);
    text_copy(issue.identity.role, sizeof(issue.identity.role), role);
    text_copy(issue.identity.name, sizeof(issue.identity.name), name);
    issue.identity.not_before_s = now_s - AUTHORITY_BACKDATE_S;
    issue.identity.not_after_s = now_s + lifetime_s;
    return issue;
}

/* ---- contexts of people ---- */

static int write_context(const char *directory, const char *collector_address,
                         const struct keypair *person, struct span ca_pem, struct failure *f)
{
    struct buf conf;
    buf_init(&conf, 1024);
    buf_printf(&conf, "# made by trawl-collector; see 'trawl context --help'\ncollector = %s\n",
               collector_address);
    int e = port_make_dirs(directory, f);
    if (!e)
        e = write_in(directory, "ca.crt", ca_pem, false, f);
    if (!e)
        e = write_in(directory, "cert.crt", buf_span(&person->cert), false, f);
    if (!e)
        e = write_in(directory, "key.pem", buf_span(&person->key), true, f);
    if (!e)
        e = write_in(directory, "context.conf", buf_span(&conf), false, f);
    buf_done(&conf);
    return e;
}

int authority_issue_context(struct authority *authority, const char *role, const char *name,
                            const char *collector_address, int64_t now_s, int64_t lifetime_s,
                            const char *out_directory, struct failure *f)
{
    struct keypair ca = {authority->ca_key, authority->ca_pem}, person;
    struct pki_issue issue = issue_for(authority->self.fleet, role, name, now_s, lifetime_s);
    if (!text_is_name(name))
        return fail(f, ERR_INVALID,
                    "'%s' is not a name: 1 to 63 letters, digits, '.', '_' and '-' would be", name);
    if (port_exists(out_directory))
        return fail(f, ERR_EXISTS, "'%s' exists already: name another directory with --out",
                    out_directory);
    keypair_init(&person);
    int e = keypair_new(&person, &ca, &issue, f);
    if (!e)
        e = write_context(out_directory, collector_address, &person, buf_span(&authority->ca_pem),
                          f);
    keypair_done(&person);
    return e;
}

/* ---- init ---- */

static int make_pki(const char *directory, const struct authority_init *init, struct failure *f)
{
    char pki[PATH_SIZE], admin[PATH_SIZE], address[320];
    struct keypair ca, own, person;
    struct pki_issue own_issue =
        issue_for(init->fleet, "collector", init->name, init->now_s, COLLECTOR_S);
    struct pki_issue admin_issue = issue_for(init->fleet, "admin", "admin", init->now_s, ADMIN_S);
    own_issue.dns_names = init->addresses;
    text_format(address, sizeof(address), "%s:%u", init->addresses[0], init->port);
    keypair_init(&ca);
    keypair_init(&own);
    keypair_init(&person);
    int e = path_of(pki, directory, "pki", f);
    if (!e)
        e = path_of(admin, directory, "admin", f);
    if (!e)
        e = port_make_dirs(pki, f);
    if (!e)
        e = pki_key_new(&ca.key, f);
    if (!e)
        e = pki_ca_new(init->fleet, buf_span(&ca.key), init->now_s, CA_DAYS, &ca.cert, f);
    if (!e)
        e = keypair_new(&own, &ca, &own_issue, f);
    if (!e)
        e = keypair_new(&person, &ca, &admin_issue, f);
    if (!e)
        e = write_in(pki, "ca.crt", buf_span(&ca.cert), false, f);
    if (!e)
        e = write_in(pki, "ca.key", buf_span(&ca.key), true, f);
    if (!e)
        e = write_in(pki, "collector.crt", buf_span(&own.cert), false, f);
    if (!e)
        e = write_in(pki, "collector.key", buf_span(&own.key), true, f);
    if (!e)
        e = write_context(admin, address, &person, buf_span(&ca.cert), f);
    keypair_done(&ca);
    keypair_done(&own);
    keypair_done(&person);
    return e;
}

/* Removes a half-made directory: only names that make_pki and store_create make. */
static void remove_tree(const char *path)
{
    uv_fs_t scan;
    uv_dirent_t entry;
    if (uv_fs_scandir(NULL, &scan, path, 0, NULL) >= 0) {
        while (uv_fs_scandir_next(&scan, &entry) != UV_EOF) {
            char child[PATH_SIZE];
            uv_fs_t r;
            if (text_format(child, sizeof(child), "%s/%s", path, entry.name))
                continue;
            if (entry.type == UV_DIRENT_DIR)
                remove_tree(child);
            else
                uv_fs_unlink(NULL, &r, child, NULL), uv_fs_req_cleanup(&r);
        }
    }
    uv_fs_req_cleanup(&scan);
    uv_fs_t r;
    uv_fs_rmdir(NULL, &r, path, NULL);
    uv_fs_req_cleanup(&r);
}

static int check_init(const struct authority_init *init, struct failure *f)
{
    char path[PATH_SIZE];
    int e = path_of(path, init->directory, "pki", f);
    if (e)
        return e;
    if (port_exists(path))
        return fail(f, ERR_EXISTS, "'%s' holds a fleet already: nothing was changed",
                    init->directory);
    if (port_exists(init->directory)) {
        uv_fs_t r;
        int removed = uv_fs_rmdir(NULL, &r, init->directory, NULL); /* an empty one is fine */
        uv_fs_req_cleanup(&r);
        if (removed < 0)
            return fail(f, ERR_EXISTS, "'%s' exists and is not empty: name a new directory",
                        init->directory);
    }
    if (!text_is_name(init->fleet) || !text_is_name(init->name))
        return fail(f, ERR_INVALID,
                    "'%s' is not a name: 1 to 63 letters, digits, '.', '_' and '-' would be",
                    text_is_name(init->fleet) ? init->name : init->fleet);
    return 0;
}

int authority_create(const struct authority_init *init, struct failure *f)
{
    char beside[PATH_SIZE], store[PATH_SIZE];
    int e = check_init(init, f);
    if (e)
        return e;
    if (text_format(beside, sizeof(beside), "%s.new", init->directory) ||
        text_format(store, sizeof(store), "%s.new/store", init->directory))
        return fail(f, ERR_INVALID, "path '%.200s' is too long", init->directory);
    remove_tree(beside);
    e = port_make_dirs(beside, f);
    if (!e)
        e = make_pki(beside, init, f);
    if (!e)
        e = store_create(store, init->fleet, f);
    if (!e) {
        uv_fs_t r;
        int moved = uv_fs_rename(NULL, &r, beside, init->directory, NULL);
        uv_fs_req_cleanup(&r);
        if (moved < 0)
            e = fail(f, ERR_IO, "cannot name the new directory '%s': %s", init->directory,
                     uv_strerror(moved));
    }
    if (e)
        remove_tree(beside);
    return e;
}

/* ---- opening ---- */

int authority_open(struct authority **out, const char *directory, struct failure *f)
{
    char pki[PATH_SIZE];
    int e = path_of(pki, directory, "pki", f);
    if (e)
        return e;
    if (!port_exists(pki))
        return fail(f, ERR_NOTFOUND, "no fleet in '%s': make one with 'trawl-collector init %s'",
                    directory, directory);
    struct authority *a = calloc(1, sizeof(*a));
    if (!a)
        return fail(f, ERR_NOMEM, "out of memory");
    buf_init(&a->ca_pem, PEM_MAX);
    buf_init(&a->ca_key, PEM_MAX);
    buf_init(&a->cert_pem, PEM_MAX);
    buf_init(&a->key_pem, PEM_MAX);
    e = read_in(pki, "ca.crt", false, &a->ca_pem, f);
    if (!e)
        e = read_in(pki, "ca.key", true, &a->ca_key, f);
    if (!e)
        e = read_in(pki, "collector.crt", false, &a->cert_pem, f);
    if (!e)
        e = read_in(pki, "collector.key", true, &a->key_pem, f);
    if (!e)
        e = pki_cert_identity(buf_span(&a->cert_pem), &a->self, f);
    if (!e)
        e = pki_cert_fingerprint(buf_span(&a->ca_pem), a->fingerprint, f);
    if (e) {
        authority_close(a);
        return e;
    }
    *out = a;
    return 0;
}

static void wipe(struct buf *b)
{
    if (b->data)
        pki_wipe(b->data, b->capacity_bytes);
    buf_done(b);
}

void authority_close(struct authority *a)
{
    if (!a)
        return;
    wipe(&a->ca_key);
    wipe(&a->key_pem);
    buf_done(&a->ca_pem);
    buf_done(&a->cert_pem);
    free(a);
}

const char *authority_fleet(const struct authority *a)
{
    return a->self.fleet;
}

const char *authority_name(const struct authority *a)
{
    return a->self.name;
}

struct span authority_ca_pem(const struct authority *a)
{
    return buf_span(&a->ca_pem);
}

void authority_ca_fingerprint(const struct authority *a, uint8_t out[PKI_FINGERPRINT_SIZE])
{
    memcpy(out, a->fingerprint, PKI_FINGERPRINT_SIZE);
}

int authority_tls(struct authority *a, enum tls_side side,
                  int (*is_revoked)(void *context, const char *serial_hex), void *context,
                  struct tls_config **out, struct failure *f)
{
    struct tls_settings settings = {.side = side,
                                    .ca_pem = buf_span(&a->ca_pem),
                                    .cert_pem = buf_span(&a->cert_pem),
                                    .key_pem = buf_span(&a->key_pem),
                                    .alpn = "h2",
                                    .is_revoked = is_revoked,
                                    .context = context};
    return tls_config_open(out, &settings, f);
}

int authority_sign(struct authority *a, const char *role, const char *name, struct span request_der,
                   int64_t now_s, int64_t lifetime_s, struct buf *pem, struct failure *f)
{
    struct pki_issue issue = issue_for(a->self.fleet, role, name, now_s, lifetime_s);
    return pki_sign(buf_span(&a->ca_pem), buf_span(&a->ca_key), request_der, &issue, pem, f);
}
