/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The build-id of a dying program, from the first page of its file as it was mapped, which is among
 * what was copied. Invariant: the page is the crashed process' own and may say anything; nothing
 * outside of it is looked at, and no file is read. Called by agent/crash_wants.c.
 */
#include <elf.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "agent/os/linux/crash_build_id.h"
#include "agent/os/linux/crash_linux.h"

#define NOTES_MAX 64    /* in one segment */
#define SEGMENTS_MAX 64 /* of one file */

/* Notes are padded to 4 bytes, names and descriptions alike (gABI, "Note Section"). */
static size_t padded(uint32_t bytes)
{
    return ((size_t)bytes + 3) & ~(size_t)3;
}

static size_t find_in_notes(struct span notes, uint8_t *out, size_t most)
{
    for (int i = 0; i < NOTES_MAX && notes.size_bytes >= sizeof(Elf64_Nhdr); i++) {
        Elf64_Nhdr n;
        memcpy(&n, notes.data, sizeof n);
        size_t name = padded(n.n_namesz), all = sizeof n + name + padded(n.n_descsz);
        if (n.n_namesz > notes.size_bytes || n.n_descsz > notes.size_bytes ||
            all > notes.size_bytes)
            return 0;
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == sizeof ELF_NOTE_GNU &&
            memcmp(notes.data + sizeof n, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0) {
            size_t bytes = n.n_descsz < most ? n.n_descsz : most;
            memcpy(out, notes.data + sizeof n + name, bytes);
            return bytes;
        }
        notes = span_of(notes.data + all, notes.size_bytes - all);
    }
    return 0;
}

size_t crash_find_build_id(struct span page, uint8_t *out, size_t most)
{
    Elf64_Ehdr e;
    if (page.size_bytes < sizeof e || memcmp(page.data, ELFMAG, SELFMAG) != 0 ||
        page.data[EI_CLASS] != ELFCLASS64)
        return 0;
    memcpy(&e, page.data, sizeof e);
    for (size_t i = 0; i < e.e_phnum && i < SEGMENTS_MAX; i++) {
        Elf64_Phdr p;
        uint64_t left = e.e_phoff < page.size_bytes ? page.size_bytes - e.e_phoff : 0;
        if (e.e_phentsize != sizeof p || left < (i + 1) * sizeof p)
            return 0;
        memcpy(&p, page.data + e.e_phoff + i * sizeof p, sizeof p);
        if (p.p_type != PT_NOTE || p.p_offset >= page.size_bytes)
            continue;
        uint64_t most_notes = page.size_bytes - p.p_offset;
        size_t bytes = (size_t)(p.p_filesz < most_notes ? p.p_filesz : most_notes);
        size_t found = find_in_notes(span_of(page.data + p.p_offset, bytes), out, most);
        if (found)
            return found;
    }
    return 0;
}

static bool is_executable(const struct os_crash *c, const struct map *map)
{
    return map->offset == 0 && map->inode == c->exe_inode &&
           map->device_major == major(c->exe_device) && map->device_minor == minor(c->exe_device);
}

size_t os_crash_build_id(const struct os_crash *c, uint8_t *out, size_t most)
{
    if (!c->has_memory || c->exe_inode == 0)
        return 0;
    for (size_t i = 0; i < c->dump.maps.count; i++) {
        const struct map *map = &c->dump.maps.list[i];
        if (!is_executable(c, map))
            continue;
        const uint8_t *page = copies_find(&c->dump.copies, map->start);
        return page ? crash_find_build_id(span_of(page, SEGMENTS_PAGE), out, most) : 0;
    }
    return 0;
}
