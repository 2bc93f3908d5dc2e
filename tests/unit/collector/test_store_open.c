/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and opening a data directory: what is there already, what an interrupted store_create()
 * left, other fleets and versions, a second opener. Every refusal says why and changes nothing.
 */
#include <sys/wait.h>

#include "tests/unit/collector/store_kit.h"

TEST(create_refuses_what_is_there)
{
    struct kit kit;
    struct failure f;
    kit_init(&kit, NULL);
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_NOTFOUND);
    CHECK(!kit.store);
    CHECK(access(kit.directory, F_OK) != 0);
    kit_create(&kit);
    CHECK_EQ_INT(store_create(kit.directory, "test", &f), ERR_EXISTS);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "v"), 0);
    kit_close(&kit);
    CHECK_EQ_INT(store_create(kit.directory, "test", &f), ERR_EXISTS);
    REQUIRE(unlink(kit_file(&kit, "trawl-store")) == 0);
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_NOTFOUND);
    CHECK_EQ_INT(store_create(kit.directory, "test", &f), ERR_EXISTS);
    CHECK(strstr(f.text, "records/data.mdb' holds data") != NULL);
}

TEST(create_takes_up_what_an_interrupted_one_left)
{
    struct kit kit;
    kit_init(&kit, NULL);
    kit_create(&kit);
    kit_close(&kit);
    REQUIRE(unlink(kit_file(&kit, "trawl-store")) == 0);
    REQUIRE(unlink(kit_file(&kit, "pieces/data.mdb")) == 0);
    kit_create(&kit);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "v"), 0);
    kit_close(&kit);
}

static void write_info(struct kit *kit, const char *text)
{
    FILE *file = fopen(kit_file(kit, "trawl-store"), "w");
    REQUIRE(file != NULL);
    fputs(text, file);
    fclose(file);
}

TEST(other_fleets_versions_and_texts_are_refused)
{
    struct kit kit;
    struct failure f;
    char expected[512];
    kit_init(&kit, NULL);
    kit_create(&kit);
    kit_close(&kit);
    kit.settings.fleet = "other";
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_FOREIGN);
    text_format(expected, sizeof expected,
                "'%s' belongs to fleet 'test', not 'other'; name another directory", kit.directory);
    CHECK_EQ_STR(f.text, expected);
    kit.settings.fleet = "test";
    write_info(&kit, "trawl-store 2\nwhatever\n");
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_VERSION);
    write_info(&kit, "");
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_CORRUPT);
    write_info(&kit, "trawl-store 1\n");
    CHECK_EQ_INT(store_open(&kit.store, &kit.settings, &f), ERR_CORRUPT);
    CHECK(!kit.store);
    write_info(&kit, "trawl-store 1\nfleet test\n");
    kit_open(&kit);
    kit_close(&kit);
}

TEST(a_second_opener_is_told_who_is_first)
{
    struct kit kit;
    struct failure f;
    char expected[512];
    kit_init(&kit, NULL);
    kit_create(&kit);
    text_format(expected, sizeof expected, "another collector (pid %ld) runs on '%s'",
                (long)getpid(), kit.directory);
    struct store *second = NULL;
    CHECK_EQ_INT(store_open(&second, &kit.settings, &f), ERR_BUSY);
    CHECK_EQ_STR(f.text, expected);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ_INT(store_open(&second, &kit.settings, &f), ERR_BUSY);
        CHECK_EQ_STR(f.text, expected);
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    CHECK_EQ_INT(status, 0);
    CHECK(!second);
    CHECK_EQ_INT(kit_put_one(&kit, "p", "k", "v"), 0); /* the first is not disturbed */
    kit_close(&kit);
}
