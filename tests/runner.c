/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the tests of one program: `PROGRAM [--list] [NAME...]`. The child tells its verdict through
 * a shared page, not its exit code alone, so that a test that exits early, or checks nothing,
 * cannot pass. Linked to every unit test.
 */
#include "tests/check.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What parent and child share; the child's own children and threads write it too. */
struct verdict {
    atomic_uint checks;
    atomic_uint failures;
    atomic_int returned;
    atomic_int skipped;
    char why[240];
};

enum outcome { PASSED, FAILED, SKIPPED };

static struct check_test *tests;
static struct check_test **tests_end = &tests;
static struct verdict *verdict;

void check_register(struct check_test *test)
{
    *tests_end = test;
    tests_end = &test->next;
}

__attribute__((format(printf, 4, 5))) static int judge(int holds, const char *file, int line,
                                                       const char *format, ...)
{
    atomic_fetch_add(&verdict->checks, 1);
    if (holds)
        return 1;
    atomic_fetch_add(&verdict->failures, 1);
    va_list args;
    va_start(args, format);
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* One write a line: threads and children print too. */
    fprintf(stderr, "      %s:%d: not true: %s\n", file, line, text);
    return 0;
}

int check_true(int holds, const char *text, const char *file, int line)
{
    return judge(holds, file, line, "%s", text);
}

int check_int(intmax_t a, intmax_t b, const char *text, const char *file, int line)
{
    return judge(a == b, file, line, "%s (%" PRIdMAX " and %" PRIdMAX ")", text, a, b);
}

int check_str(const char *a, const char *b, const char *text, const char *file, int line)
{
    int same = a == b || (a && b && strcmp(a, b) == 0);
    return judge(same, file, line, "%s (\"%s\" and \"%s\")", text, a ? a : "(null)",
                 b ? b : "(null)");
}

int check_mem(const void *a, const void *b, size_t len, const char *text, const char *file,
              int line)
{
    if (len == 0)
        return judge(1, file, line, "%s", text);
    if (!a || !b)
        return judge(a == b, file, line, "%s (one of them is NULL)", text);
    const unsigned char *left = a, *right = b;
    size_t at = 0;
    while (at < len && left[at] == right[at])
        at++;
    return judge(at == len, file, line, "%s (byte %zu of %zu: 0x%02x and 0x%02x)", text, at, len,
                 at < len ? left[at] : 0u, at < len ? right[at] : 0u);
}

void check_abort(void)
{
    fflush(NULL);
    _exit(1);
}

void check_skip(const char *why)
{
    snprintf(verdict->why, sizeof verdict->why, "%s", why);
    atomic_store(&verdict->skipped, 1);
    fflush(NULL);
    _exit(0);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* In the child: never returns. exit(), not _exit(), so that the leak checker has its say. */
static _Noreturn void run_here(const struct check_test *test, const sigset_t *mask)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    test->run();
    atomic_store(&verdict->returned, 1);
    exit(0);
}

/* Waits for the child until the limit; returns 0, or -1 when it had to be killed. */
static int await(pid_t pid, unsigned limit_s, int *status)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    int64_t deadline = now_ms() + (int64_t)limit_s * 1000;
    while (waitpid(pid, status, WNOHANG) != pid) {
        int64_t left = deadline - now_ms();
        if (left <= 0) {
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            waitpid(pid, status, 0);
            return -1;
        }
        struct timespec wait = {left / 1000, (left % 1000) * 1000000};
        sigtimedwait(&child, NULL, &wait);
    }
    /* Whatever it left behind in its group goes with it. */
    kill(-pid, SIGKILL);
    return 0;
}

/* Says in `why` what came of a child that ended by itself. */
static enum outcome outcome_of(int status, char *why, size_t size)
{
    unsigned failures = atomic_load(&verdict->failures);
    why[0] = '\0';
    if (WIFSIGNALED(status))
        snprintf(why, size, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else if (failures)
        snprintf(why, size, "%u of %u checks", failures, atomic_load(&verdict->checks));
    else if (atomic_load(&verdict->skipped)) {
        snprintf(why, size, "%s", verdict->why);
        return SKIPPED;
    } else if (WEXITSTATUS(status) != 0)
        snprintf(why, size, "exit code %d", WEXITSTATUS(status));
    else if (!atomic_load(&verdict->returned))
        snprintf(why, size, "exited before its end");
    else if (atomic_load(&verdict->checks) == 0)
        snprintf(why, size, "checked nothing");
    else
        return PASSED;
    return FAILED;
}

static enum outcome run(const struct check_test *test)
{
    static const char *const words[] = {"ok   ", "FAIL ", "skip "};
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGCHLD);
    sigprocmask(SIG_BLOCK, &block, &before);
    memset(verdict, 0, sizeof *verdict);
    fflush(NULL);
    int64_t start = now_ms();
    pid_t pid = fork();
    if (pid == 0)
        run_here(test, &before);
    char why[300];
    enum outcome outcome = FAILED;
    int status;
    if (pid < 0)
        snprintf(why, sizeof why, "fork: %s", strerror(errno));
    else if (await(pid, test->limit_s, &status) != 0)
        snprintf(why, sizeof why, "not done after %u s", test->limit_s);
    else
        outcome = outcome_of(status, why, sizeof why);
    printf("%s %s (%" PRId64 " ms)%s%s\n", words[outcome], test->name, now_ms() - start,
           why[0] ? ": " : "", why);
    fflush(stdout);
    sigprocmask(SIG_SETMASK, &before,
                NULL); /* else the next test would begin with SIGCHLD blocked */
    return outcome;
}

/* Is this test among the names given? None given: all are. Marks the names that were found. */
static int chosen(const struct check_test *test, int argc, char **argv, char *found)
{
    int yes = argc < 2;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], test->name) == 0)
            yes = found[i] = 1;
    }
    return yes;
}

static int list(void)
{
    for (const struct check_test *test = tests; test; test = test->next)
        printf("%s\n", test->name);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0)
        return list();
    verdict =
        mmap(NULL, sizeof *verdict, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *found = calloc((size_t)argc + 1, 1);
    if (verdict == MAP_FAILED || !found)
        return 2;
    unsigned counts[3] = {0, 0, 0};
    for (const struct check_test *test = tests; test; test = test->next) {
        if (chosen(test, argc, argv, found))
            counts[run(test)]++;
    }
    for (int i = 1; i < argc; i++) {
        if (!found[i]) {
            printf("FAIL  no test '%s' (--list shows them)\n", argv[i]);
            counts[FAILED]++;
        }
    }
    free(found);
    printf("%u passed, %u failed, %u skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    return counts[FAILED] || counts[PASSED] + counts[SKIPPED] == 0 ? 1 : 0;
}
