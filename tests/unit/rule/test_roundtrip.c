/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random rules, made from the grammar: what is printed is read as the same rule, member by member.
 * Positive control: rules that differ in one member are told apart by the same comparison.
 */
#include <stdio.h>
#include <string.h>

#include "rule/language.h"
#include "tests/check.h"

#define RULES 1000

static uint64_t seed = 88172645463325252u;

static uint32_t under(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % limit;
}

static const char *pick(const char *const *words, size_t count)
{
    return words[under((uint32_t)count)];
}
#define PICK(...)                            \
    pick((const char *const[]){__VA_ARGS__}, \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

#define NAMES                                                                                 \
    PICK("redis-server", "\"Web Content\"", "a*", "\"then\"", "\"\\\"\\\\\"", "x?y", "\"#\"", \
         "\"(\"", "\"a,b\"", "node", "\"\xc3\xa4\"", "7")
#define COUNTERS PICK("cpu.busy", "disk.busy_time", "process.rss", "\"odd name.x\"", "a.b")
#define WINDOWS PICK("1s", "90s", "10m", "600s", "2h", "24h", "1d")

static void put_number(struct buf *b, const char *per)
{
    (void)buf_printf(b, " %s%u%s%s%s", under(4) ? "" : "-", (unsigned)under(100000),
                     PICK("", ".5", ".125", ".050"),
                     *per == '%' ? "%" : PICK("", "K", "M", "G", "T", "us", "ms", "s", "m", "h"),
                     *per == '%' ? "" : per);
}

static void put_share(struct buf *b, bool up, bool inside_not)
{
    unsigned limit = under(100) + 50;
    (void)buf_printf(b, " %u%%", limit);
    if (!inside_not && under(2))
        (void)buf_printf(b, " until %s %u%%", up ? PICK("<", "<=") : PICK(">", ">="),
                         up ? limit - under(50) : limit + under(50));
}

static void put_counter(struct buf *b, bool inside_not)
{
    bool up = under(2), is_ratio = under(4) == 0, is_ago = !is_ratio && under(4) == 0;
    (void)buf_printf(b, "%s", COUNTERS);
    if (under(2))
        (void)buf_printf(b, " of %s", NAMES);
    if (is_ratio)
        (void)buf_printf(b, " / %s", COUNTERS);
    if (is_ratio && under(2))
        (void)buf_printf(b, " of %s", NAMES);
    (void)buf_printf(b, "%s%s", under(2) ? " " : "", up ? PICK(">", ">=") : PICK("<", "<="));
    if (is_ago)
        (void)buf_printf(b, " %u.5x %s ago", (unsigned)under(9), PICK("1m", "600s", "1h"));
    else if (is_ratio || under(3) == 0)
        put_share(b, up, inside_not);
    else
        put_number(b, PICK("", "/s", "/m", "/h"));
}

static void put_times(struct buf *b)
{
    if (under(2))
        (void)buf_printf(b, " %u times in %s", (unsigned)under(100) + 1, WINDOWS);
}

static void put_happening(struct buf *b)
{
    switch (under(6)) {
    case 0:
        (void)buf_printf(b, "process %s not running", NAMES);
        break;
    case 1:
        (void)buf_printf(b, "process %s restarted", NAMES);
        put_times(b);
        break;
    case 2:
        (void)buf_printf(b, "process %s threads in %s > %u", NAMES,
                         PICK("running", "sleeping", "uninterruptible", "stopped", "zombie"),
                         (unsigned)under(100));
        break;
    case 3:
        (void)buf_printf(b, "exception %s%s%s", PICK("", "crash", "c++-throw", "oom-kill"),
                         under(2) ? " type " : " of ", NAMES);
        put_times(b);
        break;
    case 4:
        (void)buf_printf(b, "log %s has %s", PICK("/var/log/*.log", "of node", "\"/a b\""), NAMES);
        put_times(b);
        break;
    default:
        (void)buf_printf(b, "hang %s",
                         PICK("tcp:127.0.0.1:6379", "tcp:[::1]:1 send=\"PING\" every=3s",
                              "http://10.0.0.1/x?y=1 failures=9", "unit-watchdog:a@b.service",
                              "loop of node", "unit-watchdog:x every=5s timeout=9s failures=3"));
    }
}

static void put_condition(struct buf *b, int depth, unsigned *terms, bool inside_not)
{
    if (depth > 0 && under(5) == 0) {
        (void)buf_append_str(b, "not (");
        put_condition(b, depth - 1, terms, true);
        (void)buf_append_str(b, ")");
        return;
    }
    const char *op = PICK(" and ", " or ");
    unsigned count = depth > 0 ? 1 + under(3) : 1;
    for (unsigned i = 0; i<count && * terms> 0; i++) {
        if (i)
            (void)buf_append_str(b, op);
        if (depth > 0 && under(3) == 0 && *terms > 4) {
            (void)buf_append_str(b, "(");
            put_condition(b, depth - 1, terms, inside_not);
            (void)buf_append_str(b, ")");
            continue;
        }
        --*terms;
        if (under(2))
            put_counter(b, inside_not);
        else
            put_happening(b);
    }
}

static void put_rule(struct buf *b, unsigned number)
{
    unsigned terms = 12;
    (void)buf_printf(b, "rule r%u on %s when ", number,
                     PICK("*", "role=web, region!=eu", "web-*", "\"a b\"=c", "\"when\"", "\"#\""));
    put_condition(b, 3, &terms, false);
    (void)buf_printf(b, " then capture %s%s limit %u/%s %s\n",
                     PICK("stacks", "counters,logs", "triage , stacks0,net", "core", "mini"),
                     PICK("", " of x", " of \"limit\"", " of \"a b\""), 1 + (unsigned)under(20),
                     PICK("h", "d"), PICK("", "peers role", "peers role , rack"));
}

/* ---- the same, member by member ---- */

static bool same_number(const struct rule_number *a, const struct rule_number *b)
{
    return a->milli == b->milli && a->unit == b->unit && a->per == b->per;
}

static bool same_probe(const struct rule_set *a, uint32_t i, const struct rule_set *b, uint32_t k)
{
    const struct rule_probe *x = &a->probes[i], *y = &b->probes[k];
    return x->kind == y->kind && strcmp(x->target, y->target) == 0 &&
           strcmp(x->send, y->send) == 0 && x->every_us == y->every_us &&
           x->timeout_us == y->timeout_us && x->failures == y->failures;
}

static bool same_term(const struct rule_set *sa, const struct rule_term *a,
                      const struct rule_set *sb, const struct rule_term *b)
{
    return a->kind == b->kind && strcmp(a->name, b->name) == 0 && strcmp(a->of, b->of) == 0 &&
           strcmp(a->other, b->other) == 0 && strcmp(a->other_of, b->other_of) == 0 &&
           a->compare == b->compare && same_number(&a->limit, &b->limit) &&
           a->has_until == b->has_until && a->until_compare == b->until_compare &&
           same_number(&a->until, &b->until) && a->window_us == b->window_us &&
           a->times == b->times && a->state == b->state && a->source == b->source &&
           strcmp(a->type, b->type) == 0 && strcmp(a->path, b->path) == 0 &&
           strcmp(a->pattern, b->pattern) == 0 &&
           (a->kind != RULE_PROBE || same_probe(sa, a->probe, sb, b->probe));
}

static bool same_node(const struct rule_set *sa, const struct rule *a, uint16_t i,
                      const struct rule_set *sb, const struct rule *b, uint16_t k)
{
    const struct rule_node *x = &a->nodes[i], *y = &b->nodes[k];
    if (x->op != y->op)
        return false;
    if (x->op == RULE_TERM)
        return same_term(sa, &a->terms[x->left], sb, &b->terms[y->left]);
    return same_node(sa, a, x->left, sb, b, y->left) &&
           (x->op == RULE_NOT || same_node(sa, a, x->right, sb, b, y->right));
}

static bool same_rule(const struct rule_set *sa, const struct rule *a, const struct rule_set *sb,
                      const struct rule *b)
{
    bool same = strcmp(a->name, b->name) == 0 && strcmp(a->selector, b->selector) == 0 &&
                same_node(sa, a, a->root, sb, b, b->root) && a->for_us == b->for_us &&
                a->what_count == b->what_count && strcmp(a->of, b->of) == 0 &&
                a->limit == b->limit && a->limit_us == b->limit_us &&
                a->peer_count == b->peer_count;
    for (uint32_t i = 0; same && i < a->what_count; i++)
        same = strcmp(a->what[i], b->what[i]) == 0;
    for (uint32_t i = 0; same && i < a->peer_count; i++)
        same = strcmp(a->peers[i], b->peers[i]) == 0;
    return same;
}

static struct rule_set *read_set(const char *text)
{
    struct rule_set *set = NULL;
    struct failure f = {0};
    if (rule_parse(span_str(text), NULL, &set, &f) != 0)
        printf("  %s\n  of: %s\n", f.text, text);
    return set;
}

TEST_LIMIT(random_rules_come_back, 60)
{
    size_t compared = 0, terms = 0;
    for (unsigned i = 0; i < RULES; i++) {
        struct buf text, again;
        buf_init(&text, RULE_TEXT_MAX);
        buf_init(&again, RULE_TEXT_MAX);
        put_rule(&text, i);
        struct rule_set *one = read_set(buf_str(&text));
        REQUIRE(one != NULL && one->count == 1);
        REQUIRE(rule_set_print(one, &again) == 0);
        struct rule_set *two = read_set(buf_str(&again));
        REQUIRE(two != NULL && two->count == 1);
        CHECK(same_rule(one, &one->rules[0], two, &two->rules[0]));
        CHECK(rule_fingerprint(one, &one->rules[0]) == rule_fingerprint(two, &two->rules[0]));
        terms += one->term_count;
        compared++;
        rule_set_close(one);
        rule_set_close(two);
        buf_done(&text);
        buf_done(&again);
    }
    CHECK_EQ_INT(compared, RULES);
    CHECK(terms > 2 * RULES);
}

TEST(other_rules_are_told_apart)
{
    static const char *const texts[] = {
        "rule x on * when a.a > 1 then capture logs limit 1/h",
        "rule x on a when a.a > 1 then capture logs limit 1/h",
        "rule x on * when a.a >= 1 then capture logs limit 1/h",
        "rule x on * when a.a > 1.001 then capture logs limit 1/h",
        "rule x on * when a.a > 1/s then capture logs limit 1/h",
        "rule x on * when a.a of b > 1 then capture logs limit 1/h",
        "rule x on * when not a.a > 1 then capture logs limit 1/h",
        "rule x on * when a.a > 1 for 1s then capture logs limit 1/h",
        "rule x on * when a.a > 1 then capture net limit 1/h",
        "rule x on * when a.a > 1 then capture logs of b limit 1/h",
        "rule x on * when a.a > 1 then capture logs limit 2/h",
        "rule x on * when a.a > 1 then capture logs limit 1/d",
        "rule x on * when a.a > 1 then capture logs limit 1/h peers b",
    };
    size_t count = sizeof texts / sizeof texts[0];
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            struct rule_set *a = read_set(texts[i]), *b = read_set(texts[k]);
            REQUIRE(a && b);
            CHECK_EQ_INT(same_rule(a, a->rules, b, b->rules), i == k);
            CHECK_EQ_INT(rule_fingerprint(a, a->rules) == rule_fingerprint(b, b->rules), i == k);
            rule_set_close(a);
            rule_set_close(b);
        }
    }
}
