/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as gRPC writes them in header fields, and the leaky bucket. Invariant: whatever the peer
 * sends gives a value or `false`, never a read past the span. Called by grpc.c, grpc_call.c and
 * grpc_head.c. Specification: PROTOCOL-HTTP2.md of gRPC. Pure.
 */
#include "proto/grpc_internal.h"

#include <string.h>

#include "common/text.h"

#define TIMEOUT_DIGITS 8
#define TIMEOUT_MAX_VALUE 99999999u

/* Units of grpc-timeout from small to large, in nanoseconds. */
static const struct {
    char letter;
    uint64_t ns;
} UNITS[] = {
    {'n', 1},
    {'u', 1000},
    {'m', 1000000},
    {'S', UINT64_C(1000000000)},
    {'M', UINT64_C(60000000000)},
    {'H', UINT64_C(3600000000000)},
};
#define UNIT_COUNT (sizeof UNITS / sizeof UNITS[0])

/* value * ns / 1000, rounded up; 99,999,999 hours in microseconds fit. */
static uint64_t to_us(uint64_t value, uint64_t ns)
{
    return ns < 1000 ? (value * ns + 999) / 1000 : value * (ns / 1000);
}

bool grpc_timeout_parse(struct span value, uint64_t *out_us)
{
    struct span rest = value;
    uint64_t number;
    if (value.size_bytes > TIMEOUT_DIGITS + 1 || text_take_u64(&rest, &number) < 0 ||
        rest.size_bytes != 1)
        return false;
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if ((uint8_t)UNITS[i].letter == rest.data[0]) {
            *out_us = to_us(number, UNITS[i].ns);
            return true;
        }
    }
    return false;
}

/* The finest unit that holds it in 8 digits, rounded up: the server may not end before we do. */
void grpc_timeout_format(uint64_t us, char out[GRPC_TIMEOUT_SIZE])
{
    size_t unit = 1;
    uint64_t value = us;
    while (value > TIMEOUT_MAX_VALUE && unit + 1 < UNIT_COUNT) {
        unit++;
        uint64_t unit_us = UNITS[unit].ns / 1000;
        value = us / unit_us + (us % unit_us != 0);
    }
    if (value > TIMEOUT_MAX_VALUE)
        value = TIMEOUT_MAX_VALUE;
    text_format(out, GRPC_TIMEOUT_SIZE, "%u%c", (unsigned)value, UNITS[unit].letter);
}

size_t grpc_message_encode(struct span text, char out[GRPC_ENCODED_BYTES])
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < text.size_bytes && i < GRPC_TEXT_BYTES; i++) {
        uint8_t c = text.data[i];
        /* Spaces at the ends would be cut by HTTP. */
        bool end_space = c == ' ' && (i == 0 || i + 1 == text.size_bytes);
        if (c >= 0x20 && c <= 0x7e && c != '%' && !end_space) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    return n;
}

/* What is not a proper escape stays as it is, and so does %00: the result is used as a C string. */
void grpc_message_decode(struct span value, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < value.size_bytes; i++) {
        uint8_t c = value.data[i];
        if (c == '%' && value.size_bytes - i > 2) {
            struct span digits = span_of(value.data + i + 1, 2);
            uint64_t decoded;
            if (text_take_hex(&digits, &decoded) == 0 && digits.size_bytes == 0 && decoded != 0) {
                c = (uint8_t)decoded;
                i += 2;
            }
        }
        if (c != 0 && buf_append_byte(out, c) < 0)
            return;
    }
}

/* "application/grpc" or "application/grpc+proto", perhaps with parameters. */
bool grpc_content_type_ok(struct span value)
{
    static const char base[] = "application/grpc";
    static const char proto[] = "+proto";
    size_t used = sizeof base - 1;
    if (value.size_bytes < used || memcmp(value.data, base, used) != 0)
        return false;
    if (value.size_bytes - used >= sizeof proto - 1 &&
        memcmp(value.data + used, proto, sizeof proto - 1) == 0)
        used += sizeof proto - 1;
    return value.size_bytes == used || value.data[used] == ';';
}

/* gRPC: "HTTP to gRPC Status Code Mapping", for replies without grpc-status (proxies). */
enum grpc_status grpc_status_from_http(int http_status)
{
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

/* gRPC over HTTP2, "HTTP2 Transport Mapping", Errors. */
enum grpc_status grpc_status_from_reset(uint32_t http2_error)
{
    switch (http2_error) {
    case NGHTTP2_REFUSED_STREAM:
        return GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return GRPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return GRPC_PERMISSION_DENIED;
    default:
        return GRPC_INTERNAL;
    }
}

nghttp2_nv grpc_field(const char *name, struct span value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value.data, strlen(name), value.size_bytes,
                        NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

uint32_t grpc_big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

bool grpc_rate_take(struct grpc_rate *rate, uint32_t per_s, uint64_t now_us)
{
    const uint64_t second_us = 1000000;
    uint64_t elapsed_us = now_us - rate->at_us;
    rate->level_us = rate->level_us > elapsed_us ? rate->level_us - elapsed_us : 0;
    rate->at_us = now_us;
    uint64_t cost_us = second_us / per_s;
    if (rate->level_us + cost_us > second_us)
        return false;
    rate->level_us += cost_us;
    return true;
}
