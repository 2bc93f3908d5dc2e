/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the language takes, what it writes back, and with which sentences it refuses.
 */
#include "rule/language.h"

#include <stdio.h>
#include <string.h>

#include "tests/check.h"
#include "trawl.pb.h"

static const struct rule_counter counters[] = {
    {"cpu.user", "us", true},
    {"cpu.busy", "us", true},
    {"memory.available", "bytes", false},
    {"memory.total", "bytes", false},
    {"tcp.retransmits", "1", true},
    {"process.rss", "bytes", false},
};
static const struct rule_catalogue known = {counters, sizeof counters / sizeof counters[0]};

/* The canonical text of `text`, or the sentence that refuses it; until the next call. */
static const char *canonical(const char *text, const struct rule_catalogue *catalogue)
{
    static char out[8192];
    struct rule_set *set = NULL;
    struct failure f = {0};
    struct buf b;
    int e = rule_parse(span_str(text), catalogue, &set, &f);
    if (e) {
        CHECK(set == NULL && f.code == e && f.text[0]);
        (void)strncpy(out, f.text, sizeof out - 1);
        return out;
    }
    buf_init(&b, sizeof out);
    REQUIRE(rule_set_print(set, &b) == 0);
    (void)strncpy(out, buf_str(&b), sizeof out - 1);
    buf_done(&b);
    rule_set_close(set);
    return out;
}

/* The condition as it is written back. */
static const char *condition(const char *text)
{
    char rule[1024];
    (void)snprintf(rule, sizeof rule, "rule x on * when %s then capture counters limit 1/h", text);
    const char *out = canonical(rule, NULL);
    const char *when = strstr(out, "when ");
    if (!when)
        return out;
    static char line[1024];
    (void)strncpy(line, when + 5, sizeof line - 1);
    line[strcspn(line, "\n")] = '\0';
    return line;
}

#define SAME(text_) CHECK_EQ_STR(condition(text_), text_)

TEST(a_whole_rule)
{
    CHECK_EQ_STR(
        canonical("# redis grows\nrule redis-memory: \n", NULL),
        "line 2: 'redis-memory:' is no name of a rule: letters, digits, '-', '_' and '.', at most "
        "63");
    CHECK_EQ_STR(canonical("rule redis-memory # why\n on role=cache, region!=eu\n"
                           "when process.rss of redis-server>2G until <1.5G for 60s\n"
                           "then capture stacks , logs of redis-server limit 2/h peers role,rack",
                           NULL),
                 "rule redis-memory\n    on role=cache,region!=eu\n"
                 "    when process.rss of redis-server > 2G until < 1.5G\n    for 1m\n"
                 "    then capture stacks,logs of redis-server\n    limit 2/h\n"
                 "    peers role,rack\n");
    CHECK_EQ_STR(canonical("", NULL), "");
    CHECK_EQ_STR(canonical("  # nothing but a comment", NULL), "");
}

TEST(conditions_of_every_kind)
{
    SAME("cpu.busy > 90% until < 70%");
    SAME("memory.available < 500M");
    SAME("tcp.retransmits >= 100/s");
    SAME("process.rss of redis-server > 100.5M/m");
    SAME("memory.available <= -1G/m");
    SAME("memory.available / memory.total < 10%");
    SAME("filesystem.free of \"/\" / filesystem.size of \"/\" < 0.05");
    SAME("net.receive_bytes of eth* < 0.2x 10m ago");
    SAME("process redis-server not running");
    SAME("process redis-server restarted 3 times in 10m");
    SAME("process redis-server restarted");
    SAME("process redis-server threads in uninterruptible > 10");
    SAME("exception");
    SAME("exception crash of nginx 3 times in 5m");
    SAME("exception type java.lang.*Error of shop-*");
    SAME("log /var/log/shop/*.log has \"connection refused\" 10 times in 1m");
    SAME("log of shop has OOM");
    SAME("hang tcp:127.0.0.1:6379");
    SAME("hang tcp:[::1]:6379 send=PING every=1s timeout=500ms failures=2");
    SAME("hang http://127.0.0.1:8080/health");
    SAME("hang unit-watchdog:redis.service");
    SAME("hang loop of node");
    SAME("pressure.memory.some > 10%");
    SAME("exception type \"say \\\"no\\\" \\\\\"");
    CHECK_EQ_STR(condition("exception 1 times in 1s"), "exception");
    CHECK_EQ_STR(condition("process \"a\" restarted 1 time in 2s"),
                 "process a restarted 1 times in 2s");
    CHECK_EQ_STR(condition("hang unit-watchdog:a every=30s failures=1 timeout=2s"),
                 "hang unit-watchdog:a");
}

TEST(and_or_not)
{
    SAME("a.a > 1 and a.b > 1 and a.c > 1");
    SAME("a.a > 1 and (a.b > 1 and a.c > 1)");
    SAME("a.a > 1 and (a.b > 1 or a.c > 1)");
    SAME("(a.a > 1 and a.b > 1) or a.c > 1");
    SAME("not (a.a > 1 or a.b > 1)");
    SAME("not not a.a > 1");
    CHECK_EQ_STR(condition("((a.a > 1) and (a.b > 1))"), "a.a > 1 and a.b > 1");
    CHECK_EQ_STR(condition("a.a > 1 and a.b > 1 or a.c > 1"),
                 "line 1: 'and' and 'or' are mixed: say by parentheses what belongs together");
    CHECK_EQ_STR(condition("((((((((a.a > 1))))))))"), "a.a > 1");
    CHECK_EQ_STR(condition("(((((((((a.a > 1)))))))))"),
                 "line 1: parentheses and 'not' go more than 8 deep");
    CHECK_EQ_STR(condition("(a.a > 1"), "line 1: expected ')', 'and' or 'or', not 'then'");
    CHECK_EQ_STR(
        condition("a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 "
                  "and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 and a.a>1 "
                  "and a.a>1"),
        "line 1: a condition has at most 16 comparisons: write it as several rules");
}

TEST(what_is_refused_of_conditions)
{
    CHECK_EQ_STR(condition("proces redis not running"),
                 "line 1: unknown condition 'proces': did you mean 'process'?");
    CHECK_EQ_STR(condition("busy > 1"),
                 "line 1: unknown condition 'busy': there are a counter such as cpu.busy, process, "
                 "exception, log and hang");
    CHECK_EQ_STR(condition("cpu.busy = 90%"),
                 "line 1: expected a comparison: '>', '>=', '<' or '<=', not '='");
    CHECK_EQ_STR(condition("cpu.busy > much"),
                 "line 1: 'much' is no number: 90%, 2G, 500ms, 100/s (in a second), 10M/m (in a "
                 "minute), 5/h, or 2x 10m ago would be right");
    CHECK_EQ_STR(condition("cpu.busy > 10%/m"), "line 1: '%' is a share of the time already: "
                                                "'10%' with 'for 1m' would be right");
    CHECK_EQ_STR(condition("cpu.busy > 90% until > 95%"),
                 "line 1: 'until' goes the other way: '>' ends with 'until <'");
    CHECK_EQ_STR(condition("cpu.busy > 90% until < 95%"),
                 "line 1: the number behind 'until' must be below the limit, or the rule would be "
                 "over while it holds");
    CHECK_EQ_STR(condition("cpu.busy > 90% until < 70"),
                 "line 1: the number behind 'until' must be of the same kind as the limit");
    CHECK_EQ_STR(condition("not cpu.busy > 90% until < 70%"),
                 "line 1: 'until' has no meaning under 'not': turn the comparison round instead");
    CHECK_EQ_STR(condition("a.a > 2x"), "line 1: expected how long ago, such as '10m ago', behind "
                                        "a factor, not 'then'");
    CHECK_EQ_STR(condition("a.a > 2x 10m"), "line 1: expected 'ago', not 'then'");
    CHECK_EQ_STR(condition("a.a > 2x 2h ago"), "line 1: '2h' is out of range: 1 m to 1 h");
    CHECK_EQ_STR(condition("a.a / a.b > 2G"),
                 "line 1: a ratio is compared with a plain number or with '%'");
    CHECK_EQ_STR(condition("process /usr/bin/redis not running"),
                 "line 1: '/usr/bin/redis' is a path: a process is meant by its name");
    CHECK_EQ_STR(condition("process redis threads in unintrruptible > 3"),
                 "line 1: unknown state 'unintrruptible': did you mean 'uninterruptible'?");
    CHECK_EQ_STR(condition("process redis threads in zombie > 1.5"),
                 "line 1: expected a number of threads, not '1.5'");
    CHECK_EQ_STR(condition("exception crsh of redis"),
                 "line 1: unknown source of exceptions 'crsh': did you mean 'crash'?");
    CHECK_EQ_STR(condition("exception crash 101 times in 5m"),
                 "line 1: '101' is out of range: 1 to 100");
    CHECK_EQ_STR(condition("exception crash 0 times in 5m"),
                 "line 1: '0' is out of range: 1 to 100");
    CHECK_EQ_STR(condition("log shop.log has x"), "line 1: 'shop.log' is no whole path: "
                                                  "'/var/log/shop/*.log' or 'log of PROCESS' would "
                                                  "be right");
    CHECK_EQ_STR(condition("hang tcp:localhost:80"),
                 "line 1: 'tcp:localhost:80': its host is no address such as 127.0.0.1 or [::1] "
                 "(names are not looked up)");
    CHECK_EQ_STR(condition("hang tcp:127.0.0.1"), "line 1: 'tcp:127.0.0.1': a port is missing");
    CHECK_EQ_STR(condition("hang tcp:127.0.0.1:0"),
                 "line 1: 'tcp:127.0.0.1:0': its port is no number from 1 to 65535");
    CHECK_EQ_STR(condition("hang udp:127.0.0.1:53"),
                 "line 1: unknown probe 'udp:127.0.0.1:53': there are tcp:HOST:PORT, "
                 "http://HOST/PATH, unit-watchdog:UNIT and 'loop of PROCESS'");
    CHECK_EQ_STR(condition("hang http://127.0.0.1/ send=x"),
                 "line 1: unknown option 'send=x': there are every=5s, timeout=2s, failures=3 and, "
                 "for tcp, send=TEXT");
    CHECK_EQ_STR(condition("exception for 30s"),
                 "line 1: this can never be true for so long: what happens is over at once; "
                 "without 'for', or '3 times in 10m' behind it, would be right");
    CHECK(strstr(condition("exception or a.a > 1 for 30s"), "line") == NULL);
    CHECK(strstr(condition("exception and a.a > 1 for 30s"), "never be true") != NULL);
    CHECK(strstr(condition("exception 1 times in 1m for 30s"), "line") == NULL);
}

static const char *with_known(const char *text)
{
    char rule[512];
    (void)snprintf(rule, sizeof rule, "rule x\non *\n\nwhen %s then capture counters limit 1/h",
                   text);
    return canonical(rule, &known);
}

TEST(counters_that_are_known)
{
    CHECK_EQ_STR(with_known("cpu.usr > 90%"),
                 "line 4: unknown counter 'cpu.usr': did you mean 'cpu.user'?");
    CHECK_EQ_STR(with_known("nothing.like_it > 90%"),
                 "line 4: unknown counter 'nothing.like_it': trawl counters lists what there is");
    CHECK_EQ_STR(with_known("memory.available / memory.totl < 5%"),
                 "line 4: unknown counter 'memory.totl': did you mean 'memory.total'?");
    CHECK_EQ_STR(with_known("tcp.retransmits > 100"),
                 "line 4: tcp.retransmits only rises: '100/s', '10/m' or '5/h' would be right");
    CHECK_EQ_STR(with_known("cpu.busy > 100"),
                 "line 4: cpu.busy only rises: '90%' (of the time) would be right");
    CHECK_EQ_STR(with_known("memory.available < 10%"),
                 "line 4: memory.available is no time, and has no '%': a ratio of two counters "
                 "has, as in 'memory.available / memory.total < 10%'");
    CHECK_EQ_STR(with_known("memory.available < 10s"),
                 "line 4: memory.available is no time: a number without 'us', 'ms', 's', 'm' or "
                 "'h' would be right");
    CHECK(strncmp(with_known("cpu.busy > 90% and memory.available < -1G/m"), "rule x", 6) == 0);
}

TEST(clauses)
{
    CHECK_EQ_STR(canonical("rul x", NULL), "line 1: expected 'rule' and its name, not 'rul'");
    CHECK_EQ_STR(canonical("rule x", NULL),
                 "line 1: the file ends where 'on' and a selector of hosts is expected");
    CHECK_EQ_STR(canonical("rule x on when a.a > 1", NULL),
                 "line 1: expected a selector such as 'role=web', 'web-*' or '*' for all hosts, "
                 "not 'when'");
    CHECK_EQ_STR(canonical("rule x on =web when", NULL),
                 "line 1: '=web' is no term of a selector: 'key=value', 'key!=value', a host name, "
                 "a glob such as 'web-*', or '*' for all");
    CHECK(strstr(canonical("rule x on a=1,,b when", NULL), "'' is no term"));
    CHECK(strstr(canonical("rule x on !=web when", NULL), "'!=web' is no term"));
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 limit 3/h", NULL),
                 "line 1: expected 'and', 'or', 'for DURATION' or 'then capture', not 'limit'");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 for 3 then", NULL),
                 "line 1: expected a duration such as '30s' behind 'for', not '3'");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 for 2d then", NULL),
                 "line 1: '2d' is out of range: 1.0 s to 1 d");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then capture counters\n", NULL),
                 "line 2: the file ends where 'of PROCESS' or a limit such as 'limit 3/h' is "
                 "expected");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then capture counters limit 21/h", NULL),
                 "line 1: '21/h' is out of range: 1 to 20 captures");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then capture counters limit 3/m", NULL),
                 "line 1: expected how many captures in an hour or a day, such as '3/h' or '5/d', "
                 "not '3/m'");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then capture counters limit 3/h "
                           "peers role=web",
                           NULL),
                 "line 1: 'role=web' is no label: the key alone is written, as in 'peers role' "
                 "(hosts with the same value of it are meant)");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then capture counters limit 3/h\n"
                           "rule x on *",
                           NULL),
                 "line 2: there is a rule 'x' already, in line 1");
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then run /bin/sh", NULL),
                 "line 1: expected 'capture' and kinds of evidence, not 'run'");
    CHECK_EQ_STR(
        canonical("rule x on * when a.a > 1 then capture stacks of /bin/sh limit 1/h", NULL),
        "line 1: '/bin/sh' is no name of a process");
}

/* Memory comes only when it is written, and no word brings it along. */
TEST(kinds_of_evidence)
{
    static const char *const shorthand[] = {"all", "default", "memory", "*", "dump", NULL};
    char text[256];
    for (size_t i = 0; shorthand[i]; i++) {
        (void)snprintf(text, sizeof text, "rule x on * when a.a > 1 then capture %s limit 1/h",
                       shorthand[i]);
        CHECK(strstr(canonical(text, NULL), "unknown kind of evidence") != NULL);
    }
    CHECK_EQ_STR(canonical("rule x on * when a.a > 1 then capture stack limit 1/h", NULL),
                 "line 1: unknown kind of evidence 'stack': did you mean 'stacks'?");
    CHECK(strstr(canonical("rule x on * when a.a > 1 then capture mini,core limit 1/h", NULL),
                 "capture mini,core\n"));
    CHECK(strstr(canonical("rule x on * when a.a > 1 then capture crash limit 1/h", NULL),
                 "gathered by itself"));
    CHECK(strstr(canonical("rule x on * when a.a > 1 then capture logs,logs limit 1/h", NULL),
                 "'logs' is named twice"));
    CHECK(strstr(canonical("rule x on * when a.a > 1 then capture limit 1/h", NULL), "'limit'"));
}

TEST(bytes_that_are_no_text)
{
    struct rule_set *set = NULL;
    struct failure f = {0};
    CHECK_EQ_STR(canonical("# fine\n# \x01", NULL),
                 "line 2: there is a control character (byte 0x01)");
    CHECK_EQ_STR(canonical("# \xff", NULL), "line 1: this is no UTF-8 text");
    CHECK_EQ_STR(canonical("rule \xc3\xa4", NULL),
                 "line 1: letters outside of ASCII stand in quotes");
    CHECK_EQ_STR(canonical("rule \"x\n\"", NULL),
                 "line 1: a quote is opened and not closed on its line");
    CHECK_EQ_STR(canonical("rule \"\\n\"", NULL),
                 "line 1: in quotes a backslash stands before a quote or another backslash: \\\" "
                 "or \\\\");
    CHECK_EQ_INT(rule_parse(span_of("rule \0x", 7), NULL, &set, &f), ERR_INVALID);
    static char big[RULE_TEXT_MAX + 1];
    memset(big, ' ', sizeof big);
    CHECK_EQ_INT(rule_parse(span_of(big, sizeof big), NULL, &set, &f), ERR_LIMIT);
    CHECK_EQ_INT(rule_parse(span_of(big, sizeof big - 1), NULL, &set, &f), 0);
    rule_set_close(set);
    memset(big, 'x', 300);
    CHECK_EQ_INT(rule_parse(span_of(big, 300), NULL, &set, &f), ERR_LIMIT);
}

TEST(too_many_rules)
{
    static char text[RULE_TEXT_MAX];
    size_t at = 0;
    for (int i = 0; i < RULES_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "rule r%d on * when a.a>1 then capture logs limit 1/h\n", i);
    struct rule_set *set = NULL;
    struct failure f = {0};
    REQUIRE(rule_parse(span_of(text, at), NULL, &set, &f) == 0);
    CHECK_EQ_INT(set->count, RULES_MAX);
    CHECK_EQ_STR(rule_find(set, "r255")->name, "r255");
    CHECK(rule_find(set, "r256") == NULL);
    CHECK_EQ_INT(rule_find(set, "r9")->line, 10);
    rule_set_close(set);
    at += (size_t)snprintf(text + at, sizeof text - at, "rule more");
    CHECK_EQ_INT(rule_parse(span_of(text, at), NULL, &set, &f), ERR_LIMIT);
    CHECK_EQ_STR(f.text, "line 257: a file has at most 256 rules");
}

TEST(what_rules_want_to_be_told)
{
    struct rule_set *set = NULL;
    struct failure f = {0};
    const char *text = "rule a on * when process.rss of redis > 1G and process redis not running\n"
                       "and hang tcp:127.0.0.1:1 and hang loop of node then capture logs limit 1/h "
                       "rule b on * when hang tcp:127.0.0.1:1 or hang tcp:127.0.0.1:1 every=1s or "
                       "log of node has x then capture logs limit 1/h";
    REQUIRE(rule_parse(span_str(text), NULL, &set, &f) == 0);
    CHECK_EQ_INT(set->probe_count, 2);
    CHECK_EQ_INT(set->rules[0].terms[2].probe, set->rules[1].terms[0].probe);
    CHECK_EQ_INT(set->process_count, 2);
    CHECK_EQ_STR(set->processes[0].name, "redis");
    CHECK_EQ_INT(set->processes[0].wants, RULE_WANTS_COUNTERS | RULE_WANTS_RUNNING);
    CHECK_EQ_INT(set->processes[1].wants, RULE_WANTS_LOOP | RULE_WANTS_LOG);
    rule_set_close(set);
}

TEST(a_rule_is_taken_out_of_its_file)
{
    const char *text = "# first\nrule a\n  on * when a.a > 1 then capture logs limit 1/h\n\n"
                       "# second\nrule b on * when a.a > 1 then capture logs limit 1/h # end\n";
    struct buf out;
    struct failure f = {0};
    buf_init(&out, 4096);
    REQUIRE(rule_text_without(span_str(text), "a", &out, &f) == 0);
    CHECK_EQ_STR(buf_str(&out), "# first\n\n# second\nrule b on * when a.a > 1 then capture logs "
                                "limit 1/h # end\n");
    buf_clear(&out);
    REQUIRE(rule_text_without(span_str(text), "b", &out, &f) == 0);
    CHECK_EQ_STR(buf_str(&out), "# first\nrule a\n  on * when a.a > 1 then capture logs limit "
                                "1/h\n\n# second\n # end\n");
    CHECK_EQ_INT(rule_text_without(span_str(text), "bb", &out, &f), ERR_NOTFOUND);
    CHECK_EQ_STR(f.text, "there is no rule 'bb': did you mean 'b'?");
    buf_done(&out);
}

TEST(numbers)
{
    struct rule_number n;
    char text[40];
    REQUIRE(rule_number_parse("1.5G/m", &n) == 0);
    CHECK(n.milli == 1500 && n.unit == RULE_GIB && n.per == RULE_PER_M);
    CHECK(rule_number_value(&n) == 1.5 * 1024 * 1024 * 1024);
    REQUIRE(rule_number_parse("-0.050%", &n) == 0);
    rule_number_put(&n, text, sizeof text);
    CHECK_EQ_STR(text, "-0.05%");
    REQUIRE(rule_number_parse("999999999999999.999T", &n) == 0);
    rule_number_put(&n, text, sizeof text);
    CHECK_EQ_STR(text, "999999999999999.999T");
    REQUIRE(rule_number_parse("250ms", &n) == 0);
    CHECK(rule_number_value(&n) == 250000);
    static const char *const bad[] = {"",   "-",   ".5",  "1.", "1.2345", "1e3", "1000000000000000",
                                      "5q", "5/d", "5%%", "+5", "0x10",   NULL};
    for (size_t i = 0; bad[i]; i++)
        CHECK_EQ_INT(rule_number_parse(bad[i], &n), ERR_INVALID);
}

/* The words stand for numbers that another file gives. */
TEST(sources_are_those_of_the_schema)
{
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_CRASH), "crash");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_OOM_KILL), "oom-kill");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_FAULT_LINE), "fault-line");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_HUNG_TASK), "hung-task");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_HARDWARE_ERROR), "hardware");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_UNIT_RESULT), "unit-result");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_PROCESS_EXIT), "process-exit");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_LOG_TRACE), "log-trace");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_CPP_THROW), "c++-throw");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_HANG), "hang");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_REPORTED), "reported");
    CHECK_EQ_STR(rule_source_word(trawl_v1_ExceptionSource_WINDOWS_ERROR), "windows-error");
    CHECK(rule_source_word(0) == NULL && rule_source_word(13) == NULL);
}
