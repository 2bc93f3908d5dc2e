/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of the host, on recorded and hand-made trees and on this machine: right numbers, and a
 * reason for each that is missing.
 */
#include <malloc.h>

#include "tests/unit/os/sampler.h"

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
