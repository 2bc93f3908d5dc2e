// SPDX-License-Identifier: Apache-2.0
// A C++ program that sleeps inside templates, inlined functions, a lambda, a virtual call, a catch block and a destructor
// that runs while an exception is on its way. Prints a line when it stands there.
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

static volatile int guard;
static std::mutex lock;
static std::condition_variable all;
static int standing;

__attribute__((noinline)) void stand()
{
    {
        std::lock_guard<std::mutex> held(lock);
        standing++;
        all.notify_one();
    }
    while (guard >= 0)
        pause();
}

template <typename T> struct Shape {
    virtual ~Shape() {}
    virtual T area(T scale) = 0;
};

template <typename T, int N> struct Square : Shape<T> {
    __attribute__((noinline)) T area(T scale) override
    {
        stand();
        return scale * N + guard;
    }
};

template <typename F> inline int twice(F f)
{
    return f(1) + f(2) + guard;
}

__attribute__((noinline)) int in_lambda(Shape<double> *shape)
{
    return twice([&](int i) { return (int)shape->area(i) + guard; });
}

__attribute__((noinline)) int in_sort()
{
    std::vector<std::string> words = {"b", "a", "c"};
    std::sort(words.begin(), words.end(), [](const std::string &a, const std::string &b) {
        stand();
        return a < b;
    });
    return (int)words.size();
}

__attribute__((noinline)) int in_catch()
{
    try {
        throw std::runtime_error("x");
    } catch (const std::exception &e) {
        stand();
        return (int)std::string(e.what()).size() + guard;
    }
}

struct Guard {
    __attribute__((noinline)) ~Guard()
    {
        stand();
        guard = guard + 1;
    }
};

__attribute__((noinline)) int in_unwinding()
{
    try {
        Guard here;
        throw 1;
    } catch (int i) {
        return i + guard;
    }
}

int main()
{
    Square<double, 3> square;
    std::function<int()> ways[] = {[&] { return in_lambda(&square); }, in_sort, in_catch, in_unwinding};
    std::vector<std::thread> threads;
    for (auto &way : ways)
        threads.emplace_back([&way] { guard = guard + way(); });
    {
        std::unique_lock<std::mutex> held(lock);
        all.wait(held, [] { return standing == 4; });
    }
    puts("ready");
    fflush(stdout);
    for (auto &thread : threads)
        thread.join();
}
