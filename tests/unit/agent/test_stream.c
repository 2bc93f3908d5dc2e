/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An artifact that is sent while it is taken: the whole way from a worker's pipe to a collector
 * that is slow, is lost, forgets, or is not there. The collector is kit_shelf.h's, the broker
 * kit.h's.
 */
#include "kit_shelf.h"

/* ---- the whole way ---- */

TEST(a_core_arrives_whole_and_its_order_is_done)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE, 20000);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    check_arrived(s, 20000);
    CHECK_EQ_STR(s->meta.kind, "core");
    CHECK_EQ_STR(s->meta.file, "core-victim-1020000.core");
    CHECK_EQ_STR(s->meta.encoding, "zstd");
    CHECK_EQ_STR(s->meta.incident, "INC-1");
    CHECK_EQ_INT(s->meta.pid, PID_LARGE + 20000);
    CHECK_EQ_INT(s->kit->message.body.verdict.artifacts, 1);
    CHECK_EQ_INT(s->kit->message.body.verdict.processes, 1);
    CHECK_EQ_INT(s->longest_run, STREAM_RUN_PIECES);
    CHECK_EQ_INT(s->statuses, 1); /* then every answer says where to go on */
    close_shelf(s);
}

TEST(small_ones_of_every_size_arrive_too)
{
    const uint32_t sizes[] = {1, 31, 32, 63, 64, 65, 1023, 1024, 2048};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct shelf *s = open_shelf();
        core_order(s, 1, PID_LARGE, sizes[i]);
        REQUIRE(drive_to_verdict(s, 1, 50));
        CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
        check_arrived(s, sizes[i]);
        close_shelf(s);
    }
}

TEST(a_lost_connection_loses_and_repeats_nothing)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE, 20000);
    for (uint32_t cut = 37; cut < 600; cut += 91) {
        s->slow = 3; /* so that it is cut in the middle of a run, also inside a pair */
        drive_to_piece(s, cut);
        kit_disconnect(s->kit);
        for (int i = 0; i < 100 && s->under_way; i++)
            (void)uv_run(&s->kit->loop, UV_RUN_NOWAIT);
        REQUIRE(s->under_way == NULL);
        kit_connect(s->kit, 0, 0);
    }
    s->slow = 0;
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    check_arrived(s, 20000);
    CHECK(s->statuses > 1);
    close_shelf(s);
}

TEST(what_another_agent_left_under_the_number_is_let_be)
{
    struct shelf *s = open_shelf();
    s->no = 1;
    s->pieces = 8;
    s->size_bytes = 8 * CODEC_PIECE_SIZE;
    core_order(s, 1, PID_LARGE, 3000);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    CHECK_EQ_INT(s->no, 2);
    check_arrived(s, 3000);
    close_shelf(s);
}

TEST(a_collector_that_lost_what_it_had_ends_the_artifact)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE, 20000);
    drive_to_piece(s, 100);
    kit_disconnect(s->kit);
    for (int i = 0; i < 100 && s->under_way; i++)
        (void)uv_run(&s->kit->loop, UV_RUN_NOWAIT);
    s->pieces = 2;
    kit_connect(s->kit, 0, 0);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_FAILED);
    CHECK(strstr(kit_verdict(s->kit, 1)->reason, "the collector has lost") != NULL);
    close_shelf(s);
}

TEST(a_worker_that_fails_at_the_end_leaves_no_artifact)
{
    struct shelf *s = open_shelf();
    core_order(s, 1, PID_LARGE_BAD, 5000);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_FAILED);
    CHECK(strstr(kit_verdict(s->kit, 1)->reason, "the copy was killed") != NULL);
    CHECK(!s->is_sealed);
    CHECK(s->pieces > 0); /* which the final verdict lets the collector forget */
    /* Its number is not given out again: something may lie under it. */
    kit_order(s->kit, 2, "triage", "one", 0);
    kit_wait_artifact(s->kit);
    struct capture_artifact a;
    REQUIRE(capture_peek_artifact(s->kit->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 2);
    close_shelf(s);
}

TEST(cancelling_ends_a_stream_at_once)
{
    struct shelf *s = open_shelf();
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_cancel_tag};
    core_order(s, 1, PID_LARGE, 200000);
    s->slow = 1;
    drive_to_piece(s, 50);
    m.body.cancel.order = 1;
    kit_say(s->kit, &m);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_CANCELLED);
    for (int i = 0; i < 200; i++)
        drive(s);
    CHECK(s->under_way == NULL);
    /* The next order runs: nothing of the first stays. */
    kit_order(s->kit, 2, "triage", "one", 0);
    kit_wait_artifact(s->kit);
    CHECK_EQ_INT(kit_seal_all(s->kit), 1);
    REQUIRE(drive_to_verdict(s, 2, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 2)->state, trawl_v1_State_DONE);
    close_shelf(s);
}

TEST(cancelling_while_only_the_collector_is_waited_for)
{
    struct shelf *s = open_shelf();
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_cancel_tag};
    s->stop_after = 1;
    s->pieces_seen = 1; /* takes nothing at all */
    core_order(s, 1, PID_LARGE, 100);
    drive_to_stream(s);
    CHECK(capture_peek_stream(s->kit->capture) != 0);
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_RUNNING);
    m.body.cancel.order = 1;
    kit_say(s->kit, &m);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(capture_peek_stream(s->kit->capture), 0);
    close_shelf(s);
}

TEST(nobody_is_waited_for_for_ever)
{
    struct shelf *s = open_shelf();
    s->stop_after = s->pieces_seen = 1;
    core_order(s, 1, PID_LARGE, 100);
    drive_to_stream(s);
    clock_fake_advance(&s->kit->clock, BROKER_DEADLINE_MAX_US - 1000000);
    capture_tick(s->kit->capture);
    CHECK(capture_peek_stream(s->kit->capture) != 0);
    clock_fake_advance(&s->kit->clock, 2000000);
    capture_tick(s->kit->capture);
    REQUIRE(drive_to_verdict(s, 1, 50));
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_FAILED);
    CHECK(strstr(kit_verdict(s->kit, 1)->reason, "did not take it in time") != NULL);
    close_shelf(s);
}

TEST(a_restart_in_the_middle_ends_the_order)
{
    struct shelf *s = open_shelf();
    struct kit *k = s->kit;
    core_order(s, 1, PID_LARGE, 200000);
    s->slow = 1;
    drive_to_piece(s, 50);
    kit_disconnect(k);
    for (int i = 0; i < 100 && s->under_way; i++)
        (void)uv_run(&k->loop, UV_RUN_NOWAIT);
    kit_close_agent(k);
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "the agent was restarted during the capture");
    kit_order(k, 2, "triage", "one", 0);
    kit_wait_artifact(k);
    struct capture_artifact a;
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 2); /* 1 may have pieces on the collector */
    close_shelf(s);
}

TEST(a_restart_counts_what_was_sealed_without_disk)
{
    struct shelf *s = open_shelf();
    struct kit *k = s->kit;
    kit_order(k, 1, "core,triage", "", PID_LARGE + 100);
    const struct kit_message *v;
    uint64_t limit_us = port_mono_us() + KIT_LIMIT_US;
    while (!s->is_sealed && port_mono_us() < limit_us)
        drive(s);
    for (int i = 0; i < 50; i++)
        drive(s);
    kit_close_agent(k); /* triage waits on disk, the verdict is final there */
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    v = kit_verdict(k, 1);
    CHECK_EQ_INT(v->state, trawl_v1_State_DONE);
    CHECK_EQ_INT(k->message.body.verdict.artifacts, 2);
    close_shelf(s);
}

TEST(one_core_after_the_other_and_never_two_at_once)
{
    struct shelf *s = open_shelf();
    struct kit *k = s->kit;
    core_order(s, 1, PID_LARGE, 4000);
    core_order(s, 2, PID_LARGE, 64);
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_QUEUED);
    drive_to_piece(s, 60);
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_QUEUED);
    REQUIRE(drive_to_verdict(s, 1, 50));
    /* The shelf is for one artifact: cleared for the second. */
    s->pieces = 0;
    s->size_bytes = 0;
    s->is_sealed = false;
    s->hash = pki_sha256_open();
    REQUIRE(drive_to_verdict(s, 2, 50));
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_DONE);
    check_arrived(s, 64);
    close_shelf(s);
}

/* ---- memory ---- */

#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

#define MIB_DEFAULT 32

/* The size of a core says nothing about our memory. CORE_MIB sets another: 4096 is what is
 * promised.
 */
TEST_LIMIT(memory_is_bounded_by_the_window, 900)
{
    struct shelf *s = open_shelf();
    uint64_t mib = MIB_DEFAULT, cpu_us, before, now, resident, most = 0;
    const char *wanted = getenv("CORE_MIB");
    if (wanted)
        REQUIRE(text_u64_in(wanted, 1, 4096, &mib) == 0);
    os_self_usage(&cpu_us, &before, &resident);
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    trawl_v1_Order *o = &m.body.order;
    o->order = 1;
    snprintf(o->incident, sizeof o->incident, "INC-1");
    snprintf(o->what[o->what_count++], sizeof o->what[0], "core");
    o->has_process = true;
    o->process.pid = PID_HUGE + (uint32_t)mib;
    o->pause_max_us = 50000;
    o->expires_in_us = 3600000000;
    kit_say(s->kit, &m);
    uint64_t began_us = port_mono_us(), looked_us = 0;
    s->slow = 20; /* slower than the worker, so that its window is full */
    for (;;) {
        drive(s);
        const struct kit_message *v = kit_verdict(s->kit, 1);
        if (v && v->state >= trawl_v1_State_DONE)
            break;
        if (port_mono_us() - looked_us < 5000)
            continue;
        looked_us = port_mono_us();
        os_self_usage(&cpu_us, &now, &resident);
        most = now > most ? now : most;
    }
    CHECK_EQ_INT(kit_verdict(s->kit, 1)->state, trawl_v1_State_DONE);
    CHECK(s->is_sealed && s->meta.size_bytes == mib << 20);
    printf("      %llu MiB in %.1f s: private memory %llu KiB before, %llu KiB at most\n",
           (unsigned long long)mib, (double)(port_mono_us() - began_us) / 1e6,
           (unsigned long long)before >> 10, (unsigned long long)most >> 10);
    if (!IS_SANITIZED)
        CHECK(most - before < (uint64_t)4 << 20);
    close_shelf(s);
}
