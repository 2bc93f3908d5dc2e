/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identity half of state.h: what joining leaves in the state directory. Invariant: the key is
 * written before anything that needs it and is never readable by others; the certificate is the
 * last file, its presence means joined. Called by join, agent and renewal.
 */
#include "agent/state.h"

#include <stddef.h>
#include <uv.h>

#include "common/conf.h"
#include "common/port.h"
#include "common/text.h"

#define PEM_MAX 8192

struct home {
    char collector[STATE_HOST_SIZE];
    uint64_t port;
};

static const struct conf_row rows[] = {
    {"collector", CONF_STRING, offsetof(struct home, collector), STATE_HOST_SIZE, 0, 0, "", "HOST",
     "the collector that was joined", false},
    {"port", CONF_U64, offsetof(struct home, port), sizeof(uint64_t), 1, 65535, "7443", "PORT",
     "its port for agents", false},
};
#define ROWS (sizeof rows / sizeof rows[0])

void identity_init(struct identity *identity)
{
    *identity = (struct identity){0};
    buf_init(&identity->key_pem, PEM_MAX);
    buf_init(&identity->cert_pem, PEM_MAX);
    buf_init(&identity->ca_pem, PEM_MAX);
}

void identity_done(struct identity *identity)
{
    if (identity->key_pem.data)
        pki_wipe(identity->key_pem.data, identity->key_pem.capacity_bytes);
    buf_done(&identity->key_pem);
    buf_done(&identity->cert_pem);
    buf_done(&identity->ca_pem);
}

static int path_of(const char *directory, const char *name, char out[STATE_PATH_SIZE],
                   struct failure *f)
{
    if (text_format(out, STATE_PATH_SIZE, "%s/%s", directory, name))
        return fail(f, ERR_LIMIT, "path too long: '%s/%s'", directory, name);
    return 0;
}

bool identity_exists(const char *directory)
{
    char path[STATE_PATH_SIZE];
    return !path_of(directory, "cert.pem", path, NULL) && port_exists(path);
}

static int read_one(const char *directory, const char *name, struct buf *out, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    int e = path_of(directory, name, path, f);
    if (e)
        return e;
    buf_clear(out);
    e = port_read_file(path, out, f);
    if (e == ERR_NOTFOUND)
        return fail(
            f, ERR_CORRUPT,
            "identity in '%s' is incomplete: '%s' is missing; remove the directory and join "
            "again",
            directory, name);
    return e;
}

static int load_home(struct identity *identity, const char *directory, struct failure *f)
{
    struct home home;
    char path[STATE_PATH_SIZE];
    conf_defaults(rows, ROWS, &home);
    int e = path_of(directory, "collector.conf", path, f);
    if (!e)
        e = conf_file(rows, ROWS, &home, path, f);
    if (e)
        return e;
    identity->port = home.port;
    return text_copy(identity->collector, sizeof identity->collector, home.collector);
}

int identity_load(struct identity *identity, const char *directory, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    if (!identity_exists(directory))
        return fail(f, ERR_NOTFOUND, "this host has not joined a collector yet ('%s')", directory);
    int e = read_one(directory, "cert.pem", &identity->cert_pem, f);
    if (!e)
        e = read_one(directory, "ca.pem", &identity->ca_pem, f);
    if (!e)
        e = read_one(directory, "key.pem", &identity->key_pem, f);
    if (!e)
        e = path_of(directory, "key.pem", path, f);
    if (!e)
        e = port_check_private(path, f);
    if (!e)
        e = pki_cert_identity(buf_span(&identity->cert_pem), &identity->who, f);
    return e ? e : load_home(identity, directory, f);
}

static int write_one(const char *directory, const char *name, struct span data, bool is_private,
                     struct failure *f)
{
    char path[STATE_PATH_SIZE];
    int e = path_of(directory, name, path, f);
    return e ? e : port_write_file(path, data, is_private, f);
}

static void remove_all(const char *directory)
{
    static const char *const names[] = {"cert.pem", "key.pem", "ca.pem", "collector.conf"};
    char path[STATE_PATH_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!path_of(directory, names[i], path, NULL)) {
            uv_fs_t request;
            uv_fs_unlink(NULL, &request, path, NULL);
            uv_fs_req_cleanup(&request);
        }
}

int identity_save_cert(const struct identity *identity, const char *directory, struct failure *f)
{
    return write_one(directory, "cert.pem", buf_span(&identity->cert_pem), false, f);
}

int identity_save(const struct identity *identity, const char *directory, struct failure *f)
{
    struct buf home;
    buf_init(&home, 1024);
    int e = buf_printf(&home, "# Written by trawl-agent join.\ncollector = %s\nport = %llu\n",
                       identity->collector, (unsigned long long)identity->port);
    if (!e)
        e = write_one(directory, "key.pem", buf_span(&identity->key_pem), true, f);
    if (!e)
        e = write_one(directory, "ca.pem", buf_span(&identity->ca_pem), false, f);
    if (!e)
        e = write_one(directory, "collector.conf", buf_span(&home), false, f);
    if (!e)
        e = identity_save_cert(identity, directory, f);
    if (e)
        remove_all(directory);
    buf_done(&home);
    return e;
}
