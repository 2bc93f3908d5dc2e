/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding a symbol by its name in a module's own tables, for the interpreters whose state begins at
 * a known symbol. Invariant: the module's file stays open and as it was; nothing is read of the
 * process. Called by python_frames.
 */
#include <fcntl.h>
#include <gelf.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/unwind_private.h"

/* Address in memory less address in the file: of the first segment that is loaded (elf(5)). */
static bool find_bias(Elf *elf, const struct unwind_module *module, uint64_t *bias)
{
    size_t count;
    if (elf_getphdrnum(elf, &count) != 0)
        return false;
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr segment;
        if (gelf_getphdr(elf, (int)i, &segment) && segment.p_type == PT_LOAD) {
            *bias = module->start - (segment.p_vaddr & ~UINT64_C(4095));
            return true;
        }
    }
    return false;
}

static bool find_in(Elf *elf, Elf_Scn *section, const GElf_Shdr *head, const char *name,
                    GElf_Sym *out)
{
    Elf_Data *data = elf_getdata(section, NULL);
    size_t count = data && head->sh_entsize ? data->d_size / head->sh_entsize : 0;
    for (size_t i = 0; i < count && i < INT32_MAX; i++) {
        if (!gelf_getsym(data, (int)i, out) || out->st_shndx == SHN_UNDEF)
            continue;
        const char *text = elf_strptr(elf, head->sh_link, out->st_name);
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

static bool find_symbol(Elf *elf, const char *name, GElf_Sym *out)
{
    static const uint32_t tables[] = {SHT_DYNSYM, SHT_SYMTAB};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section)) != NULL;) {
            GElf_Shdr head;
            if (gelf_getshdr(section, &head) && head.sh_type == tables[i] &&
                find_in(elf, section, &head, name, out))
                return true;
        }
    }
    return false;
}

int unwind_symbol(struct unwind *unwind, const struct unwind_module *module, const char *name,
                  uint64_t *address, uint64_t *size_bytes)
{
    (void)unwind;
    GElf_Sym symbol;
    uint64_t bias = 0;
    elf_version(EV_CURRENT);
    Elf *elf = module->fd >= 0 ? elf_begin(module->fd, ELF_C_READ_MMAP, NULL) : NULL;
    bool found = elf && find_bias(elf, module, &bias) && find_symbol(elf, name, &symbol);
    if (elf)
        elf_end(elf);
    if (!found)
        return ERR_NOTFOUND;
    *address = symbol.st_value + bias;
    *size_bytes = symbol.st_size;
    return 0;
}
