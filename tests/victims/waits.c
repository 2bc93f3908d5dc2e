/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that waits for something that a triage must find: the first argument says for what.
 * Prints "ready" when all of its threads wait (or are about to), answers each line on its input
 * with one, and dies with it. Started by tests of triage and net.
 *
 *   deadlock        two threads, each holding the mutex that the other wants
 *   three [KIND]    the same with three; KIND: pi, robust
 *   mutex N FD      N threads wait for one mutex; its holder reads from file FD
 *   rwlock          a thread waits to read what a writer holds
 *   join            a thread waits for the end of another
 *   condition       threads wait for a condition: no lock to be told
 *   flock PATH      waits for a lock of a file
 *   files N T       N open files (pipes), T threads that sleep
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define LOCKS 3

static pthread_mutex_t locks[LOCKS];
static pthread_barrier_t all_hold;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static size_t in_cycle;
static atomic_size_t turn;        /* whose of a cycle it is to want a second lock */
static atomic_int in_turn[LOCKS]; /* thread ids of a cycle */
static int read_fd;

static void name(const char *text)
{
    prctl(PR_SET_NAME, text, 0, 0, 0);
}

static void *wait_in_cycle(void *argument)
{
    size_t own = (size_t)argument;
    char text[16];
    snprintf(text, sizeof text, "knot-%zu", own);
    name(text);
    pthread_mutex_lock(&locks[own]);
    pthread_barrier_wait(&all_hold);
    atomic_store(&in_turn[own], gettid());
    while (atomic_load(&turn) != own)
        sched_yield(); /* never asleep before the lock */
    pthread_mutex_lock(&locks[(own + 1) % in_cycle]);
    return NULL;
}

static char state_of(int tid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *file = fopen(path, "re");
    if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        exit(1);
    fclose(file);
    return state;
}

static void *hold_and_read(void *argument)
{
    char byte;
    name("holder");
    pthread_mutex_lock(&locks[0]);
    pthread_barrier_wait(&all_hold);
    while (read(read_fd, &byte, 1) != 0)
        ;
    return argument;
}

static void *want(void *argument)
{
    name("worker");
    pthread_mutex_lock(&locks[0]);
    pthread_mutex_unlock(&locks[0]);
    return argument;
}

static void *sleeper(void *argument)
{
    name("sleeper");
    pause();
    return argument;
}

static void *hold_rwlock(void *argument)
{
    name("writer");
    pthread_rwlock_wrlock(&rwlock);
    pthread_barrier_wait(&all_hold);
    pause();
    return argument;
}

static void *want_rwlock(void *argument)
{
    name("reader");
    pthread_rwlock_rdlock(&rwlock);
    return argument;
}

static void *join(void *argument)
{
    name("joiner");
    pthread_join(*(pthread_t *)argument, NULL);
    return NULL;
}

static void *wait_for_condition(void *argument)
{
    name("waiter");
    pthread_mutex_lock(&locks[1]);
    pthread_cond_wait(&condition, &locks[1]);
    return argument;
}

static void *lock_file(void *argument)
{
    int fd = open(argument, O_RDWR | O_CLOEXEC);
    name("locker");
    flock(fd, LOCK_EX);
    return NULL;
}

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    if (pthread_create(&thread, &attributes, run, argument) != 0)
        exit(1);
    return thread;
}

static void init_locks(const char *kind)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (strcmp(kind, "pi") == 0)
        pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    if (strcmp(kind, "robust") == 0)
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    for (size_t i = 0; i < LOCKS; i++)
        pthread_mutex_init(&locks[i], &attributes);
}

/*
 * One after the other wants the next one's lock: of two that close a cycle of locks with
 * inheritance at the same time, the kernel may refuse both.
 */
static void start_cycle(size_t count)
{
    in_cycle = count;
    pthread_barrier_init(&all_hold, NULL, (unsigned)count + 1);
    atomic_store(&turn, count);
    for (size_t i = 0; i < count; i++)
        start(wait_in_cycle, (void *)i);
    pthread_barrier_wait(&all_hold);
    for (size_t i = 0; i < count; i++) {
        atomic_store(&turn, i);
        while (atomic_load(&in_turn[i]) == 0 || state_of(atomic_load(&in_turn[i])) != 'S')
            sched_yield();
    }
}

static void start_mutex(int count, int fd)
{
    read_fd = fd;
    pthread_barrier_init(&all_hold, NULL, 2);
    start(hold_and_read, NULL);
    pthread_barrier_wait(&all_hold);
    for (int i = 0; i < count; i++)
        start(want, NULL);
}

static void start_files(int count, int threads)
{
    struct rlimit limit;
    int pair[2];
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < count / 2; i++)
        if (pipe(pair) != 0)
            exit(1);
    for (int i = 0; i < threads; i++)
        start(sleeper, NULL);
}

int main(int argc, char **argv)
{
    static pthread_t joined;
    char line[64];
    const char *what = argc > 1 ? argv[1] : "", *more = argc > 2 ? argv[2] : "";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    init_locks(more);
    if (strcmp(what, "deadlock") == 0) {
        start_cycle(2);
    } else if (strcmp(what, "three") == 0) {
        start_cycle(3);
    } else if (strcmp(what, "mutex") == 0) {
        start_mutex(atoi(more), argc > 3 ? atoi(argv[3]) : 0);
    } else if (strcmp(what, "rwlock") == 0) {
        pthread_barrier_init(&all_hold, NULL, 2);
        start(hold_rwlock, NULL);
        pthread_barrier_wait(&all_hold);
        start(want_rwlock, NULL);
    } else if (strcmp(what, "join") == 0) {
        joined = start(sleeper, NULL);
        start(join, &joined);
    } else if (strcmp(what, "condition") == 0) {
        start(wait_for_condition, NULL);
        start(wait_for_condition, NULL);
    } else if (strcmp(what, "flock") == 0) {
        start(lock_file, argv[2]);
    } else if (strcmp(what, "files") == 0) {
        start_files(atoi(more), argc > 3 ? atoi(argv[3]) : 0);
    } else {
        return 2;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        puts(line), fflush(stdout);
    return 0;
}
