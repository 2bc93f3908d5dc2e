/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds arbitrary bytes to the reader of the kernel's netlink answers about sockets, and shows what
 * it took. The first byte is the protocol, the next four the sequence number asked for. Wanted: no
 * crash, no undefined behaviour, nothing read outside the input, texts that end.
 */
#include <assert.h>
#include <string.h>

#include "agent/os/linux/net_sockets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void show(void *context, const struct sock *s)
{
    char small[8], large[320];
    unsigned at = 0;
    size_t *count = context;
    ++*count;
    assert(memchr(s->path, '\0', sizeof s->path) &&
           memchr(s->congestion, '\0', sizeof s->congestion));
    net_describe(s, small, sizeof small);
    net_describe(s, large, sizeof large);
    unsigned trouble = net_trouble(s, large, sizeof large);
    assert((trouble > 0) == (large[0] != '\0'));
    (void)net_trouble(s, small, sizeof small);
    while (sock_next_option(s, &at))
        ;
    for (unsigned i = 0; i < SOCK_TCP_VALUES; i++)
        assert(sock_has_tcp(s, i) || s->tcp[i] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct failure f;
    size_t count = 0;
    if (size < 5)
        return 0;
    struct sock_diag_answer answer = {
        .family = 2, .protocol = data[0], .each = show, .context = &count};
    memcpy(&answer.sequence, data + 1, 4);
    (void)sock_diag_feed(&answer, span_of(data + 5, size - 5), &f);
    assert(count <= size / 16);
    return 0;
}
