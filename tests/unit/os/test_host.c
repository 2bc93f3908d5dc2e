/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts, capabilities and kernel messages, from a recorded tree and of this machine.
 */
#include <poll.h>

#include "agent/os/host.h"
#include "agent/os/linux/procfs.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/os/tree.h"

struct pairs {
    char keys[32][32], values[32][160];
    bool available[32];
    size_t count;
};

static void note_fact(void *context, const char *key, const char *value)
{
    struct pairs *p = context;
    REQUIRE(p->count < 24); /* room in the announcement */
    CHECK(text_copy(p->keys[p->count], sizeof p->keys[0], key) == 0);
    CHECK(text_copy(p->values[p->count], 128, value) == 0);
    p->count++;
}

static void note_cap(void *context, const char *name, bool available, const char *reason)
{
    struct pairs *p = context;
    REQUIRE(p->count < 24);
    CHECK(text_copy(p->keys[p->count], 24, name) == 0);
    CHECK(text_copy(p->values[p->count], 160, reason) == 0);
    p->available[p->count++] = available;
}

static const char *value_of(const struct pairs *p, const char *key)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->keys[i], key) == 0)
            return p->values[i];
    return NULL;
}

TEST(facts_of_a_recorded_host)
{
    struct pairs p = {.count = 0};
    os_host_facts(TESTS_DIR "/fixtures/proc/web1", note_fact, &p);
    CHECK_EQ_STR(value_of(&p, "os"), "Debian GNU/Linux 12 (bookworm)");
    CHECK_EQ_STR(value_of(&p, "kernel"), "6.1.0-18-amd64");
    CHECK_EQ_STR(value_of(&p, "cpus"), "2");
    CHECK_EQ_STR(value_of(&p, "memory_bytes"), "25276510208");
    CHECK_EQ_STR(value_of(&p, "boot_time"), "2026-11-23T13:53:53.000Z");
    CHECK_EQ_STR(value_of(&p, "boot_id"), "0a1b2c3d-0000-4000-8000-0123456789ab");
    CHECK_EQ_STR(value_of(&p, "hostname"), "web-01");
    CHECK_EQ_STR(value_of(&p, "virtualization"), "QEMU");
    CHECK_EQ_STR(value_of(&p, "cgroup"), "v2");
    CHECK_EQ_STR(value_of(&p, "container"), NULL);
}

TEST(what_cannot_be_read_is_no_fact)
{
    struct pairs p = {.count = 0};
    os_host_facts(tree_make(), note_fact, &p);
    CHECK(value_of(&p, "arch") != NULL);
    CHECK(value_of(&p, "cpus") == NULL);
    CHECK(value_of(&p, "memory_bytes") == NULL);
    CHECK(value_of(&p, "os") == NULL);
}

TEST(facts_of_this_machine)
{
    static const char *const needed[] = {"os",      "kernel",       "arch",
                                         "cpus",    "memory_bytes", "boot_time",
                                         "boot_id", "hostname",     "agent_user"};
    struct pairs p = {.count = 0};
    os_host_facts("", note_fact, &p);
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        CHECK(value_of(&p, needed[i]) != NULL);
}

TEST(capabilities_are_those_of_this_version)
{
    static const char *const expected[] = {"triage",
                                           "stacks",
                                           "stacks0",
                                           "mini",
                                           "core",
                                           "profile",
                                           "throws",
                                           "net",
                                           "counters",
                                           "events",
                                           "logs",
                                           "counters.process_io",
                                           "counters.pressure",
                                           "kernel_log"};
    struct pairs p = {.count = 0};
    os_host_caps(true, note_cap, &p);
    REQUIRE(p.count == sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < p.count; i++) {
        CHECK_EQ_STR(p.keys[i], expected[i]);
        CHECK(p.available[i] || p.values[i][0] != '\0'); /* a reason for each that is not */
    }
}

TEST(without_privileges_the_reason_is_said)
{
    struct pairs p = {.count = 0};
    if (geteuid() == 0)
        REQUIRE(setresuid(65534, 65534, 65534) == 0);
    os_host_caps(false, note_cap, &p);
    CHECK(strstr(value_of(&p, "stacks"), "CAP_SYS_PTRACE") != NULL);
    const char *throws = value_of(&p, "throws");
    CHECK(throws && (strstr(throws, "CAP_PERFMON") || strstr(throws, "this kernel")));
    static const char *const others[] = {"triage", "stacks0", "mini", "core", "profile", "net"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        const char *reason = value_of(&p, others[i]);
        REQUIRE(reason != NULL);
        CHECK(strstr(reason, "CAP_SYS_PTRACE") || strstr(reason, "perf events"));
    }
}

TEST(records_of_the_kernel_log)
{
    struct proc_kernel_message m;
    REQUIRE(proc_parse_kernel_message(
                span_str("30,1234,5678901,-;redis-server[7]: segfault; at 0\n SUBSYSTEM=x\n"),
                &m) == 0);
    CHECK_EQ_INT(m.priority, 6); /* the facility is left out */
    CHECK(!m.from_kernel);
    CHECK_EQ_INT(m.sequence, 1234);
    CHECK_EQ_INT(m.time_us, 5678901);
    CHECK(span_equal(m.text, span_str("redis-server[7]: segfault; at 0")));
    REQUIRE(proc_parse_kernel_message(span_str("4,1,2,c,more=1;"), &m) == 0);
    CHECK_EQ_INT(m.text.size_bytes, 0);
    static const char *const wrong[] = {"", ";", "4;x", "4,1;x", "x,1,2,-;text", "4,1,-2,-;text"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK_EQ_INT(proc_parse_kernel_message(span_str(wrong[i]), &m), ERR_CORRUPT);
}

static char marker[64];
static bool seen;

static int seen_priority;

static void note_message(void *context, const struct os_kernel_message *message)
{
    (void)context;
    if (!strstr(message->text, marker))
        return;
    seen = true;
    seen_priority = message->priority;
    CHECK(!message->from_kernel);
    CHECK(message->mono_us <= port_mono_us() + 1000000);
    CHECK(message->mono_us + 10000000 >= port_mono_us());
}

static void put_message(int fd, int priority)
{
    char text[128];
    int length = snprintf(text, sizeof text, "<%d>%s\n", priority, marker);
    REQUIRE(write(fd, text, (size_t)length) == length);
}

TEST(messages_from_now_on)
{
    struct os_kernel_log *log;
    struct failure f;
    if (os_kernel_log_open(&log, &f) < 0)
        SKIP(f.text);
    int fd = open("/dev/kmsg", O_WRONLY);
    if (fd < 0)
        SKIP("kernel messages cannot be written here");
    snprintf(marker, sizeof marker, "trawl test of messages %d", getpid());
    uint64_t lost = 0;
    CHECK(os_kernel_log_fd(log) >= 0);
    put_message(fd, 6);
    CHECK(os_kernel_log_read(log, note_message, NULL, &lost) >= 1);
    CHECK(seen);
    CHECK_EQ_INT(seen_priority, 6);
    put_message(fd, 4);
    CHECK(os_kernel_log_read(log, note_message, NULL, &lost) >= 1);
    CHECK_EQ_INT(seen_priority, 4);
    CHECK_EQ_INT(lost, 0);
    seen = false;
    (void)os_kernel_log_read(log, note_message, NULL, NULL); /* once */
    CHECK(!seen);
    close(fd);
    os_kernel_log_close(log);
    os_kernel_log_close(NULL);
}
