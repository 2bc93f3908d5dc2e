/* SPDX-License-Identifier: Apache-2.0 */
/* The table of methods: found by path, and who may call what. The whole matrix stands here in words
 * of its own, so that a slip in methods.def is seen. */
#include "proto/methods.h"

#include <string.h>

#include "tests/check.h"

static const char *const ROLES[] = {"agent", "collector", "sre", "developer", "admin", ""};
#define ROLE_COUNT (sizeof ROLES / sizeof ROLES[0])

/* One letter per role in the order of ROLES, '-' for denied. */
static const struct {
    const char *path;
    const char *allowed;
} MATRIX[] = {
    {"/trawl.v1.Fleet/Connect", "a-----"},
    {"/trawl.v1.Fleet/UploadStatus", "a-----"},
    {"/trawl.v1.Fleet/Upload", "a-----"},
    {"/trawl.v1.Fleet/Renew", "a-----"},
    {"/trawl.v1.Join/Join", "-----j"},
    {"/trawl.v1.Operations/Hosts", "--sdx-"},
    {"/trawl.v1.Operations/Caps", "--sdx-"},
    {"/trawl.v1.Operations/Top", "--sdx-"},
    {"/trawl.v1.Operations/CounterNames", "--sdx-"},
    {"/trawl.v1.Operations/Counters", "--sdx-"},
    {"/trawl.v1.Operations/Events", "--sdx-"},
    {"/trawl.v1.Operations/Capture", "--s-x-"},
    {"/trawl.v1.Operations/Incidents", "--sdx-"},
    {"/trawl.v1.Operations/Show", "--sdx-"},
    {"/trawl.v1.Operations/Watch", "--sdx-"},
    {"/trawl.v1.Operations/Cancel", "--s-x-"},
    {"/trawl.v1.Operations/Fetch", "--sdx-"},
    {"/trawl.v1.Operations/Label", "--s-x-"},
    {"/trawl.v1.Operations/Enroll", "----x-"},
    {"/trawl.v1.Operations/Revoke", "----x-"},
    {"/trawl.v1.Operations/Exceptions", "--sdx-"},
    {"/trawl.v1.Operations/Groups", "--sdx-"},
    {"/trawl.v1.Operations/ShowGroup", "--sdx-"},
    {"/trawl.v1.Operations/Want", "--s-x-"},
    {"/trawl.v1.Operations/Resolve", "--sdx-"},
    {"/trawl.v1.Operations/SymbolsAdd", "--sdx-"},
    {"/trawl.v1.Operations/Symbols", "--sdx-"},
    {"/trawl.v1.Operations/ShowBrake", "--sdx-"},
    {"/trawl.v1.Operations/SetBrake", "--s-x-"},
    {"/trawl.v1.Operations/RulesSet", "--s-x-"},
    {"/trawl.v1.Operations/RulesGet", "--sdx-"},
    {"/trawl.v1.Operations/RulesRemove", "--s-x-"},
    {"/grpc.health.v1.Health/Check", "a-sdx-"},
    {"/grpc.health.v1.Health/Watch", "a-sdx-"},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "--sdx-"},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "--sdx-"},
};
#define MATRIX_COUNT (sizeof MATRIX / sizeof MATRIX[0])

static int matrix_row(const char *path)
{
    for (size_t i = 0; i < MATRIX_COUNT; i++)
        if (strcmp(MATRIX[i].path, path) == 0)
            return (int)i;
    return -1;
}

static void check_method(const struct method *method)
{
    int row = matrix_row(method->path);
    REQUIRE(row >= 0);
    CHECK(method == method_find(method->path));
    CHECK(method == method_by_id(method->id));
    CHECK(method->request[0] != '\0' && method->reply[0] != '\0');
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        bool expected = MATRIX[row].allowed[i] != '-';
        CHECK_EQ_INT(method_allowed(method, method_role(ROLES[i])), expected);
    }
}

TEST(every_method_is_allowed_to_whom_it_should_be)
{
    CHECK_EQ_INT(method_count(), MATRIX_COUNT);
    for (size_t i = 0; i < method_count(); i++)
        check_method(method_by_id((enum method_id)i));
}

TEST(what_is_not_in_the_table_is_denied)
{
    static const char *const strangers[] = {"root", "Admin", "admin ", "agents", "x"};
    const struct method *hosts = method_find("/trawl.v1.Operations/Hosts");
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        CHECK_EQ_INT(method_role(strangers[i]), 0);
    CHECK(!method_allowed(hosts, 0));
    CHECK(!method_allowed(NULL, METHOD_ROLE_ADMIN));
    CHECK(!method_allowed(hosts, METHOD_ROLE_ADMIN | METHOD_ROLE_SRE));
    CHECK(!method_allowed(hosts, ~0u));
    CHECK(method_find("/trawl.v1.Operations/hosts") == NULL);
    CHECK(method_find("trawl.v1.Operations/Hosts") == NULL);
    CHECK(method_find("") == NULL);
}

TEST(streaming_is_as_the_table_says)
{
    CHECK_EQ_INT(method_by_id(METHOD_FLEET_CONNECT)->streaming, METHOD_BIDI);
    CHECK_EQ_INT(method_by_id(METHOD_FLEET_UPLOAD)->streaming, METHOD_CLIENT);
    CHECK_EQ_INT(method_by_id(METHOD_OPS_FETCH)->streaming, METHOD_SERVER);
    CHECK_EQ_INT(method_by_id(METHOD_OPS_CAPTURE)->streaming, METHOD_UNARY);
    CHECK_EQ_STR(method_by_id(METHOD_OPS_CAPTURE)->reply, "CaptureReply");
}
