/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h on Windows 10 and later (Server 2016). Paths are UTF-8 and become UTF-16 here. Invariant:
 * as in port_posix.c, no handle is inherited, and what fails leaves neither a handle nor a
 * temporary file. Called by the agent and the cli. Links with advapi32, bcrypt and mincore.
 */
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0A00
#endif
#include "common/port.h"

#include <assert.h>
#include <io.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

#include <aclapi.h>
#include <bcrypt.h>
#include <realtimeapiset.h>
#include <sddl.h>

#include "common/text.h"

#define READ_BYTES 16384
#define PATH_CHARACTERS 1024
#define REASON_SIZE 192
/* 100 ns intervals from 1601-01-01 to 1970-01-01. */
#define EPOCH_TICKS INT64_C(116444736000000000)
/* Full access for the owner, the system and administrators; nothing inherited. */
#define PRIVATE_SDDL L"D:P(A;;FA;;;OW)(A;;FA;;;SY)(A;;FA;;;BA)"

/* ---- time and random ---- */

uint64_t port_mono_us(void)
{
    ULONGLONG ticks;
    QueryInterruptTimePrecise(&ticks);
    return ticks / 10;
}

int64_t port_wall_us(void)
{
    FILETIME ft;
    GetSystemTimePreciseAsFileTime(&ft);
    int64_t ticks = (int64_t)((uint64_t)ft.dwHighDateTime << 32 | ft.dwLowDateTime);
    return (ticks - EPOCH_TICKS) / 10;
}

void port_random(void *out, size_t size_bytes)
{
    uint8_t *at = out;
    while (size_bytes > 0) {
        ULONG n = size_bytes < READ_BYTES ? (ULONG)size_bytes : READ_BYTES;
        if (BCryptGenRandom(NULL, at, n, BCRYPT_USE_SYSTEM_PREFERRED_RNG) != 0)
            abort();
        at += n;
        size_bytes -= n;
    }
}

/* ---- errors and paths ---- */

static int err_from_windows(DWORD code)
{
    switch (code) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_BAD_NETPATH:
        return ERR_NOTFOUND;
    case ERROR_ACCESS_DENIED:
    case ERROR_WRITE_PROTECT:
    case ERROR_PRIVILEGE_NOT_HELD:
        return ERR_DENIED;
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
        return ERR_BUSY;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
        return ERR_FULL;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_COMMITMENT_LIMIT:
        return ERR_NOMEM;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
        return ERR_EXISTS;
    case ERROR_INVALID_NAME:
    case ERROR_INVALID_PARAMETER:
    case ERROR_DIRECTORY:
        return ERR_INVALID;
    case ERROR_TOO_MANY_OPEN_FILES:
    case ERROR_FILENAME_EXCED_RANGE:
    case ERROR_BUFFER_OVERFLOW:
        return ERR_LIMIT;
    case ERROR_NOT_SUPPORTED:
    case ERROR_INVALID_FUNCTION:
        return ERR_UNSUPPORTED;
    default:
        return ERR_IO;
    }
}

/* The system's words for a code, without their full stop and line end; else the number. */
static void put_reason(DWORD code, char *out, size_t size_bytes)
{
    wchar_t wide[REASON_SIZE / 3];
    DWORD flags =
        FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS | FORMAT_MESSAGE_MAX_WIDTH_MASK;
    DWORD length = FormatMessageW(flags, NULL, code, 0, wide, sizeof wide / sizeof wide[0], NULL);
    while (length > 0 && wcschr(L". \r\n", wide[length - 1]))
        length--;
    int n = length ? WideCharToMultiByte(CP_UTF8, 0, wide, (int)length, out, (int)size_bytes - 1,
                                         NULL, NULL)
                   : 0;
    out[n] = '\0';
    if (n == 0)
        text_format(out, size_bytes, "Windows error %lu", (unsigned long)code);
}

static int fail_code(struct failure *f, DWORD code, const char *action, const char *path)
{
    char reason[REASON_SIZE];
    put_reason(code, reason, sizeof reason);
    return fail(f, err_from_windows(code), "cannot %s '%s': %s", action, path, reason);
}

static int fail_path(struct failure *f, const char *action, const char *path)
{
    return fail_code(f, GetLastError(), action, path);
}

static int widen(const char *path, wchar_t out[PATH_CHARACTERS], struct failure *f)
{
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, PATH_CHARACTERS);
    if (n > 0)
        return 0;
    if (GetLastError() == ERROR_INSUFFICIENT_BUFFER)
        return fail(f, ERR_LIMIT, "path too long: '%s'", path);
    return fail(f, ERR_INVALID, "path is not UTF-8: '%s'", path);
}

/* CreateFileW with the private rights for what it creates, where they are wanted. */
static HANDLE create_file(const wchar_t *path, DWORD access, DWORD share, DWORD how,
                          bool private_mode)
{
    SECURITY_ATTRIBUTES attributes = {.nLength = sizeof attributes};
    PSECURITY_DESCRIPTOR descriptor = NULL;
    if (private_mode) {
        if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(PRIVATE_SDDL, SDDL_REVISION_1,
                                                                  &descriptor, NULL))
            return INVALID_HANDLE_VALUE;
        attributes.lpSecurityDescriptor = descriptor;
    }
    HANDLE h = CreateFileW(path, access, share, &attributes, how, FILE_ATTRIBUTE_NORMAL, NULL);
    DWORD code = GetLastError();
    LocalFree(descriptor);
    SetLastError(code);
    return h;
}

/* ---- mapped files ---- */

static bool set_length(HANDLE file, uint64_t size_bytes)
{
    LARGE_INTEGER length = {.QuadPart = (LONGLONG)size_bytes};
    return SetFilePointerEx(file, length, NULL, FILE_BEGIN) && SetEndOfFile(file);
}

/* NTFS gives a file that is not sparse its clusters with its length, and reads them as zeros. */
static int give_size(HANDLE file, const char *path, size_t size_bytes, bool *fresh,
                     struct failure *f)
{
    LARGE_INTEGER present;
    if (!GetFileSizeEx(file, &present))
        return fail_path(f, "examine", path);
    bool is_fresh = (uint64_t)present.QuadPart != size_bytes;
    if (is_fresh && (!set_length(file, 0) || !set_length(file, size_bytes))) {
        int r = fail_path(f, "allocate", path);
        (void)set_length(file, 0);
        return r;
    }
    *fresh = is_fresh;
    return 0;
}

static int map_file(HANDLE file, const char *path, size_t size_bytes, uint8_t **data, bool *fresh,
                    struct failure *f)
{
    bool is_fresh = false;
    int r = give_size(file, path, size_bytes, &is_fresh, f);
    if (r < 0)
        return r;
    HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READWRITE, 0, 0, NULL);
    if (!mapping)
        return fail_path(f, "map", path);
    void *at = MapViewOfFile(mapping, FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, size_bytes);
    if (!at)
        r = fail_path(f, "map", path);
    CloseHandle(mapping); /* the view keeps it */
    if (r < 0)
        return r;
    *data = at;
    *fresh = is_fresh;
    return 0;
}

int port_map_open(struct port_map *map, const char *path, size_t size_bytes, bool *fresh,
                  struct failure *f)
{
    assert(size_bytes > 0 && size_bytes <= INTPTR_MAX);
    wchar_t wide[PATH_CHARACTERS];
    int r = widen(path, wide, f);
    if (r < 0)
        return r;
    /* Sharing for readers only is the lock: a second writer gets a sharing violation. */
    HANDLE file =
        create_file(wide, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ, OPEN_ALWAYS, true);
    if (file == INVALID_HANDLE_VALUE)
        return fail_path(f, "open", path);
    uint8_t *data = NULL;
    r = map_file(file, path, size_bytes, &data, fresh, f);
    if (r < 0) {
        CloseHandle(file);
        return r;
    }
    *map = (struct port_map){.data = data, .size_bytes = size_bytes, .handle = (intptr_t)file};
    return 0;
}

void port_map_close(struct port_map *map)
{
    if (!map->data)
        return;
    UnmapViewOfFile(map->data);
    CloseHandle((HANDLE)map->handle);
    *map = (struct port_map){0};
}

/* ---- reading ---- */

/* Appends what one read gives. 1: more may follow, 0: the end. At the limit only the end is fine.
 */
static int read_piece(HANDLE file, const char *path, struct buf *b, struct failure *f)
{
    uint8_t beyond, *room = &beyond;
    size_t left = b->limit_bytes - b->size_bytes;
    size_t wanted = left < READ_BYTES ? left : READ_BYTES;
    DWORD n;
    if (wanted > 0 && buf_reserve(b, wanted, &room) < 0)
        return fail(f, ERR_NOMEM, "cannot read '%s': out of memory", path);
    if (!ReadFile(file, room, wanted > 0 ? (DWORD)wanted : 1, &n, NULL))
        return fail_path(f, "read", path);
    if (n > 0 && wanted == 0)
        return fail(f, ERR_LIMIT, "cannot read '%s': larger than %zu bytes", path, b->limit_bytes);
    buf_commit(b, n);
    return n > 0;
}

int port_read_file(const char *path, struct buf *b, struct failure *f)
{
    wchar_t wide[PATH_CHARACTERS];
    int r = widen(path, wide, f);
    if (r < 0)
        return r;
    DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    HANDLE file = create_file(wide, GENERIC_READ, share, OPEN_EXISTING, false);
    if (file == INVALID_HANDLE_VALUE)
        return fail_path(f, "open", path);
    size_t start = b->size_bytes;
    do
        r = read_piece(file, path, b, f);
    while (r > 0);
    if (r < 0)
        b->size_bytes = start;
    CloseHandle(file);
    return r;
}

/* ---- writing ---- */

static bool write_all(HANDLE file, struct span data)
{
    while (data.size_bytes > 0) {
        DWORD wanted = data.size_bytes < READ_BYTES ? (DWORD)data.size_bytes : READ_BYTES;
        DWORD n;
        if (!WriteFile(file, data.data, wanted, &n, NULL))
            return false;
        data = span_of(data.data + n, data.size_bytes - n);
    }
    return true;
}

/* A name nobody guesses, in the same directory, so that the rename stays on one volume. */
static int temporary_path(const char *path, char *out, size_t size_bytes, struct failure *f)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    port_random(random, sizeof random);
    text_put_hex(random, sizeof random, hex);
    if (text_format(out, size_bytes, "%s.%s.tmp", path, hex) < 0)
        return fail(f, ERR_LIMIT, "path too long: '%s'", path);
    return 0;
}

/* Makes the file with everything in it and on the disk, or not at all. */
static int write_new(const wchar_t *wide, const char *path, struct span data, bool private_mode,
                     struct failure *f)
{
    HANDLE file = create_file(wide, GENERIC_WRITE, 0, CREATE_NEW, private_mode);
    if (file == INVALID_HANDLE_VALUE)
        return fail_path(f, "create", path);
    int r = 0;
    if (!write_all(file, data) || !FlushFileBuffers(file))
        r = fail_path(f, "write", path);
    CloseHandle(file);
    if (r < 0)
        DeleteFileW(wide);
    return r;
}

/* MOVEFILE_WRITE_THROUGH stands for the fsync of the directory. */
static int replace(const wchar_t *from, const wchar_t *to, const char *path, struct failure *f)
{
    if (MoveFileExW(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
        return 0;
    int r = fail_path(f, "replace", path);
    DeleteFileW(from);
    return r;
}

int port_write_file(const char *path, struct span data, bool private_mode, struct failure *f)
{
    char temporary[PATH_CHARACTERS * 3];
    wchar_t from[PATH_CHARACTERS], to[PATH_CHARACTERS];
    int r = temporary_path(path, temporary, sizeof temporary, f);
    if (r == 0)
        r = widen(temporary, from, f);
    if (r == 0)
        r = widen(path, to, f);
    if (r == 0)
        r = write_new(from, temporary, data, private_mode, f);
    if (r == 0)
        r = replace(from, to, path, f);
    return r;
}

/* ---- directories, existence, rights ---- */

static bool is_directory(const wchar_t *path)
{
    DWORD attributes = GetFileAttributesW(path);
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);
}

static bool make_dir(const wchar_t *path)
{
    SECURITY_ATTRIBUTES attributes = {.nLength = sizeof attributes};
    PSECURITY_DESCRIPTOR descriptor = NULL;
    /* OICI: what is made inside inherits the same rights. */
    static const wchar_t sddl[] = L"D:P(A;OICI;FA;;;OW)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)";
    if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, SDDL_REVISION_1, &descriptor,
                                                              NULL))
        return false;
    attributes.lpSecurityDescriptor = descriptor;
    bool made = CreateDirectoryW(path, &attributes);
    DWORD code = GetLastError();
    LocalFree(descriptor);
    SetLastError(code);
    return made;
}

/* What a parent answers does not matter while the whole path ends as a directory. */
int port_make_dirs(const char *path, struct failure *f)
{
    wchar_t part[PATH_CHARACTERS];
    int r = widen(path, part, f);
    if (r < 0)
        return r;
    for (wchar_t *at = part; *at; at++) {
        wchar_t separator = *at;
        if (at == part || (separator != L'\\' && separator != L'/'))
            continue;
        *at = L'\0';
        (void)make_dir(part);
        *at = separator;
    }
    if (make_dir(part) || is_directory(part))
        return 0;
    return fail_path(f, "create directory", path);
}

bool port_exists(const char *path)
{
    wchar_t wide[PATH_CHARACTERS];
    return widen(path, wide, NULL) == 0 && GetFileAttributesW(wide) != INVALID_FILE_ATTRIBUTES;
}

static bool is_trusted(PSID sid, PSID owner)
{
    return EqualSid(sid, owner) || IsWellKnownSid(sid, WinLocalSystemSid) ||
           IsWellKnownSid(sid, WinBuiltinAdministratorsSid) ||
           IsWellKnownSid(sid, WinCreatorOwnerRightsSid);
}

/* An entry that lets somebody other than the owner, the system or administrators at the file. */
static bool opens_to_others(void *entry, PSID owner)
{
    const ACCESS_ALLOWED_ACE *ace = entry;
    const DWORD access = FILE_READ_DATA | FILE_WRITE_DATA | FILE_APPEND_DATA | WRITE_DAC |
                         WRITE_OWNER | GENERIC_READ | GENERIC_WRITE | GENERIC_ALL;
    if (ace->Header.AceType != ACCESS_ALLOWED_ACE_TYPE || !(ace->Mask & access))
        return false;
    return !is_trusted((PSID)(uintptr_t)&ace->SidStart, owner);
}

/* A file without a list is open to everybody. */
static bool is_open_to_others(PACL list, PSID owner)
{
    if (!list)
        return true;
    for (DWORD i = 0; i < list->AceCount; i++) {
        void *entry;
        if (!GetAce(list, i, &entry) || opens_to_others(entry, owner))
            return true;
    }
    return false;
}

int port_check_private(const char *path, struct failure *f)
{
    wchar_t wide[PATH_CHARACTERS];
    int r = widen(path, wide, f);
    if (r < 0)
        return r;
    PSID owner;
    PACL list;
    PSECURITY_DESCRIPTOR descriptor;
    DWORD code = GetNamedSecurityInfoW(wide, SE_FILE_OBJECT,
                                       OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                                       &owner, NULL, &list, NULL, &descriptor);
    if (code != ERROR_SUCCESS)
        return fail_code(f, code, "examine", path);
    bool is_open = is_open_to_others(list, owner);
    LocalFree(descriptor);
    if (is_open)
        return fail(
            f, ERR_UNSAFE_KEY,
            "key file '%s' is open to others: icacls it /inheritance:r /grant:r *S-1-5-18:F", path);
    return 0;
}

int port_lock_file(const char *path, struct failure *f)
{
    wchar_t wide[PATH_CHARACTERS];
    int r = widen(path, wide, f);
    if (r < 0)
        return r;
    HANDLE file = create_file(wide, GENERIC_READ | GENERIC_WRITE, 0, OPEN_ALWAYS, true);
    if (file != INVALID_HANDLE_VALUE)
        return 0; /* stays open on purpose: it is the lock */
    if (GetLastError() == ERROR_SHARING_VIOLATION)
        return fail(f, ERR_BUSY, "cannot lock '%s': another process holds it", path);
    return fail_path(f, "open", path);
}

/* ---- the machine ---- */

void port_close(int fd)
{
    if (fd >= 0)
        (void)_close(fd);
}

int port_host_name(char *out, size_t size_bytes)
{
    wchar_t wide[256];
    char name[768];
    DWORD length = sizeof wide / sizeof wide[0];
    if (!GetComputerNameExW(ComputerNameDnsHostname, wide, &length))
        return err_from_windows(GetLastError());
    if (WideCharToMultiByte(CP_UTF8, 0, wide, -1, name, sizeof name, NULL, NULL) == 0)
        return ERR_INVALID;
    name[strcspn(name, ".")] = '\0';
    for (char *c = name; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + ('a' - 'A'));
    return text_copy(out, size_bytes, name);
}
