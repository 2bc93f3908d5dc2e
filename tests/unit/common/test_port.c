/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operating system seam, against a real one: mapped files that outlive kill -9, locks between
 * processes, atomic writing with a full disk and a file size limit, rights. What fails must leave
 * neither a half file nor a temporary one.
 */
#include "tests/unit/common/scratch.h"

#include "tests/unit/common/failing_buf.h"

#include "common/port.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/text.h"
#include "tests/check.h"

static char path[SCRATCH_PATH_SIZE];
static struct failure f;

static void put_file(const char *at, const char *text, mode_t mode)
{
    unlink(at);
    int fd = open(at, O_WRONLY | O_CREAT | O_EXCL, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    REQUIRE(fchmod(fd, mode) == 0);
    close(fd);
}

static const char *file_text(const char *at)
{
    static char text[256];
    struct buf b;
    buf_init(&b, sizeof text - 1);
    if (port_read_file(at, &b, NULL) < 0)
        text_copy(text, sizeof text, "(none)");
    else
        text_copy_span(text, sizeof text, buf_span(&b));
    buf_done(&b);
    return text;
}

static unsigned mode_of(const char *at)
{
    struct stat st;
    return stat(at, &st) == 0 ? (unsigned)(st.st_mode & 07777) : 0;
}

/* Entries of the scratch directory: a forgotten temporary file is one too many. */
static int entries(const char *dir)
{
    int count = 0;
    DIR *d = opendir(dir);
    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

/* Rights do not bind root: tests of ERR_DENIED give it up in their own process. */
static void become_nobody(void)
{
    if (geteuid() == 0) {
        char top[SCRATCH_PATH_SIZE];
        scratch("", top);
        REQUIRE(chown(scratch_dir, 65534, 65534) == 0);
        REQUIRE(seteuid(65534) == 0);
    }
}

static void become_root_again(void)
{
    if (getuid() == 0)
        REQUIRE(seteuid(0) == 0);
}

/* ---- random, time, name ---- */

TEST(random_bytes_differ_and_stay_inside)
{
    uint8_t a[600], b[600];
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    port_random(a, 599);
    port_random(b, 599);
    CHECK(memcmp(a, b, 599) != 0);
    CHECK(a[599] == 0 && b[599] == 0);
    unsigned seen[256] = {0}, values = 0;
    for (size_t i = 0; i < 599; i++)
        values += seen[a[i]]++ == 0;
    CHECK(values > 200);
    port_random(NULL, 0);
}

TEST(host_name_is_short_and_small)
{
    char name[256], kernel[256] = "";
    REQUIRE(gethostname(kernel, sizeof kernel - 1) == 0);
    CHECK_EQ_INT(port_host_name(name, sizeof name), 0);
    CHECK_EQ_INT(strlen(name), strcspn(kernel, "."));
    CHECK_EQ_INT(strncasecmp(name, kernel, strlen(name)), 0);
    CHECK_EQ_INT(strcspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ."), strlen(name));
    CHECK_EQ_INT(port_host_name(name, 1), kernel[0] ? ERR_LIMIT : 0);
}

/* In a namespace of its own the host may be called anything. */
TEST(host_name_is_cut_at_the_first_dot)
{
    if (unshare(CLONE_NEWUTS) < 0)
        SKIP("no right to make a UTS namespace");
    char name[64];
    REQUIRE(sethostname("Web-07.Example.ORG", 18) == 0);
    CHECK_EQ_INT(port_host_name(name, sizeof name), 0);
    CHECK_EQ_STR(name, "web-07");
}

/* ---- mapped files ---- */

TEST(a_new_map_is_fresh_zero_private_and_allocated)
{
    struct port_map map;
    bool fresh = false;
    struct stat st;
    scratch("ring", path);
    REQUIRE(port_map_open(&map, path, 100000, &fresh, &f) == 0);
    CHECK(fresh);
    CHECK_EQ_INT(map.size_bytes, 100000);
    size_t set = 0;
    for (size_t i = 0; i < map.size_bytes; i++)
        set += map.data[i] != 0;
    CHECK_EQ_INT(set, 0);
    REQUIRE(stat(path, &st) == 0);
    CHECK_EQ_INT(st.st_size, 100000);
    CHECK(st.st_blocks * 512 >= 100000);
    CHECK_EQ_INT(st.st_mode & 07777, 0600);
    port_map_close(&map);
    CHECK(map.data == NULL);
    port_map_close(&map);
}

TEST(closing_a_zeroed_map_closes_nothing)
{
    struct port_map map = {0};
    REQUIRE(dup2(2, 0) == 0); /* handle 0 would be this descriptor */
    port_map_close(&map);
    CHECK(fcntl(0, F_GETFD) >= 0);
}

TEST(what_was_written_survives_kill_9)
{
    struct port_map map;
    bool fresh;
    scratch("ring", path);
    pid_t pid = fork();
    if (pid == 0) {
        if (port_map_open(&map, path, 8192, &fresh, &f) < 0)
            _exit(1);
        memcpy(map.data + 8000, "last words", 10);
        raise(SIGKILL);
    }
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    fresh = true;
    REQUIRE(port_map_open(&map, path, 8192, &fresh, &f) == 0);
    CHECK(!fresh);
    CHECK_EQ_MEM(map.data + 8000, "last words", 10);
    port_map_close(&map);
}

TEST(another_size_starts_again_from_zeros)
{
    static const size_t sizes[] = {4096, 8192, 4096, 1};
    scratch("ring", path);
    for (size_t i = 0; i < 4; i++) {
        struct port_map map;
        bool fresh = false;
        REQUIRE(port_map_open(&map, path, sizes[i], &fresh, &f) == 0);
        CHECK(fresh);
        CHECK_EQ_INT(map.size_bytes, sizes[i]);
        CHECK_EQ_INT(map.data[0], 0);
        CHECK_EQ_INT(map.data[sizes[i] - 1], 0);
        memset(map.data, 0xFF, sizes[i]);
        port_map_close(&map);
    }
}

TEST(a_map_is_locked_against_a_second_one)
{
    struct port_map map, second = {0};
    bool fresh, untouched = true;
    scratch("ring", path);
    REQUIRE(port_map_open(&map, path, 4096, &fresh, &f) == 0);
    map.data[0] = 'x';
    /* Another size on purpose: whoever is refused may not have cut the file before. */
    CHECK_EQ_INT(port_map_open(&second, path, 100, &untouched, &f), ERR_BUSY);
    CHECK_EQ_INT(f.code, ERR_BUSY);
    CHECK(strstr(f.text, "another process holds it") != NULL);
    CHECK(second.data == NULL && untouched);
    CHECK_EQ_INT(map.data[0], 'x');
    CHECK_EQ_INT(map.data[4095], 0);
    port_map_close(&map);
    CHECK_EQ_INT(port_map_open(&second, path, 4096, &fresh, &f), 0);
    port_map_close(&second);
}

TEST(a_map_is_refused_where_it_cannot_be)
{
    struct port_map map = {0};
    bool fresh = true;
    CHECK_EQ_INT(port_map_open(&map, scratch("no/ring", path), 4096, &fresh, &f), ERR_NOTFOUND);
    CHECK(strstr(f.text, path) != NULL);
    REQUIRE(symlink("elsewhere", scratch("link", path)) == 0);
    CHECK(port_map_open(&map, path, 4096, &fresh, &f) < 0);
    REQUIRE(mkfifo(scratch("fifo", path), 0600) == 0);
    CHECK_EQ_INT(port_map_open(&map, path, 4096, &fresh, &f), ERR_INVALID);
    CHECK(map.data == NULL && fresh);
    CHECK(!port_exists(scratch("elsewhere", path)));
}

/* A tmpfs of 1 MiB in a mount namespace of this test's own. */
static bool mount_small_disk(const char *at)
{
    if (mkdir(at, 0700) < 0 || unshare(CLONE_NEWNS) < 0)
        return false;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return false;
    return mount("trawl-test", at, "tmpfs", 0, "size=1m") == 0;
}

TEST(a_full_disk_is_an_error_here_and_not_a_signal_later)
{
    char disk[SCRATCH_PATH_SIZE];
    if (!mount_small_disk(scratch("disk", disk))) {
        scratch_done();
        SKIP("no right to mount a file system");
    }
    struct port_map map = {0};
    bool fresh = false;
    scratch("disk/ring", path);
    CHECK_EQ_INT(port_map_open(&map, path, 2 << 20, &fresh, &f), ERR_FULL);
    CHECK(strstr(f.text, "no space left") != NULL);
    /* And the disk is not left full. */
    REQUIRE(port_map_open(&map, path, 900 << 10, &fresh, &f) == 0);
    memset(map.data, 1, map.size_bytes);
    scratch("disk/state", path);
    static uint8_t data[300 << 10];
    CHECK_EQ_INT(port_write_file(path, span_of(data, sizeof data), true, &f), ERR_FULL);
    CHECK_EQ_INT(entries(disk), 1);
    port_map_close(&map);
    umount(disk);
}

/* ---- reading ---- */

TEST(reads_up_to_the_limit_and_appends)
{
    struct buf b;
    scratch("file", path);
    put_file(path, "0123456789", 0600);
    buf_init(&b, 12);
    REQUIRE(buf_append_str(&b, "> ") == 0);
    CHECK_EQ_INT(port_read_file(path, &b, &f), 0);
    CHECK_EQ_STR(buf_str(&b), "> 0123456789");
    buf_done(&b);
    buf_init(&b, 11);
    REQUIRE(buf_append_str(&b, "> ") == 0);
    CHECK_EQ_INT(port_read_file(path, &b, &f), ERR_LIMIT);
    CHECK_EQ_STR(buf_str(&b), "> ");
    CHECK(strstr(f.text, "larger than 11 bytes") != NULL);
    buf_done(&b);
}

TEST(reads_an_empty_file_a_long_one_and_proc)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    put_file(scratch("empty", path), "", 0600);
    CHECK_EQ_INT(port_read_file(path, &b, &f), 0);
    CHECK_EQ_INT(b.size_bytes, 0);
    static uint8_t data[100000];
    port_random(data, sizeof data);
    REQUIRE(port_write_file(scratch("long", path), span_of(data, sizeof data), true, &f) == 0);
    CHECK_EQ_INT(port_read_file(path, &b, &f), 0);
    CHECK(span_equal(buf_span(&b), span_of(data, sizeof data)));
    buf_clear(&b);
    CHECK_EQ_INT(port_read_file("/proc/self/stat", &b, &f), 0);
    CHECK(b.size_bytes > 50);
    buf_done(&b);
}

TEST(reading_fails_with_a_reason)
{
    struct buf b;
    buf_init(&b, 100);
    CHECK_EQ_INT(port_read_file(scratch("none", path), &b, &f), ERR_NOTFOUND);
    CHECK(strncmp(f.text, "cannot open '", 13) == 0);
    CHECK(strstr(f.text, ": no such file or directory") != NULL);
    CHECK_EQ_INT(port_read_file("/", &b, &f), ERR_INVALID);
    put_file(scratch("secret", path), "x", 0000);
    become_nobody();
    CHECK_EQ_INT(port_read_file(path, &b, &f), ERR_DENIED);
    become_root_again();
    buf_done(&b);
    failing_buf_after(0);
    CHECK_EQ_INT(port_read_file("/proc/self/stat", &b, &f), ERR_NOMEM);
    failing_buf_after(-1);
    CHECK_EQ_INT(b.size_bytes, 0);
    buf_done(&b);
}

/* ---- writing ---- */

TEST(writes_and_replaces_with_the_mode_asked_for)
{
    umask(0077);
    scratch("state", path);
    CHECK_EQ_INT(port_write_file(path, span_str("one"), false, &f), 0);
    CHECK_EQ_STR(file_text(path), "one");
    CHECK_EQ_INT(mode_of(path), 0644);
    umask(0);
    CHECK_EQ_INT(port_write_file(path, span_str("two, longer"), true, &f), 0);
    CHECK_EQ_STR(file_text(path), "two, longer");
    CHECK_EQ_INT(mode_of(path), 0600);
    CHECK_EQ_INT(port_write_file(path, span_of(NULL, 0), true, &f), 0);
    CHECK_EQ_STR(file_text(path), "");
    CHECK_EQ_INT(entries(scratch_dir), 1);
}

TEST(writes_into_the_current_directory)
{
    scratch("state", path);
    REQUIRE(chdir(scratch_dir) == 0);
    CHECK_EQ_INT(port_write_file("state", span_str("x"), true, &f), 0);
    CHECK_EQ_STR(file_text(path), "x");
}

TEST(a_link_is_replaced_and_not_followed)
{
    char victim[SCRATCH_PATH_SIZE];
    put_file(scratch("victim", victim), "precious", 0600);
    REQUIRE(symlink("victim", scratch("state", path)) == 0);
    CHECK_EQ_INT(port_write_file(path, span_str("new"), true, &f), 0);
    CHECK_EQ_STR(file_text(victim), "precious");
    CHECK_EQ_STR(file_text(path), "new");
}

TEST(writing_fails_and_leaves_the_old_file)
{
    static uint8_t data[100000];
    struct rlimit small = {50000, RLIM_INFINITY}, before;
    scratch("state", path);
    REQUIRE(port_write_file(path, span_str("old"), true, &f) == 0);
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0 && setrlimit(RLIMIT_FSIZE, &small) == 0);
    int r = port_write_file(path, span_of(data, sizeof data), true, &f);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK_EQ_INT(r, ERR_LIMIT);
    CHECK_EQ_STR(file_text(path), "old");
    CHECK_EQ_INT(entries(scratch_dir), 1);
}

TEST(writing_fails_with_a_reason)
{
    CHECK_EQ_INT(port_write_file(scratch("no/state", path), span_str("x"), true, &f), ERR_NOTFOUND);
    REQUIRE(mkdir(scratch("dir", path), 0700) == 0);
    CHECK_EQ_INT(port_write_file(path, span_str("x"), true, &f), ERR_INVALID);
    CHECK(strstr(f.text, "cannot replace '") != NULL);
    CHECK_EQ_INT(entries(scratch_dir), 1);
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    CHECK_EQ_INT(port_write_file(longest, span_str("x"), true, &f), ERR_LIMIT);
    scratch("state", path);
    become_nobody();
    REQUIRE(chmod(scratch_dir, 0500) == 0);
    CHECK_EQ_INT(port_write_file(path, span_str("x"), true, &f), ERR_DENIED);
    REQUIRE(chmod(scratch_dir, 0700) == 0);
    become_root_again();
}

/* ---- directories, rights, locks ---- */

TEST(makes_directories_and_their_parents)
{
    umask(0);
    CHECK_EQ_INT(port_make_dirs(scratch("a/b/c", path), &f), 0);
    CHECK_EQ_INT(mode_of(path), 0700);
    CHECK_EQ_INT(mode_of(scratch("a", path)), 0700);
    CHECK_EQ_INT(port_make_dirs(scratch("a/b/c", path), &f), 0);
    CHECK_EQ_INT(port_make_dirs(scratch("a//d/", path), &f), 0);
    CHECK(port_exists(scratch("a/d", path)));
    CHECK_EQ_INT(port_make_dirs("/", &f), 0);
    REQUIRE(chdir(scratch_dir) == 0);
    CHECK_EQ_INT(port_make_dirs("relative/x", &f), 0);
    CHECK(port_exists(scratch("relative/x", path)));
}

TEST(directories_that_cannot_be)
{
    put_file(scratch("file", path), "", 0600);
    CHECK_EQ_INT(port_make_dirs(path, &f), ERR_INVALID);
    CHECK(strstr(f.text, ": not a directory") != NULL);
    CHECK_EQ_INT(port_make_dirs(scratch("file/x", path), &f), ERR_INVALID);
    CHECK_EQ_INT(port_make_dirs("", &f), ERR_NOTFOUND);
    /* The reason is the parent's, not that what is below it is missing. */
    REQUIRE(mkdir(scratch("closed", path), 0555) == 0);
    scratch("closed/x/y", path);
    become_nobody();
    CHECK_EQ_INT(port_make_dirs(path, &f), ERR_DENIED);
    become_root_again();
}

TEST(existence)
{
    scratch("file", path);
    CHECK(!port_exists(path));
    put_file(path, "", 0600);
    CHECK(port_exists(path));
    REQUIRE(symlink("nowhere", scratch("dangling", path)) == 0);
    CHECK(!port_exists(path));
}

TEST(a_key_must_be_private)
{
    static const struct {
        mode_t mode;
        int code;
    } modes[] = {
        {0600, 0},
        {0400, 0},
        {0700, 0},
        {0640, ERR_UNSAFE_KEY},
        {0604, ERR_UNSAFE_KEY},
        {0644, ERR_UNSAFE_KEY},
        {0620, ERR_UNSAFE_KEY},
    };
    scratch("key", path);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        put_file(path, "k", modes[i].mode);
        CHECK_EQ_INT(port_check_private(path, &f), modes[i].code);
    }
    CHECK(strstr(f.text, "(mode 0620): chmod 600 it") != NULL);
    CHECK_EQ_INT(port_check_private(scratch("none", path), &f), ERR_NOTFOUND);
}

/* A child takes the lock and stays until its pipe is closed, or is killed. */
static pid_t hold_lock(int *release)
{
    int ready[2], hold[2];
    REQUIRE(pipe(ready) == 0 && pipe(hold) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        char c = port_lock_file(path, NULL) == 0 ? 'y' : 'n';
        close(hold[1]);
        if (write(ready[1], &c, 1) != 1 || read(hold[0], &c, 1) < 0)
            _exit(1);
        _exit(0);
    }
    char c = 'n';
    close(ready[1]);
    close(hold[0]);
    REQUIRE(read(ready[0], &c, 1) == 1 && c == 'y');
    close(ready[0]);
    *release = hold[1];
    return pid;
}

TEST(a_lock_lasts_as_long_as_its_process)
{
    int release;
    scratch("lock", path);
    pid_t pid = hold_lock(&release);
    CHECK_EQ_INT(port_lock_file(path, &f), ERR_BUSY);
    CHECK(strstr(f.text, "another process holds it") != NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(release);
    CHECK_EQ_INT(port_lock_file(path, &f), 0);
    CHECK_EQ_INT(mode_of(path), 0600);
    CHECK_EQ_INT(port_lock_file(scratch("no/lock", path), &f), ERR_NOTFOUND);
}

/* A refused attempt must not leave a descriptor, or an agent that tries again runs out of them. */
TEST(failing_calls_leave_no_descriptor)
{
    int release;
    struct port_map map;
    struct buf b;
    bool fresh;
    buf_init(&b, 1);
    scratch("lock", path);
    pid_t pid = hold_lock(&release);
    int before = dup(2);
    close(before);
    for (int i = 0; i < 5; i++) {
        CHECK(port_lock_file(path, &f) < 0);
        CHECK(port_map_open(&map, path, 10, &fresh, &f) < 0);
        CHECK(port_read_file("/proc/self/stat", &b, &f) < 0);
        CHECK(port_read_file("/", &b, &f) < 0);
        CHECK(port_write_file(scratch_dir, span_str("x"), true, &f) < 0);
    }
    int after = dup(2);
    close(after);
    CHECK_EQ_INT(after, before);
    buf_done(&b);
    close(release);
    waitpid(pid, NULL, 0);
}
