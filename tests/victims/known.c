/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim whose memory is known: `known MIB [THREADS]` fills MIB MiB half with noise and half
 * with a pattern, and starts threads that sleep with known locals: `number` (41000 and up) and
 * `text`, a string on the heap ("heap text of thread N"). Also a string in the data segment that
 * differs from the file, one in shared anonymous memory, one in a mapping that forks leave out, one
 * that is not to be dumped, and 20 TiB that are reserved and hardly touched. Started by tests and
 * benchmarks of the kinds mini and core.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define MIB ((size_t)1 << 20)
#define RESERVED_BYTES ((size_t)20 << 40)
#define FIRST_NUMBER 41000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static volatile int over;
static pthread_barrier_t all_there;

char changed_data[64] = "as in the file";
char unchanged_data[8192] = "unchanged";
char *shared_memory, *not_forked, *not_dumped, *reserved;
uint8_t *bulk;

struct pair {
    int first;
    char *second;
};

/* The locals live on the stack: their addresses are taken. */
NOINLINE int victim_hold(int number, char *text)
{
    struct pair pair = {number, text};
    volatile struct pair *kept = &pair;
    pthread_barrier_wait(&all_there);
    pthread_mutex_lock(&lock);
    while (!over)
        pthread_cond_wait(&never, &lock);
    pthread_mutex_unlock(&lock);
    return kept->first + (kept->second != NULL);
}

NOINLINE int victim_call(int number, char *text)
{
    return victim_hold(number, text) + over;
}

static void *sleeper(void *argument)
{
    int number = (int)(intptr_t)argument;
    char *text = malloc(64);
    snprintf(text, 64, "heap text of thread %d", number);
    return (void *)(intptr_t)victim_call(FIRST_NUMBER + number, text);
}

static char *map(size_t bytes, int flags)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        exit(1);
    return memory;
}

/* Half of each page is noise, half is one byte: a compressor halves it. */
static void fill(uint8_t *memory, size_t bytes)
{
    uint64_t state = 88172645463325252ull;
    for (size_t at = 0; at < bytes; at += 4096) {
        for (size_t i = 0; i < 2048; i += 8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            memcpy(memory + at + i, &state, sizeof state);
        }
        memset(memory + at + 2048, (int)(at >> 12), 2048);
    }
}

static void special(void)
{
    snprintf(changed_data, sizeof changed_data, "changed %s", "data");
    shared_memory = map(64 * MIB, MAP_SHARED);
    snprintf(shared_memory + 16 * MIB, 64, "%s memory", "shared");
    not_forked = map(MIB, MAP_PRIVATE);
    madvise(not_forked, MIB, MADV_DONTFORK);
    snprintf(not_forked + 65536, 64, "not %s", "forked");
    not_dumped = map(MIB, MAP_PRIVATE);
    madvise(not_dumped, MIB, MADV_DONTDUMP);
    snprintf(not_dumped, 64, "not %s", "dumped");
    reserved = map(RESERVED_BYTES, MAP_PRIVATE | MAP_NORESERVE);
    snprintf(reserved + RESERVED_BYTES / 2, 64, "far %s", "away");
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 1) * MIB;
    int threads = argc > 2 ? atoi(argv[2]) : 3;
    special();
    bulk = (uint8_t *)map(bytes + MIB, MAP_PRIVATE);
    fill(bulk, bytes);
    pthread_barrier_init(&all_there, NULL, (unsigned)threads + 1);
    for (int i = 1; i <= threads; i++) {
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 256 << 10);
        if (pthread_create(&thread, &attributes, sleeper, (void *)(intptr_t)i) != 0)
            return 1;
    }
    pthread_barrier_wait(&all_there);
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        printf("%lx %lx %lx %lx %lx %lx\n", (unsigned long)changed_data,
               (unsigned long)(shared_memory + 16 * MIB), (unsigned long)(not_forked + 65536),
               (unsigned long)not_dumped, (unsigned long)(reserved + RESERVED_BYTES / 2),
               (unsigned long)bulk);
        fflush(stdout);
    }
    for (;;)
        pause();
}
