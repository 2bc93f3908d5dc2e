/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions from an ELF file's symbol tables: .symtab, else .dynsym, and the small .symtab that
 * some distributions put, packed, into .gnu_debugdata ("MiniDebugInfo"). Invariant: only what lies
 * in a section of code is taken. Called by symbols_read.c.
 */
#include <gelf.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "collector/symbols_read.h"
#include "common/text.h"

#define UNPACK_STEP 65536
#define UNPACK_MEMORY ((uint64_t)128 << 20)
#define FIRST_CAPACITY 1024
#define UNDERSCORES_MAX 15u

struct found {
    uint64_t start, end;
    uint32_t name;
    uint32_t rank;
};

struct list {
    struct found *at;
    size_t count, capacity;
};

static int compare(const void *left, const void *right)
{
    const struct found *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

static int push(struct list *list, const struct found *found)
{
    if (list->count == SYMBOLS_ENTRIES_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(list->at, list->count, &list->capacity, FIRST_CAPACITY))
        return ERR_NOMEM;
    list->at[list->count++] = *found;
    return 0;
}

/* For static C++ functions, which debug information names without their class or namespace. */
static int keep_mangled(struct symbols_reader *r, uint64_t start, uint32_t name)
{
    if (BUF_GROW(r->mangled, r->mangled_count, &r->mangled_capacity, FIRST_CAPACITY))
        return ERR_NOMEM;
    r->mangled[r->mangled_count++] = (struct symbols_mangled){start, name};
    return 0;
}

/* Of several names for one place: the one others are meant to use. */
static unsigned rank_of(const GElf_Sym *symbol, const char *name)
{
    unsigned binding = GELF_ST_BIND(symbol->st_info);
    unsigned order = binding == STB_GLOBAL ? 3 : binding == STB_WEAK ? 2 : 1;
    size_t underscores = strspn(name, "_");
    if (symbols_is_mangled(name) || underscores > UNDERSCORES_MAX)
        underscores = 0;
    return order * (UNDERSCORES_MAX + 1) + UNDERSCORES_MAX - (unsigned)underscores;
}

/* "memcpy@@GLIBC_2.14" is memcpy. */
static const char *without_version(const char *name, char *out, size_t size_bytes)
{
    const char *at = strchr(name, '@');
    if (!at || at == name || text_copy_span(out, size_bytes, span_of(name, (size_t)(at - name))))
        return name;
    return out;
}

static int take(struct symbols_reader *r, struct list *list, const GElf_Sym *symbol,
                const char *raw)
{
    char plain[512];
    unsigned type = GELF_ST_TYPE(symbol->st_info);
    if ((type != STT_FUNC && type != STT_GNU_IFUNC) || symbol->st_shndx == SHN_UNDEF || !raw ||
        !raw[0] || !symbols_code_at(r, symbol->st_value))
        return 0;
    const char *name = without_version(raw, plain, sizeof plain);
    struct found found = {.start = symbol->st_value, .rank = rank_of(symbol, name)};
    if (symbol->st_size < SYMBOLS_ADDRESS_MAX)
        found.end = found.start + symbol->st_size;
    int e = symbols_name(r, name, &found.name);
    if (e == 0 && symbols_is_mangled(name))
        e = keep_mangled(r, found.start, found.name);
    return e ? e : push(list, &found);
}

static int read_table(struct symbols_reader *r, Elf *elf, Elf_Scn *section, const GElf_Shdr *head,
                      struct list *list)
{
    Elf_Data *data = elf_getdata(section, NULL);
    size_t count = data && head->sh_entsize ? data->d_size / head->sh_entsize : 0;
    int e = 0;
    for (size_t i = 0; e == 0 && i < count && i < INT32_MAX; i++) {
        GElf_Sym symbol;
        if (gelf_getsym(data, (int)i, &symbol))
            e = take(r, list, &symbol, elf_strptr(elf, head->sh_link, symbol.st_name));
    }
    return e;
}

static int read_tables(struct symbols_reader *r, Elf *elf, uint32_t type, struct list *list)
{
    int e = 0;
    for (Elf_Scn *section = NULL; e == 0 && (section = elf_nextscn(elf, section)) != NULL;) {
        GElf_Shdr head;
        if (gelf_getshdr(section, &head) && head.sh_type == type)
            e = read_table(r, elf, section, &head, list);
    }
    return e;
}

/* What has no size (hand-written code) goes as far as the next one, or the section's end. */
static int add_all(struct symbols_reader *r, struct list *list)
{
    int e = 0;
    if (list->count)
        qsort(list->at, list->count, sizeof *list->at, compare);
    uint64_t next = UINT64_MAX;
    for (size_t i = list->count; e == 0 && i-- > 0;) {
        struct found *found = &list->at[i];
        const struct symbols_area *area = symbols_code_at(r, found->start);
        if (i + 1 < list->count && list->at[i + 1].start > found->start)
            next = list->at[i + 1].start;
        if (found->end == found->start)
            found->end = next < area->end ? next : area->end;
        if (found->end > area->end)
            found->end = area->end;
        e = symbols_build_range(r->build, found->start, found->end, 0, found->rank, found->name);
    }
    return e;
}

int symbols_elf_read(struct symbols_reader *r, struct Elf *elf, bool dynamic_too)
{
    struct list list = {.at = NULL};
    int e = read_tables(r, elf, SHT_SYMTAB, &list);
    if (e == 0 && !list.count && dynamic_too)
        e = read_tables(r, elf, SHT_DYNSYM, &list);
    if (e == 0)
        e = add_all(r, &list);
    free(list.at);
    return e;
}

/* ---- MiniDebugInfo ---- */

static Elf_Data *find_section(Elf *elf, const char *wanted)
{
    size_t names;
    if (elf_getshdrstrndx(elf, &names) != 0)
        return NULL;
    for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section)) != NULL;) {
        GElf_Shdr head;
        const char *name =
            gelf_getshdr(section, &head) ? elf_strptr(elf, names, head.sh_name) : NULL;
        if (name && head.sh_type != SHT_NOBITS && strcmp(name, wanted) == 0)
            return elf_getdata(section, NULL);
    }
    return NULL;
}

/* What cannot be unpacked is as if it was not there: the other tables still count. */
int symbols_elf_unpack(struct symbols_reader *r, struct buf *out)
{
    const Elf_Data *packed = find_section(r->elf, ".gnu_debugdata");
    lzma_stream stream = LZMA_STREAM_INIT;
    if (!packed || !packed->d_buf || lzma_stream_decoder(&stream, UNPACK_MEMORY, 0) != LZMA_OK)
        return 0;
    stream.next_in = packed->d_buf;
    stream.avail_in = packed->d_size;
    lzma_ret got = LZMA_OK;
    int e = 0;
    while (got == LZMA_OK && e == 0) {
        uint8_t *room;
        e = buf_reserve(out, UNPACK_STEP, &room);
        if (e)
            break;
        stream.next_out = room;
        stream.avail_out = UNPACK_STEP;
        got = lzma_code(&stream, LZMA_FINISH);
        buf_commit(out, UNPACK_STEP - stream.avail_out);
    }
    lzma_end(&stream);
    if (got != LZMA_STREAM_END)
        buf_clear(out);
    return e == ERR_NOMEM ? e : 0;
}
