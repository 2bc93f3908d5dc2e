/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings from hostile files and command lines. Whatever comes in: numbers stay in their ranges,
 * strings terminated and inside their members, and a failure has a text. First byte even: a file;
 * odd: words of a command line, one a line.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/text.h"

#define WORDS_MAX 32

struct settings {
    char name[8];
    uint8_t guard_name;
    char list[16];
    uint8_t guard_list;
    bool flag;
    bool only_flag;
    uint64_t number;
    uint64_t bytes;
    int64_t us;
};

#define AT(member) offsetof(struct settings, member)

static const struct conf_row rows[] = {
    {.name = "name", .type = CONF_STRING, .offset = AT(name), .size_bytes = 8, .initial = "n"},
    {.name = "list", .type = CONF_LIST, .offset = AT(list), .size_bytes = 16},
    {.name = "flag", .type = CONF_BOOL, .offset = AT(flag), .initial = "yes"},
    {.name = "only-flag", .type = CONF_BOOL, .offset = AT(only_flag), .flag_only = true},
    {.name = "number", .type = CONF_U64, .offset = AT(number), .min = 3, .max = 9, .initial = "5"},
    {.name = "bytes",
     .type = CONF_SIZE_BYTES,
     .offset = AT(bytes),
     .min = 1,
     .max = UINT64_MAX,
     .initial = "1K"},
    {.name = "us", .type = CONF_DURATION_US, .offset = AT(us), .max = INT64_MAX, .initial = "1s"},
};

#define COUNT (sizeof rows / sizeof rows[0])

static const struct conf_short shorts[] = {{'n', "name"}, {'f', "flag"}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_settings(const struct settings *s)
{
    assert(memchr(s->name, '\0', sizeof s->name));
    assert(memchr(s->list, '\0', sizeof s->list));
    assert(s->guard_name == 0xA5 && s->guard_list == 0xA5);
    assert(s->number >= 3 && s->number <= 9);
    assert(s->bytes >= 1 && s->us >= 0);
}

static void check_result(int r, const struct failure *f)
{
    assert(r <= 0);
    if (r < 0)
        assert(f->code == r && f->text[0] && memchr(f->text, '\0', sizeof f->text));
}

static int run_file(struct settings *s, struct span text, struct failure *f)
{
    int r = conf_parse(rows, COUNT, s, text, "fuzz.conf", f);
    assert(!s->only_flag);
    return r;
}

static int run_words(struct settings *s, struct span text, struct failure *f)
{
    char *words[WORDS_MAX + 1], *copies[WORDS_MAX];
    struct span word;
    int count = 0;
    while (count < WORDS_MAX && text_take_until(&text, '\n', &word) == 0) {
        copies[count] = malloc(word.size_bytes + 1);
        assert(copies[count]);
        (void)text_copy_span(copies[count], word.size_bytes + 1, word);
        words[count] = copies[count];
        count++;
    }
    words[count] = NULL;
    int left = count;
    int r = conf_args(rows, COUNT, shorts, 2, s, &left, words, f);
    assert(left >= 0 && left <= count && (r < 0 || words[left] == NULL));
    for (int i = 0; i < count; i++)
        free(copies[i]);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings s = {.guard_name = 0xA5, .guard_list = 0xA5};
    struct failure f = {0};
    if (size == 0)
        return 0;
    struct span text = span_of(data + 1, size - 1);
    conf_defaults(rows, COUNT, &s);
    int r = data[0] % 2 ? run_words(&s, text, &f) : run_file(&s, text, &f);
    check_result(r, &f);
    check_settings(&s);
    return 0;
}
