/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders: at most once, verdicts until acknowledged, expiry, cancelling, every final state,
 * restarts. The collector and the broker are kit.h's.
 */
#include "kit.h"

TEST(an_order_runs_and_is_done_when_its_artifacts_are_sealed)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks,triage,events", "one", 0);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_RUNNING));
    for (int i = 0; i < 100; i++)
        kit_settle(k);
    CHECK_EQ_INT(kit_verdict(k, 1)->state, trawl_v1_State_RUNNING);
    CHECK_EQ_INT(kit_seal_all(k), 3);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "");
    CHECK_EQ_INT(k->message.body.verdict.artifacts, 3);
    CHECK_EQ_INT(k->message.body.verdict.processes, 1);
    CHECK_EQ_INT(k->message.body.verdict.longest_pause_us, 500);
    kit_close(k);
}

static void first_artifact(struct kit *k, trawl_v1_Artifact *meta)
{
    struct capture_artifact a;
    struct failure f;
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    REQUIRE(evidence_load(a.directory, a.no, meta, &f) == 0);
}

TEST(an_artifact_says_what_it_is)
{
    struct kit *k = kit_open();
    trawl_v1_Artifact meta;
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks", "one", 0);
    for (int i = 0; i < 20; i++)
        kit_settle(k);
    first_artifact(k, &meta);
    CHECK_EQ_STR(meta.incident, "INC-1");
    CHECK_EQ_STR(meta.kind, "stacks");
    CHECK_EQ_STR(meta.process, "victim");
    CHECK_EQ_STR(meta.file, "stacks-victim-100.txt");
    CHECK_EQ_INT(meta.no, 1);
    CHECK_EQ_INT(meta.size_bytes, strlen("stacks of 100\n"));
    CHECK(meta.paused && meta.pause_us == 500);
    uint8_t hash[32];
    pki_sha256(span_str("stacks of 100\n"), hash);
    CHECK_EQ_MEM(meta.sha256.bytes, hash, 32);
    kit_close(k);
}

TEST(a_repeated_order_is_not_run_again)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 5, "triage", "one", 0);
    for (int i = 0; i < 20; i++)
        kit_settle(k);
    kit_seal_all(k);
    REQUIRE(kit_wait_verdict(k, 5, trawl_v1_State_DONE));
    uint32_t no = kit_verdict(k, 5)->no;
    kit_order(k, 5, "triage", "one", 0);
    kit_order(k, 4, "triage", "one", 0);
    CHECK_EQ_INT(kit_verdict(k, 5)->no, no);
    CHECK(kit_verdict(k, 4) == NULL);
    kit_ack(k, 0, 0, 5, no);
    kit_order(k, 5, "triage", "one", 0);
    CHECK_EQ_INT(kit_verdict(k, 5)->no, no);
    CHECK_EQ_INT(capture_last_order(k->capture), 5);
    kit_close_agent(k);
    kit_open_agent(k);
    CHECK_EQ_INT(capture_last_order(k->capture), 5);
    kit_close(k);
}

TEST(a_verdict_is_repeated_until_it_is_acknowledged)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "nonsense", "", 0);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    uint32_t no = kit_verdict(k, 1)->no;
    for (int i = 0; i < 2; i++) {
        kit_disconnect(k);
        kit_connect(k, 0, 0);
        REQUIRE(kit_verdict(k, 1) != NULL);
        CHECK_EQ_INT(kit_verdict(k, 1)->no, no);
    }
    kit_close_agent(k); /* also over a restart */
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    REQUIRE(kit_verdict(k, 1) != NULL);
    CHECK_EQ_INT(kit_verdict(k, 1)->state, trawl_v1_State_FAILED);
    kit_ack(k, 0, 0, 1, kit_verdict(k, 1)->no);
    kit_disconnect(k);
    kit_connect(k, 0, 0);
    CHECK(kit_verdict(k, 1) == NULL);
    kit_close(k);
}

TEST(an_unknown_kind_is_named)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "events,soul", "", 0);
    kit_settle(k);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_PARTIAL));
    CHECK(strstr(kit_verdict(k, 1)->reason, "kind 'soul' is not known to this agent") != NULL);
    kit_close(k);
}

TEST(no_such_process_is_gone)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks,events", "none", 0);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_GONE));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "no process matches name 'none'");
    kit_order(k, 2, "stacks", "", PID_GONE);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_GONE));
    kit_close(k);
}

TEST(refusals_keep_their_words)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks", "", PID_REFUSED);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason,
                 "stacks of victim (666): pause would be 84 ms, limit 50 ms");
    snprintf(k->policy.kinds, sizeof k->policy.kinds, "triage");
    kit_order(k, 2, "stacks", "one", 0);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_REFUSED));
    CHECK_EQ_STR(kit_verdict(k, 2)->reason, "this host's policy does not allow kind 'stacks'");
    snprintf(k->policy.never, sizeof k->policy.never, "vic*");
    kit_order(k, 3, "triage", "one", 0);
    REQUIRE(kit_wait_verdict(k, 3, trawl_v1_State_REFUSED));
    CHECK_EQ_STR(kit_verdict(k, 3)->reason, "this host's policy does not allow process 'victim'");
    kit_close(k);
}

TEST(an_order_without_a_pause_limit_is_refused)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    m.body.order.order = 1;
    m.body.order.what_count = 1;
    snprintf(m.body.order.what[0], sizeof m.body.order.what[0], "events");
    m.body.order.expires_in_us = 1000000;
    kit_say(k, &m);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    kit_close(k);
}

TEST(a_waiting_order_expires_and_never_runs)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "triage", "", PID_HANGS);
    kit_order(k, 2, "triage", "one", 0);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_QUEUED));
    clock_fake_advance(&k->clock, 3599000000);
    capture_tick(k->capture);
    kit_settle(k);
    CHECK_EQ_INT(kit_verdict(k, 2)->state, trawl_v1_State_QUEUED);
    clock_fake_advance(&k->clock, 2000000);
    capture_tick(k->capture);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_EXPIRED));
    CHECK_EQ_INT(kit_verdict(k, 1)->state, trawl_v1_State_RUNNING);
    kit_close(k);
}

static void cancel(struct kit *k, uint64_t order)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_cancel_tag};
    m.body.cancel.order = order;
    snprintf(m.body.cancel.reason, sizeof m.body.cancel.reason, "by alice");
    kit_say(k, &m);
    kit_settle(k);
}

TEST(cancelling_stops_what_runs_and_what_waits)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "events,triage", "", PID_HANGS);
    kit_order(k, 2, "triage", "one", 0);
    kit_order(k, 3, "triage", "one", 0);
    cancel(k, 2);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_CANCELLED));
    CHECK_EQ_STR(kit_verdict(k, 2)->reason, "by alice");
    cancel(k, 1);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_CANCELLED));
    for (int i = 0; i < 20; i++)
        kit_settle(k);
    CHECK_EQ_INT(kit_seal_all(k), 1); /* of order 3, which could run now */
    REQUIRE(kit_wait_verdict(k, 3, trawl_v1_State_DONE));
    cancel(k, 3);
    cancel(k, 99);
    CHECK_EQ_INT(kit_verdict(k, 3)->state, trawl_v1_State_DONE);
    kit_close(k);
}

TEST(the_queue_has_an_end)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "triage", "", PID_HANGS);
    for (uint64_t i = 2; i <= 12; i++)
        kit_order(k, i, "events", "", 0);
    CHECK_EQ_INT(kit_verdict(k, 9)->state, trawl_v1_State_QUEUED);
    CHECK_EQ_INT(kit_verdict(k, 12)->state, trawl_v1_State_REFUSED);
    kit_close(k);
}

TEST(a_restart_ends_what_ran_and_goes_on_with_what_waited)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "triage", "", PID_HANGS);
    kit_order(k, 2, "events", "", 0);
    CHECK_EQ_INT(kit_verdict(k, 1)->state, trawl_v1_State_RUNNING);
    kit_close_agent(k);
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "the agent was restarted during the capture");
    capture_tick(k->capture);
    kit_settle(k);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_DONE));
    kit_close(k);
}

TEST(a_restart_delivers_what_was_complete)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks,triage", "one", 0);
    for (int i = 0; i < 20; i++)
        kit_settle(k);
    kit_close_agent(k); /* nothing was sealed yet, the final verdict is on disk */
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    CHECK_EQ_INT(kit_seal_all(k), 2);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    CHECK_EQ_INT(k->message.body.verdict.artifacts, 2);
    kit_close(k);
}

TEST(several_processes_give_several_artifacts)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_order(k, 1, "triage,stacks", "two", 0);
    for (int i = 0; i < 40; i++)
        kit_settle(k);
    CHECK_EQ_INT(kit_seal_all(k), 4);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    CHECK_EQ_INT(k->message.body.verdict.processes, 2);
    kit_close(k);
}

TEST(numbers_of_artifacts_go_on_within_an_incident)
{
    struct kit *k = kit_open();
    struct capture_artifact a;
    kit_connect(k, 0, 0);
    kit_order(k, 1, "events", "", 0);
    kit_seal_all(k);
    kit_close_agent(k);
    kit_open_agent(k);
    kit_connect(k, 0, 0);
    kit_seal_all(k);
    kit_order(k, 2, "events", "", 0);
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 2);
    struct failure taken = {ERR_EXISTS, "taken"};
    capture_artifact_ended(k->capture, &a, &taken);
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 3);
    kit_seal_all(k);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_DONE));
    kit_close(k);
}

TEST(an_artifact_that_cannot_be_delivered_is_named)
{
    struct kit *k = kit_open();
    struct capture_artifact a;
    kit_connect(k, 0, 0);
    kit_order(k, 1, "events,triage", "one", 0);
    for (int i = 0; i < 20; i++)
        kit_settle(k);
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    struct failure bad = {ERR_DENIED, "not of this incident"};
    capture_artifact_ended(k->capture, &a, &bad);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_PARTIAL));
    CHECK(strstr(kit_verdict(k, 1)->reason, "not of this incident") != NULL);
    kit_close(k);
}

/* ---- several files, hostile workers ---- */

/* Waits for so many artifacts, then for a moment for one too many. */
static int load_all(struct kit *k, trawl_v1_Artifact *out, int wanted)
{
    struct capture_artifact a;
    struct failure f = {0};
    int count = 0;
    uint64_t limit_us = port_mono_us() + KIT_LIMIT_US;
    while (count < wanted && port_mono_us() < limit_us) {
        kit_settle(k);
        while (count < wanted && capture_peek_artifact(k->capture, &a) == 0) {
            REQUIRE(evidence_load(a.directory, a.no, &out[count++], &f) == 0);
            f.code = 0;
            capture_artifact_ended(k->capture, &a, &f);
        }
    }
    kit_settle(k);
    return count + kit_seal_all(k);
}

TEST(every_file_of_a_kind_is_an_artifact)
{
    struct kit *k = kit_open();
    static trawl_v1_Artifact meta[8];
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks,events", "", PID_MANY);
    REQUIRE(load_all(k, meta, 3) == 3);
    CHECK_EQ_STR(meta[0].file, "stacks-victim-102.txt");
    CHECK_EQ_STR(meta[1].file, "stacks-victim-102.json"); /* the empty one between is left out */
    CHECK_EQ_STR(meta[2].file, "events.jsonl");
    CHECK_EQ_INT(meta[0].stacks_count, 1);
    CHECK_EQ_INT(meta[1].stacks_count, 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ_STR(meta[i].kind, "stacks");
        CHECK(meta[i].paused && meta[i].pause_us == 500);
        CHECK_EQ_INT(meta[i].sha256.size, 32);
    }
    CHECK(meta[0].no < meta[1].no && meta[1].no < meta[2].no);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    CHECK_EQ_INT(k->message.body.verdict.processes, 1);
    kit_close(k);
}

TEST(a_bad_verdict_drops_every_file)
{
    struct kit *k = kit_open();
    struct capture_artifact a;
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks", "", PID_BROKEN);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    CHECK(strstr(kit_verdict(k, 1)->reason, "the worker could not go on") != NULL);
    CHECK(capture_peek_artifact(k->capture, &a) != 0);
    kit_order(k, 2, "stacks", "one", 0); /* their numbers are given out again */
    kit_wait_artifact(k);
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
    CHECK_EQ_INT(a.no, 1);
    kit_close(k);
}

TEST(a_worker_that_writes_something_else_is_not_believed)
{
    struct kit *k = kit_open();
    struct capture_artifact a;
    kit_connect(k, 0, 0);
    kit_order(k, 1, "stacks", "", PID_LIAR);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    CHECK(strstr(kit_verdict(k, 1)->reason, "the worker wrote something that is no chunk") != NULL);
    CHECK(capture_peek_artifact(k->capture, &a) != 0);
    kit_order(k, 2, "stacks", "one", 0);
    kit_wait_artifact(k);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_DONE));
    kit_close(k);
}

/* ---- options of an order ---- */

static trawl_v1_CollectorMessage order_with(uint64_t number, const char *kind, uint32_t pid)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    trawl_v1_Order *o = &m.body.order;
    o->order = number;
    snprintf(o->incident, sizeof o->incident, "INC-1");
    snprintf(o->what[o->what_count++], sizeof o->what[0], "%s", kind);
    o->has_process = true;
    o->process.pid = pid;
    o->pause_max_us = 50000;
    o->expires_in_us = 3600000000;
    return m;
}

TEST(a_long_pause_is_refused_unless_the_order_says_so)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "stacks", PID_FINE);
    m.body.order.pause_max_us = 251000;
    kit_say(k, &m);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "a process could be held for 251 ms, the limit is 250 "
                                            "ms: only --allow-pause goes beyond it");
    m.body.order.order = 2;
    m.body.order.allow_pause = true;
    kit_say(k, &m);
    kit_wait_artifact(k);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 2, trawl_v1_State_DONE));
    k->policy.allow_pause = false;
    m.body.order.order = 3;
    kit_say(k, &m);
    REQUIRE(kit_wait_verdict(k, 3, trawl_v1_State_REFUSED));
    CHECK(strstr(kit_verdict(k, 3)->reason, "policy does not allow --allow-pause") != NULL);
    kit_close(k);
}

TEST(what_is_refused_stays_refused_without_fallback)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "mini", PID_REFUSED);
    kit_say(k, &m);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason,
                 "mini of victim (666): pause would be 84 ms, limit 50 ms");
    kit_close(k);
}

TEST(the_next_lesser_kind_is_taken_when_the_order_allows_it)
{
    struct kit *k = kit_open();
    static trawl_v1_Artifact meta[8];
    kit_connect(k, 0, 0);
    /* This process gives triage only. */
    trawl_v1_CollectorMessage m = order_with(1, "core", PID_REFUSED);
    m.body.order.fallback = true;
    kit_say(k, &m);
    kit_wait_artifact(k);
    REQUIRE(load_all(k, meta, 1) == 1);
    CHECK_EQ_STR(meta[0].kind, "triage");
    CHECK_EQ_STR(meta[0].missing, "instead of core: pause would be 84 ms, limit 50 ms");
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_PARTIAL));
    CHECK_EQ_STR(kit_verdict(k, 1)->reason, "core of victim (666): pause would be 84 ms, limit 50 "
                                            "ms; triage was taken instead");
    kit_close(k);
}

TEST(what_was_asked_for_anyway_is_not_taken_twice)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "core", PID_REFUSED);
    m.body.order.fallback = true;
    snprintf(m.body.order.what[m.body.order.what_count++], 16, "triage");
    kit_say(k, &m);
    kit_wait_artifact(k);
    for (int i = 0; i < 20; i++)
        kit_settle(k);
    CHECK_EQ_INT(kit_seal_all(k), 1);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_PARTIAL));
    CHECK(strstr(kit_verdict(k, 1)->reason, "core of victim (666): pause would be") != NULL);
    CHECK(strstr(kit_verdict(k, 1)->reason, "taken instead") == NULL);
    kit_close(k);
}

TEST(a_kind_that_the_owner_forbids_may_fall_back_too)
{
    struct kit *k = kit_open();
    static trawl_v1_Artifact meta[8];
    kit_connect(k, 0, 0);
    snprintf(k->policy.kinds, sizeof k->policy.kinds, "stacks0,triage");
    trawl_v1_CollectorMessage m = order_with(1, "mini", PID_FINE);
    m.body.order.fallback = true;
    kit_say(k, &m);
    kit_wait_artifact(k);
    REQUIRE(load_all(k, meta, 1) == 1);
    CHECK_EQ_STR(meta[0].kind, "stacks0");
    CHECK_EQ_STR(meta[0].missing, "instead of mini: this host's policy does not allow kind 'mini'");
    kit_close(k);
}

TEST(a_process_that_ended_has_no_lesser_kind)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "mini", PID_GONE);
    m.body.order.fallback = true;
    kit_say(k, &m);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_GONE));
    kit_close(k);
}

TEST(what_the_order_says_reaches_the_worker)
{
    static const struct {
        const char *kind, *missing;
    } wanted[] = {
        {"triage", "deadline 15000 ms, for 10000 ms, pause 50 ms, live 1, allow_pause 1"},
        {"mini", "deadline 30000 ms, for 10000 ms, pause 50 ms, live 1, allow_pause 1"},
        {"profile", "deadline 30000 ms, for 10000 ms, pause 50 ms, live 1, allow_pause 1"},
    };
    struct kit *k = kit_open();
    static trawl_v1_Artifact meta[8];
    kit_connect(k, 0, 0);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        trawl_v1_CollectorMessage m = order_with(i + 1, wanted[i].kind, PID_ECHO);
        m.body.order.live = m.body.order.allow_pause = true;
        kit_say(k, &m);
        kit_wait_artifact(k);
        REQUIRE(load_all(k, meta, 1) == 1);
        CHECK_EQ_STR(meta[0].missing, wanted[i].missing);
        REQUIRE(kit_wait_verdict(k, i + 1, trawl_v1_State_DONE));
    }
    k->policy.pause_max_us = 20000; /* the owner's word is the last */
    trawl_v1_CollectorMessage m = order_with(9, "triage", PID_ECHO);
    kit_say(k, &m);
    kit_wait_artifact(k);
    REQUIRE(load_all(k, meta, 1) == 1);
    CHECK(strstr(meta[0].missing, "pause 20 ms") != NULL);
    kit_close(k);
}

TEST(a_profile_that_is_too_long_is_refused)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "profile", PID_ECHO);
    m.body.order.for_us = 3600000000;
    kit_say(k, &m);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_REFUSED));
    CHECK(strstr(kit_verdict(k, 1)->reason, "it would take 3620 s, the limit is 1800 s (--for)") !=
          NULL);
    kit_close(k);
}

/* The profile looks for as long as the order says; what looks at the window then need not wait. */
TEST(a_window_is_waited_for_once)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "profile", PID_FINE);
    snprintf(m.body.order.what[m.body.order.what_count++], 16, "events");
    m.body.order.last_us = 60000000;
    m.body.order.for_us = 50000000;
    kit_say(k, &m);
    kit_settle(k);
    clock_fake_advance(&k->clock, 50000000); /* its worker runs now */
    uint64_t began_us = port_mono_us();
    for (int i = 0; i < 100 && kit_seal_all(k) != 2; i++) {
        usleep(20000);
        kit_settle(k);
    }
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_DONE));
    CHECK(port_mono_us() - began_us < 45000000);
    CHECK_EQ_INT(k->message.body.verdict.artifacts, 2);
    kit_close(k);
}

TEST(nothing_is_taken_instead_after_the_expiry)
{
    struct kit *k = kit_open();
    struct capture_artifact a;
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = order_with(1, "core", PID_REFUSED);
    m.body.order.fallback = true;
    m.body.order.at_us = KIT_WALL_US + 400000; /* it waits for that, and is over then */
    m.body.order.expires_in_us = 1000000;
    kit_say(k, &m);
    kit_settle(k);
    clock_fake_advance(&k->clock, 1000000);
    REQUIRE(kit_wait_verdict(k, 1, trawl_v1_State_FAILED));
    CHECK(capture_peek_artifact(k->capture, &a) != 0);
    kit_close(k);
}
