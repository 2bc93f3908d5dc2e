/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of this host: what comes from the collector, the engine that evaluates them, what it
 * decides. Time of the engine stands on the seconds in which the sampler samples, so that what is
 * replayed from stored counters decides the same. See rules.h.
 */
#include "agent/rules.h"

#include <stdlib.h>
#include <string.h>

#include "agent/rules_keep.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define SECOND_US UINT64_C(1000000)
#define APART_MAX_US UINT64_C(250000) /* further from its second: the seconds begin anew */
#define DECISIONS_MAX 1024            /* of one step; more are counted */

/* A decision waits until the limits are on disk. */
struct decided {
    enum rule_verdict verdict;
    char rule[RULE_WORD_SIZE], process[RULE_WORD_SIZE];
    uint32_t pid;
    char sentence[RULE_SENTENCE_SIZE];
};

struct rules {
    struct rules_settings settings;
    struct rule_engine *engine; /* NULL: no rules yet */
    uint64_t version;
    struct buf text;     /* of the engine's set, as it came */
    struct buf incoming; /* pieces so far */
    uint64_t incoming_version;
    uint32_t incoming_next; /* number of the piece that is due */

    uint32_t *ids; /* by slot: of the series that the engine knows there; 0: none */
    int64_t *values;
    size_t slot_count, id_capacity, value_capacity;
    bool processes_told;
    uint64_t phase_us, engine_us; /* where seconds lie; the last step's */
    uint64_t kept_revision;
    bool said_limit, said_unkept;

    struct decided *decided;
    size_t decided_count, decided_capacity, left_out;
};

/* ---- telling ---- */

static trawl_v1_EventType event_type(enum rule_verdict verdict)
{
    static const trawl_v1_EventType types[] = {
        trawl_v1_EventType_EVENT_UNKNOWN,   trawl_v1_EventType_RULE_FIRED,
        trawl_v1_EventType_RULE_SUPPRESSED, trawl_v1_EventType_RULE_QUIET,
        trawl_v1_EventType_RULE_BLIND,      trawl_v1_EventType_RULE_SEES};
    return (size_t)verdict < sizeof types / sizeof types[0] ? types[verdict] : types[0];
}

static void push(struct rules *rules, const struct decided *d, const char *besides)
{
    struct clock *clock = rules->settings.clock;
    trawl_v1_Event event = {.type = event_type(d->verdict),
                            .wall_us = clock->wall_us(clock),
                            .mono_us = clock->mono_us(clock),
                            .pid = d->pid};
    text_copy(event.rule, sizeof event.rule, d->rule);
    text_copy(event.process, sizeof event.process, d->process);
    text_format(event.text, sizeof event.text, "rule %.60s: %s%s", d->rule, d->sentence, besides);
    text_clean(event.process);
    text_clean(event.text);
    if (d->verdict == RULE_FIRED) {
        event.firing.size = sizeof event.firing.bytes;
        port_random(event.firing.bytes, sizeof event.firing.bytes);
    }
    if (spool_push_event(rules->settings.spool, &event))
        log_error("what rule '%s' did is lost: the events ring does not take it", d->rule);
    if (d->verdict == RULE_FIRED)
        log_info("%s", event.text);
}

static bool keep_limits(struct rules *rules)
{
    const struct rules_settings *s = &rules->settings;
    struct failure f = {0};
    uint64_t revision = rule_engine_revision(rules->engine);
    if (revision == rules->kept_revision)
        return true;
    if (rules_keep_limits(s->state, rules->engine, s->clock, s->boot_id, &f)) {
        if (!rules->said_unkept)
            log_error("what counts against limits of rules cannot be kept: %s", f.text);
        rules->said_unkept = true;
        return false;
    }
    rules->said_unkept = false;
    rules->kept_revision = revision;
    return true;
}

/* A limit that is not on disk would not hold over our death: then nothing is asked for. */
static void tell_decided(struct rules *rules)
{
    bool is_kept = keep_limits(rules);
    for (size_t i = 0; i < rules->decided_count; i++) {
        struct decided *d = &rules->decided[i];
        bool is_unkept = d->verdict == RULE_FIRED && !is_kept;
        if (is_unkept)
            d->verdict = RULE_SUPPRESSED;
        push(rules, d, is_unkept ? " (its limit cannot be kept on disk)" : "");
    }
    if (rules->left_out)
        log_error("%zu decisions of rules in one second were too many", rules->left_out);
    if (rules->decided_count && rules->settings.added)
        rules->settings.added(rules->settings.context);
    free(rules->decided);
    rules->decided = NULL;
    rules->decided_count = rules->decided_capacity = rules->left_out = 0;
}

static void on_decided(void *context, const struct rule_decision *decision)
{
    struct rules *rules = context;
    if (rules->decided_count == DECISIONS_MAX ||
        BUF_GROW(rules->decided, rules->decided_count, &rules->decided_capacity, 4)) {
        rules->left_out++;
        return;
    }
    struct decided *d = &rules->decided[rules->decided_count++];
    *d = (struct decided){.verdict = decision->verdict, .pid = decision->pid};
    text_copy(d->rule, sizeof d->rule, decision->rule->name);
    text_copy(d->process, sizeof d->process, decision->process);
    text_copy(d->sentence, sizeof d->sentence, decision->sentence);
}

/* ---- rules from the collector ---- */

static void say_unavailable(struct rule_engine *engine)
{
    static const enum rule_term_kind kinds[] = {RULE_THREADS, RULE_LOG, RULE_PROBE, RULE_LOOP};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        rule_engine_unavailable(engine, kinds[i], "this agent does not look at it for rules");
}

/* The engine forgot all series and processes. */
static void begin_anew(struct rules *rules)
{
    if (rules->slot_count)
        memset(rules->ids, 0, rules->slot_count * sizeof *rules->ids);
    rules->processes_told = false;
    rules->said_limit = false;
    say_unavailable(rules->engine);
}

/* On failure the old rules stay. */
static int take_rules(struct rules *rules, struct span text, struct failure *f)
{
    struct rule_set *set = NULL;
    int e = rule_parse(text, NULL, &set, f);
    if (e)
        return e;
    e = rules->engine ? rule_engine_replace(rules->engine, set)
                      : rule_engine_open(&rules->engine, set, on_decided, rules);
    if (e)
        return fail(f, e, "rules cannot be taken: %s", err_text(e));
    begin_anew(rules);
    return 0;
}

static void keep_text(struct rules *rules)
{
    struct failure f = {0};
    if (rules_keep_write(rules->settings.state, rules->version, buf_span(&rules->text), &f))
        log_error("the rules are obeyed, but not kept over a restart: %s", f.text);
}

static void take_incoming(struct rules *rules)
{
    struct span text = buf_span(&rules->incoming);
    struct failure f = {0};
    bool is_same = rules->engine && span_equal(text, buf_span(&rules->text));
    if (is_same && rules->version == rules->incoming_version)
        return;
    if (!is_same && (rules->engine || text.size_bytes) && take_rules(rules, text, &f)) {
        log_error("rules of version %llu are refused, the old ones stay: %s",
                  (unsigned long long)rules->incoming_version, f.text);
        return;
    }
    buf_clear(&rules->text);
    if (buf_append_span(&rules->text, text))
        log_error("rules are obeyed, but not kept: out of memory");
    rules->version = rules->incoming_version;
    keep_text(rules);
    log_info("rules: %zu for this host, version %llu",
             rules->engine ? rule_engine_set(rules->engine)->count : 0,
             (unsigned long long)rules->version);
}

void rules_piece(void *context, const trawl_v1_RulePiece *piece)
{
    struct rules *rules = context;
    if (piece->no == 0) {
        buf_clear(&rules->incoming);
        rules->incoming_version = piece->version;
        rules->incoming_next = 0;
    }
    if (piece->no != rules->incoming_next || piece->version != rules->incoming_version ||
        buf_append(&rules->incoming, piece->text.bytes, piece->text.size)) {
        rules->incoming_next = UINT32_MAX; /* what is left of it is not taken */
        return;
    }
    rules->incoming_next++;
    if (!piece->last)
        return;
    take_incoming(rules);
    if (rules->engine)
        tell_decided(rules);
    buf_done(&rules->incoming);
    buf_init(&rules->incoming, RULES_TEXT_MAX);
    rules->incoming_next = UINT32_MAX;
}

/* ---- what the engine is told ---- */

void rules_on_exception(void *context, const trawl_v1_Exception *exception)
{
    struct rules *rules = context;
    if (!rules->engine)
        return;
    struct rule_event event = {.source = (uint32_t)exception->source,
                               .type = exception->type,
                               .process = exception->process,
                               .pid = exception->pid,
                               .count = exception->count};
    rule_engine_exception(rules->engine, &event, rules->engine_us);
}

void rules_on_process(void *context, const struct os_process_change *change)
{
    struct rules *rules = context;
    if (rules->engine && rules->processes_told)
        rule_engine_process(rules->engine, change->name, change->pid, change->started,
                            rules->engine_us);
}

static void tell_process(void *context, const struct os_process_change *process)
{
    struct rules *rules = context;
    rule_engine_process(rules->engine, process->name, process->pid, true, rules->engine_us);
}

static void tell_processes(struct rules *rules)
{
    if (rules->processes_told || !sampler_each_process(rules->settings.sampler, NULL, NULL))
        return;
    (void)sampler_each_process(rules->settings.sampler, tell_process, rules);
    rule_engine_processes_known(rules->engine);
    rules->processes_told = true;
}

static int make_room(struct rules *rules, size_t slots)
{
    while (rules->slot_count < slots) {
        if (BUF_GROW(rules->ids, rules->slot_count, &rules->id_capacity, 256) ||
            BUF_GROW(rules->values, rules->slot_count, &rules->value_capacity, 256))
            return ERR_NOMEM;
        rules->ids[rules->slot_count] = 0;
        rules->values[rules->slot_count++] = RULE_GAP;
    }
    return 0;
}

static void define(struct rules *rules, uint32_t slot, const struct series_view *view)
{
    struct rule_series series = {.name = view->name,
                                 .instance = view->instance,
                                 .unit = view->unit,
                                 .is_count = view->kind == OS_COUNT,
                                 .scale = view->scale,
                                 .pid = view->pid};
    rules->ids[slot] = view->id;
    if (rule_engine_define(rules->engine, slot, &series) < 0 && !rules->said_limit) {
        rules->said_limit = true;
        log_warn("rules look at more than %d series: they do not see '%s' of '%s'", RULE_CELLS_MAX,
                 view->name, view->instance);
    }
}

static void look_at_slot(struct rules *rules, uint32_t slot)
{
    struct series_view view;
    bool is_there = sampler_look(rules->settings.sampler, slot, &view) && !view.is_retired;
    rules->values[slot] = is_there ? view.value : RULE_GAP;
    if (is_there && rules->ids[slot] != view.id) {
        define(rules, slot, &view);
    } else if (!is_there && rules->ids[slot]) {
        rule_engine_retire(rules->engine, slot);
        rules->ids[slot] = 0;
    }
}

static const char *reason_of(void *context, uint32_t slot)
{
    struct rules *rules = context;
    struct series_view view;
    return sampler_look(rules->settings.sampler, slot, &view) ? view.reason : NULL;
}

/* The second that is meant, whenever in it we were woken. */
static uint64_t second_of(struct rules *rules, uint64_t now_us)
{
    if (rules->engine_us && now_us > rules->phase_us) {
        uint64_t second_us =
            rules->phase_us + (now_us - rules->phase_us + SECOND_US / 2) / SECOND_US * SECOND_US;
        uint64_t apart_us = now_us > second_us ? now_us - second_us : second_us - now_us;
        if (apart_us <= APART_MAX_US)
            return second_us;
    }
    rules->phase_us = now_us;
    return now_us;
}

void rules_second(struct rules *rules)
{
    struct clock *clock = rules->settings.clock;
    size_t slots = sampler_slots(rules->settings.sampler);
    if (!rules->engine || !rule_engine_set(rules->engine)->count || make_room(rules, slots))
        return;
    uint64_t at_us = second_of(rules, clock->mono_us(clock));
    if (at_us <= rules->engine_us)
        return;
    for (size_t i = 0; i < slots; i++)
        look_at_slot(rules, (uint32_t)i);
    tell_processes(rules);
    struct rule_moment moment = {.mono_us = at_us,
                                 .values = rules->values,
                                 .count = slots,
                                 .reason = reason_of,
                                 .context = rules};
    rules->engine_us = at_us;
    (void)rule_engine_step(rules->engine, &moment);
    tell_decided(rules);
}

/* ---- opening ---- */

static void restore(struct rules *rules)
{
    const struct rules_settings *s = &rules->settings;
    struct failure f = {0};
    int e = rules_keep_read(s->state, &rules->version, &rules->text, &f);
    if (!e)
        e = take_rules(rules, buf_span(&rules->text), &f);
    if (e && e != ERR_NOTFOUND) {
        buf_clear(&rules->text);
        rules->version = 0;
        log_error("the rules that were kept cannot be used, until the collector is reached: %s",
                  f.text);
    }
    if (!rules->engine && take_rules(rules, span_of(NULL, 0), &f))
        return;
    e = rules_keep_restore(s->state, rules->engine, s->clock, s->boot_id, &f);
    if (e && e != ERR_NOTFOUND)
        log_error("what counts against limits of rules is not known, so that they count as used "
                  "up: %s",
                  f.text);
    rules->kept_revision = rule_engine_revision(rules->engine);
    rules->decided_count = 0;
}

int rules_open(struct rules **out, const struct rules_settings *settings, struct failure *f)
{
    struct rules *rules = calloc(1, sizeof *rules);
    if (!rules)
        return fail(f, ERR_NOMEM, "out of memory");
    rules->settings = *settings;
    buf_init(&rules->text, RULES_TEXT_MAX);
    buf_init(&rules->incoming, RULES_TEXT_MAX);
    rules->incoming_next = UINT32_MAX;
    restore(rules);
    *out = rules;
    return 0;
}

void rules_close(struct rules *rules)
{
    if (!rules)
        return;
    rule_engine_close(rules->engine);
    buf_done(&rules->text);
    buf_done(&rules->incoming);
    free(rules->ids);
    free(rules->values);
    free(rules->decided);
    free(rules);
}
