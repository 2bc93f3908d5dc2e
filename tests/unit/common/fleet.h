/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small fleet for tests: a CA, and members with certificates of any age, role and name.
 * Everything is made anew in each test (a few milliseconds), so nothing expires in the repository.
 * Used by test_pki.c, test_tls.c and test_conn*.c.
 */
#ifndef TESTS_UNIT_COMMON_FLEET_H
#define TESTS_UNIT_COMMON_FLEET_H

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/pki.h"
#include "common/text.h"
#include "common/tls.h"
#include "tests/check.h"

#define FLEET_PEM_LIMIT 65536
#define FLEET_DAY_S 86400

struct fleet {
    const char *name;
    struct buf cert, key;
};

struct member {
    struct buf cert, key;
};

static inline int64_t fleet_now(void)
{
    return (int64_t)time(NULL);
}

static inline void member_init(struct member *m)
{
    buf_init(&m->cert, FLEET_PEM_LIMIT);
    buf_init(&m->key, FLEET_PEM_LIMIT);
}

static inline void member_done(struct member *m)
{
    buf_done(&m->cert);
    buf_done(&m->key);
}

/* A CA made `age_days` ago that is good for `days` from then. */
static inline void fleet_init_aged(struct fleet *fleet, const char *name, int age_days, int days)
{
    struct failure f = {0};
    REQUIRE(pki_start(&f) == 0);
    fleet->name = name;
    buf_init(&fleet->cert, FLEET_PEM_LIMIT);
    buf_init(&fleet->key, FLEET_PEM_LIMIT);
    REQUIRE(pki_key_new(&fleet->key, &f) == 0);
    REQUIRE(pki_ca_new(name, buf_span(&fleet->key), fleet_now() - (int64_t)age_days * FLEET_DAY_S,
                       days, &fleet->cert, &f) == 0);
}

static inline void fleet_init(struct fleet *fleet, const char *name)
{
    fleet_init_aged(fleet, name, 0, 10);
}

static inline void fleet_done(struct fleet *fleet)
{
    buf_done(&fleet->cert);
    buf_done(&fleet->key);
}

/* Signs `issue` with a new key; `m` is initialised here. */
static inline void fleet_sign(const struct fleet *fleet, struct member *m,
                              const struct pki_issue *issue)
{
    struct failure f = {0};
    struct buf request;
    member_init(m);
    buf_init(&request, 4096);
    REQUIRE(pki_key_new(&m->key, &f) == 0);
    REQUIRE(pki_request_new(issue->identity.name, buf_span(&m->key), &request, &f) == 0);
    REQUIRE(pki_sign(buf_span(&fleet->cert), buf_span(&fleet->key), buf_span(&request), issue,
                     &m->cert, &f) == 0);
    buf_done(&request);
}

/* Valid from `from_s` to `to_s` seconds from now. */
static inline void fleet_issue(const struct fleet *fleet, struct member *m, const char *role,
                               const char *name, int64_t from_s, int64_t to_s)
{
    static const char *const names[] = {
        "localhost", "collector.example", "127.0.0.1", "10.0.0.7", "::1", NULL};
    struct pki_issue issue = {
        .identity = {.not_before_s = fleet_now() + from_s, .not_after_s = fleet_now() + to_s}};
    REQUIRE(text_copy(issue.identity.fleet, PKI_NAME_SIZE, fleet->name) == 0);
    REQUIRE(text_copy(issue.identity.role, PKI_NAME_SIZE, role) == 0);
    REQUIRE(text_copy(issue.identity.name, PKI_NAME_SIZE, name) == 0);
    if (strcmp(role, "collector") == 0)
        issue.dns_names = names;
    fleet_sign(fleet, m, &issue);
}

static inline void fleet_member(const struct fleet *fleet, struct member *m, const char *role,
                                const char *name)
{
    fleet_issue(fleet, m, role, name, -300, FLEET_DAY_S);
}

static inline struct tls_settings fleet_settings(enum tls_side side, const struct fleet *fleet,
                                                 const struct member *m)
{
    struct tls_settings s = {.side = side, .alpn = "h2"};
    if (side == TLS_JOIN_CLIENT) {
        REQUIRE(pki_cert_fingerprint(buf_span(&fleet->cert), s.ca_fingerprint, NULL) == 0);
        return s;
    }
    s.ca_pem = buf_span(&fleet->cert);
    s.cert_pem = buf_span(&m->cert);
    s.key_pem = buf_span(&m->key);
    return s;
}

static inline struct tls_config *fleet_config(enum tls_side side, const struct fleet *fleet,
                                              const struct member *m)
{
    struct failure f = {0};
    struct tls_config *config = NULL;
    struct tls_settings s = fleet_settings(side, fleet, m);
    int err = tls_config_open(&config, &s, &f);
    CHECK_EQ_STR(f.text, "");
    REQUIRE(err == 0);
    return config;
}

#endif
