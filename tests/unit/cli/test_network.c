/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole commands against a collector in a thread: lists, captures that wait and do not wait,
 * fetches that are cut, damaged, interrupted and gone on with; and what is said when there is no
 * collector.
 */
#include "tests/unit/cli/fake_collector.h"

static struct fake_collector fake;

static void check_file(const char *directory, const char *name, const struct fake_artifact *a,
                       bool wanted)
{
    char path[SCRATCH_PATH_SIZE * 2];
    struct buf text;
    struct failure f;
    text_format(path, sizeof path, "%s/INC-261123-K7F2Q/%s", directory, name);
    CHECK_EQ_INT(port_exists(path), wanted);
    if (!wanted || !a)
        return;
    buf_init(&text, FAKE_BODY_MAX + 1);
    CHECK_EQ_INT(port_read_file(path, &text, &f), 0);
    CHECK_EQ_INT(text.size_bytes, a->record.size_bytes);
    CHECK(span_equal(buf_span(&text), span_of(a->body, (size_t)a->record.size_bytes)));
    buf_done(&text);
}

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        count++;
    return count;
}

/* ---- lists and errors ---- */

TEST(hosts_are_listed)
{
    fake_usual(&fake.script);
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "hosts");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(count_of(r.out, "online"), 2);
    CHECK_EQ_STR(r.err, "");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "hosts", "-o", "json");
    CHECK_EQ_INT(count_of(r.out, "\n"), 2);
    CHECK(r.out[0] == '{');
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_host_that_does_not_exist_is_named_with_the_nearest)
{
    fake_usual(&fake.script);
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "hosts", "wbe-1");
    CHECK_EQ_INT(r.status, 1);
    CHECK_EQ_STR(r.out, "");
    CHECK(strstr(r.err, "unknown host 'wbe-1'; did you mean 'web-1'? (known: web-1, web-2)"));
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(what_the_collector_refuses_has_its_sentence_and_its_status)
{
    fake_usual(&fake.script);
    fake_start(&fake);
    atomic_store(&fake.script.refuse, ERR_DENIED);
    struct fake_run_result r = FAKE_TRAWL(&fake, "capture", "*");
    CHECK_EQ_INT(r.status, err_exit_code(ERR_DENIED));
    CHECK_EQ_STR(r.err, "trawl: the script says no\n");
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_collector_that_is_not_there_has_its_own_status)
{
    fake_usual(&fake.script);
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "hosts", "--collector", "localhost:1");
    CHECK_EQ_INT(r.status, 21);
    CHECK(strstr(r.err, "cannot reach collector 'localhost:1'") != NULL);
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "capture", "*", "--collector", "localhost:1");
    CHECK_EQ_INT(r.status, 21);
    CHECK_EQ_INT(count_of(r.err, "\n"), 1);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_collector_of_another_fleet_has_its_own_status)
{
    struct fleet other;
    fake_usual(&fake.script);
    fake_start(&fake);
    fleet_init(&other, "f1");
    fake_write(fake.context, "ca.crt", buf_span(&other.cert));
    struct fake_run_result r = FAKE_TRAWL(&fake, "hosts");
    CHECK_EQ_INT(r.status, 23);
    CHECK(strstr(r.err, "CA") != NULL);
    fake_run_done(&r);
    fleet_done(&other);
    fake_stop(&fake);
}

/* ---- captures ---- */

TEST(a_capture_where_all_goes_well)
{
    fake_usual(&fake.script);
    fake.script.ends[0] = fake.script.ends[1] = trawl_v1_State_DONE;
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "capture", "*");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_STR(r.out, "INC-261123-K7F2Q  2 of 2 hosts online\n"
                        "2 done       trawl show K7F2Q\n");
    CHECK_EQ_INT(fake.script.captures, 1);
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "capture", "*", "-o", "json");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(count_of(r.out, "\"type\":\"target\""), 2);
    CHECK_EQ_INT(count_of(r.out, "\"type\":\"capture\""), 1);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_capture_with_a_host_that_is_offline_does_not_wait_for_it)
{
    fake_usual(&fake.script);
    fake.script.ends[0] = trawl_v1_State_DONE;
    fake.script.hosts[1].state = trawl_v1_HostState_OFFLINE;
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "capture", "*");
    CHECK_EQ_INT(r.status, 3);
    CHECK(strstr(r.out, "1 of 2 hosts online") != NULL);
    CHECK(strstr(r.out, "  web-2    queued    offline since ") != NULL);
    CHECK(strstr(r.out, ", order kept until ") != NULL);
    CHECK(strstr(r.out, "1 done, 1 queued       trawl show K7F2Q\n") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_capture_where_nothing_was_gathered)
{
    fake_usual(&fake.script);
    fake.script.ends[0] = trawl_v1_State_REFUSED;
    fake.script.reasons[0] = "pause would be 84 ms, limit 50 ms";
    fake.script.ends[1] = trawl_v1_State_FAILED;
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "capture", "*");
    CHECK_EQ_INT(r.status, 1);
    CHECK(strstr(r.out, "  web-1    refused   pause would be 84 ms, limit 50 ms\n") != NULL);
    CHECK(strstr(r.out, "1 refused, 1 failed       trawl show K7F2Q\n") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_capture_bears_the_loss_of_the_collector)
{
    fake_usual(&fake.script);
    fake.script.ends[0] = fake.script.ends[1] = trawl_v1_State_DONE;
    fake_start(&fake);
    atomic_store(&fake.script.cuts, 2);
    struct fake_run_result r = FAKE_TRAWL(&fake, "capture", "*");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(fake.script.captures, 1);
    CHECK_EQ_INT(fake.script.cuts, 0);
    CHECK_EQ_INT(count_of(r.err, "lost the collector"), 2);
    CHECK_EQ_INT(count_of(r.err, "the collector is back"), 2);
    CHECK(strstr(r.out, "2 done       trawl show K7F2Q\n") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_dry_run_and_one_that_does_not_wait)
{
    fake_usual(&fake.script);
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "capture", "*", "--dry-run");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_STR(r.out, "2 hosts match, 2 of them online; nothing was captured\n"
                        "  web-1\n  web-2\n");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "capture", "*", "--no-wait");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_STR(r.out, "INC-261123-K7F2Q  2 of 2 hosts online\n");
    CHECK(strstr(r.err, "'trawl watch K7F2Q' follows it, 'trawl cancel K7F2Q' stops it") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(watch_shows_each_change_and_ends_with_the_incident)
{
    fake_usual(&fake.script);
    fake.script.ends[0] = trawl_v1_State_DONE;
    fake.script.ends[1] = trawl_v1_State_PARTIAL;
    fake.script.reasons[1] = "no log";
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "watch");
    CHECK_EQ_INT(r.status, 3);
    CHECK_EQ_INT(count_of(r.out, "queued"), 2);
    CHECK(strstr(r.out, "partial   no log\n") != NULL);
    CHECK(strstr(r.out, "1 done, 1 partial       trawl show K7F2Q\n") != NULL);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(show_prints_the_report_safely)
{
    fake_usual(&fake.script);
    fake_start(&fake);
    struct fake_run_result r = FAKE_TRAWL(&fake, "show", "K7F2Q");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_STR(r.out, "the report of \\x1b[2Jweb-1\n");
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "show", "K7F2Q", "-o", "json");
    CHECK_EQ_INT(count_of(r.out, "\"type\":\"artifact\""), 3);
    CHECK_EQ_INT(count_of(r.out, "\"type\":\"line\""), 0);
    fake_run_done(&r);
    fake_stop(&fake);
}

/* ---- fetches ---- */

TEST(a_fetch_brings_everything_and_once)
{
    char directory[SCRATCH_PATH_SIZE];
    fake_usual(&fake.script);
    fake_start(&fake);
    scratch("out", directory);
    struct fake_run_result r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory);
    CHECK_EQ_INT(r.status, 0);
    CHECK(strstr(r.out, "3 of 3 files, 96.1 KiB       ") != NULL);
    check_file(directory, "web-1/stacks-1.txt", &fake.script.artifacts[0], true);
    check_file(directory, "web-1/triage-1.txt", &fake.script.artifacts[1], true);
    check_file(directory, "web-2/stacks-1.txt", &fake.script.artifacts[2], true);
    check_file(directory, "web-1/stacks-1.txt.part", NULL, false);
    check_file(directory, "report.txt", NULL, true);
    check_file(directory, "manifest.json", NULL, true);
    CHECK_EQ_INT(fake.script.fetches, 3);
    fake_run_done(&r);
    r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory);
    CHECK_EQ_INT(r.status, 0);
    CHECK(strstr(r.out, "3 of 3 files, 96.1 KiB (3 were there)") != NULL);
    CHECK_EQ_INT(fake.script.fetches, 3);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_byte_that_differs_on_the_way_is_an_error_and_never_a_file)
{
    char directory[SCRATCH_PATH_SIZE];
    fake_usual(&fake.script);
    fake_start(&fake);
    atomic_store(&fake.script.flip_piece, 1);
    scratch("out", directory);
    struct fake_run_result r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory);
    CHECK_EQ_INT(r.status, 3);
    CHECK(strstr(r.out, "  web-1/stacks-1.txt   artifact 'stacks-1.txt' of host 'web-1' differs "
                        "from its hash: not kept\n") != NULL);
    check_file(directory, "web-1/stacks-1.txt", NULL, false);
    check_file(directory, "web-1/stacks-1.txt.part", NULL, false);
    check_file(directory, "web-2/stacks-1.txt", &fake.script.artifacts[2], true);
    fake_run_done(&r);
    atomic_store(&fake.script.flip_piece, -1);
    r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory);
    CHECK_EQ_INT(r.status, 0);
    check_file(directory, "web-1/stacks-1.txt", &fake.script.artifacts[0], true);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_fetch_bears_connections_that_are_cut)
{
    char directory[SCRATCH_PATH_SIZE];
    fake_usual(&fake.script);
    fake_start(&fake);
    atomic_store(&fake.script.cuts, 2);
    scratch("out", directory);
    struct fake_run_result r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory, "--json");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(fake.script.cuts, 0);
    CHECK_EQ_INT(count_of(r.out, "\"state\":\"fetched\""), 3);
    check_file(directory, "web-1/stacks-1.txt", &fake.script.artifacts[0], true);
    fake_run_done(&r);
    fake_stop(&fake);
}

/* A part of an earlier, interrupted fetch; `good` says whether its bytes are right. */
static void leave_part(const char *directory, bool good)
{
    char path[SCRATCH_PATH_SIZE * 2];
    struct failure f;
    uint8_t *body = fake.script.artifacts[0].body;
    text_format(path, sizeof path, "%s/INC-261123-K7F2Q/web-1", directory);
    REQUIRE(port_make_dirs(path, &f) == 0);
    text_format(path, sizeof path, "%s/INC-261123-K7F2Q/web-1/stacks-1.txt.part", directory);
    body[5] ^= !good;
    REQUIRE(port_write_file(path, span_of(body, 2 * CODEC_PIECE_SIZE + 17), true, &f) == 0);
    body[5] ^= !good;
}

TEST(an_interrupted_fetch_goes_on_from_whole_pieces)
{
    char directory[SCRATCH_PATH_SIZE];
    fake_usual(&fake.script);
    fake_start(&fake);
    leave_part(scratch("out", directory), true);
    struct fake_run_result r =
        FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory, "--host", "web-1");
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(fake.script.first_from_piece, 2);
    check_file(directory, "web-1/stacks-1.txt", &fake.script.artifacts[0], true);
    check_file(directory, "web-2/stacks-1.txt", NULL, false);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_damaged_part_is_fetched_once_more_from_the_first_piece)
{
    char directory[SCRATCH_PATH_SIZE];
    fake_usual(&fake.script);
    fake_start(&fake);
    leave_part(scratch("out", directory), false);
    struct fake_run_result r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory);
    CHECK_EQ_INT(r.status, 0);
    CHECK_EQ_INT(fake.script.fetches, 4);
    check_file(directory, "web-1/stacks-1.txt", &fake.script.artifacts[0], true);
    fake_run_done(&r);
    fake_stop(&fake);
}

TEST(a_bundle_stays_within_its_directory)
{
    char directory[SCRATCH_PATH_SIZE], outside[SCRATCH_PATH_SIZE];
    fake_usual(&fake.script);
    text_copy(fake.script.artifacts[2].record.file, 128, "../../../outside.txt");
    fake_start(&fake);
    scratch("out", directory);
    struct fake_run_result r = FAKE_TRAWL(&fake, "fetch", "K7F2Q", "-o", directory);
    CHECK_EQ_INT(r.status, 3);
    CHECK(strstr(r.out, "not safe to be a path") != NULL);
    CHECK(!port_exists(scratch("outside.txt", outside)));
    CHECK_EQ_INT(fake.script.fetches, 2);
    fake_run_done(&r);
    fake_stop(&fake);
}
