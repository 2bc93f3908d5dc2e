/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory goes into a core: the parser of smaps, what is decided of each mapping, cutting into
 * segments against a model, and the pages of this very process by both ways of asking.
 */
#include "agent/os/linux/segments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/text.h"
#include "tests/check.h"

#define PAGE ((uint64_t)SEGMENTS_PAGE)
#define RANDOM_ROUNDS 200

/* ---- smaps ---- */

static int feed_text(struct areas *areas, const char *text)
{
    struct span all = span_str(text), line;
    areas_init(areas);
    while (all.size_bytes > 0 && text_take_until(&all, '\n', &line) == 0) {
        int rc = areas_feed(areas, line);
        if (rc)
            return rc;
    }
    return 0;
}

TEST(smaps_is_read)
{
    static const char text[] = "1000-5000 rw-p 00000000 00:00 0      [heap]\n"
                               "Size:                 16 kB\n"
                               "Rss:                   8 kB\n"
                               "Anonymous:             4 kB\n"
                               "AnonHugePages:      2048 kB\n"
                               "Swap:                  4 kB\n"
                               "SwapPss:               1 kB\n"
                               "VmFlags: rd wr mr mw me ac dc wf \n"
                               "7000-8000 r--s 00000000 00:05 3 /dev/dri: card0\n"
                               "Rss:                   4 kB\n"
                               "THPeligible:           0\n"
                               "VmFlags: rd sh io pf dd de\n";
    struct areas areas;
    REQUIRE(feed_text(&areas, text) == 0);
    REQUIRE(areas.count == 2);
    CHECK_EQ_INT(areas.list[0].resident_bytes, 8192);
    CHECK_EQ_INT(areas.list[0].own_bytes, 4096);
    CHECK_EQ_INT(areas.list[0].swapped_bytes, 4096);
    CHECK_EQ_INT(areas.list[0].huge_bytes, 16384); /* not more than there is room for */
    CHECK_EQ_INT(areas.list[0].flags, AREA_DONT_FORK | AREA_WIPE_ON_FORK);
    CHECK_EQ_INT(areas.list[1].flags, AREA_DEVICE | AREA_DONT_DUMP);
    CHECK(areas_find(&areas, 0x4fff) == &areas.list[0]);
    CHECK(areas_find(&areas, 0x5000) == NULL);
    CHECK(areas_find(&areas, 0x7000) == &areas.list[1]);
    areas_done(&areas);
}

TEST(smaps_that_is_none_is_refused)
{
    static const char *const bad[] = {"Rss: 4 kB\n",
                                      "1000-1000 rw-p\n",
                                      "2000-1000 rw-p\n",
                                      "1000-2000\n1000-3000\n",
                                      "1000:2000 rw-p\n",
                                      "hello world\n",
                                      "1000-2000 rw-p\nRss: x kB\n",
                                      "1000-2000 rw-p\nRss:\n",
                                      "1000-2000 rw-p\nSwap: 99999999999999999 kB\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct areas areas;
        CHECK_EQ_INT(feed_text(&areas, bad[i]), ERR_CORRUPT);
        areas_done(&areas);
    }
}

TEST(smaps_of_a_process_has_every_mapping)
{
    struct areas areas;
    struct maps maps;
    struct failure f = {0, ""};
    char *left_out =
        mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(left_out != MAP_FAILED);
    REQUIRE(madvise(left_out, 4 * PAGE, MADV_DONTFORK) == 0);
    left_out[0] = 1;
    areas_init(&areas);
    maps_init(&maps);
    REQUIRE(areas_read(&areas, getpid(), &f) == 0);
    REQUIRE(maps_read(&maps, (uint32_t)getpid(), &f) == 0);
    const struct area *area = areas_find(&areas, (uintptr_t)left_out);
    REQUIRE(area != NULL);
    CHECK_EQ_INT(area->flags, AREA_DONT_FORK);
    CHECK(area->resident_bytes >= PAGE);
    CHECK(areas.count >= 10 && areas.count + 8 >= maps.count);
    areas_done(&areas);
    maps_done(&maps);
    munmap(left_out, 4 * PAGE);
}

TEST(smaps_of_a_process_that_ended)
{
    struct areas areas;
    struct failure f = {0, ""};
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    areas_init(&areas);
    CHECK_EQ_INT(areas_read(&areas, pid, &f), ERR_GONE);
    areas_done(&areas);
}

/* ---- what of a mapping goes in ---- */

static enum segment_content content_of(const char *line, uint32_t flags)
{
    struct maps maps;
    struct area area = {.flags = flags};
    maps_init(&maps);
    REQUIRE(maps_parse(&maps, span_str(line), NULL) == 0 && maps.count == 1);
    enum segment_content content = segment_content(&maps, &maps.list[0], &area);
    maps_done(&maps);
    return content;
}

TEST(each_kind_of_mapping_is_known)
{
    static const struct {
        const char *line;
        uint32_t flags;
        enum segment_content content;
    } cases[] = {
        {"1000-2000 rw-p 0 00:00 0 \n", 0, SEGMENT_ANONYMOUS},
        {"1000-2000 rw-p 0 00:00 0 [heap]\n", 0, SEGMENT_ANONYMOUS},
        {"1000-2000 rw-p 0 00:00 0 [stack]\n", 0, SEGMENT_ANONYMOUS},
        {"1000-2000 rw-p 0 00:00 0 [anon: glibc: malloc]\n", 0, SEGMENT_ANONYMOUS},
        {"1000-2000 ---p 0 00:00 0 \n", 0, SEGMENT_NOTHING},
        {"1000-2000 --xp 0 00:00 0 \n", 0, SEGMENT_ANONYMOUS},
        {"1000-2000 r-xp 0 00:00 0 [vdso]\n", 0, SEGMENT_WHOLE},
        {"1000-2000 r--p 0 00:00 0 [vvar]\n", 0, SEGMENT_NOTHING},
        {"1000-2000 r--p 0 00:00 0 [vvar_vclock]\n", 0, SEGMENT_NOTHING},
        {"1000-2000 --xp 0 00:00 0 [vsyscall]\n", 0, SEGMENT_NOTHING},
        {"1000-2000 --xp 0 00:00 0 [uprobes]\n", 0, SEGMENT_NOTHING},
        {"1000-2000 r-xp 0 08:01 9 /bin/app\n", 0, SEGMENT_FILE},
        {"1000-2000 r-xp 0 08:01 9 /bin/app (deleted)\n", 0, SEGMENT_WHOLE},
        {"1000-2000 rw-s 0 08:01 9 /var/db\n", 0, SEGMENT_NOTHING},
        {"1000-2000 rw-s 0 08:01 9 /var/db (deleted)\n", 0, SEGMENT_SHARED},
        {"1000-2000 rw-s 0 00:01 9 /dev/zero (deleted)\n", 0, SEGMENT_SHARED},
        {"1000-2000 rw-s 0 00:01 9 /dev/shm/PostgreSQL.1\n", 0, SEGMENT_SHARED},
        {"1000-2000 rw-s 0 00:01 9 /SYSV00000000 (deleted)\n", 0, SEGMENT_SHARED},
        {"1000-2000 rw-s 0 00:01 9 /memfd:buffer (deleted)\n", 0, SEGMENT_SHARED},
        {"1000-2000 rw-s 0 00:05 9 /dev/dri/card0\n", 0, SEGMENT_NOTHING},
        {"1000-2000 rw-s 0 00:05 9 /dev/dri/card0 (deleted)\n", 0, SEGMENT_NOTHING},
        {"1000-2000 rw-p 0 00:05 9 /dev/mem\n", 0, SEGMENT_NOTHING},
        {"1000-2000 rw-p 0 00:00 0 \n", AREA_DONT_DUMP, SEGMENT_NOTHING},
        {"1000-2000 rw-p 0 00:00 0 \n", AREA_DEVICE, SEGMENT_NOTHING},
        {"1000-2000 rw-p 0 00:00 0 \n", AREA_DONT_FORK | AREA_WIPE_ON_FORK, SEGMENT_ANONYMOUS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!check_int(content_of(cases[i].line, cases[i].flags), cases[i].content, cases[i].line,
                       __FILE__, __LINE__))
            continue;
    }
}

/* ---- cutting ---- */

#define MODEL_PAGES 4096

struct model {
    uint64_t start;
    bool there[MODEL_PAGES];
};

static int next_of_model(void *context, const struct map *map, enum segment_content content,
                         uint64_t from, uint64_t to, struct segment_run *run)
{
    const struct model *model = context;
    (void)map;
    (void)content;
    uint64_t at = from;
    while (at < to && !model->there[(at - model->start) / PAGE])
        at += PAGE;
    if (at >= to)
        return ERR_NOTFOUND;
    run->start = at;
    while (at < to && model->there[(at - model->start) / PAGE])
        at += PAGE;
    run->end = at;
    return 0;
}

/* Segments cover the mapping without overlap, and every page of the model is in a filled one. */
static void check_cover(const struct segments *segments, const struct model *model, uint64_t end)
{
    uint64_t at = model->start;
    int wrong = 0;
    for (size_t i = 0; i < segments->count; i++) {
        const struct segment *s = &segments->list[i];
        wrong += s->start != at || s->end <= s->start;
        at = s->end;
        for (uint64_t page = s->start; page < s->end && !s->filled; page += PAGE)
            wrong += model->there[(page - model->start) / PAGE];
        wrong += i > 0 && s->filled && segments->list[i - 1].filled;
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK_EQ_INT(at, end);
}

static void cut(struct segments *segments, struct model *model, uint64_t pages, bool head)
{
    struct map map = {.start = model->start, .end = model->start + pages * PAGE, .readable = true};
    struct maps maps = {.list = &map, .count = 1};
    REQUIRE(segments_add(segments, &maps, 0, SEGMENT_ANONYMOUS, head, next_of_model, model) == 0);
    check_cover(segments, model, map.end);
    segments_finish(segments);
}

TEST(memory_is_cut_where_it_does_not_exist)
{
    static struct model model = {.start = 0x10000};
    struct segments segments;
    segments_init(&segments, SEGMENTS_LIMIT);
    model.there[3] = model.there[4] = model.there[10] = model.there[100] = true;
    cut(&segments, &model, 200, false);
    /* Pages 3 to 10 are one: the hole between them is short. */
    REQUIRE(segments.count == 5);
    CHECK_EQ_INT(segments.list[1].start, 0x10000 + 3 * PAGE);
    CHECK_EQ_INT(segments.list[1].end, 0x10000 + 11 * PAGE);
    CHECK_EQ_INT(segments.list[3].start, 0x10000 + 100 * PAGE);
    CHECK_EQ_INT(segments.filled_bytes, 9 * PAGE);
    segments_done(&segments);
}

TEST(the_first_page_of_a_file_is_kept)
{
    static struct model model = {.start = 0x10000};
    struct segments segments;
    segments_init(&segments, SEGMENTS_LIMIT);
    cut(&segments, &model, 50, true);
    REQUIRE(segments.count == 2);
    CHECK(segments.list[0].filled && segments.list[0].end == 0x10000 + PAGE);
    segments_done(&segments);
}

TEST(memory_that_was_never_touched_is_one_hole)
{
    static struct model model = {.start = 0x10000};
    struct segments segments;
    segments_init(&segments, SEGMENTS_LIMIT);
    cut(&segments, &model, MODEL_PAGES, false);
    CHECK_EQ_INT(segments.count, 1);
    CHECK_EQ_INT(segments.filled_bytes, 0);
    segments_done(&segments);
}

TEST(any_pattern_is_covered)
{
    static struct model model = {.start = 0x7f0000000000};
    unsigned seed = 11;
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        struct segments segments;
        uint64_t pages = 1 + (uint64_t)rand_r(&seed) % MODEL_PAGES;
        int one_in = 1 + rand_r(&seed) % 64;
        for (size_t i = 0; i < MODEL_PAGES; i++)
            model.there[i] = rand_r(&seed) % one_in == 0;
        segments_init(&segments, (size_t)(3 + rand_r(&seed) % 100));
        cut(&segments, &model, pages, round % 2 == 0);
        segments_done(&segments);
    }
}

TEST(too_many_segments_become_fewer)
{
    static struct model model = {.start = 0x10000};
    struct segments segments;
    segments_init(&segments, 16);
    for (size_t i = 0; i < MODEL_PAGES; i += 20)
        model.there[i] = true;
    cut(&segments, &model, MODEL_PAGES, false);
    CHECK(segments.count <= 18);
    CHECK(segments.hole_bytes > SEGMENTS_HOLE_BYTES);
    segments_done(&segments);
}

/* ---- pages ---- */

struct mapping {
    uint8_t *data;
    struct maps maps;
    const struct map *map;
};

/* Known pages of a private mapping; the others were never touched, or only read. */
static void make_mapping(struct mapping *m, size_t pages, int flags)
{
    m->data = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                   flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(m->data != MAP_FAILED);
    madvise(m->data, pages * PAGE, MADV_NOHUGEPAGE);
}

static void find_mapping(struct mapping *m)
{
    maps_init(&m->maps);
    REQUIRE(maps_read(&m->maps, (uint32_t)getpid(), NULL) == 0);
    m->map = maps_find(&m->maps, (uintptr_t)m->data);
    REQUIRE(m->map != NULL);
}

/* Sums up what is found: how many pages, and a hash of which. */
static uint64_t sum_pages(struct pages *pages, const struct map *map, enum segment_content content,
                          uint64_t from, uint64_t to, uint64_t *count)
{
    uint64_t hash = 14695981039346656037ull;
    struct segment_run run;
    *count = 0;
    while (from < to && pages_next(pages, map, content, from, to, &run) == 0) {
        REQUIRE(run.start >= from && run.end > run.start && run.end <= to);
        for (uint64_t at = run.start; at < run.end; at += PAGE) {
            hash = (hash ^ at) * 1099511628211ull;
            ++*count;
        }
        from = run.end;
    }
    return hash;
}

static void check_private(bool old_kernel)
{
    static struct pages pages;
    struct mapping m;
    uint64_t count;
    make_mapping(&m, 3000, MAP_PRIVATE);
    for (size_t i = 0; i < 3000; i += 2)
        m.data[i * PAGE] = 1;
    volatile uint8_t seen = m.data[PAGE]; /* the zero page */
    (void)seen;
    find_mapping(&m);
    REQUIRE(pages_open(&pages, getpid(), getpid(), old_kernel, NULL) == 0);
    uint64_t start = (uintptr_t)m.data;
    sum_pages(&pages, m.map, SEGMENT_ANONYMOUS, start, start + 3000 * PAGE, &count);
    CHECK(count >= 1500 && count <= (old_kernel ? 1501 : 1500));
    if (!old_kernel && !pages.scan)
        SKIP("this kernel has no PAGEMAP_SCAN");
    /* From the middle of a run, and to it. */
    sum_pages(&pages, m.map, SEGMENT_ANONYMOUS, start + 2000 * PAGE, start + 2001 * PAGE, &count);
    CHECK_EQ_INT(count, 1);
    pages_close(&pages);
    maps_done(&m.maps);
    munmap(m.data, 3000 * PAGE);
}

TEST(private_pages_are_found)
{
    check_private(false);
}

TEST(private_pages_are_found_on_an_older_kernel)
{
    check_private(true);
}

/* Looking must not make pages: the number of blocks of the file tells. */
TEST(holes_of_shared_memory_stay_holes)
{
    static struct pages pages;
    struct mapping m;
    struct areas areas;
    uint64_t count;
    make_mapping(&m, 3000, MAP_SHARED);
    for (size_t i = 0; i < 3000; i += 100)
        m.data[i * PAGE] = 1;
    find_mapping(&m);
    REQUIRE(pages_open(&pages, getpid(), getpid(), false, NULL) == 0);
    uint64_t start = m.map->start;
    sum_pages(&pages, m.map, SEGMENT_SHARED, start, m.map->end, &count);
    CHECK(count >= 30);
    printf("      %llu pages of 30 touched\n", (unsigned long long)count);
    areas_init(&areas);
    REQUIRE(areas_read(&areas, getpid(), NULL) == 0);
    CHECK_EQ_INT(areas_find(&areas, start)->resident_bytes, 30 * PAGE);
    areas_done(&areas);
    pages_close(&pages);
    maps_done(&m.maps);
}

TEST(terabytes_that_were_never_touched_cost_nothing)
{
    static struct pages pages;
    struct mapping m;
    uint64_t count, gib = 1ull << 30;
    make_mapping(&m, (10ull << 40) / PAGE, MAP_PRIVATE);
    m.data[5ull << 40] = 1;
    find_mapping(&m);
    REQUIRE(pages_open(&pages, getpid(), getpid(), false, NULL) == 0);
    sum_pages(&pages, m.map, SEGMENT_ANONYMOUS, m.map->start, m.map->end, &count);
    if (!pages.scan)
        SKIP("this kernel has no PAGEMAP_SCAN");
    CHECK_EQ_INT(count, 1);
    pages_close(&pages);
    /* Without PAGEMAP_SCAN the search has an end, and says what it left out. */
    REQUIRE(pages_open(&pages, getpid(), getpid(), true, NULL) == 0);
    sum_pages(&pages, m.map, SEGMENT_ANONYMOUS, m.map->start, m.map->end, &count);
    CHECK(pages.skipped_bytes > 9000 * gib);
    pages_close(&pages);
    maps_done(&m.maps);
    munmap(m.data, 10ull << 40);
}
