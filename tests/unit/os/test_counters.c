/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of counters, on recorded and hand-made trees and on this machine: right numbers, a
 * reason for each that is missing, processes that come, go, change and are chosen.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>

#include "agent/os/counters.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/os/tree.h"

#define SERIES_MAX 4096
#define SECOND UINT64_C(1000000)
#define START (3600 * SECOND)

struct row {
    char name[64], instance[64], unit[16], reason[256];
    enum os_counter_kind kind;
    uint32_t scale, pid;
    int64_t value;
    bool has_value, has_gap, retired;
};

/* A sampler that remembers the last sample, and complains of misuse. */
struct sampler {
    struct row rows[SERIES_MAX];
    int count, limit;
    char events[1024];
};

static struct sampler sampler;
static struct os_counters *counters;
static uint64_t now_us;

static int define(void *context, const struct os_counter *c)
{
    struct sampler *s = context;
    if (s->count == (s->limit ? s->limit : SERIES_MAX))
        return ERR_LIMIT;
    struct row *row = &s->rows[s->count];
    *row = (struct row){.kind = c->kind, .scale = c->scale, .pid = c->pid};
    (void)text_copy(row->name, sizeof row->name, c->name);
    (void)text_copy(row->instance, sizeof row->instance, c->instance);
    (void)text_copy(row->unit, sizeof row->unit, c->unit);
    CHECK(c->scale >= 1);
    return s->count++;
}

static struct row *at(void *context, int slot)
{
    struct sampler *s = context;
    REQUIRE(slot >= 0 && slot < s->count);
    REQUIRE(!s->rows[slot].retired);
    return &s->rows[slot];
}

static void value(void *context, int slot, int64_t v)
{
    struct row *row = at(context, slot);
    REQUIRE(!row->has_value && !row->has_gap); /* once in a sample */
    row->value = v;
    row->has_value = true;
}

static void gap(void *context, int slot, const char *reason)
{
    struct row *row = at(context, slot);
    REQUIRE(!row->has_value && !row->has_gap);
    REQUIRE(reason && reason[0]);
    (void)text_copy(row->reason, sizeof row->reason, reason);
    row->has_gap = true;
}

static void retire(void *context, int slot)
{
    at(context, slot)->retired = true;
}

static void changed(void *context, const struct os_process_change *change)
{
    struct sampler *s = context;
    size_t length = strlen(s->events);
    (void)text_format(s->events + length, sizeof s->events - length, "%c%u %s;",
                      change->started ? '+' : '-', change->pid, change->name);
}

static void open_counters(const char *root, const char *const *names, uint32_t busiest)
{
    struct os_counter_settings settings = {.root = root, .processes = names, .busiest = busiest};
    struct os_counter_sink sink = {define, value, gap, retire, &sampler};
    struct failure f;
    REQUIRE(os_counters_open(&counters, &settings, &sink, &f) == 0);
    os_counters_on_process(counters, changed, &sampler);
    now_us = START;
}

static void sample(void)
{
    for (int i = 0; i < sampler.count; i++)
        sampler.rows[i].has_value = sampler.rows[i].has_gap = false;
    sampler.events[0] = '\0';
    now_us += SECOND;
    os_counters_sample(counters, now_us);
    for (int i = 0; i < sampler.count; i++) /* each exactly one */
        REQUIRE(sampler.rows[i].has_value + sampler.rows[i].has_gap + sampler.rows[i].retired == 1);
}

static struct row *find_of(const char *name, const char *instance, uint32_t pid)
{
    for (int i = sampler.count - 1; i >= 0; i--) {
        struct row *row = &sampler.rows[i];
        if (!row->retired && row->pid == pid && strcmp(row->name, name) == 0 &&
            strcmp(row->instance, instance) == 0)
            return row;
    }
    return NULL;
}

static struct row *find(const char *name, const char *instance)
{
    return find_of(name, instance, 0);
}

static int64_t number(const char *name, const char *instance)
{
    struct row *row = find(name, instance);
    return row && row->has_value ? row->value : -1;
}

static const char *reason(const char *name, const char *instance)
{
    struct row *row = find(name, instance);
    return row && row->has_gap ? row->reason : "";
}

static bool is_followed(const char *name, uint32_t pid)
{
    return find_of("process.threads", name, pid) != NULL;
}

/* ---- the host ---- */

TEST(processor_times_are_read_in_microseconds)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/stat",
               "cpu  10 1 20 1000 30 4 5 6 7 8\ncpu0 4 1 8 500 20 2 2 3 3 4\n"
               "cpu1 6 0 12 500 10 2 3 3 4 4\nintr 99 1 2 3\nctxt 1234\nbtime 1795442033\n"
               "processes 77\nprocs_running 3\nprocs_blocked 1\nsoftirq 55 1 2 3 4 5 6 7 8 9 10\n");
    tree_write(root, "/proc/loadavg", "12.05 0.36 0.23 1/91 11898\n");
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("cpu.user", ""), 100000);
    CHECK_EQ_INT(number("cpu.guest_nice", ""), 80000);
    CHECK_EQ_INT(number("cpu.busy", ""), (10 + 1 + 20 + 4 + 5 + 6) * 10000);
    CHECK_EQ_INT(number("cpu.core.busy", "cpu1"), (6 + 0 + 12 + 2 + 3 + 3) * 10000);
    CHECK_EQ_INT(number("cpu.core.idle", "cpu0"), 5000000);
    CHECK_EQ_INT(number("cpu.count", ""), 2);
    CHECK_EQ_INT(number("system.interrupts", ""), 99);
    CHECK_EQ_INT(number("system.context_switches", ""), 1234);
    CHECK_EQ_INT(number("softirq.rcu", ""), 10);
    CHECK_EQ_INT(number("load.1m", ""), 1205);
    CHECK_EQ_INT(number("system.threads", ""), 91);
    struct row *load = find("load.1m", ""), *busy = find("cpu.busy", "");
    REQUIRE(load && busy);
    CHECK_EQ_INT(load->scale, 100);
    CHECK_EQ_INT(load->kind, OS_GAUGE);
    CHECK_EQ_INT(busy->kind, OS_COUNT);
    CHECK_EQ_STR(busy->unit, "us");
    os_counters_close(counters);
}

TEST(an_old_kernel_with_fewer_processor_columns)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/stat", "cpu  10 1 20 1000 30\ncpu0 4 1 8\n");
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("cpu.busy", ""), 310000);
    CHECK(find("cpu.steal", "") == NULL); /* never seen: not defined, and not 0 */
    CHECK(find("cpu.core.user", "cpu0") == NULL);
    os_counters_close(counters);
}

TEST(memory_is_in_bytes_and_used_is_what_is_not_available)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/meminfo",
               "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n"
               "SwapTotal:       50 kB\nSwapFree:        20 kB\nHugePages_Total:       3\n");
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("memory.total", ""), 1024000);
    CHECK_EQ_INT(number("memory.used", ""), 600 * 1024);
    CHECK_EQ_INT(number("memory.swap_used", ""), 30 * 1024);
    CHECK_EQ_INT(number("memory.huge_total", ""), 3);
    /* Lines change places and new ones come: found again by their keys. */
    tree_write(root, "/proc/meminfo",
               "NewThing:   7 kB\nMemFree:         101 kB\nMemTotal:       1001 kB\n"
               "MemAvailable:    400 kB\n");
    sample();
    CHECK_EQ_INT(number("memory.total", ""), 1001 * 1024);
    CHECK_EQ_INT(number("memory.free", ""), 101 * 1024);
    CHECK(strstr(reason("memory.swap_total", ""), "not in '") != NULL);
    os_counters_close(counters);
}

TEST(a_truncated_file_gives_gaps_for_what_is_cut_off)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n");
    open_counters(root, NULL, 0);
    sample();
    tree_write(root, "/proc/meminfo", "MemTotal: 1000 kB\nMemFr");
    sample();
    CHECK_EQ_INT(number("memory.total", ""), 1024000);
    CHECK(strstr(reason("memory.free", ""), "/proc/meminfo'") != NULL);
    CHECK(reason("memory.used", "")[0] != '\0');
    tree_write(root, "/proc/meminfo", "");
    sample();
    CHECK(reason("memory.total", "")[0] != '\0');
    os_counters_close(counters);
}

TEST(a_number_that_does_not_fit_is_a_gap)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/meminfo",
               "MemTotal: 18446744073709551615 kB\nMemFree: 99999999999999999999999 kB\n"
               "MemAvailable: -5 kB\nDirty: 4 kB\n");
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_STR(reason("memory.total", ""), "number is out of range");
    CHECK(find("memory.free", "") == NULL);
    CHECK(find("memory.available", "") == NULL);
    CHECK_EQ_INT(number("memory.dirty", ""), 4096);
    os_counters_close(counters);
}

TEST(a_file_that_cannot_be_read_is_named_and_tried_again)
{
    const char *root = tree_copy("web1");
    tree_remove(root, "/proc/vmstat");
    open_counters(root, NULL, 0);
    sample();
    CHECK(strstr(reason("paging.oom_kills", ""), "cannot read '") != NULL);
    CHECK(strstr(reason("paging.oom_kills", ""), "/proc/vmstat': ") != NULL);
    tree_write(root, "/proc/vmstat", "oom_kill 5\n");
    for (int i = 0; i < 10; i++)
        sample();
    CHECK_EQ_INT(number("paging.oom_kills", ""), 5);
    os_counters_close(counters);
}

TEST(pressure_is_the_total)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/pressure/cpu",
               "some avg10=0.31 avg60=3.30 avg300=2.33 total=24880304\n"
               "full avg10=0.00 avg60=0.00 avg300=0.00 total=x\n");
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("pressure.cpu.some", ""), 24880304);
    CHECK(find("pressure.cpu.full", "") == NULL);
    CHECK(strstr(reason("pressure.irq.full", ""), "/proc/pressure/irq'") != NULL);
    os_counters_close(counters);
}

TEST(whole_disks_only)
{
    open_counters(tree_copy("web1"), NULL, 0);
    sample();
    CHECK_EQ_INT(number("disk.read_bytes", "sda"), INT64_C(5177874) * 512);
    CHECK_EQ_INT(number("disk.write_time", "sda"), 8827000);
    CHECK_EQ_INT(number("disk.in_flight", "nvme0n1"), 1);
    CHECK_EQ_INT(number("disk.reads", "sdaa"), 5);
    CHECK_EQ_INT(number("disk.reads", "loop1"), 12);
    CHECK(find("disk.discards", "sdaa") == NULL); /* an old kernel's line */
    CHECK(find("disk.reads", "sda1") == NULL);
    CHECK(find("disk.reads", "nvme0n1p1") == NULL);
    CHECK(find("disk.reads", "loop0") == NULL);
    os_counters_close(counters);
}

TEST(local_file_systems_each_device_once)
{
    const char *root = tree_copy("web1");
    open_counters(root, NULL, 0);
    sample();
    CHECK(number("filesystem.size", "/") > 0);
    CHECK(number("filesystem.available", "/tmp") >= 0);
    CHECK(number("filesystem.size", "/srv/with blank") > 0);
    CHECK(find("filesystem.size", "/mnt/nfs") == NULL);
    CHECK(find("filesystem.size", "/srv/bind") == NULL);
    CHECK(find("filesystem.size", "/var/lib/kubelet/pods/x") == NULL);
    CHECK(strstr(reason("filesystem.size", "/srv/gone"), "/srv/gone'") != NULL);
    /* Asked again each 10 s; given each second. */
    tree_write(root, "/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    sample();
    CHECK(number("filesystem.size", "/tmp") >= 0);
    for (int i = 0; i < 10; i++)
        sample();
    CHECK(find("filesystem.size", "/tmp") == NULL);
    CHECK(number("filesystem.size", "/") > 0);
    os_counters_close(counters);
}

TEST(an_interface_comes_and_goes)
{
    static const char *const heading = "Inter-|   Receive   |  Transmit\n face |bytes packets\n";
    const char *root = tree_copy("web1");
    tree_print(root, "/proc/net/dev",
               "%s    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
               "  eth0:100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n",
               heading);
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("net.receive_bytes", "eth0"), 100);
    CHECK_EQ_INT(number("net.transmit_bytes", "eth0"), 900);
    CHECK_EQ_INT(number("net.transmit_drops", "lo"), 12);
    tree_print(root, "/proc/net/dev", "%s  eth0:101 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n",
               heading);
    sample();
    CHECK(find("net.receive_bytes", "lo") == NULL);
    CHECK_EQ_INT(number("net.receive_bytes", "eth0"), 101);
    tree_print(root, "/proc/net/dev",
               "%s    lo: 5 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 102 x\n", heading);
    sample();
    CHECK_EQ_INT(number("net.receive_bytes", "lo"), 5);
    os_counters_close(counters);
}

TEST(tcp_columns_are_found_by_name)
{
    const char *root = tree_copy("web1");
    tree_write(root, "/proc/net/snmp",
               "IcmpMsg: InType3\nIcmpMsg: 1\nTcp: RtoMax MaxConn RetransSegs CurrEstab\n"
               "Tcp: 120000 -1 42 7\n");
    tree_write(root, "/proc/net/netstat",
               "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\n");
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("tcp.retransmits", ""), 42);
    CHECK_EQ_INT(number("tcp.established", ""), 7);
    CHECK_EQ_INT(number("tcp.listen_overflows", ""), 2);
    tree_write(root, "/proc/net/snmp",
               "IcmpMsg: InType3 InType8\nIcmpMsg: 1 5\nTcp: CurrEstab RetransSegs\nTcp: 8 43\n");
    tree_write(root, "/proc/net/netstat", "TcpExt: ListenOverflows\nTcpExt: 9\n");
    sample();
    CHECK_EQ_INT(number("tcp.retransmits", ""), 43);
    CHECK_EQ_INT(number("tcp.established", ""), 8);
    CHECK_EQ_INT(number("tcp.listen_overflows", ""), 9);
    CHECK(strstr(reason("tcp.listen_drops", ""), "/proc/net/netstat'") != NULL);
    CHECK_EQ_INT(number("tcp.sockets", "") >= 0, 1);
    os_counters_close(counters);
}

TEST(a_file_larger_than_the_first_buffer_is_read_whole)
{
    static char text[300000];
    const char *root = tree_copy("web1");
    size_t length = 0;
    for (int i = 0; i < 9000; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "other_%d 12345\n", i);
    tree_write(root, "/proc/loadavg", "1.00 0.36 0.23 1/91 11898\n");
    tree_print(root, "/proc/stat", "cpu  1 1 1 1 1 1 1 1 1 1\n");
    char full[TREE_PATH];
    tree_path(full, root, "/proc/stat");
    FILE *file = fopen(full, "a");
    REQUIRE(file != NULL);
    fwrite(text, 1, length, file);
    fputs("ctxt 4321\n", file);
    fclose(file);
    open_counters(root, NULL, 0);
    sample();
    CHECK_EQ_INT(number("system.context_switches", ""), 4321);
    os_counters_close(counters);
}

TEST(series_that_the_sampler_does_not_take_are_counted)
{
    sampler.limit = 40;
    open_counters(tree_copy("web1"), NULL, 5);
    sample();
    CHECK_EQ_INT(sampler.count, 40);
    sampler.limit = 41; /* a little room: the reader does not ask again for what was refused */
    sample();
    CHECK_EQ_INT(sampler.count, 40);
    os_counters_close(counters);
}

/* ---- processes ---- */

static void put_stat(const char *root, uint32_t pid, const char *name, uint64_t ticks,
                     uint64_t start)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    tree_print(root, path,
               "%u (%s) S 1 %u %u 0 -1 4194304 10 0 1 0 %llu 0 0 0 20 0 1 0 %llu 4096 7 0\n", pid,
               name, pid, pid, (unsigned long long)ticks, (unsigned long long)start);
}

static void put_process(const char *root, uint32_t pid, const char *name, uint64_t ticks)
{
    char path[64];
    put_stat(root, pid, name, ticks, 1000 + pid);
    snprintf(path, sizeof path, "/proc/%u/task/%u/schedstat", pid, pid);
    tree_print(root, path, "%llu000 5000 %llu\n", (unsigned long long)ticks,
               (unsigned long long)ticks + 1);
    snprintf(path, sizeof path, "/proc/%u/io", pid);
    tree_write(root, path, "read_bytes: 11\nwrite_bytes: 22\n");
}

/* Makes the reader list processes anew: it does so when the kernel counts a fork. */
static void put_forks(const char *root, int forks)
{
    tree_print(root, "/proc/stat", "cpu  1 1 1 1 1\nprocesses %d\n", forks);
}

static const char *small_tree(void)
{
    const char *root = tree_make();
    put_forks(root, 1);
    tree_write(root, "/proc/loadavg", "0.00 0.00 0.00 1/91 11898\n");
    return root;
}

TEST(a_recorded_process_has_all_its_counters)
{
    static const char *const names[] = {"redis-server", NULL};
    open_counters(tree_copy("web1"), names, 0);
    sample();
    REQUIRE(is_followed("redis-server", 1200));
    struct row *switches = find_of("process.context_switches", "redis-server", 1200);
    struct row *delay = find_of("process.runqueue_delay", "redis-server", 1200);
    struct row *threads = find_of("process.threads", "redis-server", 1200);
    struct row *rss = find_of("process.rss", "redis-server", 1200);
    struct row *fds = find_of("process.fds", "redis-server", 1200);
    REQUIRE(switches && delay && threads && rss && fds);
    CHECK(switches->value > 5); /* of five threads */
    CHECK(delay->value > 0);
    CHECK_EQ_INT(threads->value, 5);
    CHECK(rss->value > 1000000);
    CHECK(fds->has_gap);
    CHECK(find_of("process.read_bytes", "redis-server", 1200)->has_value);
    CHECK(!is_followed("python3", 700));
    CHECK_EQ_INT(number("processes.followed", ""), 1);
    CHECK_EQ_INT(number("processes.count", ""), 7);
    os_counters_close(counters);
}

TEST(a_name_that_the_kernel_cut_is_completed)
{
    static const char *const names[] = {"very-long-process-name", "python3.11", NULL};
    open_counters(tree_copy("web1"), names, 0);
    sample();
    CHECK(is_followed("very-long-process-name", 600));
    CHECK(is_followed("python3", 700)); /* asked for by its executable's name */
    os_counters_close(counters);
}

TEST(damaged_records_hurt_nobody_else)
{
    open_counters(tree_copy("web1"), NULL, 50);
    sample();
    CHECK(is_followed("odd) (na\nme S 9", 77));
    CHECK(is_followed("huge", 303));
    CHECK(!is_followed("cut off", 300));
    CHECK(!is_followed("kworker/0:1-events", 45)); /* of the kernel */
    CHECK(!is_followed("ended", 500));
    struct row *user = find_of("process.cpu_user", "huge", 303);
    struct row *rss = find_of("process.rss", "huge", 303);
    struct row *reads = find_of("process.read_bytes", "huge", 303);
    REQUIRE(user && reads);
    CHECK_EQ_STR(user->reason, "number is out of range");
    CHECK(!rss || rss->has_gap);
    CHECK(reads->has_gap);
    for (int i = 0; i < 15; i++)
        sample();
    os_counters_close(counters);
}

TEST(starts_and_exits_are_told_after_the_first_scan)
{
    const char *root = small_tree();
    put_process(root, 10, "first", 100);
    tree_write(root, "/proc/11/stat",
               "11 (kthread) I 2 0 0 0 -1 2097216 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0\n");
    open_counters(root, NULL, 5);
    sample();
    CHECK_EQ_STR(sampler.events, "");
    CHECK(is_followed("first", 10));
    put_process(root, 20, "second", 1);
    tree_write(root, "/proc/21/stat",
               "21 (kthread) I 2 0 0 0 -1 2097216 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0\n");
    put_forks(root, 2);
    sample();
    sample(); /* it is named when it has had a second to exec */
    CHECK_EQ_STR(sampler.events, "+20 second;");
    tree_remove(root, "/proc/10");
    tree_remove(root, "/proc/21");
    put_forks(root, 3);
    sample();
    CHECK_EQ_STR(sampler.events, "-10 first;");
    CHECK(!is_followed("first", 10));
    os_counters_close(counters);
}

TEST(a_pid_in_use_again_is_another_process)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    put_process(root, 10, "server", 100);
    open_counters(root, names, 0);
    sample();
    struct row *old = find_of("process.cpu_user", "server", 10);
    REQUIRE(old != NULL);
    put_stat(root, 10, "server", 5, 99999);
    tree_write(root, "/proc/10/task/10/schedstat", "1 1 1\n");
    sample();
    sample();
    CHECK_EQ_STR(sampler.events, "-10 server;+10 server;");
    struct row *new = find_of("process.cpu_user", "server", 10);
    REQUIRE(new != NULL);
    CHECK(old != new && old->retired);
    CHECK_EQ_INT(new->value, 50000);
    os_counters_close(counters);
}

TEST(after_exec_the_series_bear_the_new_name)
{
    static const char *const names[] = {"sh", NULL};
    const char *root = small_tree();
    put_process(root, 10, "sh", 100);
    open_counters(root, names, 0);
    sample();
    CHECK(is_followed("sh", 10));
    put_stat(root, 10, "java", 101, 1010);
    tree_write(root, "/proc/10/task/10/schedstat", "101000 5000 102\n");
    sample();
    CHECK(!is_followed("sh", 10));
    CHECK(is_followed("java", 10));
    os_counters_close(counters);
}

TEST(the_busiest_are_followed_and_stay_for_a_minute)
{
    const char *root = small_tree();
    put_process(root, 10, "idle", 0);
    put_process(root, 20, "busy", 5000);
    put_process(root, 30, "middle", 700);
    open_counters(root, NULL, 1);
    sample();
    CHECK(is_followed("busy", 20)); /* by its life so far */
    CHECK(!is_followed("idle", 10) && !is_followed("middle", 30));
    /* Now the middle one works and the busy one rests. */
    for (uint64_t i = 1; i <= 40; i++) {
        put_process(root, 30, "middle", 700 + i * 50);
        sample();
    }
    CHECK(is_followed("busy", 20));
    CHECK(!is_followed("middle", 30));
    CHECK_EQ_INT(number("processes.left_out", ""), 1);
    for (uint64_t i = 41; i <= 90; i++) {
        put_process(root, 30, "middle", 700 + i * 50);
        sample();
    }
    CHECK(is_followed("middle", 30));
    CHECK(!is_followed("busy", 20));
    CHECK_EQ_INT(number("processes.left_out", ""), 0);
    os_counters_close(counters);
}

TEST(a_process_that_does_not_run_is_not_read_again_at_once)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    put_process(root, 8, "server", 100);
    open_counters(root, names, 0);
    sample();
    put_stat(root, 8, "server", 150, 1008); /* its scheduler statistics stand still */
    sample();
    CHECK_EQ_INT(find_of("process.cpu_user", "server", 8)->value, 1000000);
    for (int i = 0; i < 11; i++)
        sample();
    CHECK_EQ_INT(find_of("process.cpu_user", "server", 8)->value, 1500000);
    tree_write(root, "/proc/8/task/8/schedstat", "5000000 6000 300\n");
    put_stat(root, 8, "server", 160, 1008);
    sample();
    CHECK_EQ_INT(find_of("process.cpu_user", "server", 8)->value, 1600000);
    CHECK_EQ_INT(find_of("process.context_switches", "server", 8)->value, 300);
    CHECK_EQ_INT(find_of("process.runqueue_delay", "server", 8)->value, 6);
    os_counters_close(counters);
}

TEST(what_needs_privilege_is_asked_of_the_broker)
{
    static const char *const names[] = {"server", NULL};
    const char *root = small_tree();
    char path[TREE_PATH];
    uint32_t pids[4];
    put_process(root, 10, "server", 100);
    tree_path(path, root, "/proc/10/io");
    REQUIRE(chmod(path, 0) == 0);
    if (geteuid() == 0)
        REQUIRE(setresuid(65534, 65534, 65534) == 0);
    open_counters(root, names, 0);
    sample();
    struct row *reads = find_of("process.read_bytes", "server", 10);
    REQUIRE(reads && reads->has_gap);
    CHECK(strstr(reads->reason, "/proc/10/io': permission denied") != NULL);
    REQUIRE(os_counters_want_io(counters, pids, 4) == 1);
    CHECK_EQ_INT(pids[0], 10);
    struct os_process_io io = {.pid = 10, .read_bytes = 4096, .write_bytes = 8192};
    os_counters_give_io(counters, &io, 1);
    sample();
    CHECK(reads->has_value);
    CHECK_EQ_INT(reads->value, 4096);
    io = (struct os_process_io){.pid = 10, .error = ESRCH};
    os_counters_give_io(counters, &io, 1);
    io.pid = 999; /* not ours */
    os_counters_give_io(counters, &io, 1);
    sample();
    CHECK(reads->has_gap);
    os_counters_close(counters);
    if (geteuid() != 0)
        tree_maker = 0; /* the folder is not ours any more */
}

TEST(a_missing_proc_is_a_reason)
{
    const char *root = tree_make();
    open_counters(root, NULL, 5);
    sample();
    CHECK(strstr(reason("processes.count", ""), "/proc'") != NULL);
    CHECK(strstr(reason("cpu.busy", ""), "/proc/stat'") != NULL);
    os_counters_close(counters);
}

/* ---- this machine ---- */

TEST(this_machine_gives_its_counters)
{
    static const char *const needed[] = {
        "cpu.busy",      "cpu.count",       "memory.used",          "memory.total",
        "load.1m",       "tcp.retransmits", "tcp.listen_overflows", "system.forks",
        "paging.faults", "processes.count"};
    open_counters("", NULL, 10);
    now_us = port_mono_us();
    sample();
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        CHECK(number(needed[i], "") >= 0);
    CHECK(number("cpu.count", "") >= 1);
    CHECK(number("memory.used", "") < number("memory.total", ""));
    int64_t before = number("system.context_switches", "");
    sample();
    CHECK(number("system.context_switches", "") >= before);
    CHECK(number("processes.followed", "") > 0);
    os_counters_close(counters);
}

static pid_t start_sleeper(void)
{
    int ready[2];
    REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    char byte;
    close(ready[1]);
    (void)!read(ready[0], &byte, 1); /* ends at exec */
    close(ready[0]);
    return pid;
}

TEST(a_real_process_is_followed_until_it_ends)
{
    static const char *const names[] = {"sleep", NULL};
    pid_t pid = start_sleeper();
    open_counters("", names, 0);
    now_us = port_mono_us();
    sample();
    REQUIRE(is_followed("sleep", (uint32_t)pid));
    struct row *fds = find_of("process.fds", "sleep", (uint32_t)pid);
    struct row *rss = find_of("process.rss", "sleep", (uint32_t)pid);
    struct row *switches = find_of("process.context_switches", "sleep", (uint32_t)pid);
    REQUIRE(fds && rss && switches);
    CHECK(fds->has_gap || fds->value >= 1);
    CHECK(rss->value > 0);
    CHECK(switches->has_gap || switches->value > 0);
    REQUIRE(kill(pid, SIGKILL) == 0);
    REQUIRE(waitpid(pid, NULL, 0) == pid);
    sample();
    CHECK(rss->retired);
    sample();
    CHECK(!is_followed("sleep", (uint32_t)pid));
    os_counters_close(counters);
}

TEST(steady_state_allocates_nothing)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    SKIP("the sanitizer's allocator does not count");
#endif
    const char *root = tree_copy("web1");
    open_counters(root, NULL, 20);
    for (int i = 0; i < 25; i++)
        sample();
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 9; i++)
        sample();
    struct mallinfo2 after = mallinfo2();
    CHECK_EQ_INT(after.uordblks, before.uordblks);
    os_counters_close(counters);
}
