/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: which collector, and who we are there, so that nobody types addresses and certificates
 * twice. A context is a directory with context.conf (`collector = host:port`), ca.crt, cert.crt and
 * key.pem (readable by its owner only). Invariant: a loaded context is complete and its key
 * private; `context add` leaves a whole directory behind or none. Called by main's command_run()
 * and cmd_context.c.
 */
#ifndef TRAWL_CLI_CONTEXT_H
#define TRAWL_CLI_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/pki.h"

#define CONTEXT_PATH_SIZE 1024
#define CONTEXT_HOST_SIZE 256
#define CONTEXT_ADDRESS_SIZE (CONTEXT_HOST_SIZE + 16)
#define CONTEXT_PORT 7443

/* What of the environment counts; a NULL member is one that is not set. */
struct context_env {
    const char *trawl_context;   /* TRAWL_CONTEXT */
    const char *xdg_config_home; /* XDG_CONFIG_HOME */
    const char *home;            /* the user's home directory */
};

struct context {
    char directory[CONTEXT_PATH_SIZE];
    char host[CONTEXT_HOST_SIZE];
    uint16_t port;
    struct buf ca_pem, cert_pem, key_pem;
    struct pki_identity identity;
};

/* Where contexts are kept: $XDG_CONFIG_HOME/trawl, else ~/.config/trawl. ERR_NOTFOUND: no home. */
int context_home(const struct context_env *env, char *out, size_t size_bytes, struct failure *f);
/*
 * The directory of the context in use: `option` (--context; a path when it has a '/', else a name),
 * else TRAWL_CONTEXT (the same way), else the name in the file `current`, else "default".
 */
int context_find(const struct context_env *env, const char *option, char *out, size_t size_bytes,
                 struct failure *f);
/* The name in `current`; "default" when there is no such file. */
int context_current(const char *home, char *out, size_t size_bytes, struct failure *f);

/* "host", "host:port", "[v6]:port"; 7443 without a port. ERR_INVALID names what was given. */
int context_address(const char *text, char *host, size_t size_bytes, uint16_t *port,
                    struct failure *f);

/* The reverse: "host", with its port unless that is 7443. */
void context_put_address(const struct context *context, char out[CONTEXT_ADDRESS_SIZE]);

/*
 * Reads and checks a directory. ERR_NOTFOUND (says how to get a context), ERR_UNSAFE_KEY,
 * ERR_INVALID (names file and line), ERR_EXPIRED (the certificate; `now_s` 0: not checked). On
 * failure *out is as after context_done().
 */
int context_load(struct context *out, const char *directory, int64_t now_s, struct failure *f);
/* Wipes the key. A zeroed struct is fine. */
void context_done(struct context *context);

/* Copies a context directory to HOME/NAME; makes it current when it is the first. ERR_EXISTS. */
int context_add(const char *home, const char *name, const char *from, struct failure *f);
/* Writes `current`. ERR_NOTFOUND names what exists. */
int context_use(const char *home, const char *name, struct failure *f);
/* Names of the directories in HOME that hold a context, sorted; non-zero return stops. */
typedef int (*context_each_fn)(void *owner, const char *name);
int context_each(const char *home, context_each_fn each, void *owner, struct failure *f);

#endif
