/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions, inlined functions and lines from DWARF (versions 2 to 5). Invariant: of a unit that
 * cannot be read nothing or a part is taken, the others are; depth and number of what is walked are
 * limited. Memory of the library is given back every LINES_AT_ONCE lines. Called by symbols_read.c.
 */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <stdlib.h>
#include <string.h>

#include "collector/symbols_read.h"

#define LEVELS_MAX 200 /* of nested entries */
#define LINES_AT_ONCE 500000u
#define CACHE_SIZE 16384u

struct cached {
    Dwarf_Off origin;
    uint32_t name;
};

struct walk {
    struct symbols_reader *r;
    Dwarf *dwarf;
    struct cached *names; /* of what is inlined again and again */
    const char *file;     /* of the line before, and its number */
    uint32_t file_no;
};

/* ---- names ---- */

static const char *text_of(Dwarf_Die *die, unsigned attribute)
{
    Dwarf_Attribute found;
    return dwarf_attr_integrate(die, attribute, &found) ? dwarf_formstring(&found) : NULL;
}

/* The place of what this one is an instance of; its own place when it is none. */
static Dwarf_Off origin_of(Dwarf_Die *die)
{
    Dwarf_Attribute found;
    Dwarf_Die origin;
    if (dwarf_attr(die, DW_AT_abstract_origin, &found) && dwarf_formref_die(&found, &origin))
        return dwarf_dieoffset(&origin);
    return dwarf_dieoffset(die);
}

static uint32_t mangled_at(const struct symbols_reader *r, uint64_t address)
{
    size_t low = 0, high = r->mangled_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->mangled[middle].start < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->mangled_count && r->mangled[low].start == address ? r->mangled[low].name : 0;
}

static int name_of(struct walk *w, Dwarf_Die *die, uint32_t *out)
{
    Dwarf_Off origin = origin_of(die);
    struct cached *cached = &w->names[origin % CACHE_SIZE];
    if (cached->name && cached->origin == origin) {
        *out = cached->name;
        return 0;
    }
    const char *raw = text_of(die, DW_AT_linkage_name);
    if (!raw)
        raw = text_of(die, DW_AT_MIPS_linkage_name);
    Dwarf_Addr low;
    uint32_t from_symbol =
        !raw && dwarf_lowpc(die, &low) == 0 ? mangled_at(w->r, (uint64_t)low) : 0;
    if (!raw)
        raw = text_of(die, DW_AT_name);
    *out = from_symbol;
    int e = from_symbol || !raw ? 0 : symbols_name(w->r, raw, out);
    if (e == 0 && !from_symbol)
        *cached = (struct cached){origin, *out};
    return e;
}

/* ---- functions ---- */

/* What the linker left out stands at 0 or another place without code. */
static int add_ranges(struct walk *w, Dwarf_Die *die, unsigned depth, uint32_t name)
{
    Dwarf_Addr base, start, end;
    ptrdiff_t at = 0;
    int e = 0;
    while (e == 0 && (at = dwarf_ranges(die, at, &base, &start, &end)) > 0) {
        const struct symbols_area *area = symbols_code_at(w->r, start);
        if (area)
            e = symbols_build_range(w->r->build, start, end < area->end ? end : area->end, depth, 0,
                                    name);
    }
    return e;
}

static bool has_code(Dwarf_Die *die)
{
    return dwarf_hasattr(die, DW_AT_low_pc) || dwarf_hasattr(die, DW_AT_ranges);
}

static int walk_children(struct walk *w, Dwarf_Die *parent, unsigned depth, unsigned level);

static int walk_one(struct walk *w, Dwarf_Die *die, unsigned depth, unsigned level)
{
    uint32_t name = 0;
    int e;
    switch (dwarf_tag(die)) {
    case DW_TAG_subprogram:
    case DW_TAG_inlined_subroutine:
        if (!has_code(die))
            return 0;
        e = name_of(w, die, &name);
        if (e == 0)
            e = add_ranges(w, die, depth + 1, name);
        return e ? e : walk_children(w, die, depth + 1, level);
    case DW_TAG_lexical_block:
    case DW_TAG_try_block:
    case DW_TAG_catch_block:
    case DW_TAG_with_stmt:
    case DW_TAG_namespace:
    case DW_TAG_module:
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type: /* of Rust: with its functions */
        return walk_children(w, die, depth, level);
    default:
        return 0;
    }
}

static int walk_children(struct walk *w, Dwarf_Die *parent, unsigned depth, unsigned level)
{
    Dwarf_Die die;
    int e = 0;
    if (level >= LEVELS_MAX || dwarf_child(parent, &die) != 0)
        return 0;
    do
        e = walk_one(w, &die, depth, level + 1);
    while (e == 0 && dwarf_siblingof(&die, &die) == 0);
    return e;
}

/* ---- lines ---- */

static int file_of(struct walk *w, Dwarf_Line *line, uint32_t *out)
{
    const char *file = dwarf_linesrc(line, NULL, NULL);
    if (!file || file != w->file) {
        int e = file ? symbols_build_file(w->r->build, file, &w->file_no) : 0;
        if (e)
            return e;
        if (!file)
            w->file_no = 0;
        w->file = file;
    }
    *out = w->file_no;
    return 0;
}

/* `discarded`: in a sequence whose function the linker left out. */
static int add_line(struct walk *w, Dwarf_Line *line, bool *discarded)
{
    Dwarf_Addr address;
    bool end;
    int number = 0;
    uint32_t file = 0;
    if (dwarf_lineaddr(line, &address) != 0 || dwarf_lineendsequence(line, &end) != 0)
        return 0;
    if (end) {
        bool was_discarded = *discarded;
        *discarded = false;
        return was_discarded ? 0 : symbols_build_line(w->r->build, address, 0, 0);
    }
    if (*discarded || !symbols_code_at(w->r, address)) {
        *discarded = true;
        return 0;
    }
    int e = file_of(w, line, &file);
    (void)dwarf_lineno(line, &number);
    return e ? e
             : symbols_build_line(w->r->build, address, file, number > 0 ? (uint32_t)number : 0);
}

static int add_lines(struct walk *w, Dwarf_Die *unit)
{
    Dwarf_Lines *lines;
    size_t count;
    int e = 0;
    bool discarded = false;
    w->file = NULL;
    if (!dwarf_hasattr(unit, DW_AT_stmt_list))
        return 0;
    if (dwarf_getsrclines(unit, &lines, &count) != 0) {
        w->r->bad_units++;
        return 0;
    }
    for (size_t i = 0; e == 0 && i < count; i++) {
        Dwarf_Line *line = dwarf_onesrcline(lines, i);
        if (line)
            e = add_line(w, line, &discarded);
    }
    return e;
}

/* ---- units ---- */

static int add_unit(struct walk *w, Dwarf_Off at)
{
    Dwarf_Die unit;
    if (!dwarf_offdie(w->dwarf, at, &unit)) {
        w->r->bad_units++;
        return 0;
    }
    int tag = dwarf_tag(&unit);
    if (tag != DW_TAG_compile_unit && tag != DW_TAG_skeleton_unit)
        return 0;
    if (dwarf_hasattr(&unit, DW_AT_dwo_name) || dwarf_hasattr(&unit, DW_AT_GNU_dwo_name))
        w->r->is_split = true;
    int e = add_lines(w, &unit);
    return e ? e : walk_children(w, &unit, 0, 0);
}

/* Until all is read (*next 0) or enough memory was used. */
static int add_units(struct walk *w, Dwarf_Off *next)
{
    size_t begin = symbols_build_lines(w->r->build) + symbols_build_ranges(w->r->build);
    size_t now = begin, head;
    int e = 0;
    while (e == 0 && now - begin < LINES_AT_ONCE) {
        Dwarf_Off at = *next, after;
        if (dwarf_nextcu(w->dwarf, at, &after, &head, NULL, NULL, NULL) != 0 || after <= at) {
            *next = 0;
            break;
        }
        *next = after;
        e = add_unit(w, at + head);
        now = symbols_build_lines(w->r->build) + symbols_build_ranges(w->r->build);
    }
    return e;
}

int symbols_dwarf_read(struct symbols_reader *r)
{
    struct walk w = {.r = r, .names = calloc(CACHE_SIZE, sizeof *w.names)};
    Dwarf_Off next = 0;
    int e = w.names ? 0 : ERR_NOMEM;
    do {
        w.dwarf = e == 0 ? dwarf_begin_elf(r->elf, DWARF_C_READ, NULL) : NULL;
        if (!w.dwarf)
            break;
        e = add_units(&w, &next);
        dwarf_end(w.dwarf);
    } while (e == 0 && next);
    free(w.names);
    return e;
}
