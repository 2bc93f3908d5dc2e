/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes are never held, and what is said of them. That none of them was touched is seen
 * by what they do afterwards, or by our still being there.
 */
#include "agent/os/linux/stop.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#include "tests/unit/os/victim.h"

#define PAUSE_MAX_US 2000000

static int do_nothing(void *context, struct stop *stop)
{
    (void)context;
    (void)stop;
    return 0;
}

static void check_refused(uint32_t pid, int code, const char *words)
{
    struct os_process process;
    struct stop stop;
    struct failure f = {0, ""};
    REQUIRE(os_process_get("", pid, &process, NULL) == 0);
    CHECK_EQ_INT(stop_open(&stop, &process, &f), code);
    CHECK(strstr(f.text, words) != NULL);
    if (!strstr(f.text, words))
        printf("      '%s' is not in '%s'\n", words, f.text);
}

TEST(some_are_never_held)
{
    check_refused(1, ERR_REFUSED, "pid 1");
    check_refused((uint32_t)getpid(), ERR_REFUSED, "ourselves");
    check_refused((uint32_t)getppid(), ERR_REFUSED, "ourselves");
}

TEST(a_kernel_thread_is_refused)
{
    struct os_process process;
    if (os_process_get("", 2, &process, NULL) != 0 || strcmp(process.name, "kthreadd") != 0)
        SKIP("no kernel threads are visible here");
    check_refused(2, ERR_REFUSED, "kernel thread");
}

TEST(another_process_of_the_same_pid_is_refused)
{
    struct victim v;
    struct stop stop;
    struct failure f = {0, ""};
    victim_start(&v, "idle", NULL, NULL);
    v.process.start_ticks++;
    CHECK_EQ_INT(stop_open(&stop, &v.process, &f), ERR_GONE);
    CHECK(strstr(f.text, "another one") != NULL);
    v.process.start_ticks--;
    victim_end(&v);
    CHECK_EQ_INT(stop_open(&stop, &v.process, &f), ERR_GONE);
}

/* Exec'ed or reaped between the checks and the hold. */
TEST(a_process_that_ends_after_the_checks_is_gone)
{
    struct victim v;
    struct stop stop;
    struct failure f = {0, ""};
    victim_start(&v, "idle", NULL, NULL);
    REQUIRE(stop_open(&stop, &v.process, &f) == 0);
    victim_end(&v);
    CHECK_EQ_INT(stop_run(&stop, PAUSE_MAX_US, do_nothing, NULL, NULL, &f), ERR_GONE);
    CHECK_EQ_INT(stop.pause_us, 0);
    stop_close(&stop);
}

TEST(a_traced_process_is_refused)
{
    struct victim v;
    int pair[2];
    char byte;
    victim_start(&v, "idle", NULL, NULL);
    REQUIRE(pipe(pair) == 0);
    pid_t tracer = fork();
    if (tracer == 0) {
        if (ptrace(PTRACE_SEIZE, v.pid, 0, 0) == 0)
            (void)!write(pair[1], "t", 1);
        for (;;)
            pause();
    }
    REQUIRE(read(pair[0], &byte, 1) == 1);
    char words[64];
    snprintf(words, sizeof words, "already traced by pid %d", tracer);
    check_refused((uint32_t)v.pid, ERR_REFUSED, words);
    kill(tracer, SIGKILL);
    waitpid(tracer, NULL, 0);
    struct stop stop;
    REQUIRE(stop_open(&stop, &v.process, NULL) == 0);
    CHECK_EQ_INT(stop_run(&stop, PAUSE_MAX_US, do_nothing, NULL, NULL, NULL), 0);
    stop_close(&stop);
    victim_end(&v);
}

/* mov $29, %eax (pause); int $0x80; jmp to the beginning: a whole 32-bit program. */
static const uint8_t pause32[] = {0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7};

static void write_program32(const char *path)
{
    struct {
        Elf32_Ehdr head;
        Elf32_Phdr part;
        uint8_t code[16];
    } file = {.head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                       .e_type = ET_EXEC,
                       .e_machine = EM_386,
                       .e_version = EV_CURRENT,
                       .e_entry = 0x10000 + sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr),
                       .e_phoff = sizeof(Elf32_Ehdr),
                       .e_ehsize = sizeof(Elf32_Ehdr),
                       .e_phentsize = sizeof(Elf32_Phdr),
                       .e_phnum = 1},
              .part = {.p_type = PT_LOAD,
                       .p_vaddr = 0x10000,
                       .p_filesz = sizeof file,
                       .p_memsz = sizeof file,
                       .p_flags = PF_R | PF_X,
                       .p_align = 0x1000}};
    memcpy(file.code, pause32, sizeof pause32);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    REQUIRE(fd >= 0 && write(fd, &file, sizeof file) == (ssize_t)sizeof file);
    close(fd);
}

TEST(a_32_bit_process_is_refused)
{
    char path[] = "/tmp/trawl-test-32-XXXXXX";
    int fd = mkstemp(path), status, ready[2];
    REQUIRE(fd >= 0 && pipe2(ready, O_CLOEXEC) == 0);
    close(fd);
    write_program32(path);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(path, "pause32", (char *)NULL);
        _exit(127);
    }
    /* The pipe closes when the program was started. */
    char byte;
    close(ready[1]);
    (void)!read(ready[0], &byte, 1);
    unlink(path);
    /* It sleeps, if there are 32-bit programs here; if not, it has ended. */
    struct victim v = {.pid = pid};
    int traced, ended = 0;
    for (int i = 0; i < VICTIM_AWAIT_MS && !ended && victim_count(&v, 'S', &traced) == 0; i++) {
        nap_ms(1);
        ended = waitpid(pid, &status, WNOHANG) == pid;
    }
    if (ended)
        SKIP("this kernel runs no 32-bit programs");
    check_refused((uint32_t)pid, ERR_UNSUPPORTED, "not a 64-bit");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

TEST(another_users_process_is_denied)
{
    struct victim v;
    int status;
    if (geteuid() != 0)
        SKIP("needs root to become somebody else");
    victim_start(&v, "idle", NULL, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct stop stop;
        struct failure f = {0, ""};
        int failed = setgid(65534) || setuid(65534);
        _exit(failed || stop_open(&stop, &v.process, &f) != ERR_DENIED);
    }
    CHECK_EQ_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    victim_end(&v);
}
