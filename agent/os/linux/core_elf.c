/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers and notes of a core file. Invariant: every note is padded to 4 bytes, and
 * core_thread_notes_bytes() is what core_thread_notes() appends. Pure. Called by dump_write.c.
 */
#include "agent/os/linux/core_elf.h"

#include <assert.h>
#include <string.h>
#include <sys/procfs.h>

#include "agent/os/linux/segments.h"
#include "common/text.h"

#define NOTE_ALIGN 4u
#define OWNER "CORE"
#define OWNER_LINUX "LINUX"
#define ADDRESS_BYTES 8

static uint64_t padded(uint64_t bytes)
{
    return (bytes + NOTE_ALIGN - 1) & ~(uint64_t)(NOTE_ALIGN - 1);
}

static uint64_t page_up(uint64_t offset)
{
    return (offset + CORE_PAGE - 1) & ~(uint64_t)(CORE_PAGE - 1);
}

/* ---- notes ---- */

static uint64_t note_bytes(const char *owner, uint64_t bytes)
{
    return sizeof(Elf64_Nhdr) + padded(strlen(owner) + 1) + padded(bytes);
}

static int put_padding(struct buf *out, uint64_t bytes)
{
    static const uint8_t zeros[NOTE_ALIGN];
    return buf_append(out, zeros, (size_t)(padded(bytes) - bytes));
}

static int put_note_head(struct buf *out, const char *owner, uint32_t type, uint64_t bytes)
{
    size_t owner_bytes = strlen(owner) + 1;
    Elf64_Nhdr head = {(Elf64_Word)owner_bytes, (Elf64_Word)bytes, type};
    if (bytes > UINT32_MAX)
        return ERR_LIMIT;
    int rc = buf_append(out, &head, sizeof head);
    if (rc == 0)
        rc = buf_append(out, owner, owner_bytes);
    return rc ? rc : put_padding(out, owner_bytes);
}

static int put_note(struct buf *out, const char *owner, uint32_t type, struct span content)
{
    int rc = put_note_head(out, owner, type, content.size_bytes);
    if (rc == 0)
        rc = buf_append_span(out, content);
    return rc ? rc : put_padding(out, content.size_bytes);
}

/* ---- the process ---- */

/* As the kernel numbers them: the letter's place here. */
static char state_number(char letter)
{
    static const char letters[] = "RSDTZW";
    const char *found = strchr(letters, letter == 't' ? 'T' : letter);
    return (char)(found && letter ? found - letters : 0);
}

static int put_process(struct buf *out, const struct core_process *process)
{
    struct elf_prpsinfo info;
    memset(&info, 0, sizeof info);
    info.pr_state = state_number(process->state);
    info.pr_sname = process->state;
    info.pr_zomb = process->state == 'Z';
    info.pr_uid = process->uid;
    info.pr_gid = process->gid;
    info.pr_pid = process->pid;
    info.pr_ppid = process->parent;
    info.pr_pgrp = process->group;
    info.pr_sid = process->session;
    text_copy(info.pr_fname, sizeof info.pr_fname, process->name);
    text_copy(info.pr_psargs, sizeof info.pr_psargs, process->arguments);
    return put_note(out, OWNER, NT_PRPSINFO, span_of(&info, sizeof info));
}

/* Shared memory is not in a file that a reader could open. */
static bool is_file(const struct maps *maps, const struct map *map)
{
    return map->inode != 0 && maps_path(maps, map)[0] == '/' &&
           !segment_is_shared_memory(maps, map);
}

/* NT_FILE: count, page size, (start, end, offset in pages) of each, then the paths. */
static int put_files(struct buf *out, const struct maps *maps)
{
    uint64_t count = 0, bytes = 2 * ADDRESS_BYTES;
    for (size_t i = 0; i < maps->count; i++) {
        if (!is_file(maps, &maps->list[i]))
            continue;
        count++;
        bytes += 3 * ADDRESS_BYTES + strlen(maps_path(maps, &maps->list[i])) + 1;
    }
    int rc = put_note_head(out, OWNER, NT_FILE, bytes);
    const uint64_t head[2] = {count, CORE_PAGE};
    if (rc == 0)
        rc = buf_append(out, head, sizeof head);
    for (size_t i = 0; rc == 0 && i < maps->count; i++) {
        const struct map *map = &maps->list[i];
        const uint64_t place[3] = {map->start, map->end, map->offset / CORE_PAGE};
        if (is_file(maps, map))
            rc = buf_append(out, place, sizeof place);
    }
    for (size_t i = 0; rc == 0 && i < maps->count; i++) {
        const char *path = maps_path(maps, &maps->list[i]);
        if (is_file(maps, &maps->list[i]))
            rc = buf_append(out, path, strlen(path) + 1);
    }
    return rc ? rc : put_padding(out, bytes);
}

int core_process_notes(struct buf *out, const struct core_process *process, struct span auxv,
                       const struct maps *maps)
{
    int rc = put_process(out, process);
    if (rc == 0 && auxv.size_bytes > 0)
        rc = put_note(out, OWNER, NT_AUXV, auxv);
    return rc ? rc : put_files(out, maps);
}

/* ---- a thread ---- */

static int put_status(struct buf *out, const struct core_thread *thread)
{
    struct elf_prstatus status;
    memset(&status, 0, sizeof status);
    status.pr_info.si_signo = thread->signal;
    status.pr_cursig = (short)thread->signal;
    status.pr_sigpend = thread->pending;
    status.pr_sighold = thread->blocked;
    status.pr_pid = thread->tid;
    status.pr_ppid = thread->process->parent;
    status.pr_pgrp = thread->process->group;
    status.pr_sid = thread->process->session;
    status.pr_fpvalid = thread->fp != NULL;
    _Static_assert(sizeof status.pr_reg == sizeof *thread->regs, "the kernel's order of registers");
    memcpy(&status.pr_reg, thread->regs, sizeof status.pr_reg);
    return put_note(out, OWNER, NT_PRSTATUS, span_of(&status, sizeof status));
}

int core_thread_notes(struct buf *out, const struct core_thread *thread, struct span process)
{
    int rc = put_status(out, thread);
    if (rc == 0)
        rc = buf_append_span(out, process);
    if (rc == 0 && thread->info)
        rc = put_note(out, OWNER, NT_SIGINFO, span_of(thread->info, sizeof *thread->info));
    if (rc == 0 && thread->fp)
        rc = put_note(out, OWNER, NT_FPREGSET, span_of(thread->fp, sizeof *thread->fp));
    if (rc == 0 && thread->xstate.size_bytes > 0)
        rc = put_note(out, OWNER_LINUX, NT_X86_XSTATE, thread->xstate);
    return rc;
}

uint64_t core_thread_notes_bytes(const struct core_thread *thread, struct span process)
{
    uint64_t bytes = note_bytes(OWNER, sizeof(struct elf_prstatus)) + process.size_bytes;
    if (thread->info)
        bytes += note_bytes(OWNER, sizeof *thread->info);
    if (thread->fp)
        bytes += note_bytes(OWNER, sizeof *thread->fp);
    if (thread->xstate.size_bytes > 0)
        bytes += note_bytes(OWNER_LINUX, thread->xstate.size_bytes);
    return bytes;
}

/* ---- headers ---- */

void core_layout_init(struct core_layout *layout, uint64_t segments, uint64_t notes_bytes)
{
    memset(layout, 0, sizeof *layout);
    layout->segments = segments;
    layout->notes_bytes = notes_bytes;
    layout->extended = segments + 1 >= PN_XNUM;
    layout->headers_offset = sizeof(Elf64_Ehdr) + (layout->extended ? sizeof(Elf64_Shdr) : 0);
    layout->notes_offset = layout->headers_offset + (segments + 1) * sizeof(Elf64_Phdr);
    layout->data_offset = page_up(layout->notes_offset + notes_bytes);
    layout->next_offset = layout->data_offset;
}

int core_put_headers(const struct core_layout *layout, struct buf *out)
{
    assert(layout->segments < UINT32_MAX);
    Elf64_Ehdr head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                                   EV_CURRENT, ELFOSABI_NONE},
                       .e_type = ET_CORE,
                       .e_machine = EM_X86_64,
                       .e_version = EV_CURRENT,
                       .e_phoff = layout->headers_offset,
                       .e_ehsize = sizeof head,
                       .e_phentsize = sizeof(Elf64_Phdr),
                       .e_phnum = layout->extended ? PN_XNUM : (Elf64_Half)(layout->segments + 1)};
    Elf64_Shdr extension = {.sh_type = SHT_NULL,
                            .sh_size = 1,
                            .sh_link = SHN_UNDEF,
                            .sh_info = (Elf64_Word)(layout->segments + 1)};
    Elf64_Phdr notes = {.p_type = PT_NOTE,
                        .p_offset = layout->notes_offset,
                        .p_filesz = layout->notes_bytes,
                        .p_align = NOTE_ALIGN};
    if (layout->extended) {
        head.e_shoff = sizeof head;
        head.e_shentsize = sizeof extension;
        head.e_shnum = 1;
    }
    int rc = buf_append(out, &head, sizeof head);
    if (rc == 0 && layout->extended)
        rc = buf_append(out, &extension, sizeof extension);
    return rc ? rc : buf_append(out, &notes, sizeof notes);
}

void core_put_segment(struct core_layout *layout, const struct map *map, uint64_t start,
                      uint64_t end, bool filled, Elf64_Phdr *out)
{
    uint32_t flags =
        (map->readable ? PF_R : 0u) | (map->writable ? PF_W : 0u) | (map->executable ? PF_X : 0u);
    *out = (Elf64_Phdr){.p_type = PT_LOAD,
                        .p_flags = flags,
                        .p_offset = layout->next_offset,
                        .p_vaddr = start,
                        .p_filesz = filled ? end - start : 0,
                        .p_memsz = end - start,
                        .p_align = CORE_PAGE};
    layout->next_offset += out->p_filesz;
}
