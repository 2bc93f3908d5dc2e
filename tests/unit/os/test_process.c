/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding processes in a recorded tree and on this machine, and the parsers of /proc that it stands
 * on.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/process.h"
#include "common/text.h"
#include "tests/unit/os/tree.h"

static char found[1024];

static int note(void *context, const struct os_process *process)
{
    size_t length = strlen(found);
    (void)context;
    (void)text_format(found + length, sizeof found - length, "%u %s;", process->pid, process->name);
    return 0;
}

static const char *search(const char *root, struct os_process_filter filter)
{
    struct failure f;
    found[0] = '\0';
    int result = os_process_each(root, &filter, note, NULL, &f);
    return result == 0 ? found : err_name(result);
}

static const char *web1(void)
{
    return TESTS_DIR "/fixtures/proc/web1";
}

/* ---- searching ---- */

TEST(by_name)
{
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "redis-server"}),
                 "1200 redis-server;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "redis*"}),
                 "1200 redis-server;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "python3.11"}), "700 python3;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "very-long-process-name"}),
                 "600 very-long-process-name;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "init"}), "1 systemd;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "odd*"}),
                 "77 odd) (na\nme S 9;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "nobody"}), "");
}

TEST(kernel_threads_and_ended_and_damaged_ones_are_left_out)
{
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "k*"}), "");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "ended"}), "");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = "cut off"}), "");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.pid = 2}), "");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.pid = 302}), "");
}

TEST(by_unit)
{
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.unit = "redis-server"}),
                 "1200 redis-server;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.unit = "redis-server.service"}),
                 "1200 redis-server;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.unit = "long"}),
                 "600 very-long-process-name;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.unit = "session-*.scope"}),
                 "77 odd) (na\nme S 9;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.unit = "system.slice"}), "");
}

TEST(by_command_line)
{
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.command = "*/srv/app/server.py"}),
                 "700 python3;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.command = "/usr/bin/python3 /srv/*"}),
                 "700 python3;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.command = "/srv/app/server.py"}), "");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.command = "*", .pid = 2}), "");
}

TEST(by_port_in_each_network_namespace)
{
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.port = 7399}),
                 "700 python3;1200 redis-server;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.port = 7399, .name = "redis*"}),
                 "1200 redis-server;");
    /* Someone listens on it, but no process whose files can be seen; others cannot be seen at all.
     */
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.port = 2024}), "ERR_DENIED");
}

TEST(all_that_is_asked_for_must_fit)
{
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.pid = 1200, .name = "python3"}), "");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.pid = 1200, .unit = "redis-server"}),
                 "1200 redis-server;");
    CHECK_EQ_STR(search(web1(), (struct os_process_filter){.name = ""}), "ERR_INVALID");
}

static int stop_at_second(void *context, const struct os_process *process)
{
    (void)process;
    return ++*(int *)context == 2 ? 42 : 0;
}

TEST(the_callback_stops_the_search)
{
    struct os_process_filter filter = {.name = "*"};
    struct failure f;
    int calls = 0;
    CHECK_EQ_INT(os_process_each(web1(), &filter, stop_at_second, &calls, &f), 42);
    CHECK_EQ_INT(calls, 2);
}

TEST(one_process)
{
    struct os_process process;
    struct failure f;
    REQUIRE(os_process_get(web1(), 1200, &process, &f) == 0);
    CHECK_EQ_INT(process.uid, 110);
    CHECK_EQ_INT(process.start_ticks, 60000);
    CHECK_EQ_INT(process.threads, 5);
    CHECK_EQ_STR(process.name, "redis-server");
    CHECK_EQ_INT(os_process_get(web1(), 4711, &process, &f), ERR_GONE);
    CHECK_EQ_STR(f.text, "no process 4711");
    CHECK_EQ_INT(os_process_get(web1(), 500, &process, &f), ERR_GONE);
    CHECK_EQ_INT(os_process_get(web1(), 300, &process, &f), ERR_CORRUPT);
    CHECK_EQ_STR(process.name, "redis-server"); /* untouched */
}

TEST(on_this_machine)
{
    struct os_process process;
    struct failure f;
    char expected[64];
    int listener = socket(AF_INET, SOCK_STREAM, 0), ready[2];
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(listener >= 0 && bind(listener, (struct sockaddr *)&address, length) == 0);
    REQUIRE(listen(listener, 1) == 0 && pipe2(ready, O_CLOEXEC) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sleep", "another-name", "60", (char *)NULL);
        _exit(1);
    }
    char byte;
    close(ready[1]);
    (void)!read(ready[0], &byte, 1);
    REQUIRE(os_process_get("", (uint32_t)pid, &process, &f) == 0);
    CHECK_EQ_INT(process.uid, getuid());
    snprintf(expected, sizeof expected, "%d sleep;", pid);
    CHECK_EQ_STR(search("", (struct os_process_filter){.port = ntohs(address.sin_port)}), expected);
    CHECK_EQ_STR(search("", (struct os_process_filter){.name = "another-name"}), expected);
    /* We listen as well, but are not found. */
    CHECK_EQ_STR(search("", (struct os_process_filter){.pid = (uint32_t)getpid()}), "");
    CHECK_EQ_STR(search("", (struct os_process_filter){.pid = (uint32_t)getppid()}), "");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_EQ_INT(os_process_get("", (uint32_t)pid, &process, &f), ERR_GONE);
}

/* ---- parsers ---- */

static int parse_stat(const char *text, struct proc_stat *stat)
{
    return proc_parse_stat(span_str(text), stat);
}

TEST(stat_with_hostile_names)
{
    static const char rest[] = " S 7 1 1 0 -1 64 10 0 11 0 12 13 0 0 20 0 5 0 999 4096 77 1 2 3\n";
    static const char *const names[] = {"a", "a b", ") S 1 (", "\n)", "", "((((", "))))"};
    struct proc_stat stat;
    char text[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(text, sizeof text, "42 (%s)%s", names[i], rest);
        REQUIRE(parse_stat(text, &stat) == 0);
        CHECK_EQ_STR(stat.name, names[i]);
        CHECK_EQ_INT(stat.pid, 42);
        CHECK_EQ_INT(stat.parent, 7);
        CHECK_EQ_INT(stat.start_ticks, 999);
        CHECK_EQ_INT(stat.rss_pages, 77);
    }
}

TEST(stat_that_is_cut_at_any_byte_is_refused)
{
    static const char text[] = "42 (a b) S 7 1 1 0 -1 64 10 0 11 0 12 13 0 0 20 0 5 0 999 4096 7";
    struct proc_stat stat = {.pid = 1};
    REQUIRE(parse_stat(text, &stat) == 0);
    for (size_t i = 0; i < sizeof text - 2; i++)
        CHECK_EQ_INT(proc_parse_stat(span_of(text, i), &stat), ERR_CORRUPT);
    CHECK_EQ_INT(parse_stat("42 (a) SS 7 1 1 0 -1 64 10 0 11 0 12 13 0 0 20 0 5 0 9 4 7", &stat),
                 ERR_CORRUPT);
    CHECK_EQ_INT(parse_stat("4294967296 (a) S 7 1 1 0 -1 64 1 0 1 0 1 1 0 0 2 0 5 0 9 4 7", &stat),
                 ERR_CORRUPT);
    CHECK_EQ_INT(stat.pid, 42);
}

TEST(sockets)
{
    struct proc_socket s;
    REQUIRE(proc_parse_socket(span_str("   0: 0100007F:1CE7 00000000:0000 0A 00000001:00000002 "
                                       "00:00000000 00000000   110        0 331028 1 0 100 0"),
                              &s) == 0);
    CHECK_EQ_INT(s.family, AF_INET);
    CHECK_EQ_INT(s.local_port, 7399);
    CHECK_EQ_INT(s.local[0], 127);
    CHECK_EQ_INT(s.state, TCP_LISTEN);
    CHECK_EQ_INT(s.send_queue, 1);
    CHECK_EQ_INT(s.receive_queue, 2);
    CHECK_EQ_INT(s.inode, 331028);
    REQUIRE(proc_parse_socket(span_str("  12: 00000000000000000000000001000000:0050 "
                                       "00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 7"),
                              &s) == 0);
    CHECK_EQ_INT(s.family, AF_INET6);
    CHECK_EQ_INT(s.local[15], 1);
    static const char *const wrong[] = {"", "  sl  local_address rem_address   st tx_queue",
                                        "0: 0100007F 00000000:0000 0A 0:0 0 0",
                                        "0: 0100007F:10000 00000000:0000 0A 0:0 0 0 0 0 1",
                                        "0: 0100007:1 00000000:0000 0A 0:0 0 0"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK_EQ_INT(proc_parse_socket(span_str(wrong[i]), &s), ERR_CORRUPT);
}

TEST(unix_sockets)
{
    struct proc_unix_socket s;
    REQUIRE(proc_parse_unix_socket(
                span_str("0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a b"),
                &s) == 0);
    CHECK(s.listens);
    CHECK_EQ_INT(s.inode, 12345);
    CHECK(span_equal(s.path, span_str("/run/a b")));
    REQUIRE(proc_parse_unix_socket(
                span_str("0000000000000000: 00000003 00000000 00000000 0005 03 7"), &s) == 0);
    CHECK(!s.listens && s.path.size_bytes == 0);
    CHECK_EQ_INT(proc_parse_unix_socket(span_str("Num RefCount Protocol Flags Type St"), &s),
                 ERR_CORRUPT);
}

TEST(units_in_control_groups)
{
    static const struct {
        const char *text, *unit;
    } cases[] = {
        {"0::/system.slice/redis-server.service\n", "redis-server.service"},
        {"9:name=systemd:/system.slice/a.service\n0::/\n", "a.service"},
        {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/b.service\n",
         "user@1000.service"},
        {"0::/kubepods.slice/pod1.slice/cri-containerd-77.scope\n", "cri-containerd-77.scope"},
        {"0::/\n", NULL},
        {"0::/system.slice/.service\n", NULL},
        {"", NULL},
        {"nonsense", NULL},
    };
    char unit[PROC_UNIT_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int result = proc_cgroup_unit(span_str(cases[i].text), unit, sizeof unit);
        CHECK_EQ_STR(result == 0 ? unit : NULL, cases[i].unit);
    }
    CHECK(proc_cgroup_has_unit(span_str(cases[2].text), "b"));
    CHECK(!proc_cgroup_has_unit(span_str(cases[2].text), "c"));
}

#define ID_A "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

TEST(containers_in_control_groups)
{
    static const struct {
        const char *text, *container;
        bool is_in;
    } cases[] = {
        {"0::/system.slice/docker-" ID_A ".scope\n", "0123456789ab", true},
        {"0::/system.slice/docker-" ID_A ".scope\n", ID_A, true},
        {"0::/system.slice/docker-" ID_A ".scope\n", "012", false}, /* too short to mean one */
        {"0::/system.slice/docker-" ID_A ".scope\n", "1234", false},
        {"0::/system.slice/docker-" ID_A ".scope\n", ID_A "0", false},
        {"12:pids:/docker/" ID_A "\n0::/\n", "0123", true},
        {"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" ID_A ".scope\n", "01234567",
         true},
        {"0::/kubepods/besteffort/pod1/" ID_A "/sub\n", "01234567", true},
        {"0::/machine.slice/libpod-" ID_A ".scope/container\n", "0123", true},
        {"0::/lxc.payload.web/init.scope\n", "web", true},
        {"0::/lxc.payload.web/init.scope\n", "we", false},
        {"0::/machine.slice/machine-db.scope\n", "db", true},
        {"0::/system.slice/docker-0123.scope\n", "0123", false}, /* no ID */
        {"0::/system.slice/redis.service\n", "redis", false},
        {"", "0123", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_EQ_INT(proc_cgroup_has_container(span_str(cases[i].text), cases[i].container),
                     cases[i].is_in);
}

TEST(files_and_numbers)
{
    const char *root = tree_make();
    char path[TREE_PATH], small[4];
    struct span text;
    struct failure f;
    uint32_t *numbers;
    size_t count;
    tree_write(root, "/d/10", "abcdefgh");
    tree_write(root, "/d/9", "");
    tree_write(root, "/d/x7", "");
    tree_write(root, "/d/99999999999", "");
    tree_path(path, root, "/d/10");
    REQUIRE(proc_read(path, small, sizeof small, &text, &f) == 0);
    CHECK(span_equal(text, span_str("abcd"))); /* cut at the caller's memory */
    tree_path(path, root, "/d/none");
    CHECK_EQ_INT(proc_read(path, small, sizeof small, &text, &f), ERR_GONE);
    CHECK(strstr(f.text, "/d/none': ") != NULL);
    tree_path(path, root, "/d");
    REQUIRE(proc_numbers(path, &numbers, &count, 100, &f) == 0);
    REQUIRE(count == 2);
    CHECK(numbers[0] == 9 && numbers[1] == 10);
    free(numbers);
    numbers = NULL;
    CHECK_EQ_INT(proc_numbers(path, &numbers, &count, 1, &f), ERR_LIMIT);
    CHECK_EQ_INT(count, 1);
    free(numbers);
}

static int count_lines(void *context, struct span line)
{
    size_t *counts = context;
    counts[0]++;
    counts[1] += line.size_bytes;
    return line.size_bytes == 3 ? 7 : 0;
}

TEST(lines_of_a_file_of_any_length)
{
    static char text[3 * PROC_LINE_SIZE + 10];
    const char *root = tree_make();
    char path[TREE_PATH];
    size_t counts[2] = {0};
    struct failure f;
    memset(text, 'x', 3 * PROC_LINE_SIZE);
    snprintf(text + 3 * PROC_LINE_SIZE, 10, "\nyy\nzz");
    tree_write(root, "/f", text);
    tree_path(path, root, "/f");
    REQUIRE(proc_each_line(path, count_lines, counts, &f) == 0);
    CHECK_EQ_INT(counts[0], 3);
    CHECK(counts[1] >= PROC_LINE_SIZE + 4 && counts[1] <= 2 * PROC_LINE_SIZE + 4);
    tree_write(root, "/f", "a\nbbb\nc\n");
    counts[0] = 0;
    CHECK_EQ_INT(proc_each_line(path, count_lines, counts, &f), 7);
    CHECK_EQ_INT(counts[0], 2);
}
