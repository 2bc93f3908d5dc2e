/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bundles and their files: which names are safe, what the manifest says, and that a file has its
 * name only when it is right: resumed from whole pieces, begun anew, refused.
 */
#include "tests/unit/common/scratch.h"

#include "cli/bundle.h"
#include "cli/transfer.h"

#include <string.h>
#include <sys/stat.h>

#include "common/pki.h"
#include "common/zip.h"
#include "tests/unit/cli/golden.h"

#define NOW INT64_C(1795442525000000)
#define PIECE CODEC_PIECE_SIZE
#define BODY_MAX (4 * PIECE)

/* ---- names ---- */

TEST(a_name_is_one_plain_component)
{
    static const char *const good[] = {"stacks-redis-server-1234.txt", "a", "a b (1).json", "x=y",
                                       "a..b"};
    static const char *const bad[] = {
        "",    ".",   "..",     ".hidden",    "a/b", "/etc/passwd", "a\\b",
        "c:x", "-rf", "x.part", "x.unpacked", "a\n", "a\033b",      "a\xc3",
        "a?",  "a*",  "end.",   "end ",       "a|b", "../../x"};
    char longest[300];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK(bundle_is_safe_name(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!bundle_is_safe_name(bad[i]));
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    CHECK(!bundle_is_safe_name(longest));
}

static void add_artifact(struct bundle *b, const char *host, uint32_t no, const char *kind,
                         const char *file)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_artifact_tag};
    trawl_v1_Artifact *a = &part.body.artifact;
    text_copy(a->host, sizeof a->host, host);
    text_copy(a->kind, sizeof a->kind, kind);
    text_copy(a->file, sizeof a->file, file);
    a->no = no;
    a->sealed = true;
    a->size_bytes = 10;
    a->sha256.size = 32;
    a->wall_us = NOW;
    CHECK_EQ_INT(bundle_part(b, &part), 0);
}

static void begin_bundle(struct bundle *b, const char *id)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_incident_tag};
    text_copy(part.body.incident.id, sizeof part.body.incident.id, id);
    part.body.incident.created_us = NOW;
    part.body.incident.what_count = 1;
    text_copy(part.body.incident.what[0], sizeof part.body.incident.what[0], "logs");
    bundle_init(b);
    CHECK_EQ_INT(bundle_part(b, &part), 0);
}

TEST(no_two_artifacts_share_a_file)
{
    struct bundle b;
    struct failure f;
    begin_bundle(&b, "INC-1");
    add_artifact(&b, "a", 1, "stacks", "s.txt");
    add_artifact(&b, "b", 1, "stacks", "s.txt");
    add_artifact(&b, "a", 2, "stacks", "S.TXT");
    add_artifact(&b, "a", 3, "stacks", "2-S.txt");
    add_artifact(&b, "a", 3, "stacks", "2-S.txt");
    CHECK_EQ_INT(bundle_choose(&b, "", "", &f), 0);
    CHECK_EQ_STR(b.artifacts[0].file, "s.txt");
    CHECK_EQ_STR(b.artifacts[1].file, "s.txt");
    CHECK_EQ_STR(b.artifacts[2].file, "2-S.TXT");
    CHECK_EQ_STR(b.artifacts[3].file, "3-2-S.txt");
    CHECK_EQ_STR(b.artifacts[4].file, "");
    CHECK_EQ_INT(b.artifacts[4].state, BUNDLE_FAILED);
    bundle_done(&b);
}

TEST(names_that_would_leave_the_directory_are_not_fetched)
{
    struct bundle b;
    struct failure f;
    begin_bundle(&b, "INC-1");
    add_artifact(&b, "a", 1, "stacks", "../../.ssh/authorized_keys");
    add_artifact(&b, "../x", 1, "stacks", "s.txt");
    add_artifact(&b, "report.txt", 1, "stacks", "s.txt");
    add_artifact(&b, "a", 2, "stacks", "fine.txt");
    CHECK_EQ_INT(bundle_choose(&b, "", "", &f), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ_STR(b.artifacts[i].file, "");
        CHECK_EQ_INT(b.artifacts[i].state, BUNDLE_FAILED);
        CHECK(strstr(b.artifacts[i].why.text, "not safe") != NULL);
    }
    CHECK_EQ_INT(b.artifacts[3].state, BUNDLE_WANTED);
    bundle_done(&b);
    begin_bundle(&b, "../INC");
    CHECK_EQ_INT(bundle_choose(&b, "", "", &f), ERR_CORRUPT);
    bundle_done(&b);
}

TEST(hosts_and_kinds_are_chosen_and_what_does_not_exist_is_named)
{
    struct bundle b;
    struct failure f;
    begin_bundle(&b, "INC-1");
    add_artifact(&b, "web-1", 1, "stacks", "s.txt");
    add_artifact(&b, "web-2", 1, "triage", "t.txt");
    add_artifact(&b, "db-1", 1, "stacks", "s.txt");
    b.artifacts[2].record.sealed = false;
    CHECK_EQ_INT(bundle_choose(&b, "web-*,db-1", "stacks", &f), 0);
    CHECK_EQ_INT(b.artifacts[0].state, BUNDLE_WANTED);
    CHECK_EQ_INT(b.artifacts[1].state, BUNDLE_UNASKED);
    CHECK_EQ_INT(b.artifacts[2].state, BUNDLE_FAILED);
    CHECK_EQ_INT(bundle_choose(&b, "", "logs", &f), 0);
    CHECK_EQ_INT(bundle_choose(&b, "wbe-1", "", &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "unknown host of this incident 'wbe-1'; did you mean 'web-1'? (known: "
                         "web-1, web-2, db-1)");
    CHECK_EQ_INT(bundle_choose(&b, "", "core", &f), ERR_INVALID);
    bundle_done(&b);
}

TEST(the_manifest_lists_what_is_there_and_what_is_not)
{
    struct bundle b;
    struct failure f;
    struct buf out;
    trawl_v1_IncidentPart target = {.which_body = trawl_v1_IncidentPart_target_tag};
    target.body.target = (trawl_v1_Target){.incident = "INC-1",
                                           .host = "web-1",
                                           .state = trawl_v1_State_PARTIAL,
                                           .reason = "no \"log\"",
                                           .capture = 1,
                                           .updated_us = NOW};
    begin_bundle(&b, "INC-1");
    CHECK_EQ_INT(bundle_part(&b, &target), 0);
    add_artifact(&b, "web-1", 1, "stacks", "s.txt");
    add_artifact(&b, "web-1", 2, "stacks", "../x");
    add_artifact(&b, "web-1", 3, "logs", "l.txt");
    add_artifact(&b, "web-1", 4, "stacks", "p.txt");
    CHECK_EQ_INT(bundle_choose(&b, "", "stacks", &f), 0);
    b.artifacts[0].state = BUNDLE_FETCHED;
    buf_init(&out, GOLDEN_LIMIT);
    CHECK_EQ_INT(bundle_manifest(&b, &out), 0);
    golden_check("manifest", buf_str(&out));
    buf_done(&out);
    bundle_done(&b);
}

/* ---- files ---- */

struct evidence {
    trawl_v1_Artifact artifact;
    uint8_t body[BODY_MAX];
    char path[SCRATCH_PATH_SIZE];
};

static void make_evidence(struct evidence *e, size_t size)
{
    e->artifact = (trawl_v1_Artifact){.host = "web-1", .file = "s.txt", .size_bytes = size};
    for (size_t i = 0; i < size; i++)
        e->body[i] = (uint8_t)(i * 31 + i / 251);
    e->artifact.sha256.size = 32;
    pki_sha256(span_of(e->body, size), e->artifact.sha256.bytes);
    scratch("s.txt", e->path);
}

static trawl_v1_Piece piece_of(const struct evidence *e, uint32_t no)
{
    trawl_v1_Piece p = {.no = no};
    size_t at = (size_t)no * PIECE, left = (size_t)e->artifact.size_bytes - at;
    p.data.size = (pb_size_t)(left < PIECE ? left : PIECE);
    memcpy(p.data.bytes, e->body + at, p.data.size);
    p.last = at + p.data.size == e->artifact.size_bytes;
    return p;
}

/* Pieces from where the transfer wants to go on to `end` (or the last). */
static int take_pieces(struct transfer *t, const struct evidence *e, uint32_t end,
                       struct failure *f)
{
    int r = 0;
    while (r == 0 && !t->ended && t->next_piece < end) {
        trawl_v1_Piece p = piece_of(e, t->next_piece);
        r = transfer_piece(t, &p, f);
    }
    return r;
}

static bool exists(const char *path, const char *end)
{
    char whole[SCRATCH_PATH_SIZE + 8];
    text_format(whole, sizeof whole, "%s%s", path, end);
    return port_exists(whole);
}

static void open_fresh(struct transfer *t, const struct evidence *e)
{
    struct failure f;
    bool present = true;
    REQUIRE(transfer_open(t, e->path, &e->artifact, &present, &f) == 0);
    REQUIRE(!present);
}

TEST(a_whole_artifact_gets_its_name_and_is_known_again)
{
    static struct evidence e;
    static const size_t sizes[] = {0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE};
    struct transfer t;
    struct failure f = {.code = 0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bool present = false;
        make_evidence(&e, sizes[i]);
        open_fresh(&t, &e);
        CHECK(!t.resumed);
        CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
        CHECK(!exists(e.path, ""));
        CHECK_EQ_INT(transfer_finish(&t, &f), 0);
        CHECK(exists(e.path, "") && !exists(e.path, ".part"));
        CHECK_EQ_INT(transfer_open(&t, e.path, &e.artifact, &present, &f), 0);
        CHECK(present);
        REQUIRE(remove(e.path) == 0);
    }
}

TEST(an_interrupted_artifact_goes_on_from_whole_pieces)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    char part[SCRATCH_PATH_SIZE + 8];
    make_evidence(&e, 3 * PIECE + 100);
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 2, &f), 0);
    transfer_close(&t);
    CHECK(exists(e.path, ".part") && !exists(e.path, ""));
    /* A torn piece behind the whole ones: cut off in the middle of a write. */
    text_format(part, sizeof part, "%s.part", e.path);
    FILE *file = fopen(part, "ab");
    REQUIRE(file != NULL);
    fwrite("torn", 1, 4, file);
    fclose(file);
    open_fresh(&t, &e);
    CHECK(t.resumed);
    CHECK_EQ_INT(t.next_piece, 2);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 0);
    CHECK(exists(e.path, "") && !exists(e.path, ".part"));
}

TEST(a_part_that_is_too_long_is_begun_anew)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    char part[SCRATCH_PATH_SIZE + 8];
    make_evidence(&e, PIECE + 5);
    text_format(part, sizeof part, "%s.part", e.path);
    FILE *file = fopen(part, "wb");
    REQUIRE(file != NULL);
    for (int i = 0; i < 3 * PIECE; i++)
        fputc('x', file);
    fclose(file);
    open_fresh(&t, &e);
    CHECK(!t.resumed);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 0);
}

TEST(a_byte_that_differs_is_never_a_file)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    make_evidence(&e, 2 * PIECE);
    e.artifact.sha256.bytes[7] ^= 1;
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), ERR_CORRUPT);
    CHECK_EQ_STR(f.text, "artifact 's.txt' of host 'web-1' differs from its hash: not kept");
    CHECK(!exists(e.path, "") && !exists(e.path, ".part"));
}

TEST(an_artifact_that_ends_early_is_not_kept)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    make_evidence(&e, 2 * PIECE);
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 1, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), ERR_CORRUPT);
    CHECK(strstr(f.text, "ended after 32760 of 65520 bytes") != NULL);
    CHECK(!exists(e.path, "") && !exists(e.path, ".part"));
}

TEST(pieces_out_of_turn_or_of_a_wrong_size_are_refused)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    make_evidence(&e, 2 * PIECE + 7);
    open_fresh(&t, &e);
    trawl_v1_Piece p = piece_of(&e, 1);
    CHECK_EQ_INT(transfer_piece(&t, &p, &f), ERR_PROTOCOL);
    p = piece_of(&e, 0);
    p.data.size--;
    CHECK_EQ_INT(transfer_piece(&t, &p, &f), ERR_PROTOCOL);
    p = piece_of(&e, 0);
    p.last = true;
    CHECK_EQ_INT(transfer_piece(&t, &p, &f), ERR_PROTOCOL);
    CHECK_EQ_INT(take_pieces(&t, &e, 2, &f), 0);
    p = piece_of(&e, 2);
    p.data.size++;
    CHECK_EQ_INT(transfer_piece(&t, &p, &f), ERR_PROTOCOL);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    p = piece_of(&e, 2);
    p.no = 3;
    CHECK_EQ_INT(transfer_piece(&t, &p, &f), ERR_PROTOCOL);
    CHECK_EQ_INT(transfer_finish(&t, &f), 0);
}

TEST(a_file_that_was_changed_is_fetched_again)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    make_evidence(&e, 10);
    FILE *file = fopen(e.path, "wb");
    REQUIRE(file != NULL);
    fwrite("0123456789", 1, 10, file);
    fclose(file);
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 0);
}

/* ---- packed ones ---- */

#define PLAIN_BYTES (700 * 1024)
static uint8_t plain[PLAIN_BYTES];

/* An artifact as an agent stores a core: mostly holes, in frames, ending in a hole. */
static void make_packed(struct evidence *e)
{
    struct buf packed;
    buf_init(&packed, BODY_MAX);
    for (size_t i = 0; i < PLAIN_BYTES; i++)
        plain[i] = i < 9000 || (i > 300000 && i < 310000) ? (uint8_t)(i * 31 + i / 251) : 0;
    for (size_t at = 0; at < PLAIN_BYTES; at += PLAIN_BYTES / 2)
        REQUIRE(zip_pack(span_of(plain + at, PLAIN_BYTES / 2), 1, &packed) == 0);
    make_evidence(e, packed.size_bytes);
    memcpy(e->body, packed.data, packed.size_bytes);
    pki_sha256(buf_span(&packed), e->artifact.sha256.bytes);
    text_copy(e->artifact.encoding, sizeof e->artifact.encoding, "zstd");
    buf_done(&packed);
}

static int unpack_all(struct transfer *t, struct failure *f)
{
    int r;
    do
        r = transfer_unpack(t, 1, f);
    while (r > 0);
    return r;
}

static void check_plain(const struct evidence *e, const struct transfer *t)
{
    struct buf file;
    struct stat st;
    buf_init(&file, 2 * PLAIN_BYTES);
    CHECK_EQ_INT(port_read_file(e->path, &file, NULL), 0);
    REQUIRE(file.size_bytes == PLAIN_BYTES);
    CHECK_EQ_MEM(file.data, plain, PLAIN_BYTES);
    CHECK_EQ_INT(t->plain_bytes, PLAIN_BYTES);
    REQUIRE(stat(e->path, &st) == 0);
    CHECK((size_t)st.st_blocks * 512 < 100000); /* holes */
    buf_done(&file);
    CHECK(!exists(e->path, ".part") && !exists(e->path, ".unpack.part"));
}

TEST(a_packed_artifact_becomes_a_file_with_holes)
{
    static struct evidence e;
    static struct transfer t;
    struct failure f = {.code = 0};
    bool present = false;
    make_packed(&e);
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    CHECK(!exists(e.path, ""));
    CHECK_EQ_INT(unpack_all(&t, &f), 0);
    check_plain(&e, &t);
    CHECK_EQ_INT(transfer_open(&t, e.path, &e.artifact, &present, &f), 0);
    CHECK(present);
    CHECK_EQ_INT(t.plain_bytes, PLAIN_BYTES);
    /* A byte that was changed afterwards: it is not the file any more. */
    FILE *file = fopen(e.path, "r+b");
    REQUIRE(file != NULL);
    fputc('x', file);
    fclose(file);
    open_fresh(&t, &e);
    transfer_close(&t);
}

TEST(an_interrupted_unpacking_is_done_again_from_what_came)
{
    static struct evidence e;
    static struct transfer t;
    struct failure f = {.code = 0};
    make_packed(&e);
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    transfer_close(&t);
    CHECK(exists(e.path, ".part") && !exists(e.path, ""));
    open_fresh(&t, &e);
    CHECK_EQ_INT(t.received_bytes, e.artifact.size_bytes); /* nothing is asked for again */
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    CHECK_EQ_INT(unpack_all(&t, &f), 0);
    check_plain(&e, &t);
}

TEST(an_unpacked_file_has_a_limit)
{
    static struct evidence e;
    static struct transfer t;
    struct failure f = {.code = 0};
    make_packed(&e);
    open_fresh(&t, &e);
    t.max_bytes = PLAIN_BYTES - 1;
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    CHECK_EQ_INT(unpack_all(&t, &f), ERR_LIMIT);
    CHECK(strstr(f.text, "allow it with --max-size") != NULL);
    CHECK(exists(e.path, ".part") && !exists(e.path, "") && !exists(e.path, ".unpack.part"));
    transfer_close(&t);
    /* The size was said beforehand: refused before a byte is written. */
    e.artifact.plain_bytes = PLAIN_BYTES;
    open_fresh(&t, &e);
    t.max_bytes = PLAIN_BYTES - 1;
    CHECK_EQ_INT(transfer_finish(&t, &f), ERR_LIMIT);
    transfer_close(&t);
    /* And it must be what was said. */
    e.artifact.plain_bytes = PLAIN_BYTES + 1;
    open_fresh(&t, &e);
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    CHECK_EQ_INT(unpack_all(&t, &f), ERR_CORRUPT);
    transfer_close(&t);
    e.artifact.plain_bytes = PLAIN_BYTES;
    open_fresh(&t, &e);
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    CHECK_EQ_INT(unpack_all(&t, &f), 0);
    check_plain(&e, &t);
}

TEST(what_cannot_be_unpacked_is_no_file)
{
    static struct evidence e;
    static struct transfer t;
    struct failure f = {.code = 0};
    bool present;
    make_evidence(&e, 2 * PIECE);
    text_copy(e.artifact.encoding, sizeof e.artifact.encoding, "zstd");
    open_fresh(&t, &e);
    CHECK_EQ_INT(take_pieces(&t, &e, 99, &f), 0);
    CHECK_EQ_INT(transfer_finish(&t, &f), 1);
    CHECK_EQ_INT(unpack_all(&t, &f), ERR_CORRUPT);
    CHECK(strstr(f.text, "cannot be unpacked") != NULL);
    CHECK(!exists(e.path, "") && !exists(e.path, ".unpack.part") && exists(e.path, ".part"));
    transfer_close(&t);
    text_copy(e.artifact.encoding, sizeof e.artifact.encoding, "zstd-later");
    CHECK_EQ_INT(transfer_open(&t, e.path, &e.artifact, &present, &f), ERR_VERSION);
    CHECK(strstr(f.text, "'zstd-later'") != NULL);
}

TEST(a_place_that_cannot_be_written_is_named)
{
    static struct evidence e;
    struct transfer t;
    struct failure f = {.code = 0};
    bool present;
    make_evidence(&e, 10);
    CHECK(transfer_open(&t, "/nonexistent/dir/s.txt", &e.artifact, &present, &f) < 0);
    CHECK(strstr(f.text, "/nonexistent/dir/s.txt.part") != NULL);
}
