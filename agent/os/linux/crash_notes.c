/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing the head of a core. Invariant: nothing is read beyond the span that was given, and what
 * does not add up is refused whole. Pure. Called by crash_take.c.
 */
#include "agent/os/linux/crash_notes.h"

#include <stdlib.h>
#include <string.h>

#define NOTE_ALIGN 4u
#define THREADS_FIRST 64u
#define FILE_ENTRY_BYTES 24u

/* ---- how much it is ---- */

static int check_header(const Elf64_Ehdr *e)
{
    if (memcmp(e->e_ident, ELFMAG, SELFMAG) != 0 || e->e_ident[EI_CLASS] != ELFCLASS64 ||
        e->e_ident[EI_DATA] != ELFDATA2LSB || e->e_type != ET_CORE || e->e_machine != EM_X86_64 ||
        e->e_phentsize != sizeof(Elf64_Phdr) || e->e_phnum == 0)
        return ERR_CORRUPT;
    /* The first program header, too, lies within what is read at most. */
    if (e->e_phoff < sizeof *e || e->e_phoff > CRASH_HEAD_MAX - sizeof(Elf64_Phdr))
        return ERR_CORRUPT;
    return 0;
}

/* The kernel counts more than 65,534 segments at the end of the file (PN_XNUM), which a pipe has
 * not brought yet: but the notes begin where the program headers end. */
static int sum_segments(struct span head, const Elf64_Ehdr *e, struct crash_extent *out)
{
    uint64_t count = (out->notes_offset - e->e_phoff) / sizeof(Elf64_Phdr);
    if (count == 0 || count > CRASH_SEGMENTS_MAX)
        return ERR_LIMIT;
    if (e->e_phnum != PN_XNUM && e->e_phnum < count)
        count = e->e_phnum;
    for (uint64_t i = 1; i < count; i++) {
        Elf64_Phdr p;
        uint64_t at = e->e_phoff + i * sizeof p;
        if (at + sizeof p > head.size_bytes)
            return 0;
        memcpy(&p, head.data + at, sizeof p);
        if (p.p_type == PT_LOAD && p.p_filesz <= UINT64_MAX / 2 - out->memory_bytes)
            out->memory_bytes += p.p_filesz;
    }
    return 0;
}

int crash_head_extent(struct span head, struct crash_extent *out)
{
    Elf64_Ehdr e;
    Elf64_Phdr p;
    struct crash_extent found = {.head_bytes = sizeof e};
    if (head.size_bytes >= sizeof e) {
        memcpy(&e, head.data, sizeof e);
        int rc = check_header(&e);
        if (rc)
            return rc;
        found.head_bytes = e.e_phoff + sizeof p;
    }
    if (head.size_bytes >= sizeof e && head.size_bytes >= found.head_bytes) {
        memcpy(&p, head.data + e.e_phoff, sizeof p);
        if (p.p_type != PT_NOTE || p.p_offset < found.head_bytes || p.p_filesz == 0)
            return ERR_CORRUPT;
        if (p.p_offset > CRASH_HEAD_MAX || p.p_filesz > CRASH_HEAD_MAX - p.p_offset)
            return ERR_LIMIT;
        found.notes_offset = p.p_offset;
        found.notes_bytes = p.p_filesz;
        found.head_bytes = p.p_offset + p.p_filesz;
        int rc = sum_segments(head, &e, &found);
        if (rc)
            return rc;
    }
    *out = found;
    return 0;
}

/* ---- notes ---- */

static int add_thread(struct crash_notes *n, size_t *capacity, struct span desc)
{
    struct elf_prstatus status;
    if (desc.size_bytes != sizeof status)
        return ERR_CORRUPT;
    if (n->count == CRASH_THREADS_MAX) {
        n->left_out++;
        return 0;
    }
    if (n->count == *capacity) {
        size_t more = *capacity ? *capacity * 2 : THREADS_FIRST;
        struct crash_thread_notes *list = realloc(n->threads, more * sizeof *list);
        if (!list)
            return ERR_NOMEM;
        n->threads = list;
        *capacity = more;
    }
    memcpy(&status, desc.data, sizeof status);
    struct crash_thread_notes *t = &n->threads[n->count++];
    memset(t, 0, sizeof *t);
    t->tid = status.pr_pid;
    t->signal = status.pr_cursig;
    t->pending = status.pr_sigpend;
    t->blocked = status.pr_sighold;
    memcpy(&t->regs, status.pr_reg, sizeof t->regs);
    return 0;
}

static void set_process(struct crash_notes *n, struct span desc)
{
    struct elf_prpsinfo info;
    if (desc.size_bytes != sizeof info || n->has_process)
        return;
    memcpy(&info, desc.data, sizeof info);
    n->has_process = true;
    n->pid = info.pr_pid;
    n->parent = info.pr_ppid;
    n->group = info.pr_pgrp;
    n->session = info.pr_sid;
    n->uid = info.pr_uid;
    n->gid = info.pr_gid;
    n->state = info.pr_sname;
    memcpy(n->name, info.pr_fname, sizeof n->name - 1);
}

static uint64_t word_at(struct span s, size_t index)
{
    uint64_t word;
    memcpy(&word, s.data + index * sizeof word, sizeof word);
    return word;
}

/* Only a list whose names all end within the note is kept. */
static void set_files(struct crash_notes *n, struct span desc)
{
    if (desc.size_bytes < 2 * sizeof(uint64_t) || n->files.size_bytes > 0)
        return;
    uint64_t count = word_at(desc, 0);
    if (count > CRASH_FILES_MAX ||
        count * FILE_ENTRY_BYTES > desc.size_bytes - 2 * sizeof(uint64_t))
        return;
    size_t at = 2 * sizeof(uint64_t) + (size_t)count * FILE_ENTRY_BYTES;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *end =
            at < desc.size_bytes ? memchr(desc.data + at, '\0', desc.size_bytes - at) : NULL;
        if (!end)
            return;
        at = (size_t)(end - desc.data) + 1;
    }
    n->files = desc;
    n->file_page = word_at(desc, 1);
    n->file_count = (size_t)count;
}

static int add_core_note(struct crash_notes *n, size_t *capacity, uint32_t type, struct span desc)
{
    switch (type) {
    case NT_PRSTATUS:
        return add_thread(n, capacity, desc);
    case NT_PRPSINFO:
        set_process(n, desc);
        return 0;
    case NT_SIGINFO:
        if (!n->has_info && desc.size_bytes == sizeof n->info) {
            memcpy(&n->info, desc.data, sizeof n->info);
            n->has_info = true;
        }
        return 0;
    case NT_AUXV:
        if (n->auxv.size_bytes == 0)
            n->auxv = desc;
        return 0;
    case NT_FILE:
        set_files(n, desc);
        return 0;
    case NT_FPREGSET:
        if (n->count > 0 && n->left_out == 0 &&
            desc.size_bytes == sizeof(struct user_fpregs_struct))
            n->threads[n->count - 1].fp = desc;
        return 0;
    default:
        return 0;
    }
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + NOTE_ALIGN - 1) & ~(uint64_t)(NOTE_ALIGN - 1);
}

static int parse_all(struct crash_notes *n, struct span notes)
{
    size_t capacity = 0;
    while (notes.size_bytes >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr header;
        memcpy(&header, notes.data, sizeof header);
        uint64_t name = aligned(header.n_namesz), desc = aligned(header.n_descsz);
        uint64_t left = notes.size_bytes - sizeof header;
        if (header.n_namesz == 0 || name > left || header.n_descsz > left - name)
            return ERR_CORRUPT;
        const char *text = (const char *)notes.data + sizeof header;
        struct span body = span_of(text + name, header.n_descsz);
        int rc = 0;
        if (header.n_namesz == sizeof "CORE" && memcmp(text, "CORE", sizeof "CORE") == 0)
            rc = add_core_note(n, &capacity, header.n_type, body);
        else if (header.n_namesz == sizeof "LINUX" && memcmp(text, "LINUX", sizeof "LINUX") == 0 &&
                 header.n_type == NT_X86_XSTATE && n->count > 0 && n->left_out == 0)
            n->threads[n->count - 1].xstate = body;
        if (rc)
            return rc;
        uint64_t whole = sizeof header + name + desc;
        if (whole >= notes.size_bytes)
            break;
        notes = span_of(notes.data + whole, notes.size_bytes - (size_t)whole);
    }
    return n->count > 0 ? 0 : ERR_CORRUPT;
}

int crash_notes_parse(struct crash_notes *out, struct span notes)
{
    struct crash_notes found;
    memset(&found, 0, sizeof found);
    int rc = parse_all(&found, notes);
    if (rc) {
        crash_notes_done(&found);
        return rc;
    }
    *out = found;
    return 0;
}

void crash_notes_done(struct crash_notes *notes)
{
    free(notes->threads);
    memset(notes, 0, sizeof *notes);
}

/* ---- files ---- */

int crash_file_at(const struct crash_notes *n, uint64_t address, struct crash_file *out)
{
    size_t names = 2 * sizeof(uint64_t) + n->file_count * FILE_ENTRY_BYTES;
    for (size_t i = 0; i < n->file_count; i++) {
        const char *path = (const char *)n->files.data + names;
        names += strlen(path) + 1;
        uint64_t start = word_at(n->files, 2 + i * 3), end = word_at(n->files, 3 + i * 3);
        if (address < start || address >= end)
            continue;
        *out = (struct crash_file){
            .start = start,
            .end = end,
            .offset = word_at(n->files, 4 + i * 3) * n->file_page,
            .path = path,
        };
        return 0;
    }
    return ERR_NOTFOUND;
}

uint64_t crash_file_base(const struct crash_notes *n, const struct crash_file *at)
{
    size_t names = 2 * sizeof(uint64_t) + n->file_count * FILE_ENTRY_BYTES;
    uint64_t base = at->start - at->offset;
    for (size_t i = 0; i < n->file_count; i++) {
        const char *path = (const char *)n->files.data + names;
        names += strlen(path) + 1;
        uint64_t start = word_at(n->files, 2 + i * 3);
        if (start <= at->start && word_at(n->files, 4 + i * 3) == 0 && strcmp(path, at->path) == 0)
            base = start;
    }
    return base;
}
