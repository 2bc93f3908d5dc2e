/* SPDX-License-Identifier: Apache-2.0 */
/* Options, the report, the way to the agent. See emit.h. */
#include "agent/emit.h"

#include <stdio.h>
#include <string.h>

#include "agent/intake_json.h"
#include "agent/os/datagram.h"
#include "common/port.h"
#include "common/text.h"

#define TAGS_MAX (sizeof((struct emit *)0)->tags / sizeof((struct emit *)0)->tags[0])
#define AT(member) offsetof(struct emit, member)

static const struct option {
    const char *name;
    size_t at; /* of a text in struct emit */
    const char *word, *help;
} options[] = {
    {"--type", AT(type), "TYPE",
     "what it is: exceptions of one type are grouped together (needed)"},
    {"--message", AT(message), "TEXT", "what it says"},
    {"--stack", AT(stack), "FILE|-", "where it happened, a frame a line, innermost first"},
    {"--level", AT(level), "LEVEL", "kept as the tag 'level'"},
    {"--language", AT(language), "NAME", "of the program that failed"},
    {"--socket", AT(socket), "PATH", "where the agent listens (its setting 'intake')"},
};
#define OPTIONS (sizeof options / sizeof options[0])

static void print_help(void)
{
    printf(
        "usage: trawl-agent emit --type TYPE [OPTION...]\n\n"
        "Reports one exception to the agent of this host, as an application would.\n\noptions\n");
    for (size_t i = 0; i < OPTIONS; i++)
        printf("  %-10s %-9s %s\n", options[i].name, options[i].word, options[i].help);
    printf("  %-10s %-9s %s\n", "--tag", "KEY=VALUE", "more to say; may be given up to 8 times");
    printf(
        "\nexample\n"
        "  trawl-agent emit --type backup-failed --message \"no space on /srv\" --tag job=nightly "
        "--stack trace.txt\n"
        "from a program: one JSON object as one datagram to the same socket, such as\n"
        "  {\"type\": \"KeyError\", \"message\": \"'user'\", \"stack\": [\"load\", \"main\"], "
        "\"tags\": {\"tenant\": \"7\"}}\n");
}

/* ---- options ---- */

static const struct option *find(const char *word, size_t length)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, word, length) == 0)
            return &options[i];
    return NULL;
}

static int add_tag(struct emit *emit, const char *value, struct failure *f)
{
    const char *equals = strchr(value, '=');
    if (!equals || equals == value)
        return fail(f, ERR_INVALID, "--tag '%s' is not KEY=VALUE", value);
    if (emit->tag_count == TAGS_MAX)
        return fail(f, ERR_INVALID, "more than %zu tags", TAGS_MAX);
    emit->tags[emit->tag_count++] = value;
    return 0;
}

static int unknown(const char *word, struct failure *f)
{
    const char *names[OPTIONS + 2] = {"--tag"};
    for (size_t i = 0; i < OPTIONS; i++)
        names[i + 1] = options[i].name;
    const char *nearest = text_nearest(word, names);
    return fail(f, ERR_INVALID, "unknown option '%s' of emit%s%s%s ('trawl-agent emit --help')",
                word, nearest ? ", did you mean '" : "", nearest ? nearest : "",
                nearest ? "'" : "");
}

/* One option and its value, in one word or in two. Returns how many words it took, or an error. */
static int take_option(struct emit *emit, int argc, char **argv, struct failure *f)
{
    const char *equals = strchr(argv[0], '=');
    size_t length = equals ? (size_t)(equals - argv[0]) : strlen(argv[0]);
    bool is_tag = length == 5 && strncmp(argv[0], "--tag", 5) == 0;
    const struct option *option = find(argv[0], length);
    if (!option && !is_tag)
        return unknown(argv[0], f);
    if (!equals && argc < 2)
        return fail(f, ERR_INVALID, "%s needs a value", argv[0]);
    const char *value = equals ? equals + 1 : argv[1];
    int e = 0;
    if (is_tag)
        e = add_tag(emit, value, f);
    else
        memcpy((char *)emit + option->at, &value, sizeof value);
    return e ? e : equals ? 1 : 2;
}

int emit_read(struct emit *emit, int argc, char **argv, struct failure *f)
{
    *emit = (struct emit){.type = NULL};
    for (int i = 0; i < argc;) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            emit->help = true;
            return 0;
        }
        int took = take_option(emit, argc - i, argv + i, f);
        if (took < 0)
            return took;
        i += took;
    }
    if (!emit->type || !emit->type[0])
        return fail(f, ERR_INVALID, "emit needs --type ('trawl-agent emit --help')");
    return 0;
}

/* ---- the report ---- */

static int put_member(struct buf *out, const char *key, struct span value)
{
    int e = out->size_bytes > 0 && out->data[out->size_bytes - 1] != '{' ? buf_append_byte(out, ',')
                                                                         : 0;
    if (!e)
        e = text_append_json(out, span_str(key));
    if (!e)
        e = buf_append_byte(out, ':');
    return e ? e : text_append_json(out, value);
}

static int put_text(struct buf *out, const char *key, const char *value)
{
    return value ? put_member(out, key, span_str(value)) : 0;
}

static int put_tags(const struct emit *emit, struct buf *out)
{
    char key[64];
    int e = emit->tag_count ? buf_append_str(out, ",\"tags\":{") : 0;
    for (size_t i = 0; i < emit->tag_count && !e; i++) {
        const char *equals = strchr(emit->tags[i], '=');
        (void)text_copy_span(key, sizeof key,
                             span_of(emit->tags[i], (size_t)(equals - emit->tags[i])));
        e = put_text(out, key, equals + 1);
    }
    return !e && emit->tag_count ? buf_append_byte(out, '}') : e;
}

int emit_put(const struct emit *emit, const char *stack, struct buf *out, struct failure *f)
{
    int e = buf_append_byte(out, '{');
    if (!e)
        e = put_text(out, "type", emit->type);
    if (!e)
        e = put_text(out, "message", emit->message);
    if (!e)
        e = put_text(out, "level", emit->level);
    if (!e)
        e = put_text(out, "language", emit->language);
    if (!e)
        e = put_text(out, "stack", stack);
    if (!e)
        e = put_tags(emit, out);
    if (!e)
        e = buf_append_byte(out, '}');
    if (e == ERR_LIMIT)
        return fail(f, ERR_INVALID, "the report would be longer than %d bytes", INTAKE_BYTES_MAX);
    return e ? fail(f, e, "out of memory") : 0;
}

/* ---- sending ---- */

static int read_stdin(struct buf *out)
{
    char piece[4096];
    size_t got;
    int e = 0;
    while (!e && (got = fread(piece, 1, sizeof piece, stdin)) > 0)
        e = buf_append(out, piece, got);
    return e;
}

static int read_stack(const char *from, struct buf *out, struct failure *f)
{
    int e = strcmp(from, "-") == 0 ? read_stdin(out) : port_read_file(from, out, f);
    if (e == ERR_LIMIT)
        return fail(f, ERR_INVALID, "the stack is longer than %d bytes", INTAKE_BYTES_MAX);
    return e && !f->code ? fail(f, e, "cannot read the stack") : e;
}

static int choose_socket(const struct emit *emit, char *out, size_t size_bytes, struct failure *f)
{
    static struct settings settings;
    char program[] = "trawl-agent";
    char *words[] = {program, NULL};
    int count = 1;
    if (emit->socket)
        return text_copy(out, size_bytes, emit->socket)
                   ? fail(f, ERR_INVALID, "path of the socket is too long")
                   : 0;
    int e = settings_read(&settings, &count, words, f);
    if (e)
        return e;
    settings_intake(&settings, out, size_bytes);
    if (!out[0])
        return fail(f, ERR_NOTFOUND,
                    "the agent of this host takes no reports ('intake = no' in its settings)");
    return 0;
}

static int send_report(const char *path, struct span report, struct failure *f)
{
    struct failure why = {0};
    int e = os_datagram_send(path, report, &why);
    if (!e)
        return 0;
    return fail(f, e,
                "cannot report: %s; start trawl-agent on this host, or name the socket of one that "
                "runs with --socket PATH (its setting 'intake')",
                why.text);
}

int emit_run(int argc, char **argv, struct failure *f)
{
    struct emit emit;
    struct buf stack, report;
    char path[STATE_PATH_SIZE];
    int e = emit_read(&emit, argc, argv, f);
    if (!e && emit.help) {
        print_help();
        return 0;
    }
    buf_init(&stack, INTAKE_BYTES_MAX);
    buf_init(&report, INTAKE_BYTES_MAX);
    if (!e && emit.stack)
        e = read_stack(emit.stack, &stack, f);
    if (!e)
        e = emit_put(&emit, emit.stack ? buf_str(&stack) : NULL, &report, f);
    if (!e)
        e = choose_socket(&emit, path, sizeof path, f);
    if (!e)
        e = send_report(path, buf_span(&report), f);
    buf_done(&stack);
    buf_done(&report);
    return e;
}
