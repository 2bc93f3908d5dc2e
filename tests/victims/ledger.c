/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that keeps books: `ledger MIB` has MIB MiB of accounts whose sum never changes. Three
 * threads move amounts between random accounts, under a lock, and say in a journal what they are
 * about to do; each also counts a word at the beginning of the accounts up before, and one at their
 * end after. So at any one instant: opened is closed or one more; and the sum is START * accounts,
 * or less by the amount in the journal. Memory read while it runs shows neither. A line on its
 * input is answered by the addresses of the books and of the accounts, and their number. Started by
 * tests of the kind core.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define THREADS 3
#define START 1000
#define PAGE 4096

/* One page before the accounts, and one behind them. */
struct page {
    _Atomic uint64_t count;
    uint64_t rest[PAGE / 8 - 1];
};

struct books {
    _Atomic uint64_t busy, amount;
    struct page *opened, *closed;
    _Atomic uint64_t *accounts;
    uint64_t number;
};

static struct books books;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void move(uint64_t from, uint64_t to, uint64_t amount)
{
    books.opened->count++;
    books.amount = amount;
    books.busy = 1;
    books.accounts[from] -= amount;
    books.accounts[to] += amount;
    books.busy = 0;
    books.closed->count++;
}

static void *clerk(void *argument)
{
    uint64_t state = 88172645463325252ull + (uintptr_t)argument * 12345;
    for (;;) {
        pthread_mutex_lock(&lock);
        for (int i = 0; i < 100; i++) {
            uint64_t from = next_random(&state) % books.number;
            uint64_t to = next_random(&state) % books.number;
            move(from, to, 1 + next_random(&state) % 100);
        }
        pthread_mutex_unlock(&lock);
        usleep(50);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 64) << 20;
    char *memory =
        mmap(NULL, bytes + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    books.opened = (struct page *)memory;
    books.accounts = (_Atomic uint64_t *)(memory + PAGE);
    books.closed = (struct page *)(memory + PAGE + bytes);
    books.number = bytes / sizeof *books.accounts;
    for (uint64_t i = 0; i < books.number; i++)
        books.accounts[i] = START;
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): a number for the thread. */
        pthread_create(&thread, NULL, clerk, (void *)i);
    }
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        printf("%lx %lx %lu\n", (unsigned long)&books, (unsigned long)memory,
               (unsigned long)books.number);
        fflush(stdout);
    }
    for (;;)
        pause();
}
