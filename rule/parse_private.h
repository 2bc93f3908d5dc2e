/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the parser share: one pass over the words of a file, by recursive descent.
 * Invariant: `at` never passes TOKEN_END. Each take_... function either took what it is named for,
 * or has failed with a sentence that begins with the line. Called by parse.c, parse_condition.c,
 * parse_counter.c, parse_happening.c, parse_action.c.
 */
#ifndef TRAWL_RULE_PARSE_PRIVATE_H
#define TRAWL_RULE_PARSE_PRIVATE_H

#include "rule/lexer.h"

struct parser {
    struct tokens tokens;
    size_t at;
    const struct rule_catalogue *known; /* may be NULL */
    struct rule_set *set;
    size_t rule_capacity, term_capacity;
    struct rule *rule; /* under way */
    size_t first_term; /* of it, in set->terms */
    int depth;         /* of parentheses and `not` */
    int inside_not;    /* how many `not` are around */
    struct failure *f;
};

const struct token *parse_peek(const struct parser *p);
const struct token *parse_next(struct parser *p);
/* Takes the keyword if it comes. */
bool parse_take(struct parser *p, const char *keyword);
/* Whether the next word is this keyword. */
bool parse_sees(const struct parser *p, const char *keyword);
/* "line 4: ..." of this word. */
int parse_fail(struct parser *p, const struct token *at, const char *format, ...)
    TRAWL_PRINTF(3, 4);
/* "expected X, found Y" */
int parse_expected(struct parser *p, const char *what);
int parse_expect(struct parser *p, const char *keyword, const char *what);
/* A word that is a name of something: quoted or not, but no parenthesis, comparison or end. */
int parse_name(struct parser *p, const char *what, const char **out);
int parse_duration(struct parser *p, const char *what, int64_t least_us, int64_t most_us,
                   int64_t *out);
int parse_count(struct parser *p, const char *what, uint64_t most, uint32_t *out);
/* Words with commas between them, blanks or not, as one: "a,b,c". */
int parse_list(struct parser *p, const char *what, const char **out);
/* A copy among the set's words. */
int parse_copy(struct parser *p, const char *text, size_t length, const char **out);
/* Remembers that a rule wants to know this of the process. */
int parse_interest(struct parser *p, const char *process, unsigned wants);
/* ", did you mean 'x'?" or "": of NULL-terminated names. */
const char *parse_hint(const char *text, const char *const *names, char *out, size_t size_bytes);
#define PARSE_HINT_SIZE 96

int parse_condition(struct parser *p, uint16_t *root);
int parse_counter(struct parser *p, struct rule_term *term);
int parse_process(struct parser *p, struct rule_term *term);
int parse_exception(struct parser *p, struct rule_term *term);
int parse_log(struct parser *p, struct rule_term *term);
int parse_hang(struct parser *p, struct rule_term *term);
int parse_action(struct parser *p);
int parse_limit(struct parser *p);
int parse_peers(struct parser *p);
int parse_compare(struct parser *p, enum rule_compare *out);

#endif
