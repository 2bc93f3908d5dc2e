/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that does not stay up: fails at one place, at once. `loop other` fails at another one.
 * Built by the scenario of crash loops.
 */
#include <string.h>

static volatile int *volatile nowhere;

__attribute__((noinline)) static void serve(int request)
{
    *nowhere = request;
}

__attribute__((noinline)) static void settle(int account)
{
    nowhere[account] = account;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "other") == 0)
        settle(7);
    else
        serve(argc);
    return 0;
}
