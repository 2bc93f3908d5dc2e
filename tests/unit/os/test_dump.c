/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole dumps of a victim whose memory is known, read back by the rules of elf(5): what must be in
 * is, what must not be is not, and the victim is left as it was. What gdb and lldb make of them is
 * in tests/e2e/32_cores.
 */
#include "agent/os/dump.h"

#include <elf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/procfs.h>

#include "common/port.h"
#include "tests/unit/os/victim.h"

#define PAUSE_MAX_US 2000000 /* machines on which tests run are busy */

/* ---- a sink, and a reader of what it got ---- */

struct file {
    FILE *stream;
    uint64_t bytes, limit; /* the reader goes away behind so many; 0: never */
    unsigned begun;
    void (*on_first)(const struct file *file); /* called at the first bytes */
    pid_t pid;
    int signal; /* that all of its threads are stopped by */
};

static int begin(void *context, const char *ending, struct failure *f)
{
    struct file *file = context;
    (void)f;
    CHECK_EQ_STR(ending, "core");
    file->begun++;
    return 0;
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    struct file *file = context;
    if (file->bytes == 0 && file->on_first)
        file->on_first(file);
    CHECK(bytes.size_bytes <= 1u << 20);
    file->bytes += bytes.size_bytes;
    if (file->limit && file->bytes > file->limit)
        return fail(f, ERR_CLOSED, "reader has gone");
    REQUIRE(fwrite(bytes.data, 1, bytes.size_bytes, file->stream) == bytes.size_bytes);
    return 0;
}

static struct os_costs costs;

static struct os_take take_of(const struct victim *v)
{
    os_costs_default(&costs);
    return (struct os_take){.process = v->process,
                            .pause_max_us = PAUSE_MAX_US,
                            .allow_pause = true, /* as long as a busy machine takes */
                            .costs = &costs};
}

typedef int (*capture_fn)(const struct os_take *take, const struct os_output *out,
                          struct os_result *result, struct failure *f);

static int capture(capture_fn kind, const struct os_take *take, struct file *file,
                   struct os_result *result, struct failure *f)
{
    struct os_output out = {begin, write_bytes, file};
    memset(f, 0, sizeof *f);
    file->stream = tmpfile();
    REQUIRE(file->stream != NULL);
    int rc = kind(take, &out, result, f);
    fflush(file->stream);
    CHECK((rc != 0) == (f->code != 0));
    return rc;
}

static void file_done(struct file *file)
{
    if (file->stream)
        fclose(file->stream);
}

static void read_at(const struct file *file, uint64_t offset, void *out, size_t bytes)
{
    REQUIRE(fseek(file->stream, (long)offset, SEEK_SET) == 0);
    REQUIRE(fread(out, 1, bytes, file->stream) == bytes);
}

static Elf64_Ehdr header_of(const struct file *file)
{
    Elf64_Ehdr head;
    read_at(file, 0, &head, sizeof head);
    REQUIRE(memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_type == ET_CORE);
    return head;
}

enum found { IN_FILE, ZEROS, NOWHERE };

/* What a reader of the core finds at an address. */
static enum found look(const struct file *file, uint64_t address, char *out, size_t bytes)
{
    Elf64_Ehdr head = header_of(file);
    for (uint64_t i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr p;
        read_at(file, head.e_phoff + i * sizeof p, &p, sizeof p);
        if (p.p_type != PT_LOAD || address < p.p_vaddr || address >= p.p_vaddr + p.p_memsz)
            continue;
        if (address - p.p_vaddr + bytes > p.p_filesz)
            return ZEROS;
        read_at(file, p.p_offset + (address - p.p_vaddr), out, bytes);
        return IN_FILE;
    }
    return NOWHERE;
}

/* Program headers are sorted, whole pages, and the file ends where the last one says. */
static size_t check_shape(const struct file *file)
{
    Elf64_Ehdr head = header_of(file);
    uint64_t address = 0, offset = 0, end = 0;
    int wrong = 0;
    for (uint64_t i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr p;
        read_at(file, head.e_phoff + i * sizeof p, &p, sizeof p);
        if (p.p_type != PT_LOAD)
            continue;
        wrong += p.p_vaddr < address || p.p_offset < offset || p.p_offset % 4096 != 0 ||
                 p.p_vaddr % 4096 != 0 || p.p_memsz % 4096 != 0 ||
                 (p.p_filesz != 0 && p.p_filesz != p.p_memsz);
        address = p.p_vaddr + p.p_memsz;
        offset = p.p_offset;
        end = p.p_offset + p.p_filesz;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(end, file->bytes);
    return head.e_phnum;
}

/* Counts the threads of the notes; *first: the id of the first. */
static size_t count_threads(const struct file *file, pid_t *first)
{
    Elf64_Ehdr head = header_of(file);
    Elf64_Phdr notes;
    size_t count = 0;
    read_at(file, head.e_phoff, &notes, sizeof notes);
    REQUIRE(notes.p_type == PT_NOTE);
    for (uint64_t at = notes.p_offset; at < notes.p_offset + notes.p_filesz;) {
        Elf64_Nhdr note;
        struct elf_prstatus status;
        read_at(file, at, &note, sizeof note);
        at += sizeof note + ((note.n_namesz + 3u) & ~3u);
        if (note.n_type == NT_PRSTATUS && note.n_descsz == sizeof status) {
            read_at(file, at, &status, sizeof status);
            if (count++ == 0)
                *first = status.pr_pid;
            CHECK(status.pr_reg[16] != 0);
            CHECK_EQ_INT(status.pr_cursig, file->signal);
        }
        at += (note.n_descsz + 3u) & ~3u;
    }
    return count;
}

/* ---- the victim ---- */

struct places {
    uint64_t changed, shared, not_forked, not_dumped, far_away, bulk;
};

static void start_memory(struct victim *v, const char *mib, const char *threads,
                         struct places *places)
{
    char line[256], *at = line;
    victim_start(v, "memory", mib, threads);
    victim_ask(v, line, sizeof line);
    places->changed = strtoul(at, &at, 16);
    places->shared = strtoul(at, &at, 16);
    places->not_forked = strtoul(at, &at, 16);
    places->not_dumped = strtoul(at, &at, 16);
    places->far_away = strtoul(at, &at, 16);
    places->bulk = strtoul(at, &at, 16);
}

/* Untraced, without a child, and still answering. */
static void check_unharmed(struct victim *v)
{
    char line[256], path[64];
    victim_check_free(v);
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", v->pid, v->pid);
    FILE *children = fopen(path, "r");
    if (children) {
        CHECK(fgets(line, sizeof line, children) == NULL);
        fclose(children);
    }
    victim_ask(v, line, sizeof line);
}

#define CHECK_TEXT(file, address, text)                                       \
    do {                                                                      \
        char bytes_[32] = "";                                                 \
        CHECK_EQ_INT(look(file, address, bytes_, strlen(text) + 1), IN_FILE); \
        CHECK_EQ_STR(bytes_, text);                                           \
    } while (0)

static void check_core(const struct file *file, const struct places *places)
{
    char bytes[32];
    pid_t first = 0;
    check_shape(file);
    CHECK_EQ_INT(count_threads(file, &first), 4);
    CHECK_EQ_INT(first, file->pid);
    CHECK_TEXT(file, places->changed, "changed data");
    CHECK_TEXT(file, places->shared, "shared memory");
    CHECK_TEXT(file, places->not_forked, "not forked");
    CHECK_TEXT(file, places->far_away, "far away");
    CHECK_EQ_INT(look(file, places->not_dumped, bytes, 8), NOWHERE);
    CHECK_EQ_INT(look(file, places->shared - (8 << 20), bytes, 8), ZEROS);
    CHECK_EQ_INT(look(file, places->far_away - (8 << 20), bytes, 8), ZEROS);
    CHECK_EQ_INT(look(file, places->bulk + (3 << 20), bytes, 8), IN_FILE);
}

static void check_kind(capture_fn kind, bool live,
                       void (*check)(const struct file *file, const struct places *places))
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.live = live;
    CHECK_EQ_INT(capture(kind, &take, &file, &result, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK_EQ_INT(file.begun, 1);
    CHECK_EQ_INT(result.threads, 4);
    CHECK_EQ_INT(result.threads_missed, 0);
    CHECK(result.paused && result.pause_us > 0 && result.expected_us > 0);
    CHECK_EQ_INT(result.top_count, 0);
    CHECK(strstr(result.missing, "excludes from dumps") != NULL);
    printf("      %llu KiB, pause %llu us, expected %llu us\n",
           (unsigned long long)file.bytes >> 10, (unsigned long long)result.pause_us,
           (unsigned long long)result.expected_us);
    if (file.begun)
        check(&file, &places);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(a_core_from_a_snapshot_has_all_memory)
{
    check_kind(os_core_capture, false, check_core);
}

TEST(a_live_core_has_all_memory)
{
    check_kind(os_core_capture, true, check_core);
}

static void check_mini(const struct file *file, const struct places *places)
{
    char bytes[32];
    pid_t first = 0;
    check_shape(file);
    CHECK_EQ_INT(count_threads(file, &first), 4);
    CHECK_EQ_INT(first, file->pid);
    CHECK(file->bytes < 4 << 20);
    CHECK_TEXT(file, places->changed, "changed data");
    CHECK_EQ_INT(look(file, places->not_dumped, bytes, 8), NOWHERE);
    /* What was not copied is nowhere: it must not read as zeros. */
    CHECK_EQ_INT(look(file, places->bulk + (3 << 20), bytes, 8), NOWHERE);
}

TEST(a_mini_has_what_pointers_lead_to)
{
    check_kind(os_mini_capture, false, check_mini);
}

TEST_LIMIT(a_mini_of_a_thousand_threads, 60)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    pid_t first = 0;
    start_memory(&v, "1", "999", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    CHECK_EQ_INT(capture(os_mini_capture, &take, &file, &result, &f), 0);
    CHECK_EQ_INT(result.threads + result.threads_missed, 1000);
    CHECK_EQ_INT(count_threads(&file, &first), result.threads);
    CHECK(file.bytes <= OS_MINI_BYTES_MAX);
    printf("      %llu KiB, pause %llu us, expected %llu us\n",
           (unsigned long long)file.bytes >> 10, (unsigned long long)result.pause_us,
           (unsigned long long)result.expected_us);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

/* ---- refusals ---- */

static void check_refused(capture_fn kind, bool live, bool allow_pause, uint32_t pause_max_us,
                          const char *words)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.live = live;
    take.allow_pause = allow_pause;
    take.pause_max_us = pause_max_us;
    CHECK_EQ_INT(capture(kind, &take, &file, &result, &f), ERR_REFUSED);
    CHECK(strstr(f.text, words) != NULL);
    CHECK(!result.paused && result.expected_us > pause_max_us);
    CHECK_EQ_INT(file.begun, 0);
    printf("      %s\n", f.text);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(a_pause_over_the_limit_is_refused)
{
    check_refused(os_core_capture, false, false, 100, "--live takes a core without a snapshot");
    check_refused(os_core_capture, true, false, 100, "--pause-max allows more");
    check_refused(os_mini_capture, false, false, 100, "--pause-max allows more");
}

TEST(a_slow_host_is_refused_what_a_fast_one_is_given)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.pause_max_us = 50000;
    costs.table_gib_us = 50000000; /* 8 MiB of page tables: 390 ms */
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "with --allow-pause") != NULL);
    printf("      %s\n", f.text);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

/* ---- where no snapshot is possible ---- */

/* A system call filter that allows everything: what it would do to an injected call is not known.
 */
static char much[8 << 20];

static void start_filtered(struct victim *v)
{
    int out[2];
    char byte;
    memset(v, 0, sizeof *v);
    REQUIRE(pipe(out) == 0);
    v->pid = fork();
    if (v->pid == 0) {
        struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
        struct sock_fprog program = {1, &allow};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(much, 1, sizeof much);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
            _exit(1);
        (void)!write(out[1], "r", 1);
        for (;;)
            pause();
    }
    close(out[1]);
    REQUIRE(read(out[0], &byte, 1) == 1);
    close(out[0]);
    REQUIRE(os_process_get("", (uint32_t)v->pid, &v->process, NULL) == 0);
}

static void end_filtered(struct victim *v)
{
    victim_check_free(v);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
}

TEST(without_a_snapshot_the_other_ways_are_named)
{
    struct victim v;
    struct os_result result;
    struct failure f;
    start_filtered(&v);
    struct file file = {.pid = v.pid};
    struct os_take take = take_of(&v);
    take.allow_pause = false;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_REFUSED);
    CHECK(strstr(f.text, "seccomp") != NULL);
    CHECK(strstr(f.text, "--live") != NULL && strstr(f.text, "--allow-pause") != NULL);
    CHECK(!result.paused && file.begun == 0);
    printf("      %s\n", f.text);
    end_filtered(&v);
    file_done(&file);
}

/* Written by a thread of its own, while the one that holds waits. */
static void is_held(const struct file *file)
{
    struct victim v = {.pid = file->pid};
    int traced;
    CHECK_EQ_INT(victim_count(&v, 't', &traced), 1);
    CHECK_EQ_INT(traced, 1);
}

static char known_text[32] = "as it was built";

TEST(a_process_may_be_held_while_it_is_written)
{
    struct victim v;
    struct os_result result;
    struct failure f;
    pid_t first = 0;
    snprintf(known_text, sizeof known_text, "%s", "as it is now");
    start_filtered(&v);
    struct file file = {.pid = v.pid, .on_first = is_held};
    struct os_take take = take_of(&v);
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), 0);
    CHECK_EQ_STR(f.text, "");
    CHECK(strstr(result.missing, "the process was held") != NULL);
    check_shape(&file);
    CHECK_EQ_INT(count_threads(&file, &first), 1);
    CHECK_TEXT(&file, (uintptr_t)known_text, "as it is now");
    end_filtered(&v);
    file_done(&file);
}

static void wait_too_long(const struct file *file)
{
    (void)file;
    nap_ms(1500);
}

/* A reader that does not read must not hold the process. */
TEST(a_held_process_is_released_in_time)
{
    struct victim v;
    struct os_result result;
    struct failure f;
    start_filtered(&v);
    struct file file = {.pid = v.pid, .on_first = wait_too_long};
    struct os_take take = take_of(&v);
    take.pause_max_us = 500000;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_TIMEOUT);
    CHECK(result.pause_us >= 500000 && result.pause_us < 900000);
    printf("      %s\n", f.text);
    end_filtered(&v);
    file_done(&file);
}

/* ---- what may happen meanwhile ---- */

static void check_broken_reader(bool live)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .limit = 3 << 20};
    struct os_take take = take_of(&v);
    take.live = live;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_CLOSED);
    CHECK_EQ_STR(f.text, "reader has gone");
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(the_reader_may_go_away)
{
    check_broken_reader(false);
    check_broken_reader(true);
}

/* At its deadline the worker is killed; before that, it gives up by itself and tidies up. */
TEST(it_gives_up_before_its_deadline)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .on_first = wait_too_long};
    struct os_take take = take_of(&v);
    take.deadline_mono_us = port_mono_us() + 1500000;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_TIMEOUT);
    CHECK(strstr(f.text, "no time left after 1.0 MiB") != NULL);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

TEST(a_stopped_process_is_shown_as_stopped)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    int status, traced;
    start_memory(&v, "1", "3", &places);
    kill(v.pid, SIGSTOP);
    REQUIRE(waitpid(v.pid, &status, WUNTRACED) == v.pid && WIFSTOPPED(status));
    struct file file = {.pid = v.pid, .signal = SIGSTOP};
    struct os_take take = take_of(&v);
    pid_t first = 0;
    CHECK_EQ_INT(capture(os_mini_capture, &take, &file, &result, &f), 0);
    CHECK_EQ_INT(count_threads(&file, &first), 4);
    nap_ms(20);
    CHECK_EQ_INT(victim_count(&v, 'T', &traced), 4);
    CHECK_EQ_INT(traced, 0);
    kill(v.pid, SIGCONT);
    check_unharmed(&v);
    victim_end(&v);
    file_done(&file);
}

static void kill_it(const struct file *file)
{
    kill(file->pid, SIGKILL);
    for (int i = 0; i < 5000; i++) {
        struct os_process now;
        if (os_process_get("", (uint32_t)file->pid, &now, NULL) != 0)
            return;
        nap_ms(1);
    }
}

/* A live core cannot go on; zeros must not be taken for memory. */
TEST(it_may_end_while_a_live_core_is_read)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .on_first = kill_it};
    struct os_take take = take_of(&v);
    take.live = true;
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), ERR_GONE);
    printf("      %s\n", f.text);
    victim_end(&v);
    file_done(&file);
}

/* A snapshot is whole. */
TEST(it_may_end_while_its_snapshot_is_read)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    start_memory(&v, "8", "3", &places);
    struct file file = {.pid = v.pid, .on_first = kill_it};
    struct os_take take = take_of(&v);
    CHECK_EQ_INT(capture(os_core_capture, &take, &file, &result, &f), 0);
    CHECK_EQ_STR(f.text, "");
    check_core(&file, &places);
    victim_end(&v);
    file_done(&file);
}

static void is_running(const struct file *file)
{
    struct victim v = {.pid = file->pid};
    victim_check_free(&v);
}

/* Not one byte is written while it stands still. */
TEST(nothing_is_written_before_it_is_released)
{
    struct victim v;
    struct places places;
    struct os_result result;
    struct failure f;
    static const struct {
        capture_fn kind;
        bool live;
    } cases[] = {{os_mini_capture, false}, {os_core_capture, false}, {os_core_capture, true}};
    for (size_t i = 0; i < 3; i++) {
        start_memory(&v, "1", "3", &places);
        struct file file = {.pid = v.pid, .on_first = is_running};
        struct os_take take = take_of(&v);
        take.live = cases[i].live;
        CHECK_EQ_INT(capture(cases[i].kind, &take, &file, &result, &f), 0);
        victim_end(&v);
        file_done(&file);
    }
}
