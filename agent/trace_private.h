/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How trace.c and the files of the languages share the work: the scanner finds a key word, the
 * language's `start` looks at its line and back, `next` is then asked of every line, `finish` makes
 * the exception whole. Private to trace*.c.
 */
#ifndef TRAWL_AGENT_TRACE_PRIVATE_H
#define TRAWL_AGENT_TRACE_PRIVATE_H

#include <string.h>

#include "agent/trace.h"

#define TRACE_PREFIX_SIZE 192
#define TRACE_BACK_LINES 32 /* a language may look back so far */

/* ---- a trace that is being put together ---- */

enum trace_step {
    TRACE_NOT,  /* not its line, but more may come */
    TRACE_MINE, /* its line */
    TRACE_LAST, /* its last line */
    TRACE_OVER  /* not its line, and it is over */
};

struct trace_look {
    const uint8_t *base; /* as far back as one may look */
    struct span line;
    size_t at;            /* where in the line the key word stands */
    const uint8_t *begin; /* out: first line that belongs to it */
};

struct trace_language;

struct trace_open {
    const struct trace_language *language;
    char prefix[TRACE_PREFIX_SIZE]; /* what stands before each of its lines */
    size_t prefix_bytes;
    bool prefix_open; /* not yet known whether the lines after the first bear it, too */
    uint64_t begin, last_mono_us;
    /* Lines taken; since then: that were not its own, that were another writer's. */
    uint32_t lines, strange, foreign;
    /* Of the languages; each uses them as its file says. */
    int state;
    uint32_t number, count, total, outer_total;
    bool ignoring, has_cause, flag;
    char text[128];
    struct trace_look look; /* the line that is asked about */
    struct os_exception e;
    struct os_frame outer[OS_EXCEPTION_FRAMES]; /* of the exception that this one caused */
    uint32_t outer_count;
};

struct trace_language {
    const char *name;      /* os_exception.language */
    uint32_t patience;     /* so many lines in a row need not be its own */
    bool is_below_heading; /* found by its first frame: see trace_at.c */
    enum trace_step (*next)(struct trace_open *t, struct span line);
    /* false: it was no trace. May be NULL. */
    bool (*finish)(struct trace_open *t);
};

typedef bool (*trace_start_fn)(struct trace_open *t, struct trace_look *look);

/* ---- trace_scan.c: where in plain text a trace may begin ---- */

struct trace_word {
    const char *text;
    uint32_t print_at; /* four bytes from here on are searched for: rare ones */
    trace_start_fn start;
};
extern const struct trace_word trace_words[];

/* The first place at or behind *at where a word stands; *at is moved there. NULL: none in `text`,
 * which is whole lines. */
const struct trace_word *trace_scan(struct span text, size_t *at);

/* ---- trace_text.c ---- */

/* Those that every line goes through are here: of a text that is known when it is compiled, length
 * and comparison become a few instructions. */

static inline struct span trace_skip(struct span s, size_t bytes)
{
    size_t skipped = bytes < s.size_bytes ? bytes : s.size_bytes;
    return (struct span){s.data + skipped, s.size_bytes - skipped};
}

static inline struct span trace_first(struct span s, size_t bytes)
{
    return (struct span){s.data, bytes < s.size_bytes ? bytes : s.size_bytes};
}

static inline bool trace_begins(struct span s, const char *text)
{
    size_t length = strlen(text);
    return s.size_bytes >= length && memcmp(s.data, text, length) == 0;
}

static inline bool trace_ends(struct span s, const char *text)
{
    size_t length = strlen(text);
    return s.size_bytes >= length && memcmp(s.data + s.size_bytes - length, text, length) == 0;
}

static inline bool trace_is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static inline bool trace_is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static inline bool trace_is_letter(uint8_t c) /* or _ */
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static inline bool trace_is_word(uint8_t c)
{
    return trace_is_digit(c) || trace_is_letter(c);
}

static inline size_t trace_indent(struct span s) /* blanks at the beginning */
{
    size_t i = 0;
    while (i < s.size_bytes && trace_is_blank(s.data[i]))
        i++;
    return i;
}

static inline struct span trace_trim(struct span s) /* without blanks at either end */
{
    s = trace_skip(s, trace_indent(s));
    while (s.size_bytes > 0 && trace_is_blank(s.data[s.size_bytes - 1]))
        s.size_bytes--;
    return s;
}

/* Position behind which `text` stands, or SIZE_MAX. */
size_t trace_find(struct span s, const char *text);
size_t trace_find_last(struct span s, char c);
const uint8_t *trace_last_newline(const uint8_t *data, size_t size_bytes); /* or NULL */
bool trace_contains(struct span s, const char *text);
/* Number at the front; 0 digits: false. */
bool trace_number(struct span *s, uint64_t *out);

/* Copies, cut at a character, without bytes that are none. */
void trace_copy(char *out, size_t size_bytes, struct span s);
/* The same, keeping the end: paths. */
void trace_copy_end(char *out, size_t size_bytes, struct span s);
/* "\n" and `s` behind what is there. */
void trace_add_line(char *out, size_t size_bytes, struct span s);
void trace_tag(struct trace_open *t, const char *key, struct span value);
/* Sets type and message, and the cause's when there is one already. */
void trace_set_type(struct trace_open *t, struct span type, struct span message);

/* Adds a frame; innermost come first. `function` and `file` may be empty. NULL when it is left out.
 */
struct os_frame *trace_frame(struct trace_open *t, struct span function, struct span file,
                             uint64_t line);
/* The same for languages that say the outermost first; trace_turn() at the end. */
void trace_frame_outer(struct trace_open *t, struct span function, struct span file, uint64_t line);
void trace_turn(struct trace_open *t);
/* "file:12:34", "file:12" -> file and line; false: no number. */
bool trace_place(struct span s, struct span *file, uint64_t *line);

/* ---- prefixes ---- */

void trace_set_prefix(struct trace_open *t, struct span prefix);
/* Length of what is like the prefix at the front of the line (numbers may differ, but for those
 * that say who writes); SIZE_MAX: it is not. */
size_t trace_prefix_length(const struct trace_open *t, struct span line);
/* process and pid from "name[123]: " at the end of a prefix (RFC 3164, section 4.1.3). */
void trace_writer(struct trace_open *t);

/* As trace_line_before(), but the nearest line that bears the prefix, without it, at most 4 KiB; at
 * most *patience of others are passed over. */
bool trace_own_before(const struct trace_open *t, const struct trace_look *look, const uint8_t **at,
                      struct span *line, uint32_t *patience);
/* Whether the line begins as the prefix does: then it is one of another writer, not a bare one. */
bool trace_is_alike(const struct trace_open *t, struct span line);

/* The line before *at (which points to the beginning of a line); false at the base. */
bool trace_line_before(const struct trace_look *look, const uint8_t **at, struct span *line);

/* ---- headings of exceptions: trace_heading.c ---- */

struct trace_heading {
    struct span type, message;
};
enum trace_strength { TRACE_ANYWHERE, TRACE_IN_FRONT };
/*
 * "java.lang.IllegalStateException: text", perhaps behind other text. TRACE_IN_FRONT: also one
 * whose name does not end as names of exceptions do, but then at the line's beginning.
 */
bool trace_heading(struct span line, enum trace_strength strength, bool dotted,
                   struct trace_heading *out);

/* ---- the languages' starts ---- */

bool trace_start_python(struct trace_open *t, struct trace_look *look);
bool trace_start_at(struct trace_open *t, struct trace_look *look); /* Java, Node, .NET */
bool trace_start_node_text(struct trace_open *t, struct trace_look *look);
bool trace_start_go(struct trace_open *t, struct trace_look *look);
bool trace_start_ruby(struct trace_open *t, struct trace_look *look);
bool trace_start_php(struct trace_open *t, struct trace_look *look);
bool trace_start_php_fatal(struct trace_open *t, struct trace_look *look);
bool trace_start_rust(struct trace_open *t, struct trace_look *look);
bool trace_start_terminate(struct trace_open *t, struct trace_look *look);
bool trace_start_terminating(struct trace_open *t, struct trace_look *look);
bool trace_start_sanitizer(struct trace_open *t, struct trace_look *look);
bool trace_start_ubsan(struct trace_open *t, struct trace_look *look);
bool trace_start_glib(struct trace_open *t, struct trace_look *look);
bool trace_start_bail_out(struct trace_open *t, struct trace_look *look);

/* What a frame line of "at ..." is, and its parts. */
enum trace_at_kind { TRACE_AT_NONE, TRACE_AT_JAVA, TRACE_AT_NODE, TRACE_AT_DOTNET };
struct trace_at {
    enum trace_at_kind kind;
    struct span function, file;
    uint64_t line;
};
/* `line` begins with "at " (blanks before it are gone). */
struct trace_at trace_at(struct span line);
/* Looks back for the heading of the frame line in look; sets prefix, type, message, begin. */
bool trace_at_heading(struct trace_open *t, struct trace_look *look, enum trace_at_kind kind,
                      size_t lines_back);

extern const struct trace_language trace_java, trace_node, trace_dotnet;

#endif
