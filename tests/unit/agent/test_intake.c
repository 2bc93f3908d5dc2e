/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What applications report: what is read, what is refused and in which words, how much each user
 * may, and the way through a real socket with the kernel's word on the sender.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/emit.h"
#include "agent/intake_json.h"
#include "agent/intake_limit.h"
#include "agent/os/datagram.h"
#include "tests/check.h"

static struct os_exception e;

static int parse(const char *json, struct failure *f)
{
    memset(&e, 0x55, sizeof e);
    *f = (struct failure){0, ""};
    return intake_parse(span_str(json), &e, f);
}

TEST(all_that_a_report_may_say)
{
    struct failure f;
    REQUIRE(
        parse("{\"type\":\"KeyError\",\"message\":\"'u' \\u00e9\",\"language\":\"python\","
              "\"level\":\"error\",\"tags\":{\"a\":\"b\",\"n\":7,\"t\":true,\"r\":1.5},"
              "\"stack\":[{\"function\":\"load\",\"file\":\"a.py\",\"line\":12,\"module\":\"m\"},"
              "\"main\",{\"function\":\"run\"}],\"pid\":1,\"more\":{\"x\":[1]}}",
              &f) == 0);
    CHECK_EQ_INT(e.source, OS_REPORTED);
    CHECK_EQ_STR(e.type, "KeyError");
    CHECK_EQ_STR(e.message, "'u' \xc3\xa9");
    CHECK_EQ_STR(e.language, "python");
    CHECK_EQ_INT(e.pid, 0); /* the kernel says who it was */
    CHECK_EQ_INT(e.tag_count, 5);
    CHECK_EQ_STR(e.tags[0].key, "level");
    CHECK_EQ_INT(e.frame_count, 3);
    CHECK_EQ_STR(e.frames[0].function, "load");
    CHECK_EQ_INT(e.frames[0].line, 12);
    CHECK_EQ_STR(e.frames[1].function, "main");
}

TEST(a_stack_as_text_is_a_frame_a_line)
{
    struct failure f;
    REQUIRE(parse("{\"type\":\"x\",\"stack\":\"  at a\\r\\n\\n\\tat b\\n\"}", &f) == 0);
    CHECK_EQ_INT(e.frame_count, 2);
    CHECK_EQ_STR(e.frames[0].function, "at a");
    CHECK_EQ_STR(e.frames[1].function, "at b");
}

TEST(what_is_too_much_is_left_out_and_said)
{
    struct failure f;
    struct buf b;
    buf_init(&b, INTAKE_BYTES_MAX);
    buf_append_str(&b, "{\"type\":\"x\",\"tags\":{");
    for (int i = 0; i < 20; i++)
        buf_printf(&b, "%s\"k%d\":%d", i ? "," : "", i, i);
    buf_append_str(&b, "},\"stack\":[\"f\"");
    for (int i = 0; i < 99; i++)
        buf_append_str(&b, ",\"g\"");
    buf_append_str(&b, "],\"message\":\"");
    for (int i = 0; i < 3000; i++)
        buf_append_str(&b, "\xc3\xa9");
    buf_append_str(&b, "\"}");
    REQUIRE(parse(buf_str(&b), &f) == 0);
    CHECK_EQ_INT(e.tag_count, OS_EXCEPTION_TAGS);
    CHECK_EQ_STR(e.missing, "some tags: more than fit");
    CHECK_EQ_INT(e.frame_count, OS_EXCEPTION_FRAMES);
    CHECK_EQ_INT(e.frames_left_out, 100 - OS_EXCEPTION_FRAMES);
    CHECK_EQ_INT(strlen(e.message), sizeof e.message - 1);
    buf_done(&b);
}

static void refused(const char *json, const char *reason)
{
    struct failure f;
    CHECK_EQ_INT(parse(json, &f), ERR_INVALID);
    if (!strstr(f.text, reason))
        fprintf(stderr, "      %.60s: %s\n", json, f.text);
    CHECK(strstr(f.text, reason) != NULL);
    CHECK_EQ_INT(e.frame_count, 0x55555555); /* untouched */
}

TEST(what_is_no_report_is_refused_in_words)
{
    refused("", "no JSON");
    refused("{", "no JSON");
    refused("[]", "not an object");
    refused("{}", "'type' is missing");
    refused("{\"type\":\"\"}", "'type' is missing");
    refused("{\"type\":5}", "'type' must be a text");
    refused("{\"type\":\"x\",\"message\":[]}", "'message' must be a text");
    refused("{\"type\":\"x\",\"stack\":7}", "'stack' must be");
    refused("{\"type\":\"x\",\"stack\":[7]}", "'stack' must be");
    refused("{\"type\":\"x\",\"stack\":[{\"line\":-1}]}", "'line'");
    refused("{\"type\":\"x\",\"tags\":[]}", "'tags' must be");
    refused("{\"type\":\"x\",\"tags\":{\"a\":{}}}", "tag 'a' must be");
    refused("{\"type\":\"x\",\"type\":\"y\"}", "no JSON");
    refused("{\"type\":\"x\\u0000y\"}", "no JSON");
    refused("{\"type\":\"x\"} {}", "no JSON");
    refused("{\"type\":\"\xff\"}", "no JSON");
}

TEST(deep_nesting_is_no_danger)
{
    struct failure f;
    char *deep = malloc(INTAKE_BYTES_MAX + 1);
    REQUIRE(deep != NULL);
    memset(deep, '[', INTAKE_BYTES_MAX);
    deep[INTAKE_BYTES_MAX] = '\0';
    CHECK_EQ_INT(parse(deep, &f), ERR_INVALID);
    free(deep);
}

TEST(each_user_has_a_share_and_the_rest_is_counted)
{
    struct intake_limit *limit = calloc(1, sizeof *limit);
    uint64_t taken = 0, other = 0, now = 1000000;
    bool allowed;
    REQUIRE(limit != NULL);
    for (int i = 0; i < 100000; i++, now += 10) { /* one second */
        intake_limit_take(limit, 1, now, &allowed);
        taken += allowed;
        if (i % 5000 == 0) {
            intake_limit_take(limit, 2, now, &allowed);
            other += allowed;
        }
    }
    CHECK_EQ_INT(taken, INTAKE_BURST + INTAKE_PER_SECOND - 1);
    CHECK_EQ_INT(other, 20);
    struct intake_user *user = intake_limit_take(limit, 1, now + 60000000, &allowed);
    CHECK(allowed);
    CHECK_EQ_INT(user->over + user->taken, 100001);
    free(limit);
}

TEST(more_users_than_places_share_one)
{
    struct intake_limit *limit = calloc(1, sizeof *limit);
    uint64_t now = 1000000, total = 0;
    bool allowed;
    REQUIRE(limit != NULL);
    for (uint32_t i = 0; i < 10000; i++)
        intake_limit_take(limit, i, now, &allowed);
    for (size_t i = 0; i <= INTAKE_USERS_MAX; i++)
        total += limit->users[i].taken + limit->users[i].over;
    CHECK_EQ_INT(total, 10000);
    CHECK_EQ_INT(limit->users[INTAKE_USERS_MAX].uid, INTAKE_OTHERS);
    /* Quiet ones make room. */
    CHECK_EQ_INT(intake_limit_take(limit, 77777, now + 60000000, &allowed)->uid, 77777);
    free(limit);
}

TEST(emit_makes_what_the_intake_reads)
{
    char *words[] = {(char[]){"--type"}, (char[]){"a \"b\""}, (char[]){"--message=m\n"},
                     (char[]){"--tag"},  (char[]){"k=v=w"},   (char[]){"--level"},
                     (char[]){"warn"}};
    struct emit emit;
    struct failure f = {0, ""};
    struct buf out;
    buf_init(&out, INTAKE_BYTES_MAX);
    REQUIRE(emit_read(&emit, 7, words, &f) == 0);
    REQUIRE(emit_put(&emit, "one\ntwo\n", &out, &f) == 0);
    REQUIRE(parse(buf_str(&out), &f) == 0);
    CHECK_EQ_STR(e.type, "a \"b\"");
    CHECK_EQ_STR(e.message, "m\n");
    CHECK_EQ_INT(e.frame_count, 2);
    CHECK_EQ_STR(e.tags[1].value, "v=w");
    buf_done(&out);
}

TEST(a_datagram_says_who_sent_it)
{
    char path[64], data[16];
    struct failure f = {0, ""};
    struct os_sender sender;
    size_t got = 0;
    int fd = -1, second = -1;
    snprintf(path, sizeof path, "/tmp/trawl-intake-%d.sock", (int)getpid());
    REQUIRE(os_datagram_open(path, &fd, &f) == 0);
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0666);
    CHECK_EQ_INT(os_datagram_open(path, &second, &f), ERR_BUSY);
    CHECK_EQ_INT(os_datagram_receive(fd, data, sizeof data, &got, &sender), ERR_AGAIN);
    REQUIRE(os_datagram_send(path, span_str("hello"), &f) == 0);
    REQUIRE(os_datagram_send(path, span_str("longer than there is room for"), &f) == 0);
    REQUIRE(os_datagram_receive(fd, data, sizeof data, &got, &sender) == 0);
    CHECK_EQ_INT(got, 5);
    CHECK_EQ_INT(sender.pid, getpid());
    CHECK_EQ_INT(sender.uid, getuid());
    CHECK_EQ_INT(os_datagram_receive(fd, data, sizeof data, &got, &sender), ERR_LIMIT);
    CHECK_EQ_INT(sender.uid, getuid());
    close(fd); /* as one who was killed: the path stays */
    CHECK_EQ_INT(os_datagram_send(path, span_str("x"), &f), ERR_CLOSED);
    REQUIRE(os_datagram_open(path, &fd, &f) == 0);
    os_datagram_close(path, fd);
    CHECK_EQ_INT(os_datagram_send(path, span_str("x"), &f), ERR_NOTFOUND);
}
