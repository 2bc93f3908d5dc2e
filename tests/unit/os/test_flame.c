/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flame graphs: well-formed whatever functions are called, the right widths, and never larger than
 * allowed.
 */
#include "agent/os/linux/flame_svg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "tests/check.h"

#define SVG_MAX (8u << 20)

/* A stack of `names`, outermost first. */
static void add(struct profile_set *set, const char *const *names, size_t count, uint64_t samples)
{
    uint32_t places[16], thread, stack;
    REQUIRE(count <= 16 && profile_thread(set, 1, "prog", &thread) == 0);
    for (size_t i = 0; i < count; i++)
        REQUIRE(profile_words(set, names[i], &places[count - 1 - i]) == 0);
    REQUIRE(profile_stack(set, thread, places, count, &stack) == 0);
    set->stacks[stack].samples += samples;
}

static int draw(struct profile_set *set, const char *process, struct buf *out)
{
    struct profile_lines lines;
    const struct flame_head head = {"a <title> & \"more\"", "'b'\x01", "samples", false};
    REQUIRE(profile_lines_make(&lines, set, process, PROFILE_SAMPLES) == 0);
    int e = flame_svg_put(&lines, &head, out);
    profile_lines_done(&lines);
    return e;
}

static size_t count_of(const char *text, const char *what)
{
    size_t count = 0;
    while ((text = strstr(text, what)) != NULL) {
        count++;
        text += strlen(what);
    }
    return count;
}

/* Enough of XML 1.0 to notice a name that got out: tags nest, '&' begins an entity, no character
 * is one that XML does not know. */
static bool is_well_formed(const char *text)
{
    char open[16][16];
    size_t depth = 0;
    const char *script = strstr(text, "<![CDATA["), *end = strstr(text, "]]>");
    for (const char *c = strstr(text, "<svg"); c && *c; c++) {
        if (c == script) {
            c = end + 2;
        } else if (*c == '<') {
            const char *close = strchr(c, '>'), *space = c + 1;
            if (!close)
                return false;
            while (*space != ' ' && *space != '>' && *space != '/')
                space++;
            if (c[1] == '/') {
                if (depth == 0 || strncmp(open[depth - 1], c + 2, strlen(open[depth - 1])) != 0)
                    return false;
                depth--;
            } else if (close[-1] != '/') {
                if (depth == 16)
                    return false;
                text_copy_span(open[depth], sizeof open[depth],
                               span_of(c + 1, (size_t)(space - c - 1)));
                depth++;
            }
            c = close;
        } else if (*c == '>' || ((unsigned char)*c < ' ' && *c != '\n')) {
            return false;
        } else if (*c == '&' && strncmp(c, "&amp;", 5) != 0 && strncmp(c, "&lt;", 4) != 0 &&
                   strncmp(c, "&gt;", 4) != 0 && strncmp(c, "&quot;", 6) != 0 &&
                   strncmp(c, "&#39;", 5) != 0) {
            return false;
        }
    }
    return depth == 0;
}

TEST(widths_are_shares)
{
    struct profile_set set;
    struct buf out;
    const char *const heavy[] = {"main", "heavy"}, *const light[] = {"main", "light"};
    profile_set_init(&set);
    add(&set, heavy, 2, 75);
    add(&set, light, 2, 25);
    buf_init(&out, SVG_MAX);
    REQUIRE(draw(&set, "prog", &out) == 0);
    const char *text = buf_str(&out);
    CHECK(is_well_formed(text));
    CHECK(strstr(text, "<title>heavy (75 samples, 75.00%)</title>") != NULL);
    CHECK(strstr(text, "<title>main (100 samples, 100.00%)</title>") != NULL);
    CHECK(strstr(text, "x=\"10.00\" y=\"64\" width=\"885.00\"") != NULL);
    CHECK(strstr(text, "x=\"895.00\" y=\"64\" width=\"295.00\"") != NULL);
    CHECK_EQ_INT(count_of(text, "<rect x="), 4);
    buf_done(&out);
    profile_set_done(&set);
}

TEST(names_cannot_leave_their_place)
{
    static const char *const evil[] = {"</title><script>alert(1)</script>",
                                       "operator<<(std::ostream&, char const*)",
                                       "]]>",
                                       "a\x1b[2J\nb\x01\x7f",
                                       "\xef\xbf\xbe\xef\xbf\xbf",
                                       "\xff\xfe\xc3",
                                       "\xed\xa0\x80",
                                       "\"' onload=\"x",
                                       "&amp;&#0;&bogus"};
    struct profile_set set;
    struct buf out;
    profile_set_init(&set);
    for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++)
        add(&set, &evil[i], 1, 10);
    add(&set, evil, 9, 10);
    buf_init(&out, SVG_MAX);
    REQUIRE(draw(&set, evil[0], &out) == 0);
    const char *text = buf_str(&out);
    CHECK(is_well_formed(text));
    CHECK_EQ_INT(count_of(text, "<script>"), 1);
    CHECK_EQ_INT(count_of(text, "]]>"), 1);
    CHECK_EQ_INT(count_of(text, "\xef\xbf\xbe"), 0);
    CHECK(strstr(text, "&lt;/title&gt;&lt;script&gt;") != NULL);
    /* The same words stand in the head, once in <title> and once to be seen. */
    CHECK_EQ_INT(count_of(text, "a &lt;title&gt; &amp; &quot;more&quot;"), 2);
    buf_done(&out);
    profile_set_done(&set);
}

TEST(that_check_notices_a_name_that_got_out)
{
    CHECK(is_well_formed("<svg><g>a &amp; b</g><r x=\"1\"/></svg>"));
    CHECK(!is_well_formed("<svg><g>a & b</g></svg>"));
    CHECK(!is_well_formed("<svg><g></title></g></svg>"));
    CHECK(!is_well_formed("<svg><g>a > b</g></svg>"));
    CHECK(!is_well_formed("<svg><g>\x01</g></svg>"));
}

TEST(a_name_has_one_colour)
{
    struct profile_set set;
    struct buf out;
    char fills[2][64];
    for (size_t i = 0; i < 2; i++) {
        const char *const one[] = {"main", "same"}, *const two[] = {"other", "same"};
        profile_set_init(&set);
        add(&set, i ? one : two, 2, 10 + 5 * i);
        buf_init(&out, SVG_MAX);
        REQUIRE(draw(&set, "prog", &out) == 0);
        const char *frame = strstr(buf_str(&out), "<title>same (");
        REQUIRE(frame != NULL && strstr(frame, "fill=") != NULL);
        text_copy_span(fills[i], sizeof fills[i], span_of(strstr(frame, "fill="), 20));
        buf_done(&out);
        profile_set_done(&set);
    }
    CHECK_EQ_STR(fills[0], fills[1]);
}

/* Thousands of frames: the narrow ones go, then more until it fits. */
TEST(the_file_is_never_larger_than_allowed)
{
    struct profile_set set;
    struct buf out;
    char name[64];
    size_t before = SIZE_MAX;
    profile_set_init(&set);
    for (unsigned i = 0; i < 20000; i++) {
        const char *const names[] = {"main", name};
        snprintf(name, sizeof name, "function_%u", i);
        add(&set, names, 2, i < 100 ? 10000 : 1);
    }
    static const size_t limits[] = {SVG_MAX, 100000, 30000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        buf_init(&out, limits[i]);
        REQUIRE(draw(&set, "prog", &out) == 0);
        CHECK(is_well_formed(buf_str(&out)));
        size_t frames = count_of(buf_str(&out), "<rect x=");
        CHECK(frames < 200 && frames >= 2 && frames <= before);
        before = frames;
        buf_done(&out);
    }
    buf_init(&out, 300);
    CHECK_EQ_INT(draw(&set, "prog", &out), ERR_LIMIT);
    CHECK_EQ_INT(out.size_bytes, 0);
    buf_done(&out);
    profile_set_done(&set);
}
