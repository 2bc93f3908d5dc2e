/* SPDX-License-Identifier: Apache-2.0 */
/* The file is checked as a whole first, then cut into words. See lexer.h. */
#include "rule/lexer.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define TOKENS_MAX 32768
/* A word takes at least one character of the file, and is terminated; and the parser takes lists
 * apart, so that each word may come a second time. */
#define WORDS_PER_BYTE 4

struct lexer {
    const char *text;
    size_t size_bytes, at;
    uint32_t line;
    struct tokens *out;
    struct failure *f;
};

static uint32_t line_of(struct span text, size_t at)
{
    uint32_t line = 1;
    for (size_t i = 0; i < at; i++)
        line += text.data[i] == '\n';
    return line;
}

static bool is_control(char c)
{
    return ((unsigned char)c < ' ' && c != '\n' && c != '\t' && c != '\r') || c == 0x7F;
}

/* UTF-8 without control characters, so that whatever is quoted from it is fit to be shown. */
static int check_bytes(struct span text, char *copy, struct failure *f)
{
    for (size_t i = 0; i < text.size_bytes; i++)
        if (is_control((char)text.data[i]))
            return fail(f, ERR_INVALID, "line %u: there is a control character (byte 0x%02x)",
                        (unsigned)line_of(text, i), text.data[i]);
    if (text.size_bytes > 0)
        memcpy(copy, text.data, text.size_bytes);
    copy[text.size_bytes] = '\0';
    text_clean(copy);
    for (size_t i = 0; i < text.size_bytes; i++)
        if ((char)text.data[i] != copy[i])
            return fail(f, ERR_INVALID, "line %u: this is no UTF-8 text",
                        (unsigned)line_of(text, i));
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool ends_word(char c)
{
    return is_blank(c) || c == '(' || c == ')' || c == '<' || c == '>';
}

static int add(struct lexer *l, enum token_kind kind, size_t begin, const char *text, bool quoted)
{
    struct tokens *t = l->out;
    if (t->count == TOKENS_MAX)
        return fail(l->f, ERR_LIMIT, "line %u: more than %d words", (unsigned)l->line, TOKENS_MAX);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 256;
        struct token *more = realloc(t->list, capacity * sizeof *more);
        if (!more)
            return fail(l->f, ERR_NOMEM, "out of memory for rules");
        t->list = more;
        t->capacity = capacity;
    }
    t->list[t->count++] = (struct token){kind, quoted, l->line, begin, l->at, text};
    return 0;
}

static void skip_blanks(struct lexer *l)
{
    while (l->at < l->size_bytes && (is_blank(l->text[l->at]) || l->text[l->at] == '#')) {
        if (l->text[l->at] == '#') {
            while (l->at < l->size_bytes && l->text[l->at] != '\n')
                l->at++;
            continue;
        }
        l->line += l->text[l->at] == '\n';
        l->at++;
    }
}

/* From behind the opening quote to behind the closing one. */
static int take_quoted(struct lexer *l)
{
    struct tokens *t = l->out;
    for (;; l->at++) {
        if (l->at == l->size_bytes || l->text[l->at] == '\n')
            return fail(l->f, ERR_INVALID, "line %u: a quote is opened and not closed on its line",
                        (unsigned)l->line);
        char c = l->text[l->at];
        if (c == '"')
            break;
        if (c == '\\') {
            c = l->at + 1 < l->size_bytes ? l->text[++l->at] : '\0';
            if (c != '"' && c != '\\')
                return fail(l->f, ERR_INVALID,
                            "line %u: in quotes a backslash stands before a quote or another "
                            "backslash: \\\" or \\\\",
                            (unsigned)l->line);
        }
        t->words[t->words_bytes++] = c;
    }
    l->at++;
    return 0;
}

static int take_word(struct lexer *l)
{
    struct tokens *t = l->out;
    size_t begin = l->at, start = t->words_bytes;
    bool quoted = false;
    while (l->at < l->size_bytes && !ends_word(l->text[l->at])) {
        char c = l->text[l->at++];
        if (c == '"') {
            quoted = true;
            int e = take_quoted(l);
            if (e)
                return e;
        } else if ((unsigned char)c >= 0x80) {
            return fail(l->f, ERR_INVALID, "line %u: letters outside of ASCII stand in quotes",
                        (unsigned)l->line);
        } else {
            t->words[t->words_bytes++] = c;
        }
    }
    if (t->words_bytes - start >= RULE_WORD_SIZE)
        return fail(l->f, ERR_LIMIT, "line %u: a word has more than %d characters",
                    (unsigned)l->line, RULE_WORD_SIZE - 1);
    t->words[t->words_bytes++] = '\0';
    return add(l, TOKEN_WORD, begin, t->words + start, quoted);
}

static int take_compare(struct lexer *l)
{
    bool above = l->text[l->at] == '>';
    size_t begin = l->at++;
    bool equal = l->at < l->size_bytes && l->text[l->at] == '=';
    l->at += equal;
    return add(l, TOKEN_COMPARE, begin, above ? equal ? ">=" : ">" : equal ? "<=" : "<", false);
}

static int take_token(struct lexer *l)
{
    switch (l->text[l->at]) {
    case '(':
        l->at++;
        return add(l, TOKEN_OPEN, l->at - 1, "(", false);
    case ')':
        l->at++;
        return add(l, TOKEN_CLOSE, l->at - 1, ")", false);
    case '<':
    case '>':
        return take_compare(l);
    default:
        return take_word(l);
    }
}

int tokens_read(struct span text, struct tokens *out, struct failure *f)
{
    *out = (struct tokens){.list = NULL};
    if (text.size_bytes > RULE_TEXT_MAX)
        return fail(f, ERR_LIMIT, "a file of rules has at most %u bytes", RULE_TEXT_MAX);
    out->words_limit = WORDS_PER_BYTE * text.size_bytes + 2;
    out->words = malloc(out->words_limit);
    if (!out->words)
        return fail(f, ERR_NOMEM, "out of memory for rules");
    int e = check_bytes(text, out->words, f);
    struct lexer l = {.text = (const char *)text.data, .size_bytes = text.size_bytes, .line = 1};
    l.out = out;
    l.f = f;
    while (!e) {
        skip_blanks(&l);
        if (l.at == l.size_bytes)
            break;
        e = take_token(&l);
    }
    if (!e)
        e = add(&l, TOKEN_END, l.at, "the end of the file", true);
    if (e)
        tokens_done(out);
    return e;
}

void tokens_done(struct tokens *tokens)
{
    free(tokens->list);
    free(tokens->words);
    *tokens = (struct tokens){.list = NULL};
}
