/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dump of the victim "known" into a file, and a reader of core files by the rules of elf(5).
 * Included by test_dump.c and test_dump_trouble.c.
 */
#ifndef TESTS_UNIT_OS_CORE_READER_H
#define TESTS_UNIT_OS_CORE_READER_H

#include <elf.h>
#include <sys/procfs.h>

#include "agent/os/dump.h"
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

static inline int begin(void *context, const char *ending, struct failure *f)
{
    struct file *file = context;
    (void)f;
    CHECK_EQ_STR(ending, "core");
    file->begun++;
    return 0;
}

static inline int write_bytes(void *context, struct span bytes, struct failure *f)
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

__attribute__((unused)) static struct os_costs costs;

static inline struct os_take take_of(const struct victim *v)
{
    os_costs_default(&costs);
    return (struct os_take){.process = v->process,
                            .pause_max_us = PAUSE_MAX_US,
                            .allow_pause = true, /* as long as a busy machine takes */
                            .costs = &costs};
}

typedef int (*capture_fn)(const struct os_take *take, const struct os_output *out,
                          struct os_result *result, struct failure *f);

static inline int capture(capture_fn kind, const struct os_take *take, struct file *file,
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

static inline void file_done(struct file *file)
{
    if (file->stream)
        fclose(file->stream);
}

static inline void read_at(const struct file *file, uint64_t offset, void *out, size_t bytes)
{
    REQUIRE(fseek(file->stream, (long)offset, SEEK_SET) == 0);
    REQUIRE(fread(out, 1, bytes, file->stream) == bytes);
}

static inline Elf64_Ehdr header_of(const struct file *file)
{
    Elf64_Ehdr head;
    read_at(file, 0, &head, sizeof head);
    REQUIRE(memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_type == ET_CORE);
    return head;
}

enum found { IN_FILE, ZEROS, NOWHERE };

/* What a reader of the core finds at an address. */
static inline enum found look(const struct file *file, uint64_t address, char *out, size_t bytes)
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
static inline size_t check_shape(const struct file *file)
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
static inline size_t count_threads(const struct file *file, pid_t *first)
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

static inline void start_memory(struct victim *v, const char *mib, const char *threads,
                                struct places *places)
{
    char line[256], *at = line;
    victim_start(v, "known", mib, threads);
    victim_ask(v, line, sizeof line);
    places->changed = strtoul(at, &at, 16);
    places->shared = strtoul(at, &at, 16);
    places->not_forked = strtoul(at, &at, 16);
    places->not_dumped = strtoul(at, &at, 16);
    places->far_away = strtoul(at, &at, 16);
    places->bulk = strtoul(at, &at, 16);
    victim_settle(v);
}

/* Untraced, without a child, and still answering. */
static inline void check_unharmed(struct victim *v)
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

static inline void check_core(const struct file *file, const struct places *places)
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

#endif
