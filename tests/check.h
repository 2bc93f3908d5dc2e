/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our test runner's face. Every test runs in a process of its own with its own time limit, so it
 * may crash, leak, hang or fork without hurting the next; whatever it leaves running in its process
 * group is killed. A test that checks nothing fails. Used by every file in tests/unit; implemented
 * by runner.c, which also holds main().
 *
 *     TEST(a_span_is_borrowed)
 *     {
 *         REQUIRE(buf_init(&b, 16) == 0);
 *         CHECK_EQ_STR(text, "expected");
 *     }
 *
 * The checks work from threads and from forked children of a test as well. They evaluate their
 * arguments once.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <stddef.h>
#include <stdint.h>

#define CHECK_LIMIT_S 60

/* One registered test; made by TEST only. */
struct check_test {
    const char *name;
    const char *file;
    void (*run)(void);
    unsigned limit_s;
    struct check_test *next;
};

/* Adds a test to the list; called before main() by what TEST expands to. */
void check_register(struct check_test *test);

/* Each counts one check, and on failure prints one line and marks the test failed; returns whether
 * it held. */
int check_true(int holds, const char *text, const char *file, int line);
int check_int(intmax_t a, intmax_t b, const char *text, const char *file, int line);
int check_str(const char *a, const char *b, const char *text, const char *file, int line);
int check_mem(const void *a, const void *b, size_t len, const char *text, const char *file,
              int line);

/* Ends the test's process at once: as failed, or as skipped with the reason on its line. */
_Noreturn void check_abort(void);
_Noreturn void check_skip(const char *why);

/* TEST_LIMIT(name, seconds) { ... }: as TEST, with a time limit other than CHECK_LIMIT_S. */
#define TEST_LIMIT(name_, seconds_)                                                         \
    static void test_##name_(void);                                                         \
    __attribute__((constructor)) static void register_##name_(void)                         \
    {                                                                                       \
        static struct check_test test = {#name_, __FILE__, test_##name_, (seconds_), NULL}; \
        check_register(&test);                                                              \
    }                                                                                       \
    static void test_##name_(void)

#define TEST(name_) TEST_LIMIT(name_, CHECK_LIMIT_S)

#define CHECK(expr_) ((void)check_true((expr_) ? 1 : 0, #expr_, __FILE__, __LINE__))

/* Both sides are compared as intmax_t; equal unsigned 64-bit values stay equal. */
#define CHECK_EQ_INT(a_, b_) \
    ((void)check_int((intmax_t)(a_), (intmax_t)(b_), #a_ " == " #b_, __FILE__, __LINE__))

/* NULL equals only NULL. */
#define CHECK_EQ_STR(a_, b_) ((void)check_str((a_), (b_), #a_ " == " #b_, __FILE__, __LINE__))

#define CHECK_EQ_MEM(a_, b_, len_) \
    ((void)check_mem((a_), (b_), (len_), #a_ " == " #b_, __FILE__, __LINE__))

/* As CHECK, but the test ends here when it fails: for what the rest of the test stands on. */
#define REQUIRE(expr_) \
    (check_true((expr_) ? 1 : 0, #expr_, __FILE__, __LINE__) ? (void)0 : check_abort())

#define SKIP(why_) check_skip(why_)

#endif
