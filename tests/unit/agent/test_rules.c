/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules on the agent: taken from the collector whole or not at all, evaluated on the sampler's
 * values, told as events, and limits that hold over a restart. The sampler is one series and a
 * list of processes, made here.
 */
#include "agent/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"
#include "tests/check.h"

#define SECOND_US UINT64_C(1000000)

static int64_t value;
static uint32_t series_id = 1;
static const char *process;

size_t sampler_slots(const struct sampler *sampler)
{
    (void)sampler;
    return 3;
}

bool sampler_look(const struct sampler *sampler, uint32_t slot, struct series_view *out)
{
    (void)sampler;
    if (slot != 1)
        return false;
    *out = (struct series_view){.id = series_id,
                                .name = "memory.used",
                                .instance = "",
                                .unit = "bytes",
                                .kind = OS_GAUGE,
                                .scale = 1,
                                .value = value};
    return true;
}

bool sampler_each_process(const struct sampler *sampler,
                          void (*each)(void *context, const struct os_process_change *process),
                          void *context)
{
    struct os_process_change change = {.started = true, .pid = 7, .name = process};
    (void)sampler;
    if (each && process)
        each(context, &change);
    return true;
}

struct kit {
    char directory[64];
    struct state state;
    struct clock_fake clock;
    struct spool *spool;
    struct rules *rules;
    trawl_v1_Event last;
    size_t told[32]; /* by type of event */
    int added;
};

static trawl_v1_AgentMessage message;

static void on_added(void *context)
{
    ((struct kit *)context)->added++;
}

static void open_rules(struct kit *k, const char *boot_id)
{
    struct failure f = {0};
    struct rules_settings settings = {.clock = &k->clock.clock,
                                      .state = &k->state,
                                      .spool = k->spool,
                                      .boot_id = boot_id,
                                      .added = on_added,
                                      .context = k};
    REQUIRE(rules_open(&k->rules, &settings, &f) == 0);
}

static struct kit *kit_open(void)
{
    static const uint64_t none[SPOOL_LANES];
    struct kit *k = calloc(1, sizeof *k);
    struct spool_opened how;
    struct failure f = {0};
    bool lost;
    REQUIRE(k != NULL);
    snprintf(k->directory, sizeof k->directory, "/tmp/trawl-rules-XXXXXX");
    REQUIRE(mkdtemp(k->directory) != NULL);
    REQUIRE(state_open(&k->state, k->directory, &lost, &f) == 0);
    REQUIRE(spool_open(&k->spool, k->directory, SPOOL_MIN_BYTES, none, &how, &f) == 0);
    spool_resume(k->spool, none);
    clock_fake_init(&k->clock, 50 * SECOND_US, INT64_C(1795442520000000));
    open_rules(k, "boot-1");
    return k;
}

static void kit_close(struct kit *k)
{
    static const char *const names[] = {"counters.ring", "events.ring", "rules",
                                        "rules.limits",  "state.conf",  "lock"};
    char path[128];
    rules_close(k->rules);
    spool_close(k->spool);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", k->directory, names[i]);
        unlink(path);
    }
    CHECK_EQ_INT(rmdir(k->directory), 0);
    free(k);
}

static void read_events(struct kit *k)
{
    struct spool_item item;
    while (spool_peek(k->spool, SPOOL_EVENTS, &item) == 0) {
        REQUIRE(!item.is_gap && codec_get_agent_message(&message, item.message, NULL) == 0);
        k->last = message.body.event;
        k->told[k->last.type % 32]++;
        spool_advance(k->spool, SPOOL_EVENTS);
    }
}

/* `seconds` at this value. */
static void hold(struct kit *k, int64_t at, int seconds)
{
    value = at;
    for (int i = 0; i < seconds; i++) {
        clock_fake_advance(&k->clock, SECOND_US);
        rules_second(k->rules);
    }
    read_events(k);
}

static void piece(struct kit *k, uint64_t version, uint32_t no, const char *text, bool last)
{
    trawl_v1_RulePiece p = {.version = version, .no = no, .last = last};
    p.text.size = (pb_size_t)strlen(text);
    memcpy(p.text.bytes, text, p.text.size);
    rules_piece(k->rules, &p);
}

static size_t fired(const struct kit *k)
{
    return k->told[trawl_v1_EventType_RULE_FIRED];
}

static size_t suppressed(const struct kit *k)
{
    return k->told[trawl_v1_EventType_RULE_SUPPRESSED];
}

/* Up, and down until it is over. */
static void once(struct kit *k)
{
    hold(k, 200, 4);
    hold(k, 5, 12);
}

#define RULE "rule r on * when memory.used > 100 for 3s then capture counters limit 2/h\n"

TEST(a_rule_that_is_met_is_an_event_and_one_that_is_not_is_none)
{
    struct kit *k = kit_open();
    hold(k, 200, 5); /* no rules yet */
    piece(k, 4, 0, RULE, true);
    hold(k, 100, 20);
    CHECK_EQ_INT(k->added, 0);
    hold(k, 200, 3);
    CHECK_EQ_INT(fired(k), 0);
    hold(k, 200, 1);
    REQUIRE(fired(k) == 1);
    CHECK_EQ_STR(k->last.rule, "r");
    CHECK_EQ_INT(k->last.firing.size, 16);
    CHECK(strstr(k->last.text, "rule r: memory.used 200 B > 100 B") != NULL);
    CHECK_EQ_INT(k->added, 1);
    hold(k, 200, 30);
    CHECK_EQ_INT(fired(k), 1);
    kit_close(k);
}

TEST(limits_hold_over_a_restart_and_over_a_boot)
{
    struct kit *k = kit_open();
    piece(k, 1, 0, RULE, true);
    once(k);
    CHECK_EQ_INT(fired(k), 1);
    rules_close(k->rules); /* nothing is said in order: as after a kill */
    open_rules(k, "boot-1");
    once(k); /* with the rules of before */
    CHECK_EQ_INT(fired(k), 2);
    rules_close(k->rules);
    k->clock.now_mono_us = 9 * SECOND_US; /* another boot: its clock begins anew */
    open_rules(k, "boot-2");
    once(k);
    CHECK_EQ_INT(fired(k), 2);
    CHECK_EQ_INT(suppressed(k), 1);
    clock_fake_advance(&k->clock, 3600 * SECOND_US);
    once(k);
    CHECK_EQ_INT(fired(k), 3);
    kit_close(k);
}

TEST(a_rule_that_comes_back_has_its_limit_still)
{
    struct kit *k = kit_open();
    piece(k, 1, 0, RULE, true);
    once(k);
    once(k);
    piece(k, 2, 0, "", true);
    once(k);
    piece(k, 3, 0, RULE, true);
    once(k);
    CHECK_EQ_INT(fired(k), 2);
    CHECK_EQ_INT(suppressed(k), 1);
    piece(k, 4, 0, "rule other on * when memory.used > 100 then capture counters limit 2/h", true);
    once(k); /* the control: another name begins at 0 */
    CHECK_EQ_INT(fired(k), 3);
    kit_close(k);
}

static void damage(const struct kit *k, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", k->directory, name);
    struct failure f = {0};
    REQUIRE(port_exists(path));
    REQUIRE(port_write_file(path,
                            span_str("TRWL\x06"
                                     "boot-1 and no more"),
                            true, &f) == 0);
}

TEST(damaged_limits_count_as_used_up)
{
    struct kit *k = kit_open();
    piece(k, 1, 0, RULE, true);
    once(k);
    rules_close(k->rules);
    damage(k, "rules.limits");
    open_rules(k, "boot-1");
    once(k);
    CHECK_EQ_INT(fired(k), 1);
    CHECK_EQ_INT(suppressed(k), 1);
    kit_close(k);
}

TEST(damaged_rules_wait_for_the_collector)
{
    struct kit *k = kit_open();
    piece(k, 1, 0, RULE, true);
    rules_close(k->rules);
    damage(k, "rules");
    open_rules(k, "boot-1");
    once(k);
    CHECK_EQ_INT(fired(k), 0);
    piece(k, 1, 0, RULE, true); /* the same version as before */
    once(k);
    CHECK_EQ_INT(fired(k), 1);
    kit_close(k);
}

TEST(without_a_place_for_its_limit_nothing_fires)
{
    struct kit *k = kit_open();
    char was[sizeof k->state.directory];
    piece(k, 1, 0, RULE, true);
    memcpy(was, k->state.directory, sizeof was);
    snprintf(k->state.directory, sizeof k->state.directory, "/nonexistent");
    hold(k, 200, 5);
    CHECK_EQ_INT(fired(k), 0);
    CHECK_EQ_INT(suppressed(k), 1);
    CHECK(strstr(k->last.text, "cannot be kept") != NULL);
    memcpy(k->state.directory, was, sizeof was);
    hold(k, 5, 12);
    once(k);
    CHECK_EQ_INT(fired(k), 1);
    kit_close(k);
}

TEST(pieces_make_a_whole_or_nothing)
{
    struct kit *k = kit_open();
    piece(k, 1, 0, "rule r on * when memory.used > 100 ", false);
    piece(k, 1, 2, "for 3s then capture counters limit 2/h", true); /* one is missing */
    once(k);
    CHECK_EQ_INT(fired(k), 0);
    piece(k, 1, 0, "rule r on * when memory.used > 100 ", false);
    piece(k, 2, 1, "then capture counters limit 2/h", true); /* of another version */
    once(k);
    CHECK_EQ_INT(fired(k), 0);
    piece(k, 3, 0, "rule r on * when memory.used > 100 ", false);
    piece(k, 3, 1, "for 3s then capture counters limit 2/h", true);
    once(k);
    CHECK_EQ_INT(fired(k), 1);
    piece(k, 4, 0, "rule r on * when memory.used >", true); /* cannot be read */
    once(k);
    CHECK_EQ_INT(fired(k), 2);
    kit_close(k);
}

TEST(a_series_that_is_replaced_in_its_slot_is_seen)
{
    struct kit *k = kit_open();
    piece(k, 1, 0, RULE, true);
    hold(k, 200, 2);
    series_id++;
    hold(k, 200, 2);
    CHECK_EQ_INT(fired(k), 0); /* another series: it begins anew */
    hold(k, 200, 3);
    CHECK_EQ_INT(fired(k), 1);
    kit_close(k);
}

TEST(processes_and_exceptions_are_told)
{
    struct kit *k = kit_open();
    struct os_process_change gone = {.pid = 7, .name = "worker"};
    trawl_v1_Exception crash = {.source = trawl_v1_ExceptionSource_CRASH, .count = 1};
    text_copy(crash.process, sizeof crash.process, "nginx");
    process = "worker";
    piece(k, 1, 0,
          "rule gone on * when process worker not running then capture events limit 2/h\n"
          "rule crash on * when exception crash of nginx then capture events limit 2/h\n",
          true);
    hold(k, 1, 3);
    CHECK_EQ_INT(fired(k), 0);
    rules_on_process(k->rules, &gone);
    hold(k, 1, 1);
    CHECK_EQ_INT(fired(k), 1);
    CHECK_EQ_STR(k->last.rule, "gone");
    rules_on_exception(k->rules, &crash);
    hold(k, 1, 1);
    CHECK_EQ_INT(fired(k), 2);
    CHECK_EQ_STR(k->last.rule, "crash");
    CHECK_EQ_STR(k->last.process, "nginx");
    kit_close(k);
}
