/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format of a core file, read back by the rules of elf(5): every note where and as long as it
 * is said to be, offsets of whole pages, and the counting of more segments than a header can.
 */
#include "agent/os/linux/core_elf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>

#include "tests/check.h"

#define NOTES_MAX 65536
#define ROOM (1u << 20)

static const char two_files[] = "1000-3000 r-xp 00001000 08:01 7 /bin/app\n"
                                "3000-4000 rw-p 00000000 00:00 0 \n"
                                "5000-6000 rw-s 00000000 00:01 8 /dev/zero (deleted)\n"
                                "7000-8000 r--p 00000000 08:01 9 /lib/a b.so\n";

static const struct core_process process = {.pid = 40,
                                            .parent = 1,
                                            .group = 39,
                                            .session = 38,
                                            .uid = 1000,
                                            .state = 'S',
                                            .name = "app",
                                            .arguments = "app --now"};

struct notes {
    struct {
        uint32_t type;
        char owner[8];
        struct span content;
    } list[32];
    size_t count;
};

static void read_notes(struct span in, struct notes *out)
{
    out->count = 0;
    while (in.size_bytes > 0) {
        Elf64_Nhdr head;
        struct span owner, content, rest;
        REQUIRE(in.size_bytes >= sizeof head && out->count < 32);
        memcpy(&head, in.data, sizeof head);
        rest = span_of(in.data + sizeof head, in.size_bytes - sizeof head);
        REQUIRE(span_take(&rest, (head.n_namesz + 3u) & ~3u, &owner) == 0);
        REQUIRE(span_take(&rest, (head.n_descsz + 3u) & ~3u, &content) == 0);
        REQUIRE(head.n_namesz <= 8 && owner.data[head.n_namesz - 1] == 0);
        out->list[out->count].type = head.n_type;
        memcpy(out->list[out->count].owner, owner.data, head.n_namesz);
        out->list[out->count++].content = span_of(content.data, head.n_descsz);
        in = rest;
    }
}

static struct core_thread make_thread(const struct user_regs_struct *regs)
{
    return (struct core_thread){
        .process = &process, .tid = 41, .signal = 19, .pending = 4, .blocked = 8, .regs = regs};
}

TEST(notes_of_a_process_stand_within_its_first_thread)
{
    static const uint8_t auxv[16] = {1};
    static const uint8_t wide[833] = {2};
    struct user_regs_struct regs = {.rip = 0x1234, .rsp = 0x5678};
    struct user_fpregs_struct fp = {.cwd = 7};
    siginfo_t info = {.si_signo = 19};
    struct maps maps;
    struct buf inner, all;
    struct notes notes;
    maps_init(&maps);
    buf_init(&inner, NOTES_MAX);
    buf_init(&all, NOTES_MAX);
    REQUIRE(maps_parse(&maps, span_str(two_files), NULL) == 0);
    REQUIRE(core_process_notes(&inner, &process, span_of(auxv, sizeof auxv), &maps) == 0);
    struct core_thread thread = make_thread(&regs);
    thread.fp = &fp;
    thread.info = &info;
    thread.xstate = span_of(wide, sizeof wide);
    REQUIRE(core_thread_notes(&all, &thread, buf_span(&inner)) == 0);
    CHECK_EQ_INT(all.size_bytes, core_thread_notes_bytes(&thread, buf_span(&inner)));
    read_notes(buf_span(&all), &notes);

    static const uint32_t types[] = {NT_PRSTATUS, NT_PRPSINFO, NT_AUXV,      NT_FILE,
                                     NT_SIGINFO,  NT_FPREGSET, NT_X86_XSTATE};
    REQUIRE(notes.count == sizeof types / sizeof types[0]);
    for (size_t i = 0; i < notes.count; i++) {
        CHECK_EQ_INT(notes.list[i].type, types[i]);
        CHECK_EQ_STR(notes.list[i].owner, types[i] == NT_X86_XSTATE ? "LINUX" : "CORE");
    }
    CHECK_EQ_INT(notes.list[6].content.size_bytes, sizeof wide);

    struct elf_prstatus status;
    struct elf_prpsinfo who;
    REQUIRE(notes.list[0].content.size_bytes == sizeof status);
    memcpy(&status, notes.list[0].content.data, sizeof status);
    CHECK_EQ_INT(status.pr_pid, 41);
    CHECK_EQ_INT(status.pr_ppid, 1);
    CHECK_EQ_INT(status.pr_cursig, 19);
    CHECK_EQ_INT(status.pr_sigpend, 4);
    CHECK_EQ_INT(status.pr_sighold, 8);
    CHECK_EQ_INT(status.pr_fpvalid, 1);
    CHECK_EQ_INT(status.pr_reg[16], 0x1234);
    CHECK_EQ_INT(status.pr_reg[19], 0x5678);
    REQUIRE(notes.list[1].content.size_bytes == sizeof who);
    memcpy(&who, notes.list[1].content.data, sizeof who);
    CHECK_EQ_INT(who.pr_pid, 40);
    CHECK_EQ_INT(who.pr_sname, 'S');
    CHECK_EQ_STR(who.pr_fname, "app");
    CHECK_EQ_STR(who.pr_psargs, "app --now");
    buf_done(&inner);
    buf_done(&all);
    maps_done(&maps);
}

TEST(files_are_named_but_not_shared_memory)
{
    struct maps maps;
    struct buf out;
    struct notes notes;
    uint64_t words[8];
    maps_init(&maps);
    buf_init(&out, NOTES_MAX);
    REQUIRE(maps_parse(&maps, span_str(two_files), NULL) == 0);
    REQUIRE(core_process_notes(&out, &process, span_of(NULL, 0), &maps) == 0);
    read_notes(buf_span(&out), &notes);
    REQUIRE(notes.count == 2 && notes.list[1].type == NT_FILE);
    struct span content = notes.list[1].content;
    REQUIRE(content.size_bytes == sizeof words + strlen("/bin/app") + strlen("/lib/a b.so") + 2);
    memcpy(words, content.data, sizeof words);
    static const uint64_t expected[8] = {2, 4096, 0x1000, 0x3000, 1, 0x7000, 0x8000, 0};
    CHECK_EQ_MEM(words, expected, sizeof words);
    CHECK_EQ_STR((const char *)content.data + sizeof words, "/bin/app");
    CHECK_EQ_STR((const char *)content.data + sizeof words + 9, "/lib/a b.so");
    buf_done(&out);
    maps_done(&maps);
}

TEST(what_is_not_known_has_no_note)
{
    struct user_regs_struct regs = {.rip = 1};
    struct core_thread thread = make_thread(&regs);
    struct buf out;
    struct notes notes;
    struct elf_prstatus status;
    buf_init(&out, NOTES_MAX);
    REQUIRE(core_thread_notes(&out, &thread, span_of(NULL, 0)) == 0);
    CHECK_EQ_INT(out.size_bytes, core_thread_notes_bytes(&thread, span_of(NULL, 0)));
    read_notes(buf_span(&out), &notes);
    CHECK_EQ_INT(notes.count, 1);
    memcpy(&status, notes.list[0].content.data, sizeof status);
    CHECK_EQ_INT(status.pr_fpvalid, 0);
    buf_done(&out);
}

TEST(notes_have_a_limit)
{
    struct user_regs_struct regs = {.rip = 1};
    struct core_thread thread = make_thread(&regs);
    struct buf out;
    buf_init(&out, 300);
    CHECK_EQ_INT(core_thread_notes(&out, &thread, span_of(NULL, 0)), ERR_LIMIT);
    buf_done(&out);
}

/* The headers of a file with so many segments, each a page, every third of them a hole. */
static void make_headers(uint64_t segments, struct buf *out, struct core_layout *layout)
{
    struct map map = {.readable = true, .writable = true};
    core_layout_init(layout, segments, 1001);
    REQUIRE(core_put_headers(layout, out) == 0);
    for (uint64_t i = 0; i < segments; i++) {
        Elf64_Phdr header;
        core_put_segment(layout, &map, i * 8192, i * 8192 + 4096, i % 3 != 0, &header);
        REQUIRE(buf_append(out, &header, sizeof header) == 0);
    }
}

static void check_headers(uint64_t segments)
{
    struct core_layout layout;
    struct buf out;
    Elf64_Ehdr head;
    Elf64_Shdr extension;
    Elf64_Phdr header;
    buf_init(&out, 8 * ROOM);
    make_headers(segments, &out, &layout);
    memcpy(&head, out.data, sizeof head);
    CHECK_EQ_MEM(head.e_ident, ELFMAG, SELFMAG);
    CHECK_EQ_INT(head.e_type, ET_CORE);
    uint64_t count = head.e_phnum;
    if (count == PN_XNUM) {
        REQUIRE(head.e_shnum == 1 && head.e_shentsize == sizeof extension);
        memcpy(&extension, out.data + head.e_shoff, sizeof extension);
        count = extension.sh_info;
    }
    CHECK_EQ_INT(count, segments + 1);
    CHECK_EQ_INT(head.e_phoff + count * sizeof header, out.size_bytes);
    memcpy(&header, out.data + head.e_phoff, sizeof header);
    CHECK_EQ_INT(header.p_type, PT_NOTE);
    CHECK_EQ_INT(header.p_offset, out.size_bytes);
    CHECK_EQ_INT(header.p_filesz, 1001);
    uint64_t offset = (header.p_offset + header.p_filesz + 4095) & ~4095ull;
    CHECK_EQ_INT(offset, layout.data_offset);
    int wrong = 0;
    for (uint64_t i = 0; i < segments; i++) {
        memcpy(&header, out.data + head.e_phoff + (i + 1) * sizeof header, sizeof header);
        uint64_t filled = i % 3 != 0 ? 4096 : 0;
        wrong += header.p_type != PT_LOAD || header.p_offset != offset ||
                 header.p_vaddr != i * 8192 || header.p_memsz != 4096 ||
                 header.p_filesz != filled || header.p_flags != (PF_R | PF_W);
        offset += filled;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(offset, layout.next_offset);
    buf_done(&out);
}

TEST(headers_say_where_everything_lies)
{
    check_headers(0);
    check_headers(1);
    check_headers(100);
}

TEST(more_segments_than_a_header_can_count)
{
    check_headers(PN_XNUM - 2);
    check_headers(PN_XNUM - 1);
    check_headers(70000);
}
