// SPDX-License-Identifier: Apache-2.0
//
// Throws what it is told, and catches it. Prints "ready" and answers each line on its input with one line:
//   throw N RATE THREADS   N throws in each thread, RATE a second in each: of every 4, 2 std::runtime_error from
//                          parse_number(), 1 app::timeout<int> from app::query(), 1 int from throw_int(); then "done N*THREADS"
//   storm MS               as fast as it can, for so long of its own time on the processor: "storm COUNT"
//   end                    throws what nobody catches
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <ctime>
#include <vector>

using namespace std::chrono;

namespace app {
template <class T> struct timeout : std::exception {
    T after;
    explicit timeout(T t) : after(t) {}
};

__attribute__((noinline)) void query(int after) { throw timeout<int>(after); }
}  // namespace app

__attribute__((noinline)) void parse_number(const char *text)
{
    if (text[0] != '#')
        throw std::runtime_error(text);
}

__attribute__((noinline)) void throw_int(int value) { throw value; }

__attribute__((noinline)) void one(unsigned i)
{
    try {
        if (i % 4 < 2)
            parse_number("twelve");
        else if (i % 4 == 2)
            app::query((int)i);
        else
            throw_int((int)i);
    } catch (const std::exception &) {
    } catch (int) {
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

static void many(unsigned count, unsigned rate)
{
    auto began = steady_clock::now();
    for (unsigned i = 0; i < count; i++) {
        std::this_thread::sleep_until(began + microseconds(1000000ull * i / rate));
        one(i);
    }
}

static unsigned long storm(unsigned ms)
{
    unsigned long count = 0;
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    auto ns = [&] { return now.tv_sec * 1000000000ull + now.tv_nsec; };
    auto end = ns() + ms * 1000000ull;
    for (; ns() < end; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now))
        for (int i = 0; i < 100; i++, count++)
            one(0);
    return count;
}

int main()
{
    char line[128];
    unsigned a, b, c;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "throw %u %u %u", &a, &b, &c) == 3) {
            std::vector<std::thread> threads;
            for (unsigned i = 0; i < c; i++)
                threads.emplace_back(many, a, b);
            for (auto &thread : threads)
                thread.join();
            printf("done %u\n", a * c);
        } else if (sscanf(line, "storm %u", &a) == 1) {
            printf("storm %lu\n", storm(a));
        } else if (strncmp(line, "end", 3) == 0) {
            parse_number("the end");
        } else {
            puts("?");
        }
        fflush(stdout);
    }
}
