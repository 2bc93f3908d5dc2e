/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file as somebody could send it for its symbols. Our own reader of headers (the command line's)
 * gets it, and then the one that uses libelf and libdw, whose table must pass its checks. What the
 * libraries themselves do with damaged bytes is the child's affair; crashes of ours are looked for.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/elf_file.h"
#include "collector/symbols_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf pages, root_bytes;

static int take(void *context, uint32_t no, struct span bytes)
{
    (void)context;
    return buf_append_span(no == UINT32_MAX ? &root_bytes : &pages, bytes);
}

static void check_table(void)
{
    struct symbols_root root;
    assert(symbols_root_get(&root, buf_span(&root_bytes)) == 0);
    for (uint32_t i = 0; i < symbols_root_pages(&root); i++)
        assert(!symbols_page_check(
            &root, i, span_of(pages.data + (size_t)i * SYMBOLS_PAGE_BYTES, SYMBOLS_PAGE_BYTES)));
    symbols_root_done(&root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    static int fd = -1;
    struct elf_file file;
    struct failure f = {0};
    if (fd < 0) {
        snprintf(path, sizeof path, "/tmp/fuzz-symbols-XXXXXX");
        fd = mkstemp(path);
        assert(fd >= 0);
        unlink(path);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    (void)elf_file_read(path, &file, &f);
    buf_init(&pages, (size_t)64 << 20);
    buf_init(&root_bytes, SYMBOLS_ROOT_ROOM);
    f.code = 0;
    if (symbols_read(fd, take, NULL, &f) == 0)
        check_table();
    else
        assert(f.code && f.text[0]);
    buf_done(&pages);
    buf_done(&root_bytes);
    return 0;
}
