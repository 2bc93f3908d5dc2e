/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running hash of artifacts that come in many calls: kept, forgotten, caught up with from the
 * store, of one call at a time, and what happens when a piece of it is damaged. Also the names of
 * artifacts in the store, by which what was never completed is found.
 */
#include "tests/unit/collector/store_kit.h"

#include "collector/partial.h"
#include "common/pki.h"

#define BLOB "INC-1/web-1/1"

static struct kit kit;
static struct clock_fake fake;
static struct collector collector;
static struct partials *partials;

struct owner {
    int ready, code, interrupted;
    bool refuses;
    struct partial *partial;
};

static void on_ready(void *context, int err)
{
    struct owner *o = context;
    o->ready++;
    o->code = err;
}

static bool on_interrupt(void *context, const struct failure *why)
{
    struct owner *o = context;
    o->interrupted++;
    o->code = why->code;
    return !o->refuses;
}

static void open_all(void)
{
    static uv_loop_t loop;
    struct failure f;
    REQUIRE(uv_loop_init(&loop) == 0);
    clock_fake_init(&fake, 1000, 1000);
    collector = (struct collector){.loop = &loop, .clock = &fake.clock, .store = kit.store};
    REQUIRE(partials_open(&partials, &collector, &f) == 0);
}

static void close_all(void)
{
    partials_stop(partials);
    uv_run(collector.loop, UV_RUN_DEFAULT);
    partials_close(partials);
    CHECK_EQ_INT(uv_loop_close(collector.loop), 0);
    kit_close(&kit);
}

/* Only the idle handle runs: it ends when nothing is lacking. */
static void turn(void)
{
    uv_run(collector.loop, UV_RUN_DEFAULT);
}

static void fill(uint8_t piece[STORE_PIECE_SIZE], uint32_t no)
{
    memset(piece, 'a' + (int)no, STORE_PIECE_SIZE);
    text_format((char *)piece, 32, "piece-number-%u", no);
}

static void put_pieces(const char *blob, uint32_t from, uint32_t to)
{
    static uint8_t piece[STORE_PIECE_SIZE];
    struct result r = {0, 0, "", 0};
    for (uint32_t no = from; no < to; no++) {
        fill(piece, no);
        REQUIRE(blob_write(kit.store, blob, no, span_of(piece, sizeof piece), kit_done, &r) == 0);
        kit_await(&kit, &r.calls, (int)(no - from) + 1);
        CHECK_EQ_INT(r.code, 0);
    }
}

static int take(struct owner *o, const char *blob, const char *host, uint32_t stored)
{
    struct partial_owner owner = {on_ready, on_interrupt, o};
    struct failure f;
    return partial_take(&o->partial, partials, blob, host, stored, &owner, &f);
}

static void check_hash(struct owner *o, uint32_t pieces)
{
    static uint8_t piece[STORE_PIECE_SIZE];
    uint8_t got[32], wanted[32];
    struct pki_sha256 *hash = pki_sha256_open();
    for (uint32_t no = 0; no < pieces; no++) {
        fill(piece, no);
        pki_sha256_add(hash, span_of(piece, sizeof piece));
    }
    pki_sha256_close(hash, wanted);
    partial_want(o->partial);
    turn();
    REQUIRE(o->ready == 1 && o->code == 0);
    partial_finish(o->partial, got);
    CHECK_EQ_MEM(got, wanted, 32);
}

TEST(an_artifact_of_many_calls_is_hashed_as_one)
{
    kit_init(&kit, NULL);
    kit_create(&kit);
    open_all();
    for (uint32_t call = 0; call < 3; call++) {
        struct owner o = {0};
        REQUIRE(take(&o, BLOB, "web-1", 20 * call) == 0);
        put_pieces(BLOB, 20 * call, 20 * call + 20);
        for (int i = 0; i < 20; i++)
            partial_stored(o.partial);
        if (call == 1)
            turn(); /* sometimes it catches up between the calls */
        partial_give(o.partial, true);
    }
    struct owner o = {0};
    REQUIRE(take(&o, BLOB, "web-1", 60) == 0);
    check_hash(&o, 60);
    partial_give(o.partial, false);
    close_all();
}

TEST(after_a_restart_it_is_read_back)
{
    struct owner o = {0};
    kit_init(&kit, NULL);
    kit_create(&kit);
    put_pieces(BLOB, 0, 40);
    open_all();
    REQUIRE(take(&o, BLOB, "web-1", 40) == 0);
    check_hash(&o, 40);
    partial_give(o.partial, false);
    close_all();
}

TEST(one_that_was_deleted_and_begun_anew_is_not_gone_on_with)
{
    struct owner first = {0}, second = {0};
    kit_init(&kit, NULL);
    kit_create(&kit);
    put_pieces(BLOB, 0, 5);
    open_all();
    REQUIRE(take(&first, BLOB, "web-1", 5) == 0);
    turn();
    partial_give(first.partial, true);
    REQUIRE(take(&second, BLOB, "web-1", 2) == 0); /* it has hashed 5 */
    check_hash(&second, 2);
    partial_give(second.partial, false);
    close_all();
}

TEST(one_call_has_it_and_is_asked_to_let_go)
{
    struct owner first = {0}, second = {0};
    kit_init(&kit, NULL);
    kit_create(&kit);
    open_all();
    REQUIRE(take(&first, BLOB, "web-1", 0) == 0);
    CHECK_EQ_INT(take(&second, BLOB, "web-1", 0), ERR_BUSY);
    CHECK_EQ_INT(first.interrupted, 1);
    CHECK_EQ_INT(take(&second, "INC-1/web-1/2", "web-1", 0), 0);
    partial_give(first.partial, true);
    partial_give(second.partial, true);
    CHECK_EQ_INT(take(&second, BLOB, "web-1", 0), 0);
    /* The order ends: who is sealing does not let go, others do and keep nothing. */
    struct failure why;
    fail(&why, ERR_CANCELLED, "the order is over");
    second.refuses = true;
    CHECK(!partials_forget(partials, BLOB, &why));
    second.refuses = false;
    CHECK(partials_forget(partials, BLOB, &why));
    CHECK_EQ_INT(second.code, ERR_CANCELLED);
    partial_give(second.partial, true);
    CHECK(partials_forget(partials, BLOB, &why));
    close_all();
}

TEST(who_waits_hears_when_the_order_ends)
{
    struct owner o = {0};
    struct failure why;
    kit_init(&kit, NULL);
    kit_create(&kit);
    put_pieces(BLOB, 0, 3);
    open_all();
    fail(&why, ERR_CANCELLED, "the order is over");
    REQUIRE(take(&o, BLOB, "web-1", 3) == 0);
    partial_want(o.partial);
    CHECK(partials_forget(partials, BLOB, &why));
    CHECK_EQ_INT(o.interrupted, 1);
    CHECK_EQ_INT(o.ready, 1);
    CHECK_EQ_INT(o.code, ERR_CANCELLED);
    turn();
    CHECK_EQ_INT(o.ready, 1);
    partial_give(o.partial, true);
    close_all();
}

TEST(a_damaged_piece_ends_it_and_deletes_the_artifact)
{
    struct owner o = {0};
    struct blob_state state;
    kit_init(&kit, NULL);
    kit_create(&kit);
    put_pieces(BLOB, 0, 4);
    kit_close(&kit);
    CHECK_EQ_INT(kit_flip(kit_file(&kit, "pieces/data.mdb"), "piece-number-2", 1), 1);
    kit_open(&kit);
    open_all();
    REQUIRE(take(&o, BLOB, "web-1", 4) == 0);
    partial_want(o.partial);
    turn();
    CHECK_EQ_INT(o.ready, 1);
    CHECK_EQ_INT(o.code, ERR_CORRUPT);
    partial_give(o.partial, true);
    kit_reopen(&kit);
    CHECK_EQ_INT(blob_state(kit.store, BLOB, &state), ERR_NOTFOUND);
    close_all();
}

TEST(few_are_kept_of_a_host_and_none_for_ever)
{
    struct owner o = {0};
    char blob[64];
    kit_init(&kit, NULL);
    kit_create(&kit);
    put_pieces(BLOB, 0, 1);
    open_all();
    REQUIRE(take(&o, BLOB, "web-1", 1) == 0);
    turn();
    partial_give(o.partial, true);
    for (int i = 2; i < 100; i++) {
        text_format(blob, sizeof blob, "INC-1/web-2/%d", i);
        fake.now_mono_us++;
        REQUIRE(take(&o, blob, "web-2", 0) == 0);
        partial_give(o.partial, true);
    }
    /* Those of another host took nothing from this one. */
    kit_close(&kit);
    CHECK_EQ_INT(kit_flip(kit_file(&kit, "pieces/data.mdb"), "piece-number-0", 1), 1);
    kit_open(&kit);
    collector.store = kit.store;
    struct owner again = {0};
    REQUIRE(take(&again, BLOB, "web-1", 1) == 0);
    partial_want(again.partial);
    CHECK_EQ_INT(again.ready, 1); /* without reading */
    CHECK_EQ_INT(again.code, 0);
    partial_give(again.partial, true);
    fake.now_mono_us += 601 * UINT64_C(1000000);
    partials_tick(partials);
    REQUIRE(take(&again, BLOB, "web-1", 1) == 0);
    partial_want(again.partial);
    turn();
    CHECK_EQ_INT(again.code, ERR_CORRUPT); /* it had to read */
    partial_give(again.partial, true);
    close_all();
}

/* ---- names of artifacts ---- */

static int add_name(void *context, const char *name)
{
    char *text = context;
    text_format(text + strlen(text), 256 - strlen(text), "%s ", name);
    return 0;
}

TEST(artifacts_are_listed_by_the_beginning_of_their_names)
{
    char all[256] = "", some[256] = "", none[256] = "";
    struct result r = {0, 0, "", 0};
    uint8_t sum[32] = {0};
    kit_init(&kit, NULL);
    kit_create(&kit);
    put_pieces("INC-1/web-1/1", 0, 3);
    put_pieces("INC-1/web-1/10", 0, 1);
    put_pieces("INC-1/web-2/1", 0, 2);
    put_pieces("INC-2/web-1/1", 0, 1);
    REQUIRE(blob_seal(kit.store, "INC-1/web-1/10", sum, STORE_PIECE_SIZE, kit_done, &r) == 0);
    kit_await(&kit, &r.calls, 1);
    CHECK_EQ_INT(blob_list(kit.store, "", add_name, all), 0);
    CHECK_EQ_STR(all, "INC-1/web-1/1 INC-1/web-1/10 INC-1/web-2/1 INC-2/web-1/1 ");
    CHECK_EQ_INT(blob_list(kit.store, "INC-1/web-1/", add_name, some), 0);
    CHECK_EQ_STR(some, "INC-1/web-1/1 INC-1/web-1/10 ");
    CHECK_EQ_INT(blob_list(kit.store, "INC-3/", add_name, none), 0);
    CHECK_EQ_STR(none, "");
    struct store_stat stat;
    store_stat(kit.store, &stat);
    CHECK_EQ_INT(stat.damaged, 0);
    kit_close(&kit);
}
