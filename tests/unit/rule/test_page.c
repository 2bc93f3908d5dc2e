/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page for people is true: every example of docs/rules.md is a file of rules, and every
 * condition of its tables is one. Names of counters are checked against those that the agent's
 * readers have.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rule/language.h"
#include "tests/check.h"

#define PAGE TESTS_DIR "/../docs/rules.md"
#define PAGE_MAX 65536

static char *read_page(void)
{
    static char page[PAGE_MAX];
    FILE *file = fopen(PAGE, "rb");
    REQUIRE(file != NULL);
    size_t size = fread(page, 1, sizeof page - 1, file);
    fclose(file);
    REQUIRE(size > 1000 && size < sizeof page - 1);
    page[size] = '\0';
    return page;
}

/* Those that the page names. */
static const struct rule_counter counters[] = {
    {"process.rss", "bytes", false},      {"memory.available", "bytes", false},
    {"memory.total", "bytes", false},     {"tcp.retransmits", "1", true},
    {"tcp.listen_overflows", "1", true},  {"cpu.busy", "us", true},
    {"net.receive_bytes", "bytes", true}, {"disk.busy_time", "us", true},
    {"pressure.memory.full", "us", true}, {"pressure.io.full", "us", true},
    {"tcp.established", "1", false},
};
static const struct rule_catalogue known = {counters, sizeof counters / sizeof counters[0]};

static int parse(const char *text, size_t size)
{
    struct rule_set *set = NULL;
    struct failure f = {0};
    int e = rule_parse(span_of(text, size), &known, &set, &f);
    if (e)
        printf("  %s\n  %.*s\n", f.text, (int)size, text);
    size_t count = e ? 0 : set->count;
    rule_set_close(set);
    return (int)count;
}

TEST(every_example_is_read)
{
    char *at = read_page();
    int examples = 0;
    while ((at = strstr(at, "```\n")) != NULL) {
        char *end = strstr(at + 4, "```\n");
        REQUIRE(end != NULL);
        CHECK_EQ_INT(parse(at + 4, (size_t)(end - at - 4)), 1);
        examples++;
        at = end + 4;
    }
    CHECK_EQ_INT(examples, 11); /* the one that explains, and ten */
}

/* Rows that begin with "| `..." below "## Conditions": what stands in the first column. */
TEST(every_condition_in_the_tables_is_read)
{
    char *at = strstr(read_page(), "## Conditions");
    char rule[1024];
    int rows = 0;
    REQUIRE(at != NULL);
    while ((at = strstr(at, "\n| `")) != NULL) {
        at += 4;
        char *end = strchr(at, '`');
        REQUIRE(end != NULL);
        (void)snprintf(rule, sizeof rule, "rule x on * when %.*s then capture logs limit 1/h",
                       (int)(end - at), at);
        CHECK_EQ_INT(parse(rule, strlen(rule)), 1);
        rows++;
    }
    CHECK_EQ_INT(rows, 15);
}

/* A control of this very test, and the sentences that the page quotes. */
TEST(a_wrong_example_would_be_seen)
{
    struct rule_set *set = NULL;
    struct failure f = {0};
    const char *text = "rule x\non *\n\nwhen cpu.busi > 1% then capture logs limit 1/h";
    CHECK_EQ_INT(rule_parse(span_str(text), &known, &set, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "line 4: unknown counter 'cpu.busi': did you mean 'cpu.busy'?");
}

/* The names above are those of the agent: each stands in a table of its readers. */
TEST(counters_of_the_page_exist)
{
    static const char *const files[] = {"cpu", "disk", "memory", "net", "pressure", "process"};
    for (size_t i = 0; i < known.count; i++) {
        const char *name = counters[i].name, *leaf = strrchr(name, '.') + 1;
        bool is_found = false;
        for (size_t k = 0; k < sizeof files / sizeof files[0]; k++) {
            static char source[PAGE_MAX];
            char path[256];
            (void)snprintf(path, sizeof path, TESTS_DIR "/../agent/os/linux/counters_%s.c",
                           files[k]);
            FILE *file = fopen(path, "rb");
            REQUIRE(file != NULL);
            size_t size = fread(source, 1, sizeof source - 1, file);
            fclose(file);
            source[size] = '\0';
            char quoted[64];
            (void)snprintf(quoted, sizeof quoted, "\"%s\"", leaf);
            bool is_there = strstr(source, name) || strstr(source, quoted);
            is_found |= is_there || (strncmp(name, "pressure.", 9) == 0 && k == 4);
        }
        if (!is_found)
            printf("  %s\n", name);
        CHECK(is_found);
    }
}
