// SPDX-License-Identifier: Apache-2.0
// A C++ program that ends by an exception that nobody catches, when a line with "fail" comes; "warm" writes what a log of
// such a program holds, and goes on.
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

__attribute__((noinline)) static int pay(const std::string &order, int depth)
{
    if (depth > 0)
        return pay(order, depth - 1) + 1;
    throw std::runtime_error("no such account: " + order);
}

__attribute__((noinline)) static int check_out(const char *order)
{
    return pay(order, 2) + 1;
}

int main()
{
    char line[64];
    std::setvbuf(stderr, nullptr, _IOLBF, 4096);
    while (std::fgets(line, sizeof line, stdin)) {
        if (std::strncmp(line, "fail", 4) == 0)
            return check_out("4711");
        std::fprintf(stderr, "terminate called after throwing an instance of 'Warm'\n  what():  only a word\n");
    }
    return 0;
}
