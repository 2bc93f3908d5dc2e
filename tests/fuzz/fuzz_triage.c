/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds arbitrary bytes to triage's and net's readers of the kernel's texts: /proc/locks, fdinfo,
 * kernel stacks, net/netstat, links of open files, and the words at a futex. The first byte chooses
 * the type of file. Wanted: no crash, no undefined behaviour, texts that end.
 */
#include <assert.h>
#include <string.h>

#include "agent/os/linux/net_linux.h"
#include "agent/os/linux/triage_linux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const targets[] = {"/file",
                                      "pipe:[1]",
                                      "anon_inode:[eventpoll]",
                                      "anon_inode:[eventfd]",
                                      "socket:[2]",
                                      "anon_inode:[timerfd]",
                                      "anon_inode:inotify",
                                      "anon_inode:[signalfd]",
                                      "anon_inode:[pidfd]"};

static bool exists(void *context, uint32_t tid, bool shared)
{
    (void)context;
    return tid % 2 == 0 || shared;
}

static void judge(struct span bytes)
{
    uint32_t words[TRIAGE_FUTEX_WORDS], holder = 0, head[2];
    size_t count = bytes.size_bytes / 4;
    if (count < 2)
        return;
    memcpy(head, bytes.data, sizeof head);
    count = count - 2 < TRIAGE_FUTEX_WORDS ? count - 2 : TRIAGE_FUTEX_WORDS;
    memcpy(words, bytes.data + sizeof head, count * 4);
    enum triage_futex kind =
        triage_judge_futex(head[0], head[1], words, count, exists, NULL, &holder);
    assert((holder != 0) == (kind == FUTEX_HELD || kind == FUTEX_MUTEX || kind == FUTEX_RWLOCK ||
                             kind == FUTEX_THREAD_END));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char small[8], large[TRIAGE_TEXT_SIZE];
    struct triage_file_lock lock;
    struct span line;
    uint64_t value;
    if (size == 0)
        return 0;
    struct span text = span_of(data + 1, size - 1), lines = text;
    const char *target = targets[data[0] % (sizeof targets / sizeof targets[0])];
    triage_describe_fdinfo(text, target, small, sizeof small);
    triage_describe_fdinfo(text, target, large, sizeof large);
    assert(strlen(large) < sizeof large && strlen(small) < sizeof small);
    triage_kernel_stack(text, small, sizeof small);
    triage_kernel_stack(text, large, sizeof large);
    assert(strlen(large) < sizeof large);
    while (proc_take_line(&lines, &line) == 0)
        if (triage_parse_lock(line, &lock) == 0)
            assert(strlen(lock.class) < sizeof lock.class && lock.pid >= -1);
    (void)net_find_counter(text, "TcpExt:", "ListenOverflows", &value);
    struct held held = held_parse(text);
    assert(held.kind != HELD_OTHER || held.inode == 0);
    judge(text);
    return 0;
}
