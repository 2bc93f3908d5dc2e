/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libiberty's demangler, fenced (demangle.h). It gives its output in pieces to a function of ours
 * and allocates nothing, so that function can leave by longjmp() once there is more than anybody
 * would read: a short hostile name may stand for gigabytes. Called by throws*.c.
 */
#include "agent/os/linux/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <string.h>

#include "common/text.h"

#define NAME_MAX_BYTES 1024 /* the demangler's stack grows with it */
#define ENOUGH_BYTES 4096

struct piece {
    jmp_buf enough;
    size_t used;
    char text[ENOUGH_BYTES + 1];
};

static void take(const char *text, size_t size_bytes, void *context)
{
    struct piece *p = context;
    size_t room = ENOUGH_BYTES - p->used;
    size_t count = size_bytes < room ? size_bytes : room;
    memcpy(p->text + p->used, text, count);
    p->used += count;
    p->text[p->used] = '\0';
    if (p->used == ENOUGH_BYTES)
        longjmp(p->enough, 1);
}

static void demangle(const char *name, int options, char *out, size_t size_bytes)
{
    struct piece p;
    p.used = 0;
    p.text[0] = '\0';
    if (strlen(name) > NAME_MAX_BYTES) {
        (void)text_copy(out, size_bytes, name);
        return;
    }
    if (setjmp(p.enough) == 0 && !cplus_demangle_v3_callback(name, options, take, &p))
        (void)text_copy(p.text, sizeof p.text, name);
    (void)text_copy(out, size_bytes, p.text);
}

void demangle_type(const char *name, char *out, size_t size_bytes)
{
    if (name[0] == '*')
        name++;
    demangle(name, DMGL_PARAMS | DMGL_ANSI | DMGL_TYPES, out, size_bytes);
}

void demangle_symbol(const char *name, char *out, size_t size_bytes)
{
    if (strncmp(name, "_Z", 2) == 0)
        demangle(name, DMGL_PARAMS | DMGL_ANSI, out, size_bytes);
    else
        (void)text_copy(out, size_bytes, name);
}
