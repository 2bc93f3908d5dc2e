/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of page lists: found by process, kept by turns, never found before they are kept. */
#include "tests/unit/common/scratch.h"

#include "agent/pages.h"

#include <string.h>

#include "agent/evidence.h"
#include "common/port.h"

static char folder[SCRATCH_PATH_SIZE];

static struct os_process process_of(uint32_t pid)
{
    return (struct os_process){.pid = pid, .start_ticks = 1000 + pid};
}

static void begin(struct pages *pages, uint32_t pid)
{
    struct failure f = {0, ""};
    struct os_process process = process_of(pid);
    scratch("pages", folder);
    REQUIRE(pages_begin(pages, folder, &process, &f) == 0);
    REQUIRE(pages_write(pages, span_str("a list"), &f) == 0);
}

static void keep(uint32_t pid, const char *incident, uint32_t no)
{
    struct pages pages;
    struct pages_base base = {.no = no};
    struct failure f = {0, ""};
    begin(&pages, pid);
    snprintf(base.incident, sizeof base.incident, "%s", incident);
    REQUIRE(pages_keep(&pages, &base, &f) == 0);
}

/* The artifact's number, or 0. */
static uint32_t find(const struct os_process *process)
{
    struct pages_base base = {.no = 0};
    char text[16] = "";
    int file = pages_find(folder, process, &base);
    if (file < 0)
        return 0;
    CHECK_EQ_INT(read(file, text, sizeof text), 6);
    CHECK_EQ_STR(text, "a list");
    CHECK_EQ_STR(base.incident, "INC-261123-K7F2Q");
    port_close(file);
    return base.no;
}

TEST(a_list_is_found_by_its_process_once_it_is_kept)
{
    struct pages pages;
    struct os_process process = process_of(7), later = process;
    begin(&pages, 7);
    CHECK_EQ_INT(find(&process), 0);
    pages_drop(&pages);
    CHECK_EQ_INT(find(&process), 0);
    keep(7, "INC-261123-K7F2Q", 3);
    CHECK_EQ_INT(find(&process), 3);
    later.start_ticks++;
    CHECK_EQ_INT(find(&later), 0);
}

TEST(a_newer_list_takes_the_place_of_the_older)
{
    struct os_process process = process_of(7);
    keep(7, "INC-261123-K7F2Q", 3);
    keep(7, "INC-261123-K7F2Q", 12);
    CHECK_EQ_INT(find(&process), 12);
    pages_forget(folder, &process);
    CHECK_EQ_INT(find(&process), 0);
}

TEST(only_a_few_are_kept)
{
    uint32_t there = 0;
    for (uint32_t pid = 1; pid <= 3 * PAGES_KEPT; pid++)
        keep(pid, "INC-261123-K7F2Q", pid);
    for (uint32_t pid = 1; pid <= 3 * PAGES_KEPT; pid++) {
        struct os_process process = process_of(pid);
        there += find(&process) == pid;
    }
    struct os_process last = process_of(3 * PAGES_KEPT);
    CHECK_EQ_INT(find(&last), last.pid);
    CHECK_EQ_INT(there, PAGES_KEPT);
}
