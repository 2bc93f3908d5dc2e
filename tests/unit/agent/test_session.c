/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol of Connect as the collector sees it: order of messages, resending, acknowledgements,
 * gaps, probes. Orders and verdicts are in test_capture.c.
 */
#include "kit.h"

TEST(nothing_but_the_announcement_goes_before_the_welcome)
{
    struct kit *k = kit_open();
    kit_push_block(k);
    events_add(k->events, trawl_v1_EventType_AGENT_STARTED, "", 0, "x");
    kit_connect_only(k);
    kit_settle(k);
    REQUIRE(k->logged == 1);
    CHECK_EQ_INT(k->log[0].which, trawl_v1_AgentMessage_announce_tag);
    CHECK_EQ_MEM(k->message.body.announce.state_id.bytes, k->state.id, 16);
    CHECK_EQ_INT(k->message.body.announce.epoch, 9);
    CHECK_EQ_INT(k->message.body.announce.first_block, 1);
    CHECK(!uplink_session_is_welcome(k->session));
    kit_welcome(k, 0, 0);
    CHECK(uplink_session_is_welcome(k->session));
    CHECK_EQ_INT(k->welcomes, 1);
    kit_close(k);
}

TEST(events_go_before_descriptors_and_blocks)
{
    struct kit *k = kit_open();
    kit_push_block(k);
    events_add(k->events, trawl_v1_EventType_AGENT_STARTED, "", 0, "x");
    kit_connect(k, 0, 0);
    REQUIRE(k->logged == 4);
    CHECK_EQ_INT(k->log[1].which, trawl_v1_AgentMessage_event_tag);
    CHECK_EQ_INT(k->log[2].which, trawl_v1_AgentMessage_descriptors_tag);
    CHECK_EQ_INT(k->log[3].which, trawl_v1_AgentMessage_block_tag);
    CHECK_EQ_INT(k->log[3].seq, 1);
    kit_push_block(k);
    kit_settle(k);
    REQUIRE(k->logged == 5);
    CHECK_EQ_INT(k->log[4].seq, 2);
    kit_close(k);
}

TEST(a_new_connection_brings_what_the_collector_does_not_have)
{
    struct kit *k = kit_open();
    for (int i = 0; i < 5; i++)
        kit_push_block(k);
    kit_connect(k, 0, 0);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 5);
    kit_ack(k, 3, 0, 0, 0);
    CHECK_EQ_INT(spool_unacknowledged(k->spool, SPOOL_BLOCKS), 2);
    kit_disconnect(k);
    kit_push_block(k);
    kit_connect(k, 3, 0);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 3);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_descriptors_tag), 1);
    CHECK_EQ_INT(kit_newest(k, trawl_v1_AgentMessage_block_tag)->seq, 6);
    kit_close(k);
}

TEST(what_survives_a_restart_is_sent_after_it)
{
    struct kit *k = kit_open();
    for (int i = 0; i < 3; i++)
        kit_push_block(k);
    kit_close_agent(k);
    kit_open_agent(k);
    kit_connect(k, 1, 0);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 2);
    CHECK_EQ_INT(kit_newest(k, trawl_v1_AgentMessage_block_tag)->seq, 3);
    kit_close(k);
}

TEST(what_is_gone_is_reported_as_a_gap)
{
    struct kit *k = kit_open();
    kit_push_block(k);
    ring_skip_to_seq((struct ring *)(uintptr_t)spool_ring(k->spool, SPOOL_BLOCKS), 50);
    kit_push_block(k);
    kit_connect(k, 1, 0);
    const struct kit_message *gap = kit_newest(k, trawl_v1_AgentMessage_gap_tag);
    REQUIRE(gap != NULL);
    CHECK_EQ_INT(gap->seq, 2);
    CHECK_EQ_INT(gap->last, 49);
    CHECK_EQ_INT(kit_newest(k, trawl_v1_AgentMessage_block_tag)->seq, 50);
    kit_close(k);
}

TEST(a_slow_collector_stops_the_sending_and_gets_everything_later)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    grpc_pause(k->call);
    for (int i = 0; i < 3000; i++)
        kit_push_block(k);
    kit_settle(k);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 0);
    grpc_resume(k->call);
    for (int i = 0; i < 100 && kit_count(k, trawl_v1_AgentMessage_block_tag) < 3000; i++)
        kit_settle(k);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 3000);
    uint64_t seq = 0;
    bool in_order = true;
    for (size_t i = 0; i < k->logged; i++)
        if (k->log[i].which == trawl_v1_AgentMessage_block_tag)
            in_order = in_order && k->log[i].seq == ++seq;
    CHECK(in_order);
    kit_close(k);
}

TEST(a_probe_is_answered_with_both_times)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_probe_tag};
    m.body.probe = (trawl_v1_Probe){77, 123456};
    kit_say(k, &m);
    kit_settle(k);
    REQUIRE(k->message.which_body == trawl_v1_AgentMessage_probe_reply_tag);
    CHECK_EQ_INT(k->message.body.probe_reply.id, 77);
    CHECK_EQ_INT(k->message.body.probe_reply.collector_us, 123456);
    CHECK_EQ_INT(k->message.body.probe_reply.received_us, KIT_WALL_US);
    kit_close(k);
}

TEST(watching_is_passed_on)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_watching_tag};
    m.body.watching.on = true;
    kit_say(k, &m);
    kit_settle(k);
    CHECK_EQ_INT(k->watching, 1);
    kit_close(k);
}

TEST(a_message_that_is_not_understood_is_passed_over)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    CHECK_EQ_INT(grpc_send(k->call, span_str("\xff\xff\xff")), 0);
    CHECK_EQ_INT(grpc_send(k->call, span_of("\xfa\x07\x00", 3)), 0); /* a field of tomorrow */
    kit_settle(k);
    CHECK(!k->ended);
    kit_push_block(k);
    kit_settle(k);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 1);
    kit_close(k);
}

TEST(finishing_sends_the_rest_and_half_closes)
{
    struct kit *k = kit_open();
    kit_connect(k, 0, 0);
    kit_push_block(k);
    uplink_session_finish(k->session);
    kit_settle(k);
    CHECK_EQ_INT(kit_count(k, trawl_v1_AgentMessage_block_tag), 1);
    REQUIRE(k->call != NULL);
    grpc_finish(k->call, GRPC_OK, "");
    kit_settle(k);
    CHECK(k->ended);
    kit_close(k);
}
