/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations.SymbolsAdd and Operations.Symbols: handlers for serve.c. An upload itself is
 * symbols_add.c's.
 */
#include <stdlib.h>

#include "collector/keys.h"
#include "collector/serve.h"
#include "collector/store.h"
#include "collector/symbols_private.h"

/* ---- adding ---- */

static int add_message(struct call *call, struct span request, struct failure *f)
{
    static trawl_v1_SymbolPiece piece; /* 33 KB, and one thread */
    struct symbols_add *a = call->state;
    int e = codec_get_symbol_piece(&piece, request, f);
    if (e == 0 && !a) {
        e = symbols_add_begin(&a, call->collector->symbols, call, &piece, f);
        if (e == 0)
            call->state = a;
    }
    return e ? e : symbols_add_piece(a, &piece, f);
}

static int add_end(struct call *call, struct failure *f)
{
    if (!call->state)
        return fail(f, ERR_PROTOCOL, "the call ended before its first piece");
    return symbols_add_end(call->state, f);
}

static void add_ended(struct call *call)
{
    if (call->state)
        symbols_add_gone(call->state);
}

/* ---- listing ---- */

static int reply_row(struct call *call, struct span value)
{
    uint64_t generation;
    return span_take_u64(&value, &generation) ? 0 : call_reply(call, value);
}

static int on_row(void *context, struct span key, struct span value)
{
    struct call *call = context;
    (void)key;
    return reply_row(call, value) ? 1 : call->finishing;
}

static void on_one(void *context, int err, struct span value)
{
    if (!err)
        (void)reply_row(context, value);
}

static int list_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_SymbolsRequest r;
    struct store *store = call->collector->store;
    int e = codec_get_symbols_request(&r, request, f);
    if (e)
        return e;
    if (r.build_id.size) {
        struct key key = keys_symbol_file(span_of(r.build_id.bytes, r.build_id.size));
        kv_get(store, KEYS_SYMBOLS_FILES, key_span(&key), on_one, call);
        call_finish(call, NULL);
        return 0;
    }
    e = kv_scan_all(store, KEYS_SYMBOLS_FILES, span_str("b"), span_str("b"), on_row, call);
    if (e < 0)
        return fail(f, e, "the list of symbols cannot be read: %s", err_text(e));
    call_finish(call, NULL);
    return 0;
}

const struct handler symbol_handlers[] = {
    {METHOD_OPS_SYMBOLS_ADD, add_message, add_end, NULL, add_ended},
    {METHOD_OPS_SYMBOLS, list_message, NULL, NULL, NULL},
    {.message = NULL},
};
