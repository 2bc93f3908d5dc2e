/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory map's parser, and unwinding from files that were opened before: also when they were
 * deleted, when the process is gone, and when there is nothing to go by.
 */
#include "agent/os/linux/unwind.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "agent/os/linux/stop.h"
#include "tests/unit/os/victim.h"

/* ---- maps ---- */

static const char three[] = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/a b\n"
                            "00651000-00652000 r--p 00051000 08:02 173521 /usr/bin/a b\n"
                            "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 \n";

TEST(a_memory_map_is_read)
{
    struct maps maps;
    struct failure f = {0, ""};
    maps_init(&maps);
    REQUIRE(maps_parse(&maps, span_str(three), &f) == 0);
    CHECK_EQ_INT(maps.count, 3);
    CHECK_EQ_INT(maps.list[0].start, 0x400000);
    CHECK_EQ_INT(maps.list[0].end, 0x452000);
    CHECK_EQ_INT(maps.list[1].offset, 0x51000);
    CHECK_EQ_INT(maps.list[1].inode, 173521);
    CHECK_EQ_INT(maps.list[1].device_major, 8);
    CHECK(maps.list[0].executable && !maps.list[0].writable && !maps.list[0].shared);
    CHECK(maps.list[2].writable && !maps.list[2].executable);
    CHECK_EQ_STR(maps_path(&maps, &maps.list[0]), "/usr/bin/a b");
    CHECK_EQ_INT(maps.list[0].path, maps.list[1].path);
    CHECK_EQ_STR(maps_path(&maps, &maps.list[2]), "");
    maps_done(&maps);
}

TEST(an_address_is_found_in_its_mapping)
{
    struct maps maps;
    maps_init(&maps);
    REQUIRE(maps_parse(&maps, span_str(three), NULL) == 0);
    CHECK(maps_find(&maps, 0x3fffff) == NULL);
    CHECK(maps_find(&maps, 0x400000) == &maps.list[0]);
    CHECK(maps_find(&maps, 0x451fff) == &maps.list[0]);
    CHECK(maps_find(&maps, 0x452000) == NULL);
    CHECK(maps_find(&maps, 0x7ffc00020fff) == &maps.list[2]);
    CHECK(maps_find(&maps, UINT64_MAX) == NULL);
    REQUIRE(maps_parse(&maps, span_str(""), NULL) == 0);
    CHECK(maps_find(&maps, 0x400000) == NULL);
    maps_done(&maps);
}

TEST(a_damaged_memory_map_is_refused_whole)
{
    static const char *const damaged[] = {
        "00400000 r-xp 00000000 08:02 1 /a\n",
        "00400000-00452000 r-x 00000000 08:02 1 /a\n",
        "00452000-00400000 r-xp 00000000 08:02 1 /a\n",
        "00400000-00400000 r-xp 00000000 08:02 1 /a\n",
        "00400000-00452000 r-xp zz 08:02 1 /a\n",
        "00400000-00452000 r-xp 00000000 08 1 /a\n",
        "10000000000000000-00452000 r-xp 00000000 08:02 1 /a\n",
        "2000-3000 r-xp 0 08:02 1 /a\n1000-2000 r-xp 0 08:02 1 /a\n",
        "2000-3000 r-xp 0 08:02 1 /a\n2fff-4000 r-xp 0 08:02 1 /a\n",
        "\n",
    };
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        struct maps maps;
        struct failure f = {0, ""};
        maps_init(&maps);
        CHECK_EQ_INT(maps_parse(&maps, span_str(damaged[i]), &f), ERR_CORRUPT);
        CHECK_EQ_INT(maps.count, 0);
        CHECK(f.text[0] != '\0');
        maps_done(&maps);
    }
}

TEST(our_own_memory_map_is_readable)
{
    struct maps maps;
    struct failure f = {0, ""};
    int here = 0;
    maps_init(&maps);
    REQUIRE(maps_read(&maps, (uint32_t)getpid(), &f) == 0);
    const struct map *stack = maps_find(&maps, (uint64_t)(uintptr_t)&here);
    REQUIRE(stack != NULL);
    CHECK(stack->writable);
    const struct map *code = maps_find(&maps, (uint64_t)(uintptr_t)&maps_read);
    REQUIRE(code != NULL);
    CHECK(code->executable);
    CHECK_EQ_INT(maps_read(&maps, 0x7ffffff0, &f), ERR_GONE);
    maps_done(&maps);
}

/* ---- unwinding ---- */

#define STACK_BYTES (32u << 10)

/* What a capture would have of one thread. */
struct copied {
    struct user_regs_struct regs;
    uint8_t stack[STACK_BYTES];
    struct unwind_thread thread;
};

static struct copied copied;

static int copy_second_thread(void *context, struct stop *stop)
{
    (void)context;
    if (stop->count < 2 || stop->threads[1].state != STOP_HELD)
        return ERR_GONE;
    copied.regs = stop->threads[1].regs;
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/mem", stop->process.pid);
    int fd = open(path, O_RDONLY);
    ssize_t got = pread(fd, copied.stack, sizeof copied.stack, (off_t)copied.regs.rsp);
    close(fd);
    copied.thread = (struct unwind_thread){.tid = stop->threads[1].tid,
                                           .regs = &copied.regs,
                                           .stack = copied.stack,
                                           .stack_start = copied.regs.rsp,
                                           .stack_bytes = got > 0 ? (size_t)got : 0};
    return got > 0 ? 0 : ERR_IO;
}

/* Holds the victim, copies its first sleeper, opens its files, and ends it. */
static void copy_and_end(struct victim *v, struct unwind **out)
{
    struct stop stop;
    struct maps maps;
    struct failure f = {0, ""};
    maps_init(&maps);
    victim_settle(v);
    REQUIRE(stop_open(&stop, &v->process, &f) == 0);
    REQUIRE(maps_read(&maps, v->process.pid, &f) == 0);
    REQUIRE(unwind_open(out, v->pid, &maps, &f) == 0);
    REQUIRE(stop_run(&stop, 1000000, copy_second_thread, NULL, NULL, &f) == 0);
    stop_close(&stop);
    maps_done(&maps);
    victim_end(v);
}

/* The names of all frames, innermost first, joined by ' '. */
static void names_of(struct unwind *unwind, size_t max, char *out, size_t size, const char **why)
{
    struct unwind_place places[UNWIND_FRAMES_MAX];
    size_t count = unwind_walk(unwind, &copied.thread, places, max, why);
    out[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        struct unwind_frame frames[UNWIND_INLINED_MAX];
        size_t inlined = unwind_name(unwind, places[i], frames, UNWIND_INLINED_MAX);
        for (size_t k = 0; k < inlined; k++) {
            size_t used = strlen(out);
            snprintf(out + used, size - used, " %s", frames[k].function ? frames[k].function : "?");
        }
    }
}

#define NESTED " victim_inner victim_middle victim_outer sleeper start_thread"

TEST(a_stack_is_unwound_when_its_process_is_gone)
{
    struct victim v;
    struct unwind *unwind = NULL;
    const struct unwind_module *modules;
    char names[2048];
    const char *why = "";
    victim_start(&v, "threads", "1", NULL);
    copy_and_end(&v, &unwind);
    REQUIRE(unwind_start(unwind, NULL) == 0);
    names_of(unwind, UNWIND_FRAMES_MAX, names, sizeof names, &why);
    CHECK(strstr(names, NESTED) != NULL);
    CHECK(why == NULL);
    size_t count = unwind_modules(unwind, &modules), vdso = 0;
    CHECK(count >= 3);
    for (size_t i = 0; i < count; i++) {
        CHECK(modules[i].missing == NULL);
        CHECK(modules[i].build_id_bytes >= 8);
        vdso += strcmp(modules[i].name, "[vdso]") == 0;
    }
    CHECK_EQ_INT(vdso, 1);
    CHECK_EQ_STR(modules[0].name, "threads");
    unwind_close(unwind);
}

/* As while a package is upgraded: the running file is no longer on the disk. */
TEST(a_deleted_program_has_names)
{
    struct victim v;
    struct unwind *unwind = NULL;
    char path[] = "/tmp/trawl-deleted-XXXXXX", command[1024], names[2048];
    const char *why, *dir = getenv("TRAWL_VICTIMS");
    const struct unwind_module *modules;
    if (geteuid() != 0)
        SKIP("needs root: only /proc/PID/map_files leads to a deleted file");
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    snprintf(command, sizeof command, "%s/threads", dir ? dir : VICTIMS_DIR);
    pid_t copier = fork();
    if (copier == 0) {
        execlp("cp", "cp", command, path, (char *)NULL);
        _exit(127);
    }
    waitpid(copier, NULL, 0);
    chmod(path, 0700);
    victim_run(&v, path, "threads", "1", NULL);
    unlink(path);
    copy_and_end(&v, &unwind);
    REQUIRE(unwind_start(unwind, NULL) == 0);
    names_of(unwind, UNWIND_FRAMES_MAX, names, sizeof names, &why);
    CHECK(strstr(names, NESTED) != NULL);
    REQUIRE(unwind_modules(unwind, &modules) > 0);
    CHECK_EQ_STR(modules[0].name, path + strlen("/tmp/"));
    unwind_close(unwind);
}

TEST(a_cut_stack_says_so)
{
    struct victim v;
    struct unwind *unwind = NULL;
    char names[2048];
    const char *why = NULL;
    victim_start(&v, "threads", "1", NULL);
    copy_and_end(&v, &unwind);
    REQUIRE(unwind_start(unwind, NULL) == 0);
    copied.thread.stack_bytes = 64;
    names_of(unwind, UNWIND_FRAMES_MAX, names, sizeof names, &why);
    REQUIRE(why != NULL);
    CHECK(strstr(why, "beyond") != NULL);
    CHECK(names[0] != '\0');
    copied.thread.stack_bytes = STACK_BYTES;
    names_of(unwind, 2, names, sizeof names, &why);
    REQUIRE(why != NULL);
    CHECK(strstr(why, "limit") != NULL);
    unwind_close(unwind);
}

/* Registers of a process gone wild: at least one frame, and no crash. */
TEST(wild_registers_give_one_frame)
{
    struct victim v;
    struct unwind *unwind = NULL;
    char names[2048];
    const char *why = NULL;
    static const uint64_t wild[] = {0, 1, 0x7fffffffffff, UINT64_MAX};
    victim_start(&v, "threads", "1", NULL);
    copy_and_end(&v, &unwind);
    REQUIRE(unwind_start(unwind, NULL) == 0);
    for (size_t i = 0; i < sizeof wild / sizeof wild[0]; i++) {
        copied.regs.rip = wild[i];
        copied.regs.rbp = wild[i];
        names_of(unwind, UNWIND_FRAMES_MAX, names, sizeof names, &why);
        CHECK(strncmp(names, " ?", 2) == 0);
    }
    unwind_close(unwind);
}

/* Files that are none, in the place of those that run. */
TEST(what_is_no_elf_file_is_said)
{
    struct maps maps;
    struct unwind *unwind = NULL;
    const struct unwind_module *modules;
    struct failure f = {0, ""};
    static const char text[] = "00400000-00452000 r-xp 00000000 00:00 1 /etc/passwd\n"
                               "00500000-00552000 r-xp 00000000 00:00 1 /dev/zero\n"
                               "00600000-00652000 r-xp 00000000 00:00 1 /no/such/file\n"
                               "00700000-00752000 r-xp 00001000 00:00 1 /etc/passwd\n"
                               "00800000-00852000 rw-p 00000000 00:00 1 /etc/group\n";
    maps_init(&maps);
    REQUIRE(maps_parse(&maps, span_str(text), &f) == 0);
    REQUIRE(unwind_open(&unwind, getpid(), &maps, &f) == 0);
    REQUIRE(unwind_modules(unwind, &modules) == 4);
    CHECK_EQ_STR(modules[0].missing, "replaced by another file");
    CHECK_EQ_STR(modules[1].missing, "replaced by another file");
    CHECK_EQ_STR(modules[2].missing, "cannot be opened");
    CHECK_EQ_STR(modules[3].missing, "its beginning is not mapped");
    CHECK_EQ_INT(unwind_start(unwind, &f), 0);
    for (size_t i = 0; i < 4; i++)
        CHECK(modules[i].missing != NULL && modules[i].build_id_bytes == 0);
    unwind_close(unwind);
    unwind_close(NULL);
    maps_done(&maps);
}
