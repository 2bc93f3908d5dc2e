/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys by common/pki.h, certificates and the CA by the collector's authority, rows by its store, so
 * that what the collector finds is what joining would have left. Only joining itself, 10,000
 * handshakes, is left out.
 */
#include "fleet.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "collector/authority.h"
#include "collector/store.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define LIFETIME_S (3650ll * 86400)
#define PEM_MAX 8192
#define ROWS_AT_ONCE 500

static void path_to(char out[FARM_PATH], const char *directory, const char *name)
{
    if (text_format(out, FARM_PATH, "%s/%s", directory, name))
        farm_die("path too long: '%s/%s'", directory, name);
}

static void must(int e, const struct failure *f)
{
    if (e < 0)
        farm_die("%s", f->code ? f->text : err_text(e));
}

void fleet_host_name(unsigned number, char out[FLEET_NAME_SIZE])
{
    text_format(out, FLEET_NAME_SIZE, "h%05u", number);
}

static void host_path(const struct farm *farm, unsigned number, const char *ending,
                      char out[FARM_PATH])
{
    if (text_format(out, FARM_PATH, "%s/hosts/%05u.%s", farm->options.cache, number, ending))
        farm_die("path too long: '%s'", farm->options.cache);
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *walk)
{
    (void)about, (void)type, (void)walk;
    return remove(path);
}

void fleet_remove(const char *directory)
{
    (void)nftw(directory, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* ---- the cache ---- */

static void make_ca(const struct farm *farm)
{
    static const char *const addresses[] = {FARM_ADDRESS, "localhost", NULL};
    char path[FARM_PATH], fleet[FARM_PATH];
    struct failure f = {0};
    path_to(fleet, farm->options.cache, "fleet");
    path_to(path, fleet, "admin/context.conf");
    if (port_exists(path))
        return;
    fleet_remove(fleet);
    must(port_make_dirs(farm->options.cache, &f), &f);
    struct authority_init init = {fleet,     "farm", "collector",
                                  addresses, 7443,   port_wall_us() / 1000000};
    must(authority_create(&init, &f), &f);
    path_to(path, farm->options.cache, "hosts");
    fleet_remove(path); /* of another CA */
}

static void make_host(const struct farm *farm, struct authority *authority, unsigned number)
{
    char name[FLEET_NAME_SIZE], path[FARM_PATH];
    struct failure f = {0};
    struct buf key, request, cert;
    host_path(farm, number, "crt", path);
    if (port_exists(path))
        return;
    buf_init(&key, PEM_MAX);
    buf_init(&request, PEM_MAX);
    buf_init(&cert, PEM_MAX);
    fleet_host_name(number, name);
    must(pki_key_new(&key, &f), &f);
    must(pki_request_new(name, buf_span(&key), &request, &f), &f);
    must(authority_sign(authority, "agent", name, buf_span(&request), port_wall_us() / 1000000,
                        LIFETIME_S, &cert, &f),
         &f);
    host_path(farm, number, "key", path);
    must(port_write_file(path, buf_span(&key), true, &f), &f);
    host_path(farm, number, "crt", path); /* last: with it, both are there */
    must(port_write_file(path, buf_span(&cert), false, &f), &f);
    buf_done(&key);
    buf_done(&request);
    buf_done(&cert);
}

static void make_cache(const struct farm *farm)
{
    char path[FARM_PATH];
    struct failure f = {0};
    struct authority *authority;
    make_ca(farm);
    path_to(path, farm->options.cache, "hosts");
    must(port_make_dirs(path, &f), &f);
    path_to(path, farm->options.cache, "fleet");
    must(authority_open(&authority, path, &f), &f);
    for (unsigned i = 0; i < farm->options.hosts; i++) {
        make_host(farm, authority, i);
        if (i % 1000 == 999)
            printf("keys and certificates of %u hosts are there\n", i + 1);
    }
    authority_close(authority);
}

/* ---- the data directory of a run ---- */

static void copy(const char *from_directory, const char *to_directory, const char *name)
{
    char from[FARM_PATH], to[FARM_PATH];
    uv_fs_t request;
    path_to(from, from_directory, name);
    path_to(to, to_directory, name);
    int n = uv_fs_copyfile(NULL, &request, from, to, 0, NULL);
    uv_fs_req_cleanup(&request);
    if (n)
        farm_die("cannot copy '%s': %s", from, uv_strerror(n));
}

static void copy_pki(const struct farm *farm, const char *data)
{
    static const char *const names[] = {
        "pki/ca.crt",   "pki/ca.key",     "pki/collector.crt", "pki/collector.key",
        "admin/ca.crt", "admin/cert.crt", "admin/key.pem",     NULL};
    char path[FARM_PATH], cache[FARM_PATH], conf[64];
    struct failure f = {0};
    path_to(cache, farm->options.cache, "fleet");
    path_to(path, data, "pki");
    must(port_make_dirs(path, &f), &f);
    path_to(path, data, "admin");
    must(port_make_dirs(path, &f), &f);
    for (size_t i = 0; names[i]; i++)
        copy(cache, data, names[i]);
    text_format(conf, sizeof conf, "collector = " FARM_ADDRESS ":%u\n", (unsigned)farm->port);
    path_to(path, data, "admin/context.conf");
    must(port_write_file(path, span_str(conf), false, &f), &f);
}

static void on_wake(void *context)
{
    (void)context; /* store_close() calls what is outstanding */
}

static void on_row(void *context, const struct failure *why)
{
    (void)context;
    if (why->code)
        farm_die("cannot enrol the hosts: %s", why->text);
}

struct rows {
    struct buf bytes;
    struct store_op ops[ROWS_AT_ONCE];
    char names[ROWS_AT_ONCE][FLEET_NAME_SIZE];
    size_t offsets[ROWS_AT_ONCE + 1];
    size_t count;
};

static void put_row(const struct farm *farm, struct rows *rows, unsigned number)
{
    struct identity identity;
    trawl_v1_Host record = {.labels_count = 1};
    struct failure f = {0};
    fleet_identity(farm, number, &identity);
    fleet_host_name(number, record.name);
    text_copy(record.labels[0].key, sizeof record.labels[0].key, "rack");
    text_format(record.labels[0].value, sizeof record.labels[0].value, "r%u", number % 40);
    record.enrolled_us = (identity.who.not_before_s + AUTHORITY_BACKDATE_S) * 1000000;
    record.certificate_not_after_s = identity.who.not_after_s;
    text_copy(rows->names[rows->count], FLEET_NAME_SIZE, record.name);
    must(codec_put_host(&rows->bytes, &record), &f);
    rows->offsets[++rows->count] = rows->bytes.size_bytes;
    identity_done(&identity);
}

static void commit_rows(struct store *store, struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        rows->ops[i] = (struct store_op){
            STORE_PUT, span_str(rows->names[i]),
            span_of(rows->bytes.data + rows->offsets[i], rows->offsets[i + 1] - rows->offsets[i])};
    if (rows->count && kv_commit(store, "hosts", rows->ops, rows->count, on_row, NULL))
        farm_die("cannot enrol the hosts: the store does not take them");
    rows->count = 0;
    buf_clear(&rows->bytes);
}

static void enrol(const struct farm *farm, const char *data)
{
    static struct rows rows;
    char path[FARM_PATH];
    struct failure f = {0};
    struct store *store;
    path_to(path, data, "store");
    must(store_create(path, "farm", &f), &f);
    struct store_settings settings = {.directory = path,
                                      .fleet = "farm",
                                      .records_max_bytes = UINT64_C(8) << 30,
                                      .pieces_max_bytes = UINT64_C(32) << 30,
                                      .group_us = 1000,
                                      .group_ops = 1000,
                                      .queue_bytes = 64u << 20,
                                      .wake = on_wake};
    must(store_open(&store, &settings, &f), &f);
    buf_init(&rows.bytes, (size_t)ROWS_AT_ONCE * STORE_VALUE_MAX);
    for (unsigned i = 0; i < farm->options.hosts; i++) {
        put_row(farm, &rows, i);
        if (rows.count == ROWS_AT_ONCE)
            commit_rows(store, &rows);
    }
    commit_rows(store, &rows);
    buf_done(&rows.bytes);
    store_close(store);
}

void fleet_make(struct farm *farm)
{
    char data[FARM_PATH];
    struct failure f = {0};
    must(pki_start(&f), &f);
    make_cache(farm);
    path_to(data, farm->directory, "data");
    copy_pki(farm, data);
    enrol(farm, data);
}

/* ---- who is who ---- */

static void read_into(const char *path, struct buf *out)
{
    struct failure f = {0};
    must(port_read_file(path, out, &f), &f);
}

static void complete(const struct farm *farm, struct identity *id)
{
    struct failure f = {0};
    must(pki_cert_identity(buf_span(&id->cert_pem), &id->who, &f), &f);
    text_copy(id->collector, sizeof id->collector, FARM_ADDRESS);
    id->port = farm->port;
}

void fleet_identity(const struct farm *farm, unsigned number, struct identity *out)
{
    char path[FARM_PATH];
    identity_init(out);
    host_path(farm, number, "key", path);
    read_into(path, &out->key_pem);
    host_path(farm, number, "crt", path);
    read_into(path, &out->cert_pem);
    path_to(path, farm->options.cache, "fleet/pki/ca.crt");
    read_into(path, &out->ca_pem);
    complete(farm, out);
}

void fleet_admin(const struct farm *farm, struct identity *out)
{
    char path[FARM_PATH];
    identity_init(out);
    path_to(path, farm->directory, "data/admin/key.pem");
    read_into(path, &out->key_pem);
    path_to(path, farm->directory, "data/admin/cert.crt");
    read_into(path, &out->cert_pem);
    path_to(path, farm->directory, "data/admin/ca.crt");
    read_into(path, &out->ca_pem);
    complete(farm, out);
}
