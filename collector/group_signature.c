/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signature of an exception. Invariant: the same exception gives the same 16 bytes for ever,
 * and what differs between two occurrences of one problem (addresses, line numbers, numbers in
 * messages and names, depth of a recursion) is not in them. Called by groups.c.
 */
#include "collector/group.h"

#include <string.h>

#include "common/text.h"
#include "common/xxh64.h"

#define SEED_LOW 0x7472617767726f31u
#define SEED_HIGH 0x7472617767726f32u
#define TEXT_SIZE 512

/* Two independent hashes of the same bytes. */
struct hash {
    struct xxh64 low, high;
};

static void hash_bytes(struct hash *h, const void *data, size_t size_bytes)
{
    xxh64_add(&h->low, span_of(data, size_bytes));
    xxh64_add(&h->high, span_of(data, size_bytes));
}

/* With its zero, so that "ab","c" and "a","bc" differ. */
static void hash_text(struct hash *h, const char *text)
{
    hash_bytes(h, text, strlen(text) + 1);
}

static void hash_number(struct hash *h, uint64_t number)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(number >> 8 * i);
    hash_bytes(h, bytes, sizeof bytes);
}

static void hash_begin(struct hash *h, const char *kind)
{
    xxh64_init(&h->low, SEED_LOW);
    xxh64_init(&h->high, SEED_HIGH);
    hash_text(h, kind);
}

static void hash_end(const struct hash *h, uint8_t out[GROUP_SIGNATURE_SIZE])
{
    uint64_t low = xxh64_end(&h->low), high = xxh64_end(&h->high);
    for (size_t i = 0; i < 8; i++) {
        out[i] = (uint8_t)(low >> 8 * i);
        out[8 + i] = (uint8_t)(high >> 8 * i);
    }
}

/* ---- names ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

/* Runs of digits, and of 12 or more hexadecimal digits, become '#'. */
static void mask_numbers(const char *text, char *out, size_t size_bytes)
{
    size_t at = 0;
    while (*text && at + 1 < size_bytes) {
        size_t hex = 0, digits = 0;
        while (is_hex(text[hex]))
            hex++;
        while (is_digit(text[digits]))
            digits++;
        size_t run = hex >= 12 ? hex : digits;
        out[at++] = run ? '#' : *text;
        text += run ? run : 1;
    }
    out[at] = '\0';
}

/* ".constprop.0", ".isra.3", ".part.1", ".cold", ".lto_priv.7", ".llvm.123": clones of one function
 * (GCC and LLVM name them so). */
static void cut_clone(char *name)
{
    static const char *const endings[] = {".constprop", ".isra", ".part", ".cold", ".lto_priv",
                                          ".llvm.",     "@plt",  "@@",    "@GLIBC"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char *found = strstr(name, endings[i]);
        if (found && found > name)
            *found = '\0';
    }
}

/* "::h0123456789abcdef", Rust's hash of a build. */
static void cut_rust_hash(char *name)
{
    char *found = strstr(name, "::h");
    for (; found; found = strstr(found + 1, "::h")) {
        size_t digits = 0;
        while (is_hex(found[3 + digits]))
            digits++;
        if (digits == 16 && !found[3 + digits]) {
            *found = '\0';
            return;
        }
    }
}

/* Parameters go, but not "(anonymous namespace)", "operator()", "{closure}" or Go's "(*T).f". */
static void cut_parameters(char *name)
{
    size_t length = strlen(name);
    char *open = strrchr(name, '(');
    if (!open || open == name || length == 0)
        return;
    int depth = 0;
    char *at = name + length;
    while (at > name) {
        at--;
        depth += *at == ')';
        if (*at == '(' && --depth == 0)
            break;
    }
    char *end = strrchr(name, ')');
    bool last = end && (!end[1] || !strcmp(end + 1, " const"));
    if (at <= name || *at != '(' || !last || !strncmp(at, "(anonymous", 10))
        return;
    if (at - name >= 8 && !strncmp(at - 8, "operator", 8)) /* operator() without parameters */
        return;
    *at = '\0';
}

static void group_function(const char *name, char *out, size_t size_bytes)
{
    char cut[GROUP_FUNCTION_SIZE];
    text_copy(cut, sizeof cut, name);
    cut_clone(cut);
    cut_rust_hash(cut);
    cut_parameters(cut);
    if (strchr(cut, '$') || strstr(cut, "lambda") || strstr(cut, "GeneratedMethodAccessor"))
        mask_numbers(cut, out, size_bytes);
    else
        text_copy(out, size_bytes, cut);
}

/* The last two parts of a path: where an application is installed differs from host to host. */
static const char *path_end(const char *path)
{
    const char *last = NULL, *before = NULL;
    for (const char *at = path; *at; at++)
        if ((*at == '/' || *at == '\\') && at[1]) {
            before = last;
            last = at;
        }
    return before ? before + 1 : path;
}

/* ---- who ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_of_machine(const trawl_v1_Exception *e)
{
    return e->source == trawl_v1_ExceptionSource_CRASH ||
           e->source == trawl_v1_ExceptionSource_FAULT_LINE ||
           e->source == trawl_v1_ExceptionSource_CPP_THROW || !strcmp(e->language, "c");
}

/* A crash is of its executable (threads and workers call themselves what they like); a trace in a
 * log is of the process that people see: the executable would be "python3". */
static void put_program(const trawl_v1_Exception *e, char *out, size_t size_bytes)
{
    const char *name = is_of_machine(e) && e->executable[0] ? base_name(e->executable) : e->process;
    mask_numbers(name[0] ? name : base_name(e->executable), out, size_bytes);
}

/* ---- frames ---- */

struct place {
    bool known; /* says where */
    bool system;
    char text[TEXT_SIZE];
};

static void name_frame(trawl_v1_Frame *frame, const struct group_names *names)
{
    char function[GROUP_FUNCTION_SIZE];
    if (names && frame->build_id.size && frame->offset &&
        !names->find(names->context, frame, function))
        text_copy(frame->function, sizeof frame->function, function);
}

static void place_of(const trawl_v1_Exception *e, const trawl_v1_Frame *frame, struct place *out)
{
    char function[GROUP_FUNCTION_SIZE], hex[2 * 20 + 1];
    bool machine = group_is_machine(e->language, frame);
    group_function(frame->function, function, sizeof function);
    out->system = group_skips(e->language, frame, frame->function);
    out->known = true;
    if (machine && function[0]) {
        text_format(out->text, sizeof out->text, "f %s %s", frame->module, function);
    } else if (machine) {
        text_put_hex(frame->build_id.bytes, frame->build_id.size, hex);
        text_format(out->text, sizeof out->text, "o %s %s %llx", frame->module, hex,
                    (unsigned long long)frame->offset);
    } else {
        text_format(out->text, sizeof out->text, "l %s %s", path_end(frame->file), function);
        out->known = frame->file[0] || function[0]; /* else code made at run time: no name for it */
    }
}

static bool is_among(char (*list)[TEXT_SIZE], size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i], text))
            return true;
    return false;
}

static void take_frames(const trawl_v1_Exception *e, const struct group_names *names, bool system,
                        struct hash *h, struct group_signature *out)
{
    char taken[GROUP_FRAMES][TEXT_SIZE];
    for (pb_size_t i = 0; i < e->frames_count && out->frame_count < GROUP_FRAMES; i++) {
        trawl_v1_Frame frame = e->frames[i];
        struct place place;
        name_frame(&frame, names);
        place_of(e, &frame, &place);
        if (!place.known || (place.system && !system) ||
            is_among(taken, out->frame_count, place.text))
            continue;
        text_copy(taken[out->frame_count], TEXT_SIZE, place.text);
        hash_text(h, place.text);
        out->frames[out->frame_count++] = frame;
    }
}

/* ---- no frames ---- */

static const char *tag_of(const trawl_v1_Exception *e, const char *key)
{
    for (pb_size_t i = 0; i < e->tags_count; i++)
        if (!strcmp(e->tags[i].key, key))
            return e->tags[i].value;
    return "";
}

static void hash_message(const trawl_v1_Exception *e, struct hash *h)
{
    char unit[128];
    bool of_unit = e->source == trawl_v1_ExceptionSource_UNIT_RESULT || !e->process[0];
    mask_numbers(of_unit ? e->unit : "", unit, sizeof unit);
    hash_text(h, e->template[0] ? e->template : e->message);
    hash_text(h, unit);
    hash_text(h, tag_of(e, "device"));
}

void group_signature(const trawl_v1_Exception *e, const struct group_names *names,
                     struct group_signature *out)
{
    static const char *const made_of[] = {"application", "system", "message"};
    char program[64];
    struct hash h;
    put_program(e, program, sizeof program);
    for (int of = GROUP_OF_FRAMES; of <= GROUP_OF_MESSAGE; of++) {
        *out = (struct group_signature){.made_of = (enum group_made_of)of};
        hash_begin(&h, made_of[of]);
        hash_number(&h, (uint64_t)e->source);
        hash_text(&h, e->type);
        hash_text(&h, program);
        if (of == GROUP_OF_MESSAGE)
            hash_message(e, &h);
        else
            take_frames(e, names, of == GROUP_OF_SYSTEM, &h, out);
        if (out->frame_count)
            break;
    }
    hash_end(&h, out->bytes);
}

void group_signature_rest(const trawl_v1_Exception *e, const char *host,
                          struct group_signature *out)
{
    struct hash h;
    *out = (struct group_signature){.made_of = GROUP_OF_MESSAGE};
    hash_begin(&h, "rest");
    hash_number(&h, (uint64_t)e->source);
    hash_text(&h, host);
    hash_end(&h, out->bytes);
}
