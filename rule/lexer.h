/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words of a file of rules. A word ends at a blank, a parenthesis or a comparison; quotes ("...",
 * with \" and \\) may hold anything printable; '#' at the beginning of a word starts a comment.
 * Invariant: the strings are terminated, printable UTF-8, and at most RULE_WORD_SIZE - 1 bytes.
 * Called by parse.c only.
 */
#ifndef TRAWL_RULE_LEXER_H
#define TRAWL_RULE_LEXER_H

#include "rule/language.h"

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_COMPARE };

struct token {
    enum token_kind kind;
    bool is_quoted; /* then it is no keyword */
    uint32_t line;
    size_t begin_bytes, end_bytes; /* in the file */
    const char *text;
};

struct tokens {
    struct token *list; /* the last one is TOKEN_END */
    size_t count;
    size_t capacity;
    char *words;
    size_t words_bytes, words_limit;
};

/* On failure there is nothing to free. tokens_done() leaves `words` to whoever took it (NULL it).
 */
int tokens_read(struct span text, struct tokens *out, struct failure *f);
void tokens_done(struct tokens *tokens);

#endif
