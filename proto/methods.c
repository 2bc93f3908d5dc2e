/* SPDX-License-Identifier: Apache-2.0 */
/*
 * methods.def made data. Invariant: METHODS[id].id == id, and authority is decided by
 * method_allowed() alone, denied by default. Called by listeners (path to method), clients (id to
 * path) and tests.
 */
#include "proto/methods.h"

#include <assert.h>
#include <string.h>

/* The letters of methods.def. */
#define A METHOD_ROLE_AGENT
#define C METHOD_ROLE_COLLECTOR
#define S METHOD_ROLE_SRE
#define D METHOD_ROLE_DEVELOPER
#define X METHOD_ROLE_ADMIN
#define J METHOD_ROLE_JOINING

static const struct method METHODS[METHOD_COUNT] = {
#define METHOD(id, path, request, reply, streaming, roles) \
    {METHOD_##id, path, METHOD_##streaming, (unsigned)(roles), #request, #reply},
#include "proto/methods.def"
#undef METHOD
};

#undef A
#undef C
#undef S
#undef D
#undef X
#undef J

static const struct {
    const char *name;
    unsigned bit;
} ROLES[] = {
    {"agent", METHOD_ROLE_AGENT}, {"collector", METHOD_ROLE_COLLECTOR},
    {"sre", METHOD_ROLE_SRE},     {"developer", METHOD_ROLE_DEVELOPER},
    {"admin", METHOD_ROLE_ADMIN}, {"", METHOD_ROLE_JOINING},
};

const struct method *method_find(const char *path)
{
    for (size_t i = 0; i < METHOD_COUNT; i++)
        if (strcmp(METHODS[i].path, path) == 0)
            return &METHODS[i];
    return NULL;
}

const struct method *method_by_id(enum method_id id)
{
    assert((unsigned)id < METHOD_COUNT);
    return &METHODS[id];
}

size_t method_count(void)
{
    return METHOD_COUNT;
}

unsigned method_role(const char *role_name)
{
    for (size_t i = 0; i < sizeof ROLES / sizeof ROLES[0]; i++)
        if (strcmp(ROLES[i].name, role_name) == 0)
            return ROLES[i].bit;
    return 0;
}

bool method_allowed(const struct method *method, unsigned role)
{
    bool one_bit = role != 0 && (role & (role - 1)) == 0;
    return method && one_bit && (method->roles & role) == role;
}
