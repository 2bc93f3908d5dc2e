/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of exceptions that follows logs with the real broker, watcher and ring, in a directory
 * of its own; what came into the ring is read back. Used by test_follow.c.
 */
#ifndef TESTS_UNIT_AGENT_KIT_FOLLOW_H
#define TESTS_UNIT_AGENT_KIT_FOLLOW_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/broker.h"
#include "agent/follow_private.h"
#include "agent/os/privilege.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"
#include "tests/check.h"

#define KIT_TOLD_MAX 4096
#define KIT_LIMIT_US UINT64_C(120000000) /* certain to come, on the busiest machine too */

struct kit_follow {
    char directory[64];
    char policy_path[128];
    struct settings settings;
    struct policy policy;
    struct broker_settings broker_settings;
    struct broker_client *broker;
    const char *followed[4];
    uv_loop_t loop;
    struct spool *spool;
    struct events *events;
    struct watcher *watcher;
    void *source;
    int closed;
    /* What came into the ring so far. */
    uint64_t records, sum, gaps;
    char messages[KIT_TOLD_MAX][64];
    char processes[KIT_TOLD_MAX][64];
    uint32_t pids[KIT_TOLD_MAX];
    uint8_t ids[KIT_TOLD_MAX][16];
};

static inline void kit_follow_path(const struct kit_follow *k, const char *name, char out[128])
{
    REQUIRE(text_format(out, 128, "%s/%s", k->directory, name) == 0);
}

static inline void kit_follow_start(struct kit_follow *k)
{
    static const uint64_t floor[SPOOL_LANES];
    struct spool_opened how;
    struct failure f = {0};
    int fd = -1;
    REQUIRE(os_broker_fork(broker_run, &k->broker_settings, &fd, &f) == 0);
    REQUIRE(uv_loop_init(&k->loop) == 0);
    REQUIRE(spool_open(&k->spool, k->settings.state_dir, 4 << 20, floor, &how, &f) == 0);
    spool_resume(k->spool, floor); /* what an agent before put there is read, too */
    REQUIRE(events_open(&k->events, k->spool, clock_system(), NULL, NULL, NULL) == 0);
    REQUIRE(broker_client_open(&k->broker, &k->loop, fd, &f) == 0);
    REQUIRE(watcher_open(&k->watcher, k->spool, clock_system(), NULL, NULL) == 0);
    struct source_context context = {&k->loop,    clock_system(), &k->settings, &k->policy,
                                     k->followed, k->broker,      k->events,    k->watcher};
    int e = follow_open(&k->source, &context, &f);
    if (e)
        printf("  %s\n", f.text);
    REQUIRE(e == 0 && k->source);
}

/* `logs`: pattern within the directory; `follow`: a process's name, or NULL. */
static inline struct kit_follow *kit_follow_make(const char *logs, const char *follow,
                                                 const char *policy)
{
    struct kit_follow *k = calloc(1, sizeof *k);
    REQUIRE(k != NULL);
    snprintf(k->directory, sizeof k->directory, "/tmp/trawl-follow-XXXXXX");
    REQUIRE(mkdtemp(k->directory) != NULL);
    snprintf(k->settings.state_dir, sizeof k->settings.state_dir, "%s/state", k->directory);
    REQUIRE(mkdir(k->settings.state_dir, 0700) == 0);
    kit_follow_path(k, "policy.conf", k->policy_path);
    FILE *file = fopen(k->policy_path, "w");
    REQUIRE(file && fputs(policy, file) >= 0 && fclose(file) == 0);
    if (logs)
        snprintf(k->settings.follow_logs, sizeof k->settings.follow_logs, "%s/%s", k->directory,
                 logs);
    k->followed[0] = follow;
    if (follow)
        snprintf(k->settings.follow, sizeof k->settings.follow, "%s", follow);
    k->settings.follow_own_logs = follow != NULL;
    policy_defaults(&k->policy);
    k->broker_settings = (struct broker_settings){.policy_path = k->policy_path,
                                                  .capture_cpu_percent = 50,
                                                  .follow_logs = k->settings.follow_logs,
                                                  .follow = k->settings.follow,
                                                  .follow_own_logs = follow != NULL};
    return k;
}

static inline void kit_follow_closed(void *context)
{
    ((struct kit_follow *)context)->closed++;
}

static inline void kit_follow_stop(struct kit_follow *k)
{
    follow_close(k->source);
    watcher_close(k->watcher);
    k->closed = 0;
    broker_client_close(k->broker, kit_follow_closed, k);
    while (k->closed < 1)
        (void)uv_run(&k->loop, UV_RUN_ONCE);
    (void)uv_run(&k->loop, UV_RUN_NOWAIT);
    CHECK_EQ_INT(uv_loop_close(&k->loop), 0);
    events_close(k->events);
}

static inline void kit_follow_remove(struct kit_follow *k)
{
    char command_free[128];
    spool_close(k->spool);
    static const char *const names[] = {"policy.conf", "a.log", "a.log.1", "b.log",
                                        "c.log",       "d.log", "secret"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        kit_follow_path(k, names[i], command_free);
        unlink(command_free);
    }
    uv_fs_t scan;
    uv_dirent_t entry;
    if (uv_fs_scandir(NULL, &scan, k->settings.state_dir, 0, NULL) >= 0)
        while (uv_fs_scandir_next(&scan, &entry) == 0) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s", k->settings.state_dir, entry.name);
            unlink(path);
        }
    uv_fs_req_cleanup(&scan);
    rmdir(k->settings.state_dir);
    rmdir(k->directory);
    free(k);
}

static inline void kit_follow_take(struct kit_follow *k, const trawl_v1_AgentMessage *m)
{
    if (m->which_body == trawl_v1_AgentMessage_event_tag &&
        m->body.event.type == trawl_v1_EventType_DATA_GAP)
        k->gaps++;
    if (m->which_body != trawl_v1_AgentMessage_exception_tag)
        return;
    const trawl_v1_Exception *e = &m->body.exception;
    if (k->records < KIT_TOLD_MAX) {
        snprintf(k->messages[k->records], 64, "%.63s", e->message);
        snprintf(k->processes[k->records], 64, "%.63s", e->process);
        k->pids[k->records] = e->pid;
        memcpy(k->ids[k->records], e->id.bytes, 16);
        for (uint64_t i = 0; i < k->records; i++)
            CHECK(memcmp(k->ids[i], e->id.bytes, 16) != 0);
    }
    k->records++;
    k->sum += e->count;
}

static inline void kit_follow_read(struct kit_follow *k)
{
    static trawl_v1_AgentMessage m;
    struct spool_item item;
    while (spool_peek(k->spool, SPOOL_EVENTS, &item) == 0) {
        REQUIRE(codec_get_agent_message(&m, item.message, NULL) == 0);
        kit_follow_take(k, &m);
        spool_advance(k->spool, SPOOL_EVENTS);
    }
}

/* Turns the loop; a "second" is 20 ms, so that rounds of looking go on. */
static inline void kit_follow_turn(struct kit_follow *k)
{
    (void)uv_run(&k->loop, UV_RUN_NOWAIT);
    follow_second(k->source);
    watcher_tick(k->watcher);
    kit_follow_read(k);
    usleep(20000);
}

static inline bool kit_follow_until(struct kit_follow *k, uint64_t sum)
{
    uint64_t end_us = port_mono_us() + KIT_LIMIT_US;
    while (k->sum < sum && port_mono_us() < end_us)
        kit_follow_turn(k);
    return k->sum >= sum;
}

/* Whether the agent's own memory of how far it is knows of this file. */
static inline bool kit_follow_knows(const struct kit_follow *k, const char *name)
{
    static uint8_t bytes[65536];
    char path[128];
    struct stat st;
    struct follow_place place;
    kit_follow_path(k, name, path);
    REQUIRE(stat(path, &st) == 0);
    kit_follow_path(k, "state/logs.places", path);
    int fd = open(path, O_RDONLY);
    ssize_t size = fd < 0 ? 0 : read(fd, bytes, sizeof bytes);
    if (fd >= 0)
        close(fd);
    uint64_t id[2] = {st.st_dev, st.st_ino};
    const uint8_t *found = NULL;
    for (ssize_t at = 0; !found && at + (ssize_t)sizeof place <= size; at += (ssize_t)sizeof id[0])
        if (memcmp(bytes + at, id, sizeof id) == 0)
            found = bytes + at;
    if (!found)
        return false;
    memcpy(&place, found, sizeof place);
    return place.offset != UINT64_MAX;
}

/* Starts, and waits until the file, which is there already, is followed. */
static inline void kit_follow_start_at(struct kit_follow *k, const char *name)
{
    kit_follow_start(k);
    uint64_t end_us = port_mono_us() + KIT_LIMIT_US;
    while (!kit_follow_knows(k, name) && port_mono_us() < end_us)
        kit_follow_turn(k);
    REQUIRE(kit_follow_knows(k, name));
}

/* Long enough for whatever would come to have come. */
static inline void kit_follow_settle(struct kit_follow *k)
{
    uint64_t end_us = port_mono_us() + 900000;
    while (port_mono_us() < end_us)
        kit_follow_turn(k);
}

static inline void kit_follow_write(const struct kit_follow *k, const char *name, const void *data,
                                    size_t size_bytes)
{
    char path[128];
    kit_follow_path(k, name, path);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    REQUIRE(fd >= 0 && write(fd, data, size_bytes) == (ssize_t)size_bytes);
    close(fd);
}

static inline size_t kit_follow_trace(char *out, size_t size_bytes, const char *message)
{
    int n = snprintf(out, size_bytes,
                     "2026-11-23 14:00:00 ERROR cannot total\nTraceback (most recent call last):\n"
                     "  File \"/srv/shop.py\", line 4, in parse\n    return int(text)\n"
                     "ValueError: %s\n2026-11-23 14:00:01 INFO next\n",
                     message);
    return (size_t)n;
}

static inline void kit_follow_append(const struct kit_follow *k, const char *name,
                                     const char *message)
{
    char text[512];
    kit_follow_write(k, name, text, kit_follow_trace(text, sizeof text, message));
}

static inline bool kit_follow_has(const struct kit_follow *k, const char *message)
{
    unsigned count = 0;
    for (uint64_t i = 0; i < k->records && i < KIT_TOLD_MAX; i++)
        count += strcmp(k->messages[i], message) == 0;
    return count == 1;
}

#endif
