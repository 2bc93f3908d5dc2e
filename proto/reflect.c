/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server reflection over the FileDescriptorSet that the build compiled in (descriptor_set.h).
 * Invariant: the set is our own and well formed, the request is not trusted. Called by the
 * collector for both versions of the service, by health.c for the names of services. Pure.
 */
#include "proto/reflect.h"

#include <string.h>

#include "descriptor_set.h"
#include "proto/field.h"
#include "proto/grpc.h"

/* Field numbers of google/protobuf/descriptor.proto. */
enum {
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    MESSAGE_ONEOF = 8,
    ENUM_VALUE = 2,
    SERVICE_METHOD = 2,
    ANY_NAME = 1 /* of messages, enums, services, methods, fields and values */
};

/* Field numbers of proto/reflection.proto. */
enum {
    REQUEST_HOST = 1,
    REQUEST_FILE = 3,
    REQUEST_SYMBOL = 4,
    REQUEST_EXTENSION = 5,
    REQUEST_EXTENSION_NUMBERS = 6,
    REQUEST_SERVICES = 7,
    REPLY_HOST = 1,
    REPLY_REQUEST = 2,
    REPLY_FILES = 4,
    REPLY_EXTENSION_NUMBERS = 5,
    REPLY_SERVICES = 6,
    REPLY_ERROR = 7
};

#define REPLY_LIMIT_BYTES (64 * 1024)

static struct span all_files(void)
{
    return span_of(trawl_descriptor_set, sizeof trawl_descriptor_set);
}

/* The next sub-message `number` of a message; false at its end. */
static bool next_child(struct span *message, uint32_t number, struct span *child)
{
    struct field f;
    while (field_take(message, &f) == 0) {
        if (f.number == number && f.type == FIELD_BYTES) {
            *child = f.bytes;
            return true;
        }
    }
    return false;
}

/* ---- symbols ---- */

/* Takes `name` and a following dot from the front of a symbol; *rest is empty when that was all. */
static bool take_name(struct span symbol, struct span name, struct span *rest)
{
    if (symbol.size_bytes < name.size_bytes || name.size_bytes == 0 ||
        memcmp(symbol.data, name.data, name.size_bytes) != 0)
        return false;
    *rest = span_of(symbol.data + name.size_bytes, symbol.size_bytes - name.size_bytes);
    if (rest->size_bytes == 0)
        return true;
    if (rest->data[0] != '.')
        return false;
    *rest = span_of(rest->data + 1, rest->size_bytes - 1);
    return rest->size_bytes > 0;
}

/* Whether a child `number` of `parent` has exactly this name. */
static bool has_named(struct span parent, uint32_t number, struct span name)
{
    struct span child;
    while (next_child(&parent, number, &child))
        if (span_equal(field_bytes(child, ANY_NAME), name))
            return true;
    return false;
}

/* Whether `symbol` is the child `number` of `parent`, or a leaf (field `leaf`) of such a child. */
static bool has_with_leaf(struct span parent, uint32_t number, uint32_t leaf, struct span symbol)
{
    struct span child, rest;
    while (next_child(&parent, number, &child))
        if (take_name(symbol, field_bytes(child, ANY_NAME), &rest) &&
            (rest.size_bytes == 0 || has_named(child, leaf, rest)))
            return true;
    return false;
}

/* Messages nest as deep as our own .proto files do. */
static bool has_message(struct span parent, uint32_t number, struct span symbol)
{
    struct span child, rest;
    while (next_child(&parent, number, &child)) {
        if (!take_name(symbol, field_bytes(child, ANY_NAME), &rest))
            continue;
        if (rest.size_bytes == 0 || has_named(child, MESSAGE_FIELD, rest) ||
            has_named(child, MESSAGE_ONEOF, rest) ||
            has_with_leaf(child, MESSAGE_ENUM, ENUM_VALUE, rest) ||
            has_message(child, MESSAGE_NESTED, rest))
            return true;
    }
    return false;
}

static bool file_has_symbol(struct span file, struct span symbol)
{
    struct span rest;
    return take_name(symbol, field_bytes(file, FILE_PACKAGE), &rest) && rest.size_bytes > 0 &&
           (has_with_leaf(file, FILE_SERVICE, SERVICE_METHOD, rest) ||
            has_message(file, FILE_MESSAGE, rest) ||
            has_with_leaf(file, FILE_ENUM, ENUM_VALUE, rest));
}

static bool file_has_name(struct span file, struct span name)
{
    return span_equal(field_bytes(file, FILE_NAME), name);
}

static bool file_has_type(struct span file, struct span symbol)
{
    struct span rest;
    return take_name(symbol, field_bytes(file, FILE_PACKAGE), &rest) && rest.size_bytes > 0 &&
           has_message(file, FILE_MESSAGE, rest);
}

/* The file for which `has` holds, or an empty span. */
static struct span find_file(bool (*has)(struct span file, struct span name), struct span name)
{
    struct span files = all_files(), file;
    while (next_child(&files, SET_FILE, &file))
        if (has(file, name))
            return file;
    return span_of(NULL, 0);
}

/* ---- services ---- */

static int each_service_of(struct span file, int (*each)(void *context, struct span name),
                           void *context)
{
    struct span rest = file, service;
    int r = 0;
    while (r == 0 && next_child(&rest, FILE_SERVICE, &service)) {
        struct buf name;
        buf_init(&name, 1024);
        r = buf_append_span(&name, field_bytes(file, FILE_PACKAGE));
        if (r == 0)
            r = buf_append_byte(&name, '.');
        if (r == 0)
            r = buf_append_span(&name, field_bytes(service, ANY_NAME));
        if (r == 0)
            r = each(context, buf_span(&name));
        buf_done(&name);
    }
    return r;
}

int reflect_each_service(int (*each)(void *context, struct span name), void *context)
{
    struct span files = all_files(), file;
    int r = 0;
    while (r == 0 && next_child(&files, SET_FILE, &file))
        r = each_service_of(file, each, context);
    return r;
}

bool reflect_has_service(struct span name)
{
    struct span files = all_files(), file, rest;
    while (next_child(&files, SET_FILE, &file))
        if (take_name(name, field_bytes(file, FILE_PACKAGE), &rest) &&
            has_named(file, FILE_SERVICE, rest))
            return true;
    return false;
}

/* ---- answers: each appends one field of the response ---- */

static int put_error(struct buf *out, enum grpc_status status, const char *text)
{
    struct buf error;
    buf_init(&error, 1024);
    int r = field_put_u64(&error, 1, status);
    if (r == 0)
        r = field_put_bytes(&error, 2, span_str(text));
    if (r == 0)
        r = field_put_bytes(out, REPLY_ERROR, buf_span(&error));
    buf_done(&error);
    return r;
}

static int put_file(struct buf *out, struct span file, const char *missing)
{
    struct buf files;
    if (file.size_bytes == 0)
        return put_error(out, GRPC_NOT_FOUND, missing);
    buf_init(&files, REPLY_LIMIT_BYTES);
    int r = field_put_bytes(&files, 1, file);
    if (r == 0)
        r = field_put_bytes(out, REPLY_FILES, buf_span(&files));
    buf_done(&files);
    return r;
}

static int put_service(void *context, struct span name)
{
    struct buf service;
    buf_init(&service, 1024);
    int r = field_put_bytes(&service, 1, name);
    if (r == 0)
        r = field_put_bytes(context, 1, buf_span(&service));
    buf_done(&service);
    return r;
}

static int put_services(struct buf *out)
{
    struct buf list;
    buf_init(&list, REPLY_LIMIT_BYTES);
    int r = reflect_each_service(put_service, &list);
    if (r == 0)
        r = field_put_bytes(out, REPLY_SERVICES, buf_span(&list));
    buf_done(&list);
    return r;
}

/* No extensions exist in our files: a known type has none of them. */
static int put_extension_numbers(struct buf *out, struct span type)
{
    struct buf none;
    if (find_file(file_has_type, type).size_bytes == 0)
        return put_error(out, GRPC_NOT_FOUND, "no such type");
    buf_init(&none, 1024);
    int r = field_put_bytes(&none, 1, type);
    if (r == 0)
        r = field_put_bytes(out, REPLY_EXTENSION_NUMBERS, buf_span(&none));
    buf_done(&none);
    return r;
}

static int put_answer(struct buf *out, const struct field *question)
{
    switch (question->number) {
    case REQUEST_FILE:
        return put_file(out, find_file(file_has_name, question->bytes), "no such file");
    case REQUEST_SYMBOL:
        return put_file(out, find_file(file_has_symbol, question->bytes), "no such symbol");
    case REQUEST_EXTENSION:
        return put_error(out, GRPC_NOT_FOUND, "no such extension");
    case REQUEST_EXTENSION_NUMBERS:
        return put_extension_numbers(out, question->bytes);
    case REQUEST_SERVICES:
        return put_services(out);
    default:
        return put_error(out, GRPC_INVALID_ARGUMENT, "nothing is asked");
    }
}

/* The last member of the oneof counts; *question has number 0 when there is none. */
static int read_request(struct span request, struct field *question)
{
    struct field f;
    int r;
    *question = (struct field){0};
    while ((r = field_take(&request, &f)) == 0)
        if (f.number >= REQUEST_FILE && f.number <= REQUEST_SERVICES && f.type == FIELD_BYTES)
            *question = f;
    return r == ERR_NOTFOUND ? 0 : ERR_INVALID;
}

int reflect_answer(struct span request, struct buf *reply, struct failure *f)
{
    struct field question;
    struct buf out;
    if (read_request(request, &question) < 0)
        return fail(f, ERR_INVALID, "malformed reflection request");
    struct span host = field_bytes(request, REQUEST_HOST);
    buf_init(&out, REPLY_LIMIT_BYTES);
    int r = host.size_bytes > 0 ? field_put_bytes(&out, REPLY_HOST, host) : 0;
    if (r == 0)
        r = field_put_bytes(&out, REPLY_REQUEST, request);
    if (r == 0)
        r = put_answer(&out, &question);
    if (r == 0)
        r = buf_append_span(reply, buf_span(&out));
    buf_done(&out);
    return r < 0 ? fail(f, r, "cannot answer a reflection request: %s", err_text(r)) : 0;
}
