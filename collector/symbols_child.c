/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child that reads ELF and DWARF, which come from outside: crashing or lasting for ever is then
 * only a refusal. Limits are set before the first byte is read. Invariant: with three descriptors
 * open and no more allowed it can open no file and no socket, whatever code would run in it.
 */
#include "collector/symbols_child.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "collector/symbols_read.h"

#define NOBODY 65534
#define NICE 10
#define MIB ((rlim_t)1 << 20)
#define TABLE_MIB_MAX 260
#define FIRST_OTHER_FD 3

/* A sanitizer reserves far more addresses than any limit; it has limits of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED true
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED false
#endif

static int limit(int resource, rlim_t value)
{
    struct rlimit l = {value, value};
    return setrlimit(resource, &l);
}

static int set_limits(void)
{
    int failed = limit(RLIMIT_CPU, SYMBOLS_CHILD_CPU_S) | limit(RLIMIT_CORE, 0) |
                 limit(RLIMIT_FSIZE, TABLE_MIB_MAX * MIB) | limit(RLIMIT_NOFILE, FIRST_OTHER_FD);
    if (!IS_SANITIZED)
        failed |= limit(RLIMIT_DATA, SYMBOLS_CHILD_MEMORY_MIB * MIB);
    return failed;
}

static int drop_privileges(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    if (geteuid() != 0)
        return 0;
    if (setgroups(0, NULL) != 0 || setregid(NOBODY, NOBODY) != 0 || setreuid(NOBODY, NOBODY) != 0)
        return -1;
    return 0;
}

static int write_at(const void *data, size_t size_bytes, uint64_t at)
{
    const uint8_t *bytes = data;
    for (size_t done = 0; done < size_bytes;) {
        ssize_t n = pwrite(STDOUT_FILENO, bytes + done, size_bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? err_from_errno(errno) : ERR_IO;
        done += (size_t)n;
    }
    return 0;
}

static int take_page(void *context, uint32_t no, struct span bytes)
{
    (void)context;
    if (no != UINT32_MAX)
        return write_at(bytes.data, bytes.size_bytes,
                        SYMBOLS_ROOT_ROOM + (uint64_t)no * SYMBOLS_PAGE_BYTES);
    uint8_t size[4];
    for (size_t i = 0; i < sizeof size; i++)
        size[i] = (uint8_t)(bytes.size_bytes >> (8 * i));
    int r = write_at(size, sizeof size, 0);
    return r ? r : write_at(bytes.data, bytes.size_bytes, sizeof size);
}

/* No exit handlers: a sanitizer's search for leaks would want to start a thread. */
void symbols_child_main(void)
{
    struct failure f = {0};
    signal(SIGXFSZ, SIG_IGN);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    closefrom(FIRST_OTHER_FD);
    if (nice(NICE) == -1)
        errno = 0; /* it may be there already */
    if (drop_privileges() || set_limits())
        fail(&f, ERR_DENIED, "the reader's limits cannot be set");
    else
        symbols_read(STDIN_FILENO, take_page, NULL, &f);
    if (f.code)
        dprintf(STDERR_FILENO, SYMBOLS_CHILD_WHY "%s\n", f.text);
    _exit(f.code ? 1 : 0);
}
