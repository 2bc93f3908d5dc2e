/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions out of recorded kernel messages: each report once, whole, and nothing out of ordinary
 * lines.
 */
#include "agent/os/kernel_fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/procfs.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/check.h"

#define TOLD_MAX 64

static struct os_exception told[TOLD_MAX];
static size_t count;

static void note(void *context, const struct os_exception *e, uint64_t last_mono_us)
{
    CHECK(last_mono_us >= e->mono_us);
    (void)context;
    REQUIRE(count < TOLD_MAX);
    told[count++] = *e;
}

static struct os_kernel_fault *open_parser(void)
{
    struct os_kernel_fault *f = NULL;
    count = 0;
    REQUIRE(os_kernel_fault_open(&f, note, NULL) == 0);
    return f;
}

/* As the reader and the source do. */
static void feed_record(struct os_kernel_fault *f, struct span record)
{
    struct proc_kernel_message m;
    char text[4096];
    if (proc_parse_kernel_message(record, &m) || !m.from_kernel)
        return;
    (void)text_copy_span(text, sizeof text, m.text);
    os_kernel_fault_flush(f, m.time_us);
    os_kernel_fault_feed(f, m.priority, m.time_us, text);
}

static void play(const char *name)
{
    char path[256];
    struct buf b;
    struct span rest, line;
    struct os_kernel_fault *f = open_parser();
    buf_init(&b, 1 << 20);
    snprintf(path, sizeof path, TESTS_DIR "/fixtures/kmsg/%s.txt", name);
    REQUIRE(port_read_file(path, &b, NULL) == 0);
    rest = buf_span(&b);
    while (proc_take_line(&rest, &line) == 0)
        feed_record(f, line);
    os_kernel_fault_flush(f, UINT64_C(1) << 50);
    os_kernel_fault_close(f);
    buf_done(&b);
}

static const char *tag(const struct os_exception *e, const char *key)
{
    for (uint32_t i = 0; i < e->tag_count; i++)
        if (strcmp(e->tags[i].key, key) == 0)
            return e->tags[i].value;
    return "";
}

TEST(a_process_killed_at_the_limit_of_its_cgroup)
{
    play("oom_cgroup_6.18");
    REQUIRE(count == 1);
    CHECK_EQ_INT(told[0].source, OS_OOM_KILL);
    CHECK_EQ_STR(told[0].type, "oom-kill");
    CHECK_EQ_STR(told[0].process, "python3");
    CHECK_EQ_INT(told[0].pid, 17264);
    CHECK_EQ_INT(told[0].uid, 0);
    CHECK_EQ_INT(told[0].signal, 9);
    CHECK_EQ_STR(tag(&told[0], "cgroup"), "/trawl-kernel-17262");
    CHECK_EQ_STR(tag(&told[0], "limit"), "20480 kB");
    CHECK_EQ_STR(tag(&told[0], "asked_by"), "python3");
    CHECK_EQ_STR(tag(&told[0], "constraint"), "CONSTRAINT_MEMCG");
    CHECK_EQ_STR(tag(&told[0], "memory"), "anon-rss 20096 kB, file-rss 6492 kB, shmem-rss 0 kB, "
                                          "total-vm 221368 kB");
    CHECK(strstr(told[0].message, "Killed process 17264 (python3)") != NULL);
    CHECK_EQ_STR(told[0].template_text, "killed: a cgroup is at its limit of memory");
}

TEST(kills_as_other_kernels_tell_them)
{
    play("oom_cgroup_4.18");
    REQUIRE(count == 1);
    CHECK_EQ_STR(told[0].process, "java");
    CHECK_EQ_INT(told[0].uid, UINT32_MAX);
    CHECK_EQ_STR(told[0].unit, "tomcat.service");
    CHECK_EQ_STR(tag(&told[0], "limit"), "1048576 kB");
    CHECK_EQ_STR(tag(&told[0], "cgroup"), "/system.slice/tomcat.service");
    play("oom_host_5.10");
    REQUIRE(count == 1);
    CHECK_EQ_STR(told[0].process, "my (odd) name");
    CHECK_EQ_INT(told[0].pid, 991);
    CHECK_EQ_INT(told[0].uid, 1000);
    CHECK_EQ_STR(told[0].template_text, "killed: this host is out of memory");
    CHECK_EQ_STR(tag(&told[0], "limit"), "");
    play("oom_group_6.1");
    REQUIRE(count == 2);
    CHECK_EQ_STR(told[0].unit, "app.service");
    CHECK_EQ_INT(told[1].pid, 71);
}

static void check_trap(size_t i, const char *type, const char *process, uint32_t pid,
                       const char *module, uint64_t offset)
{
    CHECK_EQ_INT(told[i].source, OS_FAULT_LINE);
    CHECK_EQ_STR(told[i].type, type);
    CHECK_EQ_STR(told[i].process, process);
    CHECK_EQ_INT(told[i].pid, pid);
    CHECK_EQ_INT(told[i].frame_count, module ? 1 : 0);
    CHECK_EQ_STR(told[i].frames[0].module, module ? module : "");
    CHECK_EQ_INT(told[i].frames[0].offset, offset);
    CHECK(told[i].missing[0]);
}

TEST(faults_of_processes_with_their_place_in_the_file)
{
    play("traps_6.18");
    REQUIRE(count == 6);
    check_trap(0, "SIGTRAP", "python3", 14153, "libglib-2.0.so.0.7400.6", 0x5b747);
    check_trap(1, "SIGSEGV", "kfault", 17043, "kfault", 0x1178);
    CHECK(told[1].has_fault_address);
    CHECK_EQ_INT(told[1].fault_address, 0x10);
    CHECK_EQ_STR(told[1].template_text, "segfault: writing where nothing is mapped, near null");
    CHECK_EQ_STR(tag(&told[1], "offset"), "in the file");
    check_trap(2, "SIGILL", "kfault", 17044, "kfault", 0x1180);
    check_trap(3, "SIGTRAP", "kfault", 17046, "kfault", 0x11a4);
    check_trap(4, "SIGSEGV", "kfault", 17047, "kfault", 0x11b0);
    check_trap(5, "SIGSEGV", "kfault", 17048, NULL, 0);
    CHECK_EQ_INT(told[5].signal, 11);
}

TEST(faults_of_processes_as_older_kernels_tell_them)
{
    play("traps_5.15");
    REQUIRE(count == 6);
    check_trap(0, "SIGSEGV", "nginx: worker", 812, "nginx", 0x3c4d5);
    CHECK_EQ_STR(tag(&told[0], "offset"), "in the mapping");
    check_trap(1, "SIGFPE", "a[b]c", 900, "div", 0x136);
    check_trap(2, "SIGSEGV", "old", 901, "libc-2.28.so", 0x1234);
    check_trap(3, "SIGSEGV", "x", 902, "libc-2.31.so", 0x11111);
    check_trap(4, "SIGSEGV", "split", 903, "split", 0x136);
    check_trap(5, "SIGSEGV", "t\303\251st", 904, "x\\y", 0x136);
}

TEST(hung_tasks_with_their_frames)
{
    play("hung_5.10");
    REQUIRE(count == 2);
    CHECK_EQ_INT(told[0].source, OS_HUNG_TASK);
    CHECK_EQ_STR(told[0].type, "hung-task");
    CHECK_EQ_STR(told[0].process, "postgres");
    CHECK_EQ_INT(told[0].pid, 1234);
    REQUIRE(told[0].frame_count == 7);
    CHECK_EQ_STR(told[0].frames[0].function, "__schedule");
    CHECK_EQ_STR(told[0].frames[0].module, "vmlinux");
    CHECK_EQ_STR(told[0].frames[3].function, "jbd2_log_wait_commit");
    CHECK_EQ_STR(told[0].frames[3].module, "jbd2");
    CHECK_EQ_STR(told[1].process, "kworker/u8:3");
    CHECK_EQ_INT(told[1].pid, 77);
    CHECK_EQ_STR(tag(&told[1], "owner"), "postgres:1234.");
}

TEST(processors_that_are_stuck)
{
    play("lockups");
    REQUIRE(count == 4);
    CHECK_EQ_STR(told[0].type, "soft-lockup");
    CHECK_EQ_STR(told[0].process, "ksoftirqd/1");
    CHECK_EQ_INT(told[0].frame_count, 3);
    CHECK_EQ_STR(told[0].frames[0].function, "native_queued_spin_lock_slowpath");
    CHECK(told[0].frames[0].exact);
    CHECK_EQ_STR(told[1].type, "rcu-stall");
    CHECK_EQ_STR(told[1].process, "stress");
    CHECK_EQ_STR(told[2].type, "hard-lockup");
    CHECK_EQ_STR(told[3].type, "workqueue-lockup");
}

static void check_line(size_t i, const char *type, const char *device)
{
    CHECK_EQ_INT(told[i].source, OS_HARDWARE_ERROR);
    CHECK_EQ_STR(told[i].type, type);
    CHECK_EQ_STR(tag(&told[i], "device"), device);
}

TEST(disks_and_file_systems)
{
    static const char *const wanted[][2] = {
        {"io-error", "sda"},
        {"io-error", "vdb"},
        {"io-error", "nvme0n1"},
        {"medium-error", "sdb"},
        {"io-error", "sda1"},
        {"filesystem-error", "sda1"},
        {"filesystem-read-only", "sda1"},
        {"filesystem-error", "dm-0"},
        {"io-timeout", "nvme0"},
        {"io-error", "ata1.00"},
        {"filesystem-error", "sdc1"},
    };
    play("disk");
    REQUIRE(count == sizeof wanted / sizeof wanted[0]);
    for (size_t i = 0; i < count; i++)
        check_line(i, wanted[i][0], wanted[i][1]);
}

TEST(memory_errors)
{
    play("memory");
    REQUIRE(count == 5);
    check_line(0, "memory-error-corrected", "MC0");
    check_line(1, "memory-error", "MC1");
    check_line(2, "machine-check", "");
    check_line(3, "memory-error", "");
    CHECK_EQ_STR(told[3].process, "redis-server");
    CHECK_EQ_INT(told[3].pid, 777);
    check_line(4, "memory-error", "");
}

TEST(errors_of_the_kernel_itself)
{
    play("oops");
    REQUIRE(count == 5);
    CHECK_EQ_STR(told[0].type, "kernel-oops");
    CHECK_EQ_STR(told[0].process, "modprobe");
    CHECK_EQ_INT(told[0].pid, 333);
    REQUIRE(told[0].frame_count == 3);
    CHECK_EQ_STR(told[0].frames[0].function, "bad_init");
    CHECK_EQ_STR(told[0].frames[0].module, "bad");
    CHECK_EQ_STR(told[1].type, "kernel-bug");
    CHECK_EQ_STR(told[1].frames[0].function, "clear_inode");
    CHECK_EQ_STR(told[2].type, "net-transmit-timeout");
    CHECK(strstr(told[2].message, "eth0 (e1000e)") != NULL);
    CHECK_EQ_INT(told[2].frame_count, 2);
    check_line(3, "net-transmit-timeout", "e1000e");
    CHECK_EQ_STR(told[4].type, "kernel-warning");
    CHECK_EQ_INT(told[4].pid, 0); /* it goes on living */
    CHECK_EQ_STR(tag(&told[4], "pid"), "1");
}

TEST(ordinary_lines_are_no_exceptions)
{
    play("ordinary");
    CHECK_EQ_INT(count, 0);
}

TEST(a_flood_of_disk_errors_is_counted)
{
    char line[128];
    uint64_t sum = 0;
    struct os_kernel_fault *f = open_parser();
    for (uint64_t i = 0; i < 20000; i++) { /* 10,000 a second, for two */
        snprintf(line, sizeof line, "I/O error, dev sda, sector %u op 0x0:(READ)", (unsigned)i);
        os_kernel_fault_feed(f, 3, 1000000 + i * 100, line);
    }
    os_kernel_fault_flush(f, 9000000);
    for (size_t i = 0; i < count; i++)
        sum += told[i].count;
    CHECK_EQ_INT(sum, 20000);
    CHECK_EQ_INT(count, 2 * (OS_KERNEL_FAULT_SINGLE + 1));
    os_kernel_fault_close(f);
}

TEST(a_report_that_does_not_end_is_told_after_a_while)
{
    struct os_kernel_fault *f = open_parser();
    os_kernel_fault_feed(f, 3, 1000, "INFO: task a:1 blocked for more than 120 seconds.");
    os_kernel_fault_flush(f, 1000 + OS_KERNEL_FAULT_QUIET_US);
    CHECK_EQ_INT(count, 0);
    os_kernel_fault_flush(f, 1001 + OS_KERNEL_FAULT_QUIET_US);
    CHECK_EQ_INT(count, 1);
    os_kernel_fault_flush(f, 9000000);
    CHECK_EQ_INT(count, 1);
    os_kernel_fault_close(f);
    os_kernel_fault_close(NULL);
}
