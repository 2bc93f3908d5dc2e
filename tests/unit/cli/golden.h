/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts as they shall be, in tests/golden/cli_NAME.txt. A test that differs shows both; with
 * GOLDEN_UPDATE=1 in the environment it writes the file instead, to be read before it is committed.
 * Used by the tests of cli/.
 */
#ifndef TESTS_UNIT_CLI_GOLDEN_H
#define TESTS_UNIT_CLI_GOLDEN_H

#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/check.h"

#define GOLDEN_LIMIT (1 << 20)

static inline void golden_check(const char *name, const char *text)
{
    char path[512];
    struct buf wanted;
    struct failure f = {.code = 0};
    text_format(path, sizeof path, "%s/golden/cli_%s.txt", TESTS_DIR, name);
    if (getenv("GOLDEN_UPDATE")) {
        CHECK_EQ_INT(port_write_file(path, span_str(text), false, &f), 0);
        return;
    }
    buf_init(&wanted, GOLDEN_LIMIT);
    CHECK_EQ_INT(port_read_file(path, &wanted, &f), 0);
    CHECK_EQ_STR(text, buf_str(&wanted));
    buf_done(&wanted);
}

#endif
