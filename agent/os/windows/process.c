/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding processes on Windows by Toolhelp. A process is pinned by its pid and the time of its
 * creation. Invariant: one that ends while it is looked at is left out. Called by the broker and
 * the worker.
 */
#include "agent/os/process.h"

#include <stdlib.h>
#include <windows.h>

#include <tlhelp32.h>

#include "common/text.h"

#define PROCESSES_MAX 32768

/* 0 for those whose times may not be seen. */
static uint64_t creation_time(uint32_t pid)
{
    FILETIME creation, ended, kernel, user;
    uint64_t time = 0;
    HANDLE handle = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, pid);
    if (!handle)
        return 0;
    if (GetProcessTimes(handle, &creation, &ended, &kernel, &user))
        time = (uint64_t)creation.dwHighDateTime << 32 | creation.dwLowDateTime;
    CloseHandle(handle);
    return time;
}

static void fill(const PROCESSENTRY32W *entry, struct os_process *out)
{
    *out = (struct os_process){.pid = entry->th32ProcessID, .threads = entry->cntThreads};
    out->start_ticks = creation_time(out->pid);
    if (!WideCharToMultiByte(CP_UTF8, 0, entry->szExeFile, -1, out->name, sizeof out->name, NULL,
                             NULL))
        (void)text_copy(out->name, sizeof out->name, "?");
}

static void lower(char *text)
{
    for (; *text; text++)
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
}

/* Names are compared without case, and ".exe" may be left out. */
static bool is_named(const char *name, const char *glob)
{
    char lower_name[OS_PROCESS_NAME_SIZE], lower_glob[OS_PROCESS_NAME_SIZE];
    char with_exe[OS_PROCESS_NAME_SIZE + 8];
    (void)text_copy(lower_name, sizeof lower_name, name);
    if (text_copy(lower_glob, sizeof lower_glob, glob) < 0)
        return false;
    lower(lower_name);
    lower(lower_glob);
    (void)text_format(with_exe, sizeof with_exe, "%s.exe", lower_glob);
    return text_glob(lower_glob, lower_name) || text_glob(with_exe, lower_name);
}

static bool matches(const struct os_process_filter *filter, const struct os_process *process,
                    DWORD parent)
{
    if (process->pid == 0 || process->pid == GetCurrentProcessId() ||
        parent == GetCurrentProcessId())
        return false;
    if (filter->pid != 0 && filter->pid != process->pid)
        return false;
    return !filter->name || !filter->name[0] || is_named(process->name, filter->name);
}

/* ---- the list ---- */

struct entry {
    struct os_process process;
    DWORD parent;
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->process.pid > y->process.pid) - (x->process.pid < y->process.pid);
}

static size_t read_entries(HANDLE snapshot, struct entry *entries)
{
    PROCESSENTRY32W entry = {.dwSize = sizeof entry};
    size_t count = 0;
    for (BOOL more = Process32FirstW(snapshot, &entry); more && count < PROCESSES_MAX;
         more = Process32NextW(snapshot, &entry)) {
        fill(&entry, &entries[count].process);
        entries[count++].parent = entry.th32ParentProcessID;
    }
    qsort(entries, count, sizeof *entries, compare_entries);
    return count;
}

/* All processes by rising pid, in memory that the caller frees. */
static int list(struct entry **out, size_t *count, struct failure *f)
{
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    if (snapshot == INVALID_HANDLE_VALUE)
        return fail(f, ERR_IO, "cannot list processes: error %lu", GetLastError());
    struct entry *entries = calloc(PROCESSES_MAX, sizeof *entries);
    if (entries) {
        *count = read_entries(snapshot, entries);
        *out = entries;
    }
    CloseHandle(snapshot);
    return entries ? 0 : fail(f, ERR_NOMEM, "out of memory listing processes");
}

int os_process_each(const char *root, const struct os_process_filter *filter,
                    os_process_each_fn each, void *context, struct failure *f)
{
    struct entry *entries;
    size_t count;
    (void)root;
    if (filter->port != 0 || (filter->unit && filter->unit[0]))
        return fail(f, ERR_UNSUPPORTED, "processes are not found by port or unit on Windows");
    if (filter->pid == 0 && (!filter->name || !filter->name[0]))
        return fail(f, ERR_INVALID, "no name, pid, unit or port to search processes by");
    int result = list(&entries, &count, f);
    if (result < 0)
        return result;
    for (size_t i = 0; i < count && result == 0; i++)
        if (matches(filter, &entries[i].process, entries[i].parent))
            result = each(context, &entries[i].process);
    free(entries);
    return result;
}

int os_process_get(const char *root, uint32_t pid, struct os_process *out, struct failure *f)
{
    struct entry *entries;
    size_t count;
    (void)root;
    int result = list(&entries, &count, f);
    if (result < 0)
        return result;
    result = ERR_GONE;
    for (size_t i = 0; i < count && result != 0; i++) {
        if (entries[i].process.pid != pid)
            continue;
        *out = entries[i].process;
        result = 0;
    }
    free(entries);
    return result == 0 ? 0 : fail(f, ERR_GONE, "no process %u", pid);
}
