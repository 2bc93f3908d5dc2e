/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Naming of addresses by libdw, which only unwind*.c include. Invariant: libdw never asks the
 * process or the network for anything: code and tables come from files that were opened before.
 * Worker only, after the process was released. Called by stacks and profile.
 */
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/unwind_private.h"

#define SCOPES_DEPTH_MAX 64
#define SCOPES_VISITS_MAX 2000000 /* entries of debug information looked at for one address */

/*
 * libdw asks debuginfod servers through these, by loading a shared library. Defined here, they take
 * the place of its own: no network, and no dlopen() in a static program.
 */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
int __libdwfl_debuginfod_find_executable(Dwfl *dwfl, const unsigned char *id, size_t id_bytes);
int __libdwfl_debuginfod_find_debuginfo(Dwfl *dwfl, const unsigned char *id, size_t id_bytes);
void __libdwfl_debuginfod_end(void *client);

int __libdwfl_debuginfod_find_executable(Dwfl *dwfl, const unsigned char *id, size_t id_bytes)
{
    (void)dwfl;
    (void)id;
    (void)id_bytes;
    return -1;
}

int __libdwfl_debuginfod_find_debuginfo(Dwfl *dwfl, const unsigned char *id, size_t id_bytes)
{
    return __libdwfl_debuginfod_find_executable(dwfl, id, id_bytes);
}

void __libdwfl_debuginfod_end(void *client)
{
    (void)client;
}
/* NOLINTEND(bugprone-reserved-identifier) */

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- what libdw calls ---- */

/* Hands over the file or image that was opened before; libdw closes what it gets. */
static int give_elf(Dwfl_Module *handle, void **data, const char *name, Dwarf_Addr base,
                    char **file_name, Elf **elf)
{
    (void)handle;
    (void)name;
    (void)base;
    struct unwind_module *module = *data;
    if (module->image && !module->missing) {
        *elf = elf_memory((char *)module->image, module->image_bytes);
        return -1;
    }
    if (module->fd < 0)
        return -1;
    *file_name = strdup(module->path);
    int fd = module->fd;
    module->fd = -1;
    return fd;
}

static const Dwfl_Callbacks file_callbacks = {.find_elf = give_elf,
                                              .find_debuginfo = dwfl_standard_find_debuginfo};

/* ---- opening ---- */

int unwind_open(struct unwind **out, pid_t pid, const struct maps *maps, struct failure *f)
{
    struct unwind *unwind = calloc(1, sizeof *unwind);
    if (!unwind)
        return fail(f, ERR_NOMEM, "no memory to unwind");
    unwind->lines = true;
    unwind->pid = pid;
    unwind->jit.fd = -1;
    int rc = unwind_files_open(&unwind->files, pid, maps, f);
    if (rc) {
        free(unwind);
        return rc;
    }
    perf_map_open(&unwind->jit, pid);
    *out = unwind;
    return 0;
}

void unwind_close(struct unwind *unwind)
{
    if (!unwind)
        return;
    if (unwind->dwfl)
        dwfl_end(unwind->dwfl);
    unwind_files_close(&unwind->files);
    perf_map_close(&unwind->jit);
    free(unwind);
}

size_t unwind_modules(const struct unwind *unwind, const struct unwind_module **out)
{
    *out = unwind->files.list;
    return unwind->files.count;
}

size_t unwind_modules_left(const struct unwind *unwind)
{
    return unwind->files.left;
}

bool unwind_lines_cut(const struct unwind *unwind)
{
    return unwind->lines_us > UNWIND_LINES_US;
}

/* Build-id and bias are in the file's headers. */
static int learn_module(Dwfl_Module *handle, void **data, const char *name, Dwarf_Addr base,
                        void *argument)
{
    (void)name;
    (void)base;
    (void)argument;
    struct unwind_module *module = *data;
    GElf_Addr bias, at;
    const unsigned char *bits;
    if (!dwfl_module_getelf(handle, &bias)) {
        if (!module->missing)
            module->missing = "no ELF file";
        return DWARF_CB_OK;
    }
    module->bias = bias;
    int bytes = dwfl_module_build_id(handle, &bits, &at);
    if (bytes > 0) {
        size_t keep = (size_t)bytes;
        if (keep > sizeof module->build_id)
            keep = sizeof module->build_id;
        memcpy(module->build_id, bits, keep);
        module->build_id_bytes = keep;
    }
    return DWARF_CB_OK;
}

static int report_modules(struct unwind *unwind, struct failure *f)
{
    dwfl_report_begin(unwind->dwfl);
    for (size_t i = 0; i < unwind->files.count; i++) {
        struct unwind_module *module = &unwind->files.list[i];
        Dwfl_Module *handle =
            dwfl_report_module(unwind->dwfl, module->name, module->start, module->end);
        void **data;
        if (!handle)
            return fail(f, ERR_UNSUPPORTED, "libdw refuses module '%s': %s", module->name,
                        dwfl_errmsg(-1));
        dwfl_module_info(handle, &data, NULL, NULL, NULL, NULL, NULL, NULL);
        *data = module;
    }
    dwfl_report_end(unwind->dwfl, NULL, NULL);
    return 0;
}

int unwind_start(struct unwind *unwind, struct failure *f)
{
    unwind->dwfl = dwfl_begin(&file_callbacks);
    if (!unwind->dwfl)
        return fail(f, ERR_NOMEM, "libdw does not start: %s", dwfl_errmsg(-1));
    int rc = report_modules(unwind, f);
    if (rc)
        return rc;
    dwfl_getmodules(unwind->dwfl, learn_module, NULL, 0);
    return 0;
}

/* ---- naming ---- */

void unwind_set_lines(struct unwind *unwind, bool lines)
{
    unwind->lines = lines;
}

/* As the linker knows it, else as the source does: what gdb shows. */
static const char *die_name(Dwarf_Die *die)
{
    Dwarf_Attribute attribute;
    if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute) ||
        dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attribute))
        return dwarf_formstring(&attribute);
    return dwarf_diename(die);
}

static bool is_function(Dwarf_Die *die)
{
    int tag = dwarf_tag(die);
    return tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine;
}

/* Where the code of `inlined` was called from. */
static void find_call(Dwarf_Die *unit, Dwarf_Die *inlined, struct unwind_frame *out)
{
    Dwarf_Attribute attribute;
    Dwarf_Word file, line;
    Dwarf_Files *files;
    size_t count;
    if (dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &attribute), &file) == 0 &&
        dwarf_getsrcfiles(unit, &files, &count) == 0)
        out->file = dwarf_filesrc(files, file, NULL, NULL);
    if (dwarf_formudata(dwarf_attr(inlined, DW_AT_call_line, &attribute), &line) == 0)
        out->line = (int)line;
}

/*
 * Turns frames[0], which has the symbol and the line, into one frame for each function that the
 * compiler merged there (DWARF 5, 3.3.8). Returns how many.
 */
static size_t put_inlined(Dwarf_Die *unit, Dwarf_Die *scopes, size_t scope_count,
                          struct unwind_frame *frames, size_t max)
{
    const struct unwind_frame symbol = frames[0];
    size_t count = 0;
    Dwarf_Die *inner = NULL;
    for (size_t i = 0; i < scope_count && count < max; i++) {
        struct unwind_frame *frame = &frames[count++];
        bool inlined = dwarf_tag(&scopes[i]) == DW_TAG_inlined_subroutine && count < max;
        const char *name = die_name(&scopes[i]);
        *frame = symbol;
        frame->inlined = inlined;
        if (inlined)
            frame->function_offset = 0;
        if (name)
            frame->function = name;
        if (inner)
            find_call(unit, inner, frame);
        if (!inlined)
            break;
        inner = &scopes[i];
    }
    return count ? count : 1;
}

/*
 * The unit that has the code at `address`. Compilers other than gcc leave out the table of
 * addresses (.debug_aranges) by which libdw finds it: then each is asked.
 */
static Dwarf_Die *find_unit(Dwfl_Module *handle, uint64_t address, Dwarf_Addr *bias)
{
    Dwarf_Die *unit = dwfl_module_addrdie(handle, address, bias);
    if (unit)
        return unit;
    while ((unit = dwfl_module_nextcu(handle, unit, bias)) != NULL) {
        if (dwarf_haspc(unit, address - *bias) > 0)
            return unit;
    }
    return NULL;
}

/* The functions around an address, outermost first. libdw's own search misses some of Go and Rust.
 */
struct scopes {
    uint64_t address;
    Dwarf_Die functions[UNWIND_INLINED_MAX + 1];
    size_t count;
    size_t visits_left;
};

/* Entries that hold functions without having code themselves (DWARF 5, 3.2, 5.7). */
static bool holds_functions(int tag)
{
    return tag == DW_TAG_namespace || tag == DW_TAG_module || tag == DW_TAG_structure_type ||
           tag == DW_TAG_class_type || tag == DW_TAG_union_type;
}

/* Goes down to the innermost function that has the address. Returns whether there is any below. */
/* NOLINTNEXTLINE(misc-no-recursion): the depth is limited. */
static bool descend(struct scopes *s, Dwarf_Die *parent, unsigned depth)
{
    Dwarf_Die child;
    if (depth == SCOPES_DEPTH_MAX || dwarf_child(parent, &child) != 0)
        return false;
    do {
        int tag = dwarf_tag(&child);
        if (s->visits_left == 0 || s->visits_left-- == 1)
            return false;
        bool has = (is_function(&child) || tag == DW_TAG_lexical_block) &&
                   dwarf_haspc(&child, s->address) > 0;
        if (has && is_function(&child) && s->count <= UNWIND_INLINED_MAX)
            s->functions[s->count++] = child;
        if (has)
            descend(s, &child, depth + 1);
        if (has || (holds_functions(tag) && descend(s, &child, depth + 1)))
            return true;
    } while (dwarf_siblingof(&child, &child) == 0);
    return false;
}

static size_t expand_inlined(Dwarf_Die *unit, uint64_t address, struct unwind_frame *frames,
                             size_t max)
{
    struct scopes s = {.address = address, .visits_left = SCOPES_VISITS_MAX};
    descend(&s, unit, 0);
    if (s.count == 0)
        return 1;
    for (size_t i = 0; i < s.count / 2; i++) {
        Dwarf_Die other = s.functions[i];
        s.functions[i] = s.functions[s.count - 1 - i];
        s.functions[s.count - 1 - i] = other;
    }
    return put_inlined(unit, s.functions, s.count, frames, max);
}

/* Source line and inlined functions of frames[0]. Returns how many frames it is now. */
static size_t add_debug_info(struct unwind *unwind, Dwfl_Module *handle, uint64_t address,
                             struct unwind_frame *frames, size_t max)
{
    if (!unwind->lines || unwind_lines_cut(unwind))
        return 1;
    uint64_t began = now_us();
    Dwarf_Addr bias;
    Dwarf_Die *unit = find_unit(handle, address, &bias);
    Dwarf_Line *line = unit ? dwarf_getsrc_die(unit, address - bias) : NULL;
    size_t count = 1;
    if (line && dwarf_lineno(line, &frames[0].line) == 0)
        frames[0].file = dwarf_linesrc(line, NULL, NULL);
    if (unit)
        count = expand_inlined(unit, address - bias, frames, max);
    unwind->lines_us += now_us() - began;
    return count;
}

/* ---- places ---- */

static uint64_t address_of(struct unwind_place place)
{
    return place.exact || place.signal ? place.pc : place.pc - 1;
}

static int compare_address(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

int unwind_learn(struct unwind *unwind, const struct unwind_place *places, size_t count,
                 struct failure *f)
{
    size_t wanted = 0, kept = 0;
    uint64_t *addresses = calloc(count + 1, sizeof *addresses);
    if (!addresses)
        return fail(f, ERR_NOMEM, "no memory for %zu addresses", count);
    for (size_t i = 0; i < count; i++) {
        uint64_t address = address_of(places[i]);
        if (!places[i].python && !dwfl_addrmodule(unwind->dwfl, address))
            addresses[wanted++] = address;
    }
    qsort(addresses, wanted, sizeof *addresses, compare_address);
    for (size_t i = 0; i < wanted; i++) {
        if (kept == 0 || addresses[kept - 1] != addresses[i])
            addresses[kept++] = addresses[i];
    }
    int rc = perf_map_ask(&unwind->jit, addresses, kept, f);
    free(addresses);
    return rc;
}

bool unwind_has_names(const struct unwind *unwind)
{
    return unwind->jit.fd >= 0;
}

bool unwind_names_cut(const struct unwind *unwind)
{
    return unwind->jit.cut;
}

/* Code in no file: by what the process itself says of it. */
static size_t name_jit(const struct unwind *unwind, struct unwind_place place,
                       struct unwind_frame *out)
{
    const struct perf_map_name *found = perf_map_find(&unwind->jit, address_of(place));
    if (unwind_is_code(&unwind->files, address_of(place)))
        out->kind = UNWIND_JIT;
    if (found) {
        out->kind = UNWIND_JIT;
        out->function = found->name;
        out->function_offset = place.pc - found->start;
    }
    return 1;
}

size_t unwind_name(struct unwind *unwind, struct unwind_place place, struct unwind_frame *out,
                   size_t max)
{
    memset(out, 0, sizeof *out);
    uint64_t address = address_of(place);
    Dwfl_Module *handle = dwfl_addrmodule(unwind->dwfl, address);
    void **data = NULL;
    if (handle)
        dwfl_module_info(handle, &data, NULL, NULL, NULL, NULL, NULL, NULL);
    if (!data || !*data)
        return name_jit(unwind, place, out);
    out->module = *data;
    out->offset = place.pc - out->module->bias;
    GElf_Off offset = 0;
    GElf_Sym symbol;
    out->function = dwfl_module_addrinfo(handle, address, &offset, &symbol, NULL, NULL, NULL);
    if (out->function)
        out->function_offset = offset + (place.pc - address);
    return add_debug_info(unwind, handle, address, out, max);
}
