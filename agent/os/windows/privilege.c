/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Privileges on Windows: the agent is one process so far, so that whatever needs a broker or a
 * worker says that it is not there. Invariant: nothing here reports success without having done it.
 * Called by agent/main.c.
 */
#include "agent/os/privilege.h"

#define PSAPI_VERSION 2 /* from kernel32 itself */
#include <windows.h>
#include <psapi.h>

#define NO_BROKER "the Windows agent has no broker yet"

/* True when the token of this process is elevated. */
bool os_is_privileged(void)
{
    HANDLE token;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token))
        return false;
    TOKEN_ELEVATION elevation = {0};
    DWORD size = 0;
    BOOL known =
        GetTokenInformation(token, TokenElevation, &elevation, (DWORD)sizeof elevation, &size);
    CloseHandle(token);
    return known && elevation.TokenIsElevated;
}

int os_broker_fork(int (*run)(int fd, void *context), void *context, int *fd, struct failure *f)
{
    (void)run;
    (void)context;
    (void)fd;
    return fail(f, ERR_UNSUPPORTED, NO_BROKER);
}

int os_drop_privileges(const char *user, struct failure *f)
{
    (void)user;
    return fail(f, ERR_UNSUPPORTED,
                "a Windows process cannot change its user: set the account of the service");
}

int os_give_directory(const char *path, const char *user, struct failure *f)
{
    (void)path;
    (void)user;
    return fail(f, ERR_UNSUPPORTED, "owners of folders are not changed on Windows yet");
}

int os_message_send(int fd, const void *message, size_t size_bytes, int pass_fd, struct failure *f)
{
    (void)fd;
    (void)message;
    (void)size_bytes;
    (void)pass_fd;
    return fail(f, ERR_UNSUPPORTED, NO_BROKER);
}

int os_message_receive(int fd, void *message, size_t size_bytes, int *passed_fd, int timeout_ms,
                       struct failure *f)
{
    (void)fd;
    (void)message;
    (void)size_bytes;
    (void)passed_fd;
    (void)timeout_ms;
    return fail(f, ERR_UNSUPPORTED, NO_BROKER);
}

int os_worker_start(struct os_worker *worker, uint64_t deadline_us, int (*run)(void *context),
                    void *context, struct failure *f)
{
    (void)worker;
    (void)deadline_us;
    (void)run;
    (void)context;
    return fail(f, ERR_UNSUPPORTED, "the Windows agent has no workers yet");
}

/* No worker was ever started, so each has ended. */
int os_worker_poll(struct os_worker *worker, int *exit_status)
{
    worker->pid = 0;
    *exit_status = 1;
    return 0;
}

void os_worker_kill(struct os_worker *worker)
{
    worker->pid = 0;
}

static uint64_t filetime_us(FILETIME time)
{
    return (((uint64_t)time.dwHighDateTime << 32) | time.dwLowDateTime) / 10;
}

void os_self_usage(uint64_t *cpu_us, uint64_t *private_bytes, uint64_t *resident_bytes)
{
    FILETIME created, ended, kernel, user;
    *cpu_us = 0;
    if (GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user))
        *cpu_us = filetime_us(kernel) + filetime_us(user);
    PROCESS_MEMORY_COUNTERS memory = {.cb = (DWORD)sizeof memory};
    GetProcessMemoryInfo(GetCurrentProcess(), &memory, (DWORD)sizeof memory);
    *private_bytes = memory.PagefileUsage;
    *resident_bytes = memory.WorkingSetSize;
}

void os_be_urgent(bool urgent)
{
    SetPriorityClass(GetCurrentProcess(),
                     urgent ? ABOVE_NORMAL_PRIORITY_CLASS : NORMAL_PRIORITY_CLASS);
}

void os_be_nice(void)
{
    SetPriorityClass(GetCurrentProcess(), PROCESS_MODE_BACKGROUND_BEGIN);
}
