/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table through all its uses: defaults, single settings, files, flags, help, sample. Error
 * texts are compared in full, because they are what an operator sees of this module.
 */
#include "tests/unit/common/scratch.h"

#include "tests/unit/common/failing_buf.h"

#include "common/conf.h"

#include <stddef.h>
#include <string.h>

#include "common/port.h"
#include "tests/check.h"

struct settings {
    char guard_before[4];
    char collector[16];
    char guard_between[4];
    char labels[12];
    char guard_after[4];
    bool color;
    bool dry_run;
    uint64_t port;
    uint64_t disk_bytes;
    int64_t pause_max_us;
    bool version;
};

#define AT(member) offsetof(struct settings, member)

static const struct conf_row rows[] = {
    {.name = "collector",
     .type = CONF_STRING,
     .offset = AT(collector),
     .size_bytes = 16,
     .initial = "localhost",
     .placeholder = "HOST",
     .help = "where the collector is"},
    {.name = "labels",
     .type = CONF_LIST,
     .offset = AT(labels),
     .size_bytes = 12,
     .initial = "a=b",
     .placeholder = "K=V",
     .help = "labels of this host"},
    {.name = "color", .type = CONF_BOOL, .offset = AT(color), .initial = "yes", .help = "colours"},
    {.name = "dry-run", .type = CONF_BOOL, .offset = AT(dry_run), .help = "only say what"},
    {.name = "port",
     .type = CONF_U64,
     .offset = AT(port),
     .min = 1,
     .max = 65535,
     .initial = "7443",
     .placeholder = "PORT",
     .help = "port of the collector"},
    {.name = "disk-max",
     .type = CONF_SIZE_BYTES,
     .offset = AT(disk_bytes),
     .min = 1 << 20,
     .max = UINT64_C(1) << 40,
     .initial = "64M",
     .placeholder = "SIZE",
     .help = "room on disk"},
    {.name = "pause-max",
     .type = CONF_DURATION_US,
     .offset = AT(pause_max_us),
     .min = 1000,
     .max = 90000000,
     .initial = "50ms",
     .placeholder = "TIME",
     .help = "longest pause of a captured process"},
    {.name = "version",
     .type = CONF_BOOL,
     .offset = AT(version),
     .help = "print the version",
     .flag_only = true},
};

#define COUNT (sizeof rows / sizeof rows[0])
#define KNOWN "(known: collector, labels, color, dry-run, port, disk-max, pause-max)"
#define KNOWN_FLAGS                                                                        \
    "(known: --collector, --labels, --color, --dry-run, --port, --disk-max, --pause-max, " \
    "--version)"

static const struct conf_short shorts[] = {{'c', "collector"}, {'l', "labels"}, {'n', "dry-run"}};

static struct settings s;
static struct failure f;

static void defaults(void)
{
    memset(&s, '#', sizeof s);
    f = (struct failure){0};
    conf_defaults(rows, COUNT, &s);
}

static int set(const char *name, const char *value)
{
    return conf_set(rows, COUNT, &s, "agent.conf:12", name, value, &f);
}

static int parse(const char *text)
{
    defaults();
    return conf_parse(rows, COUNT, &s, span_str(text), "agent.conf", &f);
}

/* ---- defaults and single settings ---- */

TEST(defaults_fill_every_member_and_nothing_else)
{
    defaults();
    CHECK_EQ_STR(s.collector, "localhost");
    CHECK_EQ_STR(s.labels, "a=b");
    CHECK(s.color && !s.dry_run && !s.version);
    CHECK_EQ_INT(s.port, 7443);
    CHECK_EQ_INT(s.disk_bytes, 64 << 20);
    CHECK_EQ_INT(s.pause_max_us, 50000);
    CHECK_EQ_MEM(s.guard_before, "####", 4);
    CHECK_EQ_MEM(s.guard_between, "####", 4);
    CHECK_EQ_MEM(s.guard_after, "####", 4);
}

TEST(settings_are_read_by_their_type)
{
    defaults();
    CHECK_EQ_INT(set("collector", "c1.example"), 0);
    CHECK_EQ_INT(set("port", "65535"), 0);
    CHECK_EQ_INT(set("disk_max", "2G"), 0);
    CHECK_EQ_INT(set("pause-max", "1m"), 0);
    CHECK_EQ_STR(s.collector, "c1.example");
    CHECK_EQ_INT(s.port, 65535);
    CHECK_EQ_INT(s.disk_bytes, UINT64_C(2) << 30);
    CHECK_EQ_INT(s.pause_max_us, 60000000);
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < 8; i++) {
        s.dry_run = i % 2 == 0;
        CHECK_EQ_INT(set("dry-run", words[i]), 0);
        CHECK_EQ_INT(s.dry_run, i % 2);
    }
}

TEST(ranges_are_inclusive)
{
    static const struct {
        const char *name, *value;
        int code;
    } cases[] = {
        {"port", "0", ERR_INVALID},
        {"port", "1", 0},
        {"port", "65535", 0},
        {"port", "65536", ERR_INVALID},
        {"pause-max", "999us", ERR_INVALID},
        {"pause-max", "1ms", 0},
        {"pause-max", "90s", 0},
        {"pause-max", "90000001us", ERR_INVALID},
        {"disk-max", "1023K", ERR_INVALID},
        {"disk-max", "1M", 0},
        {"disk-max", "1T", 0},
        {"disk-max", "1025G", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        defaults();
        struct settings before = s;
        CHECK_EQ_INT(set(cases[i].name, cases[i].value), cases[i].code);
        CHECK((memcmp(&s, &before, sizeof s) == 0) == (cases[i].code < 0));
    }
}

TEST(what_is_wrong_is_said_and_nothing_is_set)
{
    static const struct {
        const char *name, *value, *text;
    } cases[] = {
        {"port", "abc",
         "invalid value 'abc' for 'port' at agent.conf:12: expected a whole number, "
         "from 1 to 65535"},
        {"port", "",
         "invalid value '' for 'port' at agent.conf:12: expected a whole number, from 1 to 65535"},
        {"pause-max", "10",
         "invalid value '10' for 'pause-max' at agent.conf:12: expected a duration such as "
         "500ms, 10s, 5m, from 1ms to 90s"},
        {"disk-max", "-1",
         "invalid value '-1' for 'disk-max' at agent.conf:12: expected a size such as 4096, 64K, "
         "2G, from 1M to 1T"},
        {"color", "maybe",
         "invalid value 'maybe' for 'color' at agent.conf:12: expected yes or no"},
        {"collector", "0123456789abcdef",
         "invalid value '0123456789abcdef' for 'collector' at agent.conf:12: expected at most 15 "
         "characters"},
        {"collecter", "x",
         "unknown setting 'collecter' at agent.conf:12; did you mean 'collector'? " KNOWN},
        {"zzz", "x", "unknown setting 'zzz' at agent.conf:12 " KNOWN},
        {"", "x", "unknown setting '' at agent.conf:12 " KNOWN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        defaults();
        struct settings before = s;
        CHECK_EQ_INT(set(cases[i].name, cases[i].value), ERR_INVALID);
        CHECK_EQ_INT(f.code, ERR_INVALID);
        CHECK_EQ_STR(f.text, cases[i].text);
        CHECK_EQ_MEM(&s, &before, sizeof s);
    }
    CHECK_EQ_INT(conf_set(rows, COUNT, &s, "x:1", "port", "y", NULL), ERR_INVALID);
}

TEST(the_longest_string_fits)
{
    defaults();
    CHECK_EQ_INT(set("collector", "0123456789abcde"), 0);
    CHECK_EQ_STR(s.collector, "0123456789abcde");
    CHECK_EQ_MEM(s.guard_between, "####", 4);
    CHECK_EQ_INT(set("collector", ""), 0);
    CHECK_EQ_STR(s.collector, "");
}

TEST(lists_join_up_to_their_size)
{
    defaults();
    CHECK_EQ_INT(set("labels", "x=1"), 0);
    CHECK_EQ_STR(s.labels, "x=1");
    CHECK_EQ_INT(set("labels", "y=2"), 0);
    CHECK_EQ_STR(s.labels, "x=1,y=2");
    CHECK_EQ_INT(set("labels", ""), 0);
    CHECK_EQ_STR(s.labels, "x=1,y=2");
    CHECK_EQ_INT(set("labels", "long"), ERR_INVALID);
    CHECK_EQ_STR(s.labels, "x=1,y=2");
    CHECK_EQ_INT(set("labels", "z=3"), 0);
    CHECK_EQ_STR(s.labels, "x=1,y=2,z=3");
    CHECK_EQ_MEM(s.guard_after, "####", 4);
}

TEST(many_known_names_are_cut_at_a_name)
{
    static char names[CONF_ROWS_MAX][8];
    static struct conf_row many[CONF_ROWS_MAX];
    for (size_t i = 0; i < CONF_ROWS_MAX; i++) {
        snprintf(names[i], sizeof names[i], "name%03zu", i);
        many[i] = (struct conf_row){.name = names[i], .type = CONF_BOOL, .offset = AT(color)};
    }
    CHECK_EQ_INT(conf_set(many, CONF_ROWS_MAX, &s, "x:1", "other", "1", &f), ERR_INVALID);
    CHECK(strstr(f.text, "(known: name000, name001, ") != NULL);
    size_t length = strlen(f.text);
    CHECK(length < FAILURE_TEXT_SIZE - 1);
    CHECK_EQ_STR(f.text + length - 13, "name020, ...)");
}

/* ---- files ---- */

TEST(a_file_is_read)
{
    CHECK_EQ_INT(parse("# comment\n; another\n\n  collector = c1  \nport=80\nlabels = x=1\n"
                       "labels : y=2\ndisk_max = 2G ; room\r\n\tdry-run = yes\npause-max = 5ms"),
                 0);
    CHECK_EQ_STR(s.collector, "c1");
    CHECK_EQ_INT(s.port, 80);
    CHECK_EQ_STR(s.labels, "x=1,y=2");
    CHECK_EQ_INT(s.disk_bytes, UINT64_C(2) << 30);
    CHECK(s.dry_run);
    CHECK_EQ_INT(s.pause_max_us, 5000);
    CHECK_EQ_INT(parse(""), 0);
    CHECK_EQ_INT(parse("\xEF\xBB\xBFport = 81\n"), 0);
    CHECK_EQ_INT(s.port, 81);
}

TEST(an_indented_line_is_a_setting_of_its_own)
{
    CHECK_EQ_INT(parse("collector = c1\n    port = 90\n"), 0);
    CHECK_EQ_STR(s.collector, "c1");
    CHECK_EQ_INT(s.port, 90);
}

TEST(the_last_of_two_values_counts_but_lists_join)
{
    CHECK_EQ_INT(parse("port = 1\nport = 2\nlabels = a=b\nlabels = c\n"), 0);
    CHECK_EQ_INT(s.port, 2);
    CHECK_EQ_STR(s.labels, "a=b,c");
}

TEST(file_errors_name_the_line)
{
    static const struct {
        const char *file, *text;
    } cases[] = {
        {"\n\n# x\ncollecter = x\nport = bad\n",
         "unknown setting 'collecter' at agent.conf:4; did you mean 'collector'? " KNOWN},
        {"port = 1\n\nport = bad", "invalid value 'bad' for 'port' at agent.conf:3: expected a "
                                   "whole number, from 1 to 65535"},
        {"port = 1\nnonsense\nport = bad\n",
         "unreadable line at agent.conf:2: expected 'name = value'"},
        {"port = bad\nnonsense\n", "invalid value 'bad' for 'port' at agent.conf:1: expected a "
                                   "whole number, from 1 to 65535"},
        {"= 5\n", "unknown setting '' at agent.conf:1 " KNOWN},
        {"[agent]\nport = 1\n", "section '[agent]' above agent.conf:2: expected settings only"},
        {"[agent\nport = 1\n", "unreadable line at agent.conf:1: expected 'name = value'"},
        {"version = yes\n",
         "'version' at agent.conf:1 is a flag (--version), not a setting of the file"},
        {"color =\n", "invalid value '' for 'color' at agent.conf:1: expected yes or no"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ_INT(parse(cases[i].file), ERR_INVALID);
        CHECK_EQ_INT(f.code, ERR_INVALID);
        CHECK_EQ_STR(f.text, cases[i].text);
    }
}

TEST(nothing_is_read_behind_the_first_error)
{
    CHECK_EQ_INT(parse("port = 1\ncollecter = x\nport = 2\n"), ERR_INVALID);
    CHECK_EQ_INT(s.port, 1);
}

TEST(long_lines_are_refused_and_not_split)
{
    char text[600] = "# ";
    memset(text + 2, 'x', 500);
    memcpy(text + 502, "\nport = 5\n", 11);
    CHECK_EQ_INT(parse(text), ERR_INVALID);
    CHECK(strstr(f.text, "line too long at agent.conf:1: expected at most ") != NULL);
    memset(text, ' ', 300);
    memcpy(text + 300, "port = 5", 9);
    CHECK_EQ_INT(parse(text), 0);
    CHECK_EQ_INT(s.port, 5);
}

/* Where the limit lies is inih's affair; that the text tells it right is ours. */
TEST(the_longest_line_is_as_long_as_the_error_says)
{
    char text[600], expected[80];
    size_t length = 10;
    memset(text, '#', sizeof text);
    for (; length < 500; length++) {
        text[length] = '\0';
        if (parse(text) < 0)
            break;
        text[length] = '#';
    }
    snprintf(expected, sizeof expected,
             "line too long at agent.conf:1: expected at most %zu characters", length - 1);
    CHECK(length > 100);
    CHECK_EQ_STR(f.text, expected);
}

TEST(a_file_with_zeros_is_no_text)
{
    defaults();
    CHECK_EQ_INT(conf_parse(rows, COUNT, &s, span_of("port = 1\0\n", 10), "x", &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "cannot read 'x': not a text file");
    CHECK_EQ_INT(s.port, 7443);
}

TEST(a_long_path_leaves_the_line_number)
{
    char path[400];
    memset(path, 'd', sizeof path);
    memcpy(path + 385, "/agent.conf", 12);
    defaults();
    CHECK_EQ_INT(conf_parse(rows, COUNT, &s, span_str("nonsense"), path, &f), ERR_INVALID);
    CHECK(strstr(f.text, "ddd/agent.conf:1: expected") != NULL);
}

TEST(a_file_on_disk)
{
    char path[SCRATCH_PATH_SIZE];
    defaults();
    CHECK_EQ_INT(conf_file(rows, COUNT, &s, scratch("none.conf", path), &f), ERR_NOTFOUND);
    CHECK(strstr(f.text, "none.conf") != NULL);
    REQUIRE(port_write_file(path, span_str("port = 99\n"), true, &f) == 0);
    CHECK_EQ_INT(conf_file(rows, COUNT, &s, path, &f), 0);
    CHECK_EQ_INT(s.port, 99);
    failing_buf_after(0);
    CHECK_EQ_INT(conf_file(rows, COUNT, &s, path, &f), ERR_NOMEM);
    failing_buf_after(-1);
    static uint8_t large[CONF_FILE_MAX_BYTES + 1];
    memset(large, '\n', sizeof large);
    REQUIRE(port_write_file(path, span_of(large, sizeof large), true, &f) == 0);
    CHECK_EQ_INT(conf_file(rows, COUNT, &s, path, &f), ERR_LIMIT);
}

/* ---- flags ---- */

#define WORDS_MAX 12

static char *words[WORDS_MAX + 1];
static int word_count;

/* Runs conf_args() over words (NULL-terminated) and gives the ones left, joined by blanks. */
static int flags(const char *const *given)
{
    static char copies[WORDS_MAX][64];
    for (word_count = 0; given[word_count]; word_count++) {
        REQUIRE(word_count < WORDS_MAX);
        snprintf(copies[word_count], sizeof copies[0], "%s", given[word_count]);
        words[word_count] = copies[word_count];
    }
    words[word_count] = NULL;
    return conf_args(rows, COUNT, shorts, 3, &s, &word_count, words, &f);
}

#define FLAGS(...) flags((const char *const[]){__VA_ARGS__, NULL})

static const char *left(void)
{
    static char joined[256];
    joined[0] = '\0';
    for (int i = 0; i < word_count; i++) {
        size_t length = strlen(joined);
        snprintf(joined + length, sizeof joined - length, "%s%s", i ? " " : "", words[i]);
    }
    return words[word_count] ? "(not terminated)" : joined;
}

TEST(every_form_of_a_flag)
{
    defaults();
    CHECK_EQ_INT(FLAGS("trawl", "--port", "1", "capture", "--pause-max=10ms", "--no-color", "host1",
                       "--dry-run"),
                 0);
    CHECK_EQ_STR(left(), "trawl capture host1");
    CHECK_EQ_INT(s.port, 1);
    CHECK_EQ_INT(s.pause_max_us, 10000);
    CHECK(!s.color && s.dry_run);
    defaults();
    CHECK_EQ_INT(FLAGS("-c", "c1", "-lx=1", "-n", "--disk_max=1M", "--color=no", "--version"), 0);
    CHECK_EQ_STR(left(), "");
    CHECK_EQ_STR(s.collector, "c1");
    CHECK_EQ_STR(s.labels, "x=1");
    CHECK(s.dry_run && !s.color && s.version);
    CHECK_EQ_INT(s.disk_bytes, 1 << 20);
    CHECK_EQ_INT(FLAGS("-c=c2", "--collector="), 0);
    CHECK_EQ_STR(s.collector, "");
}

TEST(two_dashes_end_flags_and_one_is_a_word)
{
    defaults();
    CHECK_EQ_INT(FLAGS("a", "-", "--", "--port", "--", "-x"), 0);
    CHECK_EQ_STR(left(), "a - --port -- -x");
    CHECK_EQ_INT(s.port, 7443);
}

TEST(a_value_may_begin_with_one_dash)
{
    defaults();
    CHECK_EQ_INT(FLAGS("--collector", "-10m", "x"), 0);
    CHECK_EQ_STR(s.collector, "-10m");
    CHECK_EQ_STR(left(), "x");
    CHECK_EQ_INT(FLAGS("--collector=--x"), 0);
    CHECK_EQ_STR(s.collector, "--x");
}

TEST(flags_win_over_the_file_and_lists_join_among_flags)
{
    CHECK_EQ_INT(parse("port = 5\nlabels = f=1\nlabels = f=2\nlabels = f=3\n"), 0);
    CHECK_EQ_INT(FLAGS("--labels", "x=1", "--port=6", "-l", "y=2"), 0);
    CHECK_EQ_STR(s.labels, "x=1,y=2");
    CHECK_EQ_INT(s.port, 6);
}

TEST(flag_errors)
{
    static const struct {
        const char *words[3];
        const char *text;
    } cases[] = {
        {{"--collecter", "x"},
         "unknown flag '--collecter'; did you mean '--collector'? " KNOWN_FLAGS},
        {{"--prt=5"}, "unknown flag '--prt'; did you mean '--port'? " KNOWN_FLAGS},
        {{"-x"}, "unknown flag '-x' " KNOWN_FLAGS},
        {{"-nx"}, "unknown flag '-nx' " KNOWN_FLAGS},
        {{"--on-color"}, "unknown flag '--on-color' " KNOWN_FLAGS},
        {{"--no-port"}, "unknown flag '--no-port' " KNOWN_FLAGS},
        {{"--no-color=yes"}, "unexpected value for '--no-color'"},
        {{"--port"}, "missing value for '--port': expected --port PORT"},
        {{"--port", "--color"}, "missing value for '--port': expected --port PORT"},
        {{"-c"}, "missing value for '-c': expected -c HOST"},
        {{"--port", "abc"},
         "invalid value 'abc' at --port: expected a whole number, from 1 to 65535"},
        {{"--color=maybe"}, "invalid value 'maybe' at --color: expected yes or no"},
        {{"-c", "0123456789abcdef"},
         "invalid value '0123456789abcdef' at -c: expected at most 15 characters"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        defaults();
        struct settings before = s;
        CHECK_EQ_INT(FLAGS(cases[i].words[0], cases[i].words[1]), ERR_INVALID);
        CHECK_EQ_STR(f.text, cases[i].text);
        CHECK_EQ_MEM(&s, &before, sizeof s);
    }
    CHECK_EQ_INT(FLAGS("--a-flag-whose-name-is-longer-than-any-name-that-we-know-of-here=1"),
                 ERR_INVALID);
    CHECK(strstr(f.text, "unknown flag '--a-flag-") != NULL);
}

TEST(without_short_names_there_are_none)
{
    char word[] = "-c", *one[] = {word, NULL};
    int count = 1;
    defaults();
    CHECK_EQ_INT(conf_args(rows, COUNT, NULL, 0, &s, &count, one, &f), ERR_INVALID);
    count = 0;
    CHECK_EQ_INT(conf_args(rows, COUNT, NULL, 0, &s, &count, one, &f), 0);
}

/* ---- help and sample ---- */

static const char help_text[] =
    "  -c, --collector HOST        where the collector is (default localhost)\n"
    "  -l, --labels K=V            labels of this host (default a=b)\n"
    "      --no-color              colours\n"
    "  -n, --dry-run               only say what\n"
    "      --port PORT             port of the collector (default 7443)\n"
    "      --disk-max SIZE         room on disk (default 64M)\n"
    "      --pause-max TIME        longest pause of a captured process (default 50ms)\n"
    "      --version               print the version\n";

TEST(help_has_one_line_a_row)
{
    struct buf b;
    buf_init(&b, 4096);
    CHECK_EQ_INT(conf_help(rows, COUNT, shorts, 3, &b), 0);
    CHECK_EQ_STR(buf_str(&b), help_text);
    buf_done(&b);
}

TEST(help_breaks_behind_a_long_flag_and_leaves_out_hidden_ones)
{
    static const struct conf_row long_rows[] = {
        {.name = "hidden", .type = CONF_BOOL},
        {.name = "a-very-long-name-of-a-flag", .type = CONF_BOOL, .help = "help"},
        {.name = "twenty-two-characters-", .type = CONF_BOOL, .help = "help"},
        {.name = "twenty-one-characters", .type = CONF_BOOL, .help = "help"},
    };
    struct buf b;
    buf_init(&b, 4096);
    CHECK_EQ_INT(conf_help(long_rows, 4, NULL, 0, &b), 0);
    CHECK_EQ_STR(buf_str(&b), "      --a-very-long-name-of-a-flag\n"
                              "                              help\n"
                              "      --twenty-two-characters-\n"
                              "                              help\n"
                              "      --twenty-one-characters help\n");
    buf_done(&b);
}

/* The sample with every setting made active has to give the defaults again. */
TEST(the_sample_reads_back_as_the_defaults)
{
    struct buf b;
    buf_init(&b, 4096);
    REQUIRE(conf_sample(rows, COUNT, &b) == 0);
    const char *text = buf_str(&b);
    CHECK(strncmp(text, "# where the collector is\n#collector = localhost\n\n", 48) == 0);
    CHECK(strstr(text, "version") == NULL);
    defaults();
    struct settings expected = s;
    unsigned active = 0;
    for (size_t i = 0; i + 1 < b.size_bytes; i++)
        if (b.data[i] == '#' && b.data[i + 1] != ' ') {
            b.data[i] = ' ';
            active++;
        }
    CHECK_EQ_INT(active, COUNT - 1);
    memset(&s.port, 0, sizeof s.port);
    s.color = false;
    CHECK_EQ_INT(conf_parse(rows, COUNT, &s, buf_span(&b), "sample", &f), 0);
    CHECK_EQ_MEM(&s, &expected, sizeof s);
    buf_done(&b);
}

TEST(help_and_sample_stop_at_the_limit_and_take_back)
{
    for (size_t limit = 1; limit < 1024; limit = limit * 2 + 1) {
        struct buf b;
        buf_init(&b, limit);
        int r = conf_help(rows, COUNT, shorts, 3, &b);
        CHECK_EQ_INT(r, limit < sizeof help_text - 1 ? ERR_LIMIT : 0);
        CHECK_EQ_INT(b.size_bytes, r < 0 ? 0 : sizeof help_text - 1);
        buf_done(&b);
    }
    struct buf b;
    buf_init(&b, 4096);
    for (long successes = 0; successes < 3; successes++) {
        failing_buf_after(successes);
        CHECK_EQ_INT(conf_help(rows, COUNT, shorts, 3, &b), ERR_NOMEM);
        CHECK_EQ_INT(b.size_bytes, 0);
        buf_done(&b);
        failing_buf_after(successes);
        CHECK_EQ_INT(conf_sample(rows, COUNT, &b), ERR_NOMEM);
        CHECK_EQ_INT(b.size_bytes, 0);
        buf_done(&b);
    }
}
