/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole profiles of victims: how time is shared between functions, threads that are born, waits,
 * the way without perf events, what is refused, and that nothing is stopped.
 */
#include "agent/os/profile.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <zlib.h>

#include "agent/os/linux/perf_events.h"
#include "agent/os/linux/profile_wait.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/os/victim.h"

#define FILES_MAX 8
#define FILE_BYTES_MAX (16u << 20)
#define FOR_US 1500000
#define LIMIT_S 120

/* ---- taking a profile ---- */

struct file {
    char ending[16];
    struct buf bytes;
};

struct taken {
    struct file files[FILES_MAX];
    size_t count;
    struct os_result result;
    struct failure f;
    int error;
};

static struct taken taken;

static int begin(void *context, const char *ending, struct failure *f)
{
    struct taken *t = context;
    (void)f;
    REQUIRE(t->count < FILES_MAX);
    struct file *file = &t->files[t->count++];
    text_copy(file->ending, sizeof file->ending, ending);
    buf_init(&file->bytes, FILE_BYTES_MAX);
    return 0;
}

static int append(void *context, struct span bytes, struct failure *f)
{
    struct taken *t = context;
    (void)f;
    REQUIRE(t->count > 0);
    return buf_append_span(&t->files[t->count - 1].bytes, bytes);
}

static int take(const struct os_process *process, uint64_t for_us)
{
    struct os_costs costs;
    struct os_output out = {begin, append, &taken};
    struct os_take order = {
        .process = *process, .pause_max_us = 1, .for_us = for_us, .costs = &costs};
    os_costs_default(&costs);
    memset(&taken, 0, sizeof taken);
    taken.error = os_profile_capture(&order, &out, &taken.result, &taken.f);
    CHECK(!taken.result.paused);
    CHECK_EQ_INT(taken.result.pause_us, 0);
    return taken.error;
}

static void take_done(void)
{
    for (size_t i = 0; i < taken.count; i++)
        buf_done(&taken.files[i].bytes);
    taken.count = 0;
}

static const char *text_of(const char *ending)
{
    for (size_t i = 0; i < taken.count; i++)
        if (strcmp(taken.files[i].ending, ending) == 0)
            return buf_str(&taken.files[i].bytes);
    return NULL;
}

/* The weights of the lines that hold `name`; of all lines when NULL. */
static uint64_t weight(const char *ending, const char *name)
{
    const char *text = text_of(ending);
    uint64_t sum = 0;
    while (text && *text) {
        const char *end = strchr(text, '\n');
        char line[4096], *number;
        REQUIRE(end != NULL);
        text_copy_span(line, sizeof line, span_of(text, (size_t)(end - text)));
        number = strrchr(line, ' ');
        uint64_t value = 0;
        REQUIRE(number != NULL && text_u64(number + 1, &value) == 0);
        if (!name || strstr(line, name))
            sum += value;
        text = end + 1;
    }
    return sum;
}

/* Looks for longer and longer, until `name` weighs at least so much: others use the processors too.
 */
static uint64_t take_until(const struct os_process *process, const char *ending, const char *name,
                           uint64_t least)
{
    uint64_t found = 0;
    for (uint64_t for_us = FOR_US; for_us <= 8 * FOR_US && found < least; for_us *= 2) {
        take_done();
        REQUIRE(take(process, for_us) == 0);
        found = weight(ending, name);
    }
    return found;
}

static bool may_use_perf(void)
{
    struct perf_events events;
    struct failure f = {0, ""};
    int e = perf_events_open(&events, getpid(), OS_PROFILE_HZ, &f);
    if (e == 0)
        perf_events_close(&events);
    else
        printf("no perf events: %s\n", f.text);
    return e == 0;
}

#define NEED_PERF()      \
    if (!may_use_perf()) \
    SKIP("perf events are not permitted here")

/* What containers' default filters do to perf_event_open(2). */
static void forbid_perf(int error)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_perf_event_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* ---- on the CPU ---- */

/* Four standard deviations of a share of n samples are sqrt(0.21 / n) * 4. */
static void check_ratio(const char *percent, double wanted)
{
    struct victim v;
    victim_start(&v, "busy", "ratio", percent);
    take_until(&v.process, "folded", ";hot_", 60);
    uint64_t first = weight("folded", ";hot_first"), second = weight("folded", ";hot_second");
    REQUIRE(first + second >= 20);
    double share = (double)first / (double)(first + second);
    double off = share > wanted ? share - wanted : wanted - share;
    printf("%.3f of %llu samples\n", share, (unsigned long long)(first + second));
    CHECK(off * off <= 0.21 / (double)(first + second) * 16);
    CHECK(weight("folded", ";main;hot_") * 100 >= weight("folded", NULL) * 90);
    take_done();
    victim_check_free(&v);
    victim_end(&v);
}

TEST_LIMIT(time_is_shared_as_the_process_spends_it, LIMIT_S)
{
    NEED_PERF();
    check_ratio("70", 0.7);
}

TEST_LIMIT(and_the_other_way_round, LIMIT_S)
{
    NEED_PERF();
    check_ratio("30", 0.3);
}

TEST_LIMIT(a_merged_function_has_its_own_frame, LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "inlined", NULL);
    take_until(&v.process, "folded", ";hot_around", 10);
    if (strstr(taken.result.missing, "time limit"))
        SKIP("the machine is too busy to read debug information in time");
    CHECK(weight("folded", ";main;hot_around;hot_merged") * 100 >= weight("folded", NULL) * 90);
    take_done();
    victim_end(&v);
}

TEST_LIMIT(all_threads_are_seen_by_their_names, LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "threads", "3");
    CHECK(take_until(&v.process, "folded", ";worker-1;", 5) >= 5);
    CHECK(weight("folded", ";worker-2;") > 0);
    CHECK(weight("folded", ";hot_thread") * 100 >= weight("folded", NULL) * 90);
    CHECK_EQ_INT(taken.result.threads, 3);
    take_done();
    victim_end(&v);
}

TEST_LIMIT(threads_born_meanwhile_are_seen, LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "births", "40");
    CHECK(take_until(&v.process, "folded", ";born;", 5) >= 5);
    CHECK(weight("folded", ";hot_born") * 100 >= weight("folded", NULL) * 90);
    CHECK(taken.result.threads > 3);
    take_done();
    victim_end(&v);
}

/* Threads that end before their first sample are not seen, and that is said. */
TEST_LIMIT(what_was_not_seen_is_said, LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "births", "6");
    bool said = false;
    for (uint64_t for_us = FOR_US; for_us <= 8 * FOR_US && !said; for_us *= 2) {
        take_done();
        REQUIRE(take(&v.process, for_us) == 0); /* too little CPU time is not judged */
        said = strstr(taken.result.missing, "of its CPU time was seen") != NULL;
    }
    CHECK(said);
    take_done();
    victim_end(&v);
}

TEST_LIMIT(a_stack_larger_than_its_copy_is_marked, LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "deep", "40");
    take_until(&v.process, "folded", ";hot_deep", 5);
    CHECK(strstr(taken.result.missing, "beyond the 16 KiB") != NULL);
    CHECK(weight("folded", ";[stack goes on];hot_deep") > 0);
    take_done();
    victim_end(&v);
    victim_start(&v, "busy", "deep", "4");
    CHECK(take_until(&v.process, "folded", ";hot_deep", 5) >= 5);
    CHECK(strstr(taken.result.missing, "beyond the 16 KiB") == NULL);
    CHECK_EQ_INT(weight("folded", "[stack goes on]"), 0);
    take_done();
    victim_end(&v);
}

/* More threads than events: one event for each processor sees them all, and nobody else. */
TEST_LIMIT(a_process_of_very_many_threads_is_seen, LIMIT_S)
{
    struct victim v, other;
    struct perf_events events;
    NEED_PERF();
    victim_start(&other, "busy", "inlined", NULL);
    victim_start(&v, "threads", "2100", "1");
    REQUIRE(perf_events_open(&events, v.pid, OS_PROFILE_HZ, NULL) == 0);
    CHECK(events.everyone);
    CHECK(events.fd_count <= events.ring_count);
    perf_events_close(&events);
    CHECK(take_until(&v.process, "folded", ";heartbeat", 1) > 0);
    CHECK_EQ_INT(weight("folded", "hot_merged"), 0);
    take_done();
    victim_end(&v);
    victim_end(&other);
}

/* Too few descriptors for an event of each thread: the same, and smaller rings where little memory
 * may be locked. */
TEST_LIMIT(few_descriptors_are_enough, LIMIT_S)
{
    struct victim v;
    struct perf_events events;
    struct rlimit few = {48, 48};
    NEED_PERF();
    victim_start(&v, "threads", "100", "1");
    REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
    REQUIRE(perf_events_open(&events, v.pid, OS_PROFILE_HZ, NULL) == 0);
    CHECK(events.everyone);
    perf_events_close(&events);
    CHECK(take_until(&v.process, "folded", ";heartbeat", 1) > 0);
    take_done();
    victim_end(&v);
}

static int count_record(void *context, struct span record)
{
    (void)record;
    (*(size_t *)context)++;
    return 0;
}

static void wait_for_records(struct perf_events *events)
{
    size_t count = 0;
    for (int i = 0; i < VICTIM_AWAIT_MS / 10 && count == 0; i++) {
        nap_ms(10);
        REQUIRE(perf_events_drain(events, count_record, &count) == 0);
    }
    CHECK(count > 0);
}

TEST_LIMIT(an_ordinary_user_has_smaller_rings, LIMIT_S)
{
    struct perf_events events;
    struct rlimit little = {4096, 4096};
    if (getuid() == 0)
        REQUIRE(setgid(65534) == 0 && setuid(65534) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
    NEED_PERF();
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &little) == 0);
    pid_t busy = fork();
    for (volatile int spin = 0; busy == 0;)
        spin++;
    REQUIRE(perf_events_open(&events, busy, OS_PROFILE_HZ, NULL) == 0);
    CHECK(events.ring_bytes < PERF_RING_BYTES_MAX);
    wait_for_records(&events);
    perf_events_close(&events);
    kill(busy, SIGKILL);
    waitpid(busy, NULL, 0);
}

/* ---- off the CPU ---- */

static void check_waits(void)
{
    uint64_t sleeps = weight("off.folded", ";cold_sleep"),
             polls = weight("off.folded", ";cold_poll");
    printf("%llu us in cold_sleep, %llu us in cold_poll\n", (unsigned long long)sleeps,
           (unsigned long long)polls);
    uint64_t queued = weight("off.folded", "[waiting for a processor]");
    CHECK(sleeps + polls + queued >= FOR_US * 8 / 10);
    CHECK(sleeps + polls >= FOR_US * 2 / 10);
    CHECK(sleeps + polls <= FOR_US * 2);
    double share = (double)sleeps / (double)(sleeps + polls + 1);
    CHECK(share > 0.04 && share < 0.55); /* where it slept is a sample of few looks */
}

TEST_LIMIT(waits_are_seen_where_they_are, LIMIT_S)
{
    struct victim v;
    victim_start(&v, "busy", "waits", "10");
    REQUIRE(take(&v.process, FOR_US) == 0);
    check_waits();
    CHECK(text_of("off.svg") != NULL);
    take_done();
    victim_check_free(&v);
    victim_end(&v);
}

TEST_LIMIT(threads_that_only_sleep_are_counted, LIMIT_S)
{
    struct victim v;
    victim_start(&v, "threads", "20", NULL);
    victim_settle(&v);
    REQUIRE(take(&v.process, FOR_US) == 0);
    uint64_t slept = weight("off.folded", ";sleeper;victim_outer;victim_middle;victim_inner");
    CHECK(slept >= 20 * (uint64_t)FOR_US * 6 / 10);
    CHECK(slept <= 20 * (uint64_t)FOR_US * 2);
    take_done();
    victim_end(&v);
}

/* ---- without perf events ---- */

TEST_LIMIT(without_permission_it_looks_from_outside_and_says_so, LIMIT_S)
{
    struct victim v;
    forbid_perf(EPERM);
    CHECK(!may_use_perf());
    victim_start(&v, "busy", "waits", "10");
    REQUIRE(take(&v.process, FOR_US) == 0);
    check_waits();
    CHECK(strstr(taken.result.missing, "sampled without stopping from /proc") != NULL);
    CHECK(strstr(taken.result.missing, "needs CAP_PERFMON") != NULL);
    take_done();
    victim_end(&v);
    victim_start(&v, "busy", "threads", "2");
    CHECK(take_until(&v.process, "folded", ";worker-1;[running]", 5) >= 5);
    CHECK_EQ_INT(weight("folded", "hot_"), 0);
    take_done();
    victim_end(&v);
}

TEST_LIMIT(a_kernel_without_perf_events_is_no_failure, LIMIT_S)
{
    struct victim v;
    forbid_perf(ENOSYS);
    victim_start(&v, "busy", "threads", "2");
    REQUIRE(take(&v.process, FOR_US / 3) == 0);
    CHECK(strstr(taken.result.missing, "this kernel has no perf events") != NULL);
    take_done();
    victim_end(&v);
}

/* Threads that lived between two looks have run too. */
TEST_LIMIT(without_perf_events_the_whole_still_adds_up, LIMIT_S)
{
    struct victim v;
    forbid_perf(EACCES);
    victim_start(&v, "busy", "births", "30");
    CHECK(take_until(&v.process, "folded", "[running, ended unseen]", 5) >= 5);
    take_done();
    victim_end(&v);
}

/* After the first look at everyone, which is owed, looking costs what it may and no more. */
TEST_LIMIT(looking_from_outside_keeps_to_its_budget, LIMIT_S)
{
    struct victim v;
    struct profile_set set;
    struct profile_code code;
    struct profile_wait wait;
    victim_start(&v, "threads", "400", NULL);
    victim_settle(&v);
    profile_set_init(&set);
    REQUIRE(profile_code_open(&code, &set, v.pid, NULL) == 0);
    REQUIRE(profile_wait_open(&wait, &set, &code, v.pid, true, NULL) == 0);
    uint64_t began = port_mono_us(), owed = 0, looks = 0;
    /* Where the first look was dear (a sanitizer), it takes long until another is allowed. */
    while (port_mono_us() - began < 4 * (uint64_t)FOR_US ||
           (wait.looks == looks && port_mono_us() - began < 16 * (uint64_t)FOR_US)) {
        REQUIRE(profile_wait_tick(&wait) == 0);
        if (wait.passes == 1 && owed == 0) {
            owed = wait.spent_ns;
            looks = wait.looks;
        }
        nap_ms(1);
    }
    uint64_t may = (port_mono_us() - began) * PROFILE_WAIT_PERMILLE + 7000000;
    printf("%llu us for %llu looks, then %llu us for %llu\n", (unsigned long long)owed / 1000,
           (unsigned long long)looks, (unsigned long long)(wait.spent_ns - owed) / 1000,
           (unsigned long long)(wait.looks - looks));
    CHECK(owed > 0 && looks >= 400);
    CHECK(wait.spent_ns <= (may > owed ? may : owed) + 2000000);
    CHECK(wait.looks > looks);
    profile_wait_close(&wait);
    profile_code_close(&code);
    profile_set_done(&set);
    victim_end(&v);
}

/* ---- ends and refusals ---- */

#define HELPER_US 40000000
#define ENDED_EARLY_US 45000000
#define UNTIL_ENDED_US 50000000 /* it must not come to this */

/* How many of a process's mappings are rings of perf events. */
static long rings_of(pid_t pid)
{
    char path[64], line[512];
    long count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    while (maps && fgets(line, sizeof line, maps))
        count += strstr(line, "[perf_event]") != NULL;
    if (maps)
        fclose(maps);
    return count;
}

static uint64_t cpu_us(const struct victim *v)
{
    struct timespec t = {0, 0};
    clockid_t clock;
    if (clock_getcpuclockid(v->pid, &clock) == 0)
        clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* A child returns when the profile that its parent takes has all of its rings and the victim has
 * run for `run_us` since; the parent at once. */
static pid_t fork_helper(const struct victim *v, uint64_t run_us)
{
    pid_t profiler = getpid(), helper = fork();
    REQUIRE(helper >= 0);
    if (helper > 0)
        return helper;
    uint64_t end_us = port_mono_us() + HELPER_US;
    while (rings_of(profiler) < sysconf(_SC_NPROCESSORS_ONLN) && port_mono_us() < end_us)
        nap_ms(5);
    uint64_t began_us = cpu_us(v);
    while (cpu_us(v) < began_us + run_us && port_mono_us() < end_us)
        nap_ms(5);
    return 0;
}

TEST_LIMIT(another_program_ends_the_profile, 2 * LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "exec", NULL);
    pid_t helper = fork_helper(&v, 0);
    if (helper == 0) {
        fputs("?\n", v.in);
        fflush(v.in);
        _exit(0);
    }
    uint64_t began = port_mono_us();
    REQUIRE(take(&v.process, UNTIL_ENDED_US) == 0);
    CHECK(port_mono_us() - began < ENDED_EARLY_US);
    CHECK(strstr(taken.result.missing, "executed another program") != NULL);
    waitpid(helper, NULL, 0);
    take_done();
    victim_end(&v);
}

TEST_LIMIT(an_end_ends_the_profile_and_keeps_what_was_seen, 2 * LIMIT_S)
{
    struct victim v;
    NEED_PERF();
    victim_start(&v, "busy", "ratio", "70");
    pid_t helper = fork_helper(&v, 500000);
    if (helper == 0) {
        kill(v.pid, SIGKILL);
        _exit(0);
    }
    REQUIRE(take(&v.process, UNTIL_ENDED_US) == 0);
    CHECK(strstr(taken.result.missing, "process ended after") != NULL);
    CHECK(weight("folded", ";hot_first") > 0);
    waitpid(helper, NULL, 0);
    take_done();
    victim_end(&v);
}

TEST(another_process_with_that_number_is_not_looked_at)
{
    struct victim v;
    victim_start(&v, "busy", "waits", "10");
    v.process.start_ticks++;
    CHECK_EQ_INT(take(&v.process, FOR_US), ERR_GONE);
    CHECK_EQ_INT(taken.count, 0);
    v.process.pid = 0x7ffffff0;
    CHECK_EQ_INT(take(&v.process, FOR_US), ERR_GONE);
    victim_end(&v);
}

TEST(longer_than_the_limit_is_refused)
{
    struct victim v;
    victim_start(&v, "busy", "waits", "10");
    CHECK_EQ_INT(take(&v.process, OS_PROFILE_FOR_MAX_US + 1), ERR_REFUSED);
    CHECK(strstr(taken.f.text, "limit 1 m") != NULL);
    puts(taken.f.text);
    victim_end(&v);
}

TEST_LIMIT(the_deadline_is_kept, LIMIT_S)
{
    struct victim v;
    struct os_costs costs;
    struct os_output out = {begin, append, &taken};
    victim_start(&v, "busy", "waits", "10");
    uint64_t began = port_mono_us();
    struct os_take order = {.process = v.process,
                            .pause_max_us = 1,
                            .for_us = 30000000,
                            .deadline_mono_us = began + 6000000,
                            .costs = &costs};
    os_costs_default(&costs);
    memset(&taken, 0, sizeof taken);
    CHECK_EQ_INT(os_profile_capture(&order, &out, &taken.result, &taken.f), 0);
    CHECK(port_mono_us() < began + 6000000);
    CHECK(strstr(taken.result.missing, "deadline") != NULL);
    take_done();
    victim_end(&v);
}

/* ---- that nothing is stopped ---- */

static void read_counts(struct victim *v, int *kinds, int *interrupted)
{
    char line[4096];
    struct span s, field;
    uint64_t numbers[2];
    victim_ask(v, line, sizeof line);
    s = span_str(line);
    for (int i = 0; i < 2; i++) {
        REQUIRE(text_take_until(&s, ' ', &field) == 0);
        REQUIRE(text_take_u64(&field, &numbers[i]) == 0);
    }
    *kinds = (int)numbers[0];
    *interrupted = (int)numbers[1];
}

static int held_nothing(void *context, struct stop *stop)
{
    (void)context;
    (void)stop;
    return 0;
}

/* The same victim notices a stop that does not take care: see the control. */
TEST_LIMIT(no_blocking_call_is_interrupted, LIMIT_S)
{
    struct victim v;
    struct stop stop;
    int kinds, interrupted;
    victim_start(&v, "syscalls", NULL, NULL);
    victim_settle(&v);
    read_counts(&v, &kinds, &interrupted);
    CHECK(kinds > 30);
    CHECK_EQ_INT(interrupted, 0);
    REQUIRE(take(&v.process, FOR_US) == 0);
    take_done();
    read_counts(&v, &kinds, &interrupted);
    CHECK_EQ_INT(interrupted, 0);
    memset(&stop, 0, sizeof stop);
    REQUIRE(stop_open(&stop, &v.process, NULL) == 0);
    stop.controls.keep_eintr = true;
    REQUIRE(stop_run(&stop, 1000000, held_nothing, NULL, NULL, NULL) == 0);
    stop_close(&stop);
    victim_settle(&v);
    read_counts(&v, &kinds, &interrupted);
    CHECK(interrupted > 0);
    victim_end(&v);
}

/* ---- the file for pprof ---- */

TEST_LIMIT(the_profile_is_a_gzip_member, LIMIT_S)
{
    struct victim v;
    victim_start(&v, "busy", "waits", "10");
    REQUIRE(take(&v.process, FOR_US / 3) == 0);
    REQUIRE(taken.count > 0);
    CHECK_EQ_STR(taken.files[0].ending, "pb.gz");
    struct span packed = buf_span(&taken.files[0].bytes);
    static uint8_t plain[1 << 20];
    z_stream z;
    memset(&z, 0, sizeof z);
    REQUIRE(inflateInit2(&z, 15 + 16) == Z_OK);
    z.next_in = (Bytef *)packed.data;
    z.avail_in = (uInt)packed.size_bytes;
    z.next_out = plain;
    z.avail_out = sizeof plain;
    CHECK_EQ_INT(inflate(&z, Z_FINISH), Z_STREAM_END);
    CHECK_EQ_INT(z.avail_in, 0);
    CHECK(memmem(plain, z.total_out, "cold_poll", 9) != NULL);
    inflateEnd(&z);
    take_done();
    victim_end(&v);
}
