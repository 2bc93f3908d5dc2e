/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of methods.def as data, and the one place where authority is decided. Invariant: a
 * method or a role that is not in the table is denied. The collector's listener asks method_find()
 * and method_allowed() for every call; programs that call use method_by_id(). Pure.
 */
#ifndef TRAWL_PROTO_METHODS_H
#define TRAWL_PROTO_METHODS_H

#include <stdbool.h>
#include <stddef.h>

enum method_id {
#define METHOD(id, path, request, reply, streaming, roles) METHOD_##id,
#include "proto/methods.def"
#undef METHOD
    METHOD_COUNT
};

enum method_streaming {
    METHOD_UNARY,
    METHOD_CLIENT, /* a stream of requests, one reply */
    METHOD_SERVER, /* one request, a stream of replies */
    METHOD_BIDI
};

/* Bits of a role mask. A peer has exactly one of them. */
enum method_role {
    METHOD_ROLE_AGENT = 1,
    METHOD_ROLE_COLLECTOR = 2,
    METHOD_ROLE_SRE = 4,
    METHOD_ROLE_DEVELOPER = 8,
    METHOD_ROLE_ADMIN = 16,
    METHOD_ROLE_JOINING = 32 /* no certificate yet */
};

struct method {
    enum method_id id;
    const char *path; /* "/trawl.v1.Fleet/Connect" */
    enum method_streaming streaming;
    unsigned roles;      /* bits of enum method_role */
    const char *request; /* message type names, without package */
    const char *reply;
};

/* The method of an HTTP/2 path, or NULL. */
const struct method *method_find(const char *path);
/* Never NULL; asserts that `id` is one of the table. */
const struct method *method_by_id(enum method_id id);
size_t method_count(void);

/* The bit of a certificate's role ("agent", "collector", "sre", "developer", "admin"; "" for a peer
 * that is joining). 0, which is allowed nothing, for any other name. */
unsigned method_role(const char *role_name);
/* Whether a peer with the role bit `role` may call. False for NULL, for 0 and for more than one
 * bit. */
bool method_allowed(const struct method *method, unsigned role);

#endif
