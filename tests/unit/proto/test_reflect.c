/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server reflection and health as a generic tool asks for them: the compiled-in descriptors, found
 * by file and by symbol. Stock tools are run against them in tests/e2e.
 */
#include "proto/reflect.h"

#include <string.h>

#include "proto/field.h"
#include "proto/health.h"
#include "proto/methods.h"
#include "tests/check.h"

enum { BY_FILE = 3, BY_SYMBOL = 4, BY_EXTENSION = 5, EXTENSION_NUMBERS = 6, LIST = 7 };
enum { ANSWER_FILES = 4, ANSWER_NUMBERS = 5, ANSWER_SERVICES = 6, ANSWER_ERROR = 7 };

static struct buf reply;

/* Asks one question; returns the member of the reply that came, whose number is *number. */
static struct span ask(uint32_t question, const char *value, uint32_t *number)
{
    struct buf request;
    struct field f;
    struct span member = {0};
    buf_init(&request, 4096);
    buf_done(&reply);
    buf_init(&reply, 65536);
    REQUIRE(field_put_bytes(&request, 1, span_str("a-host")) == 0);
    REQUIRE(field_put_bytes(&request, question, span_str(value)) == 0);
    REQUIRE(reflect_answer(buf_span(&request), &reply, NULL) == 0);
    struct span rest = buf_span(&reply);
    CHECK(span_equal(field_bytes(rest, 1), span_str("a-host")));
    CHECK(span_equal(field_bytes(rest, 2), buf_span(&request)));
    while (field_take(&rest, &f) == 0) {
        if (f.number >= ANSWER_FILES) {
            *number = f.number;
            member = f.bytes;
        }
    }
    buf_done(&request);
    return member;
}

/* The name of the file that holds a symbol, or "" when that is an error NOT_FOUND. */
static const char *file_of(uint32_t question, const char *value)
{
    static char name[128];
    uint32_t number = 0;
    struct span member = ask(question, value, &number);
    struct field f;
    name[0] = '\0';
    if (number == ANSWER_ERROR) {
        REQUIRE(field_take(&member, &f) == 0);
        CHECK_EQ_INT(f.value, 5);
        return name;
    }
    CHECK_EQ_INT(number, ANSWER_FILES);
    struct span file_name = field_bytes(field_bytes(member, 1), 1);
    REQUIRE(file_name.size_bytes < sizeof name);
    memcpy(name, file_name.data, file_name.size_bytes);
    name[file_name.size_bytes] = '\0';
    return name;
}

TEST(symbols_are_found_in_their_file)
{
    CHECK_EQ_STR(file_of(BY_SYMBOL, "trawl.v1.Operations"), "trawl.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "trawl.v1.Operations.Hosts"), "trawl.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "trawl.v1.Host"), "trawl.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.health.v1.Health"), "health.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.health.v1.HealthCheckRequest.service"), "health.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.health.v1.HealthCheckResponse.ServingStatus"),
                 "health.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING"),
                 "health.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.reflection.v1.ServerReflection"), "reflection.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.reflection.v1alpha.ServerReflection"),
                 "reflection_v1alpha.proto");
    CHECK_EQ_STR(file_of(BY_SYMBOL, "grpc.reflection.v1.ServerReflectionRequest.message_request"),
                 "reflection.proto");
}

TEST(what_is_no_symbol_is_not_found)
{
    static const char *const wrong[] = {"",
                                        "trawl",
                                        "trawl.v1",
                                        "trawl.v1.",
                                        "trawl.v1.Hos",
                                        "trawl.v1.Host.",
                                        "trawl.v1.Host.nothing",
                                        "trawl.v1.Operations.Hosts.x",
                                        ".trawl.v1.Host",
                                        "grpc.health.v1.HealthCheckResponse.SERVING",
                                        "grpc.reflection.v1.Nothing"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK_EQ_STR(file_of(BY_SYMBOL, wrong[i]), "");
}

TEST(files_are_found_by_name)
{
    CHECK_EQ_STR(file_of(BY_FILE, "trawl.proto"), "trawl.proto");
    CHECK_EQ_STR(file_of(BY_FILE, "reflection_v1alpha.proto"), "reflection_v1alpha.proto");
    CHECK_EQ_STR(file_of(BY_FILE, "trawl"), "");
    CHECK_EQ_STR(file_of(BY_FILE, "../trawl.proto"), "");
}

TEST(extensions_are_none)
{
    uint32_t number = 0;
    struct span member = ask(EXTENSION_NUMBERS, "trawl.v1.Host", &number);
    CHECK_EQ_INT(number, ANSWER_NUMBERS);
    CHECK(span_equal(field_bytes(member, 1), span_str("trawl.v1.Host")));
    ask(EXTENSION_NUMBERS, "trawl.v1.Operations", &number);
    CHECK_EQ_INT(number, ANSWER_ERROR);
    ask(BY_EXTENSION, "", &number);
    CHECK_EQ_INT(number, ANSWER_ERROR);
}

/* Every service of methods.def is listed, and nothing that it does not have. */
static int count_service(void *context, struct span name)
{
    size_t *count = context;
    bool known = false;
    char prefix[128];
    REQUIRE(name.size_bytes + 3 < sizeof prefix);
    prefix[0] = '/';
    memcpy(prefix + 1, name.data, name.size_bytes);
    prefix[name.size_bytes + 1] = '/';
    for (size_t i = 0; i < method_count(); i++) {
        const char *path = method_by_id((enum method_id)i)->path;
        known = known || strncmp(path, prefix, name.size_bytes + 2) == 0;
    }
    CHECK(known);
    CHECK(reflect_has_service(name));
    (*count)++;
    return 0;
}

TEST(services_are_those_of_the_method_table)
{
    size_t count = 0, listed = 0;
    uint32_t number = 0;
    CHECK_EQ_INT(reflect_each_service(count_service, &count), 0);
    CHECK_EQ_INT(count, 6);
    struct span list = ask(LIST, "*", &number);
    CHECK_EQ_INT(number, ANSWER_SERVICES);
    struct field f;
    while (field_take(&list, &f) == 0) {
        CHECK(reflect_has_service(field_bytes(f.bytes, 1)));
        listed++;
    }
    CHECK_EQ_INT(listed, count);
    CHECK(!reflect_has_service(span_str("trawl.v1.Host")));
    CHECK(!reflect_has_service(span_str("Operations")));
}

/* And the other way round: each path names a method that the descriptors have. */
TEST(every_method_is_described)
{
    for (size_t i = 0; i < method_count(); i++) {
        char symbol[128];
        const char *path = method_by_id((enum method_id)i)->path;
        REQUIRE(strlen(path) < sizeof symbol);
        memcpy(symbol, path + 1, strlen(path));
        *strchr(symbol, '/') = '.';
        CHECK(file_of(BY_SYMBOL, symbol)[0] != '\0');
    }
}

TEST(malformed_requests_are_refused)
{
    struct failure f;
    buf_done(&reply);
    buf_init(&reply, 65536);
    CHECK_EQ_INT(reflect_answer(span_of("\x3a\x05x", 3), &reply, &f), ERR_INVALID);
    CHECK_EQ_INT(reflect_answer(span_of("\x00\x01", 2), &reply, &f), ERR_INVALID);
    CHECK_EQ_INT(reflect_answer(span_of("\x0b", 1), &reply, &f), ERR_INVALID);
    CHECK_EQ_INT(reply.size_bytes, 0);
    CHECK_EQ_INT(reflect_answer(span_of(NULL, 0), &reply, &f), 0);
    struct span error = field_bytes(buf_span(&reply), ANSWER_ERROR);
    CHECK(span_equal(field_bytes(error, 2), span_str("nothing is asked")));

    struct buf small;
    buf_init(&small, 100);
    CHECK_EQ_INT(reflect_answer(span_of("\x22\x0dtrawl.v1.Host", 15), &small, &f), ERR_LIMIT);
    CHECK_EQ_INT(small.size_bytes, 0);
    buf_done(&small);
}

/* ---- health ---- */

static int health(const char *service, bool serving, bool watch)
{
    struct buf request, out;
    struct field f = {0};
    buf_init(&request, 1024);
    buf_init(&out, 64);
    if (service)
        REQUIRE(field_put_bytes(&request, 1, span_str(service)) == 0);
    int r = watch ? health_watch_answer(buf_span(&request), serving, &out, NULL)
                  : health_answer(buf_span(&request), serving, &out, NULL);
    struct span rest = buf_span(&out);
    if (r == 0)
        REQUIRE(field_take(&rest, &f) == 0 && f.number == 1);
    buf_done(&request);
    buf_done(&out);
    return r < 0 ? r : (int)f.value;
}

TEST(health_is_answered)
{
    CHECK_EQ_INT(health(NULL, true, false), 1);
    CHECK_EQ_INT(health("", true, false), 1);
    CHECK_EQ_INT(health("", false, false), 2);
    CHECK_EQ_INT(health("trawl.v1.Operations", true, false), 1);
    CHECK_EQ_INT(health("trawl.v1.Nothing", true, false), ERR_NOTFOUND);
    CHECK_EQ_INT(health("trawl.v1.Nothing", true, true), 3);
    CHECK_EQ_INT(health("trawl.v1.Fleet", false, true), 2);
    CHECK_EQ_INT(health_answer(span_of("\x0a\x7f", 2), true, &reply, NULL), ERR_INVALID);
    CHECK_EQ_INT(health_watch_answer(span_of("\x0a\x7f", 2), true, &reply, NULL), ERR_INVALID);
}

/* ---- fields ---- */

TEST(fields_are_taken_whole_or_not_at_all)
{
    static const char *const bad[] = {"\x08",
                                      "\x08\x80",
                                      "\x0a\x05"
                                      "abc",
                                      "\x0d"
                                      "abc",
                                      "\x09"
                                      "1234567",
                                      "\x0c",
                                      "\x07",
                                      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct span s = span_str(bad[i]), before = s;
        struct field f = {.number = 77};
        CHECK_EQ_INT(field_take(&s, &f), ERR_CORRUPT);
        CHECK(span_equal(s, before) && f.number == 77);
    }
    struct span all = span_of("\x08\x96\x01\x12\x01x\x1d"
                              "1234\x21"
                              "12345678",
                              20);
    struct field f;
    CHECK_EQ_INT(field_take(&all, &f), 0);
    CHECK(f.number == 1 && f.type == FIELD_VARINT && f.value == 150);
    CHECK_EQ_INT(field_take(&all, &f), 0);
    CHECK(f.number == 2 && f.type == FIELD_BYTES && span_equal(f.bytes, span_str("x")));
    CHECK_EQ_INT(field_take(&all, &f), 0);
    CHECK(f.number == 3 && f.type == FIELD_FIXED32 && f.bytes.size_bytes == 4);
    CHECK_EQ_INT(field_take(&all, &f), 0);
    CHECK(f.number == 4 && f.type == FIELD_FIXED64 && f.bytes.size_bytes == 8);
    CHECK_EQ_INT(field_take(&all, &f), ERR_NOTFOUND);
}
