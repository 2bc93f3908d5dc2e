/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The crash handler's pure parts, and taking: notes of a core, the core pattern's words, and that a
 * pid that was given to another process is never described. COUNT: how many reuses (200); of these
 * a control: handed the pidfd of the other process, the same look finds it described.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/core_pattern.h"
#include "agent/os/linux/core_elf.h"
#include "agent/os/linux/crash_build_id.h"
#include "agent/os/linux/crash_linux.h"
#include "agent/os/linux/procfs.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/check.h"

/* ---- words ---- */

static struct os_crash_arguments arguments = {.pid = 4711,
                                              .inner_pid = 7,
                                              .tid = 4712,
                                              .inner_tid = 8,
                                              .uid = 33,
                                              .gid = 34,
                                              .dumpable = 1,
                                              .signal = 11,
                                              .time_s = 1000,
                                              .core_limit = UINT64_MAX,
                                              .pidfd = 3};
static struct os_core_name name;

static int expand(const char *pattern, bool uses_pid)
{
    struct os_core_words words = {&arguments, "wo/rk er", "/usr/bin/app", "web-1", 2, uses_pid};
    return os_core_pattern_expand(pattern, &words, &name);
}

TEST(words_are_cut_before_they_are_expanded)
{
    REQUIRE(expand("|/bin/x  %P %e\t%% %F", false) == 0);
    CHECK_EQ_INT(name.count, 5);
    CHECK_EQ_STR(name.words[0], "/bin/x");
    CHECK_EQ_STR(name.words[1], "4711");
    CHECK_EQ_STR(name.words[2], "wo!rk er");
    CHECK_EQ_STR(name.words[3], "%");
    CHECK_EQ_STR(name.words[4], "3");
    CHECK(name.words[5] == NULL);
}

TEST(every_specifier_is_what_the_kernel_makes_of_it)
{
    REQUIRE(expand("%p %P %i %I %u %g %d %s %t %h %e %E %f %c %C %z%", false) == 0);
    CHECK_EQ_STR(name.words[0], "7 4711 8 4712 33 34 1 11 1000 web-1 wo!rk er !usr!bin!app app "
                                "18446744073709551615 2 ");
    REQUIRE(expand("core", true) == 0);
    CHECK_EQ_STR(name.words[0], "core.7");
    REQUIRE(expand("core.%p", true) == 0);
    CHECK_EQ_STR(name.words[0], "core.7");
    CHECK_EQ_INT(expand("|x", false), ERR_INVALID);
    CHECK_EQ_INT(expand("| ", false), ERR_INVALID);
}

TEST(what_others_can_write_is_not_trusted)
{
    struct failure f = {0};
    CHECK_EQ_INT(os_check_only_root("/proc/self/nothing", &f), ERR_NOTFOUND);
    if (geteuid() == 0) {
        CHECK_EQ_INT(os_check_only_root("/bin/sh", &f), 0);
        int fd = open("/tmp/trawl-only-root", O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
        REQUIRE(fd >= 0);
        close(fd);
        CHECK_EQ_INT(os_check_only_root("/tmp/trawl-only-root", &f), ERR_DENIED);
        unlink("/tmp/trawl-only-root");
    }
}

/* ---- a core's head as the kernel would write it of a process ---- */

static void add_note(struct buf *out, uint32_t type, struct span desc)
{
    Elf64_Nhdr header = {sizeof "CORE", (uint32_t)desc.size_bytes, type};
    static const char padded[8] = "CORE";
    REQUIRE(buf_append(out, &header, sizeof header) == 0);
    REQUIRE(buf_append(out, padded, sizeof padded) == 0);
    REQUIRE(buf_append_span(out, desc) == 0);
    while (out->size_bytes % 4)
        REQUIRE(buf_append_byte(out, 0) == 0);
}

static void make_head(struct buf *out, pid_t pid, struct span auxv, const char *comm)
{
    struct buf notes;
    struct elf_prstatus status = {.pr_pid = pid};
    struct elf_prpsinfo info = {.pr_pid = pid, .pr_sname = 'R'};
    siginfo_t si;
    memset(&si, 0, sizeof si);
    si.si_signo = SIGSEGV;
    snprintf(info.pr_fname, sizeof info.pr_fname, "%s", comm);
    buf_init(&notes, 1 << 16);
    add_note(&notes, NT_PRSTATUS, span_of(&status, sizeof status));
    add_note(&notes, NT_PRPSINFO, span_of(&info, sizeof info));
    add_note(&notes, NT_SIGINFO, span_of(&si, sizeof si));
    add_note(&notes, NT_AUXV, auxv);
    Elf64_Ehdr e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                    .e_type = ET_CORE,
                    .e_machine = EM_X86_64,
                    .e_phoff = sizeof e,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 1};
    Elf64_Phdr p = {
        .p_type = PT_NOTE, .p_offset = sizeof e + sizeof p, .p_filesz = notes.size_bytes};
    REQUIRE(buf_append(out, &e, sizeof e) == 0 && buf_append(out, &p, sizeof p) == 0);
    REQUIRE(buf_append_span(out, buf_span(&notes)) == 0);
    buf_done(&notes);
}

TEST(a_head_is_parsed_whole_or_not_at_all)
{
    struct buf head;
    struct crash_notes n;
    struct crash_extent extent;
    buf_init(&head, 1 << 17);
    make_head(&head, 42, span_str("0123456789abcdef"), "victim");
    REQUIRE(crash_head_extent(buf_span(&head), &extent) == 0);
    CHECK_EQ_INT(extent.head_bytes, head.size_bytes);
    struct span notes = span_of(head.data + extent.notes_offset, (size_t)extent.notes_bytes);
    REQUIRE(crash_notes_parse(&n, notes) == 0);
    CHECK_EQ_INT(n.count, 1);
    CHECK_EQ_INT(n.threads[0].tid, 42);
    CHECK_EQ_STR(n.name, "victim");
    CHECK(n.has_info && n.info.si_signo == SIGSEGV);
    CHECK_EQ_INT(n.auxv.size_bytes, 16);
    crash_notes_done(&n);
    for (size_t cut = 1; cut < notes.size_bytes; cut++)
        if (crash_notes_parse(&n, span_of(notes.data, cut)) == 0)
            crash_notes_done(&n);
    notes.data = (const uint8_t *)"\5\0\0\0\377\377\377\377\1\0\0\0CORE\0\0\0\0";
    CHECK_EQ_INT(crash_notes_parse(&n, span_of(notes.data, 20)), ERR_CORRUPT);
    head.data[0] = 'X';
    CHECK_EQ_INT(crash_head_extent(buf_span(&head), &extent), ERR_CORRUPT);
    buf_done(&head);
}

/* ---- build-ids ---- */

#define PAGE 4096
#define ID_BYTES 20

/* A file's first page with a note of 4 bytes' worth of something else, and the build-id. */
static void make_page(uint8_t page[PAGE])
{
    Elf64_Ehdr e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                    .e_phoff = sizeof e,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    Elf64_Phdr p[2] = {{.p_type = PT_LOAD},
                       {.p_type = PT_NOTE, .p_offset = 0x200, .p_filesz = 16 + 4 + 16 + ID_BYTES}};
    Elf64_Nhdr other = {4, 4, 1}, id = {4, ID_BYTES, NT_GNU_BUILD_ID};
    memset(page, 0, PAGE);
    memcpy(page, &e, sizeof e);
    memcpy(page + sizeof e, p, sizeof p);
    memcpy(page + 0x200, &other, sizeof other);
    memcpy(page + 0x20c, "GNU\0abcd", 8);
    memcpy(page + 0x214, &id, sizeof id);
    memcpy(page + 0x220, "GNU", 4);
    memset(page + 0x224, 0xb2, ID_BYTES);
}

static size_t find_build_id(const uint8_t *page, size_t bytes, uint8_t out[ID_BYTES])
{
    uint8_t *exact = malloc(bytes ? bytes : 1); /* so that a look beyond it is seen */
    REQUIRE(exact != NULL);
    memcpy(exact, page, bytes);
    size_t found = crash_find_build_id(span_of(exact, bytes), out, ID_BYTES);
    free(exact);
    return found;
}

TEST(a_build_id_is_found_in_the_first_page)
{
    uint8_t page[PAGE], id[ID_BYTES] = {0}, wanted[ID_BYTES];
    memset(wanted, 0xb2, sizeof wanted);
    make_page(page);
    CHECK_EQ_INT(find_build_id(page, PAGE, id), ID_BYTES);
    CHECK(memcmp(id, wanted, sizeof id) == 0);
    for (size_t cut = 0; cut < 0x224 + ID_BYTES; cut++)
        CHECK_EQ_INT(find_build_id(page, cut, id), 0);
    /* The process may have written anything there. */
    uint64_t seed = 42;
    for (int i = 0; i < 20000; i++) {
        make_page(page);
        for (int k = 0; k < 4; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            page[(seed >> 33) % 0x240] = (uint8_t)(seed >> 25);
        }
        CHECK(find_build_id(page, PAGE, id) <= ID_BYTES);
    }
}

/* ---- pid reuse ---- */

#define PID 100

static pid_t fork_as(pid_t pid, const char *comm)
{
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
            set_tid_size;
    } args = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};
    pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (child == 0) {
        prctl(PR_SET_NAME, comm, 0, 0, 0);
        for (;;)
            pause();
    }
    return child;
}

/* Until the one that had the number is gone. */
static bool fork_when_free(pid_t pid, const char *comm)
{
    uint64_t until_us = port_mono_us() + 5000000;
    pid_t child;
    do
        child = fork_as(pid, comm);
    while (child < 0 && port_mono_us() < until_us);
    return child == pid;
}

/* Ends the process at some instant of the reading, and begins another one under its number. */
static pid_t replace_later(unsigned nanoseconds)
{
    pid_t replacer = fork();
    if (replacer == 0) {
        nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL);
        kill(PID, SIGKILL);
        _exit(fork_when_free(PID, "other") ? 0 : 1);
    }
    return replacer;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void wait_named(pid_t pid, const char *comm)
{
    char data[32];
    struct span text = {NULL, 0};
    uint64_t until_us = port_mono_us() + 2000000;
    do
        (void)proc_read_pid("", (uint32_t)pid, "comm", data, sizeof data, &text, NULL);
    while (!proc_starts_with(text, comm) && port_mono_us() < until_us);
}

/* Takes a crash of PID whose pipe and pidfd are the kernel's; another thread of events replaces the
 * process at some instant. Returns what was copied. */
static struct os_crash *take_one(struct span head, int pidfd, bool close_end)
{
    int ends[2];
    struct os_crash *crash = NULL;
    struct span read_head;
    struct os_crash_arguments a = {.pid = PID,
                                   .inner_pid = PID,
                                   .tid = PID,
                                   .inner_tid = PID,
                                   .dumpable = 1,
                                   .signal = SIGSEGV,
                                   .pidfd = pidfd};
    struct os_crash_limits limits = {true, 65536, 1 << 20, true};
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    REQUIRE(write(ends[1], head.data, head.size_bytes) == (ssize_t)head.size_bytes);
    if (close_end)
        close(ends[1]);
    os_crash_identify(&a);
    (void)os_crash_take(&a, &limits, ends[0], false, &crash, &read_head, NULL);
    if (!close_end)
        close(ends[1]);
    return crash;
}

/* Whether anything of the other process is in it. */
static bool is_wrong(const struct os_crash *crash)
{
    struct os_exception *e = calloc(1, sizeof *e);
    REQUIRE(e != NULL);
    os_crash_head(crash, e);
    bool wrong = strcmp(e->process, "victim") != 0 || strcmp(e->thread, "other") == 0;
    wrong |= crash->verified && memmem(crash->status.data, crash->status.size_bytes, "other", 5);
    free(e);
    return wrong;
}

struct reused {
    unsigned wrong, right, gone, replaced;
};

static int open_pidfd(void)
{
    return (int)syscall(SYS_pidfd_open, PID, 0);
}

/* One crash of PID that, but for one in four, is another process before it was read, or while it
 * is. `fooled`: the reader gets the pidfd of the other one, which the kernel would never give. */
static void reuse_once(unsigned i, bool fooled, struct reused *sum)
{
    static char auxv[4096];
    struct span aux;
    struct buf head;
    bool replace = i % 4 != 0, at_once = fooled ? replace : i % 4 == 1;
    pid_t replacer = 0;
    REQUIRE(fork_when_free(PID, "victim"));
    wait_named(PID, "victim");
    int pidfd = open_pidfd();
    REQUIRE(proc_read_pid("", PID, "auxv", auxv, sizeof auxv, &aux, NULL) == 0);
    buf_init(&head, 1 << 17);
    make_head(&head, PID, aux, "victim");
    /* A sibling from the same fork has the same auxiliary vector: the worst case. */
    if (at_once) {
        end(PID);
        REQUIRE(fork_when_free(PID, "other"));
        wait_named(PID, "other");
    } else if (replace) {
        replacer = replace_later(i * 7919 % 600 * 1000);
    }
    if (fooled) {
        close(pidfd);
        pidfd = open_pidfd();
    }
    struct os_crash *crash = take_one(buf_span(&head), pidfd, replace && !fooled && i % 8 < 4);
    sum->wrong += is_wrong(crash);
    sum->right += !replace && crash->verified && crash->has_memory;
    sum->gone += replace && !crash->verified;
    sum->replaced += replace;
    os_crash_close(crash);
    if (replacer > 0)
        waitpid(replacer, NULL, 0);
    end(PID);
    buf_done(&head);
    close(pidfd);
}

static void reuse(unsigned count, bool fooled)
{
    struct reused sum = {.wrong = 0};
    signal(SIGCHLD, SIG_IGN); /* a number is free as soon as its process has ended */
    for (unsigned i = 0; i < count; i++)
        reuse_once(i, fooled, &sum);
    printf("    %u pid reuses%s: %u wrong, %u left out, %u of %u right ones described\n",
           sum.replaced, fooled ? " that the reader takes for the right one" : "", sum.wrong,
           sum.gone, sum.right, count - sum.replaced);
    CHECK_EQ_INT(sum.right, count - sum.replaced);
    if (fooled) {
        CHECK_EQ_INT(sum.wrong, sum.replaced);
    } else {
        CHECK_EQ_INT(sum.wrong, 0);
        CHECK(sum.gone > 0);
    }
    fflush(stdout);
}

/* ---- many threads ---- */

#define MANY 40u

static void *named(void *ready)
{
    static atomic_uint count;
    char own[16];
    (void)text_format(own, sizeof own, "many-%u", atomic_fetch_add(&count, 1));
    prctl(PR_SET_NAME, own);
    (void)pthread_barrier_wait(ready);
    for (;;)
        pause();
    return NULL;
}

static pid_t fork_many(void)
{
    int ends[2];
    char byte;
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_barrier_t ready;
        pthread_t thread;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pthread_barrier_init(&ready, NULL, MANY + 1);
        for (unsigned i = 0; i < MANY; i++)
            if (pthread_create(&thread, NULL, named, &ready))
                _exit(1);
        (void)pthread_barrier_wait(&ready);
        (void)!write(ends[1], "", 1);
        for (;;)
            pause();
    }
    close(ends[1]);
    REQUIRE(pid > 0 && read(ends[0], &byte, 1) == 1);
    close(ends[0]);
    return pid;
}

static struct os_crash *take_live(pid_t pid, struct span auxv)
{
    int ends[2];
    struct buf head;
    struct span unused;
    struct os_crash *crash = NULL;
    struct os_crash_arguments a = {
        .pid = (uint32_t)pid, .tid = (uint32_t)pid, .dumpable = 1, .signal = SIGSEGV, .pidfd = -1};
    struct os_crash_limits limits = {true, 65536, 1 << 20, true};
    buf_init(&head, 1 << 17);
    make_head(&head, pid, auxv, "many");
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    REQUIRE(write(ends[1], head.data, head.size_bytes) == (ssize_t)head.size_bytes);
    os_crash_identify(&a);
    (void)os_crash_take(&a, &limits, ends[0], false, &crash, &unused, NULL);
    close(ends[1]);
    buf_done(&head);
    REQUIRE(crash != NULL);
    close(crash->arguments.pidfd);
    return crash;
}

TEST(names_of_many_threads_are_read_beside_the_rest)
{
    static char auxv[4096];
    struct span aux;
    pid_t pid = fork_many();
    REQUIRE(proc_read_pid("", (uint32_t)pid, "auxv", auxv, sizeof auxv, &aux, NULL) == 0);
    struct os_crash *crash = take_live(pid, aux);
    unsigned found = 0;
    CHECK(crash->verified && !crash->reads_tasks);
    REQUIRE(crash->task_count == MANY + 1);
    for (size_t i = 0; i < crash->task_count; i++)
        found += strncmp(crash->tasks[i].name, "many-", 5) == 0;
    CHECK_EQ_INT(found, MANY);
    CHECK(crash->threads[0].name[0] != '\0');
    CHECK_EQ_STR(crash->threads[0].name, crash->tasks[0].name);
    os_crash_close(crash);
    end(pid);
}

TEST(what_is_said_of_a_process_of_other_notes_is_dropped)
{
    static char auxv[4096];
    struct span aux;
    pid_t pid = fork_many();
    REQUIRE(proc_read_pid("", (uint32_t)pid, "auxv", auxv, sizeof auxv, &aux, NULL) == 0);
    auxv[8] ^= 1;
    struct os_crash *crash = take_live(pid, aux);
    CHECK(!crash->verified && !crash->has_memory && !crash->reads_tasks);
    CHECK_EQ_INT(crash->task_count, 0);
    CHECK_EQ_INT(crash->status.size_bytes, 0);
    CHECK_EQ_STR(crash->threads[0].name, "");
    CHECK(strstr(crash->missing, "is not the process of this core") != NULL);
    os_crash_close(crash);
    end(pid);
}

#define NO_NAMESPACE 77

/* reuse() as init of a pid namespace; the exit status. */
static int reuse_apart(unsigned count, bool fooled)
{
    int status;
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
        return NO_NAMESPACE;
    pid_t init = fork();
    if (init == 0) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("proc", "/proc", "proc", 0, NULL) != 0)
            _exit(NO_NAMESPACE);
        reuse(count, fooled);
        _exit(0);
    }
    if (init < 0 || waitpid(init, &status, 0) != init || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}

static void reuse_in_namespace(uint64_t count, bool fooled)
{
    int status = 1;
    pid_t outside = fork(); /* who unshares could start nobody any more, a leak checker neither */
    if (outside == 0)
        _exit(reuse_apart((unsigned)count, fooled));
    REQUIRE(waitpid(outside, &status, 0) == outside);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_NAMESPACE)
        check_skip("no namespace of its own can be made here");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_LIMIT(a_pid_that_was_given_to_another_is_never_described, 600)
{
    const char *text = getenv("COUNT");
    uint64_t count = 200;
    if (text)
        REQUIRE(text_u64_in(text, 4, 1000000, &count) == 0);
    reuse_in_namespace(count, false);
}

TEST_LIMIT(the_look_for_wrong_processes_finds_them, 60)
{
    reuse_in_namespace(40, true);
}
