/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error numbers are on the wire and on disks, so this file holds them a second time: a change in
 * err.def has to be a decision. Then the making of failure texts, cut and nested.
 */
#include "common/err.h"

#include <errno.h>
#include <string.h>

#include "tests/check.h"

struct frozen {
    int code;
    int value;
    const char *name;
    int exit_code;
    int grpc_status;
};

static const struct frozen frozen[] = {
    {ERR_NONE, 0, "ERR_NONE", 0, 0},
    {ERR_NOMEM, -1, "ERR_NOMEM", 10, 8},
    {ERR_LIMIT, -2, "ERR_LIMIT", 11, 8},
    {ERR_INVALID, -3, "ERR_INVALID", 2, 3},
    {ERR_NOTFOUND, -4, "ERR_NOTFOUND", 1, 5},
    {ERR_EXISTS, -5, "ERR_EXISTS", 12, 6},
    {ERR_DENIED, -6, "ERR_DENIED", 13, 7},
    {ERR_IO, -7, "ERR_IO", 14, 13},
    {ERR_BUSY, -8, "ERR_BUSY", 15, 14},
    {ERR_CORRUPT, -9, "ERR_CORRUPT", 16, 15},
    {ERR_TIMEOUT, -10, "ERR_TIMEOUT", 17, 4},
    {ERR_CLOSED, -11, "ERR_CLOSED", 18, 14},
    {ERR_VERSION, -12, "ERR_VERSION", 19, 9},
    {ERR_FULL, -13, "ERR_FULL", 20, 8},
    {ERR_CONFLICT, -14, "ERR_CONFLICT", 1, 10},
    {ERR_UNSUPPORTED, -15, "ERR_UNSUPPORTED", 1, 12},
    {ERR_GONE, -16, "ERR_GONE", 1, 5},
    {ERR_UNREACHABLE, -17, "ERR_UNREACHABLE", 21, 14},
    {ERR_PROTOCOL, -18, "ERR_PROTOCOL", 22, 13},
    {ERR_CANCELLED, -19, "ERR_CANCELLED", 1, 1},
    {ERR_IDENTITY, -20, "ERR_IDENTITY", 23, 16},
    {ERR_EXPIRED, -21, "ERR_EXPIRED", 24, 9},
    {ERR_USED, -22, "ERR_USED", 25, 9},
    {ERR_INUSE, -23, "ERR_INUSE", 26, 14},
    {ERR_FOREIGN, -24, "ERR_FOREIGN", 27, 9},
    {ERR_UNSAFE_KEY, -25, "ERR_UNSAFE_KEY", 28, 7},
    {ERR_CLOCK, -26, "ERR_CLOCK", 29, 9},
    {ERR_REFUSED, -27, "ERR_REFUSED", 1, 9},
    {ERR_AGAIN, -28, "ERR_AGAIN", 1, 14},
};

#define FROZEN_COUNT (sizeof frozen / sizeof frozen[0])

TEST(numbers_and_names_are_as_released)
{
    for (size_t i = 0; i < FROZEN_COUNT; i++) {
        CHECK_EQ_INT(frozen[i].code, frozen[i].value);
        CHECK_EQ_STR(err_name(frozen[i].code), frozen[i].name);
        CHECK_EQ_INT(err_exit_code(frozen[i].code), frozen[i].exit_code);
        CHECK_EQ_INT(err_grpc_status(frozen[i].code), frozen[i].grpc_status);
    }
    /* A row added to err.def must be added here. */
    CHECK_EQ_STR(err_name(-(int)FROZEN_COUNT), "ERR_UNKNOWN");
}

TEST(every_error_has_a_text_of_its_own)
{
    for (size_t i = 0; i < FROZEN_COUNT; i++)
        for (size_t j = 0; j < i; j++)
            CHECK(strcmp(err_text(frozen[i].code), err_text(frozen[j].code)) != 0);
    CHECK_EQ_STR(err_text(ERR_FULL), "no space left");
}

TEST(unknown_values_are_unknown_and_never_success)
{
    static const int values[] = {1, -29, -1000, 12345};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        CHECK_EQ_STR(err_text(values[i]), "unknown error");
        CHECK_EQ_INT(err_exit_code(values[i]), 1);
        CHECK_EQ_INT(err_grpc_status(values[i]), 2);
    }
}

TEST(grpc_status_comes_back_as_an_error_with_that_status)
{
    CHECK_EQ_INT(err_from_grpc(0), 0);
    for (int status = 1; status <= 16; status++) {
        int code = err_from_grpc(status);
        CHECK(code < 0);
        /* UNKNOWN and OUT_OF_RANGE have no error of their own. */
        if (status != 2 && status != 11)
            CHECK_EQ_INT(err_grpc_status(code), status);
    }
    CHECK_EQ_INT(err_from_grpc(17), ERR_PROTOCOL);
    CHECK_EQ_INT(err_from_grpc(-1), ERR_PROTOCOL);
    CHECK_EQ_INT(err_from_grpc(3), ERR_INVALID);
    CHECK_EQ_INT(err_from_grpc(14), ERR_UNREACHABLE);
}

TEST(errno_is_translated)
{
    CHECK_EQ_INT(err_from_errno(0), 0);
    CHECK_EQ_INT(err_from_errno(EACCES), ERR_DENIED);
    CHECK_EQ_INT(err_from_errno(EPERM), ERR_DENIED);
    CHECK_EQ_INT(err_from_errno(ENOENT), ERR_NOTFOUND);
    CHECK_EQ_INT(err_from_errno(ENOSPC), ERR_FULL);
    CHECK_EQ_INT(err_from_errno(EDQUOT), ERR_FULL);
    CHECK_EQ_INT(err_from_errno(ENOMEM), ERR_NOMEM);
    CHECK_EQ_INT(err_from_errno(EEXIST), ERR_EXISTS);
    CHECK_EQ_INT(err_from_errno(ESRCH), ERR_GONE);
    CHECK_EQ_INT(err_from_errno(EADDRINUSE), ERR_INUSE);
    CHECK_EQ_INT(err_from_errno(ECONNREFUSED), ERR_UNREACHABLE);
    CHECK_EQ_INT(err_from_errno(ETIMEDOUT), ERR_TIMEOUT);
    CHECK_EQ_INT(err_from_errno(EAGAIN), ERR_AGAIN);
    CHECK_EQ_INT(err_from_errno(EMFILE), ERR_LIMIT);
    CHECK_EQ_INT(err_from_errno(EINVAL), ERR_INVALID);
    CHECK_EQ_INT(err_from_errno(ENOTDIR), ERR_INVALID);
    CHECK_EQ_INT(err_from_errno(EBUSY), ERR_BUSY);
    CHECK_EQ_INT(err_from_errno(ECONNRESET), ERR_CLOSED);
    CHECK_EQ_INT(err_from_errno(EPIPE), ERR_CLOSED);
    CHECK_EQ_INT(err_from_errno(ENOSYS), ERR_UNSUPPORTED);
    CHECK_EQ_INT(err_from_errno(EOPNOTSUPP), ERR_UNSUPPORTED);
    CHECK_EQ_INT(err_from_errno(EIO), ERR_IO);
    CHECK_EQ_INT(err_from_errno(99999), ERR_IO);
}

TEST(fail_writes_code_and_text)
{
    struct failure f;
    CHECK_EQ_INT(fail(&f, ERR_IO, "cannot read '%s' at %d", "x", 7), ERR_IO);
    CHECK_EQ_INT(f.code, ERR_IO);
    CHECK_EQ_STR(f.text, "cannot read 'x' at 7");
    CHECK_EQ_INT(fail(NULL, ERR_BUSY, "dropped %d", 1), ERR_BUSY);
    CHECK_EQ_INT(fail_errno(NULL, ERR_FULL, ENOSPC, "dropped"), ERR_FULL);
}

TEST(fail_may_wrap_its_own_text)
{
    struct failure f;
    fail(&f, ERR_IO, "inner");
    fail(&f, ERR_IO, "outer: %s", f.text);
    CHECK_EQ_STR(f.text, "outer: inner");
}

TEST(fail_errno_appends_the_systems_words_in_lower_case)
{
    struct failure f;
    CHECK_EQ_INT(fail_errno(&f, ERR_DENIED, EACCES, "cannot open '%s'", "/x"), ERR_DENIED);
    CHECK_EQ_INT(f.code, ERR_DENIED);
    CHECK_EQ_STR(f.text, "cannot open '/x': permission denied");
    fail_errno(&f, ERR_IO, EDOTDOT, "x");
    CHECK_EQ_STR(f.text, "x: RFS specific error");
}

TEST(long_text_is_cut_and_terminated)
{
    char longer[2 * FAILURE_TEXT_SIZE];
    memset(longer, 'a', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    struct {
        struct failure f;
        char guard[8];
    } framed;
    memset(&framed, 0x5A, sizeof framed);
    fail(&framed.f, ERR_LIMIT, "%s", longer);
    CHECK_EQ_INT(strlen(framed.f.text), FAILURE_TEXT_SIZE - 1);
    CHECK_EQ_MEM(framed.guard, "\x5A\x5A\x5A\x5A\x5A\x5A\x5A\x5A", 8);
    longer[FAILURE_TEXT_SIZE - 1] = '\0';
    fail(&framed.f, ERR_LIMIT, "%s", longer);
    CHECK_EQ_STR(framed.f.text, longer);
}

/* A character of each length: some of its bytes, all or none of them fit before the cut. */
TEST(a_character_is_not_cut_in_half)
{
    static const char *const characters[] = {"\xC3\xA9", "\xE0\xA0\x80", "\xE2\x82\xAC",
                                             "\xF0\x90\x80\x80"};
    for (size_t i = 0; i < sizeof characters / sizeof characters[0]; i++) {
        size_t length = strlen(characters[i]);
        for (size_t fits = 0; fits <= length; fits++) {
            char text[FAILURE_TEXT_SIZE + 8];
            size_t before = FAILURE_TEXT_SIZE - 1 - fits;
            memset(text, 'a', before);
            memcpy(text + before, characters[i], length + 1);
            struct failure f;
            fail(&f, ERR_LIMIT, "%s", text);
            CHECK_EQ_INT(strlen(f.text), fits == length ? FAILURE_TEXT_SIZE - 1 : before);
            CHECK_EQ_MEM(f.text, text, strlen(f.text));
        }
    }
}

TEST(a_text_without_any_whole_character_is_cut_too)
{
    char text[2 * FAILURE_TEXT_SIZE];
    memset(text, 0x80, sizeof text);
    text[sizeof text - 1] = '\0';
    struct failure f;
    fail(&f, ERR_LIMIT, "%s", text);
    CHECK_EQ_INT(strlen(f.text), FAILURE_TEXT_SIZE - 1);
    CHECK_EQ_INT(fail(&f, ERR_LIMIT, "%s", ""), ERR_LIMIT);
    CHECK_EQ_STR(f.text, "");
}
