/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault behind a fault: a program that handles SIGSEGV to write a report, and then raises it
 * again, dies of a signal that says nothing. The kernel's frame for the handler still lies on the
 * stack, with the siginfo of the fault (kernel: arch/x86/include/asm/sigframe.h, struct
 * rt_sigframe). The kernel fills it in only for a handler that asked for it (SA_SIGINFO); else
 * nothing is said of it. Invariant: only a frame that the unwinder went through is believed. Called
 * by crash_describe.c.
 */
#include <signal.h>
#include <string.h>

#include "agent/os/linux/crash_describe.h"
#include "common/text.h"

#define CONTEXT_BYTES 304 /* struct ucontext; struct siginfo is behind it */
#define INFO_BYTES 32     /* as much of that as a fault has */
#define FLAGS_MOST 7      /* uc_flags */

/* The outermost handler that runs: where it returns to. 0: none does. */
static uint64_t find_return(const struct stacks_set *set)
{
    const struct stacks_thread *thread = &set->threads[0];
    uint64_t found = 0;
    for (size_t i = 0; set->thread_count > 0 && i < thread->count; i++)
        if (set->places[thread->first + i].signal)
            found = set->places[thread->first + i].pc;
    return found;
}

static bool is_fault(int signal, int code)
{
    return code > 0 && code != SI_KERNEL &&
           (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL);
}

static bool read_frame(const uint8_t *at, siginfo_t *out)
{
    uint64_t flags, link;
    memcpy(&flags, at + 8, sizeof flags);
    memcpy(&link, at + 16, sizeof link);
    memset(out, 0, sizeof *out);
    memcpy(out, at + 8 + CONTEXT_BYTES, INFO_BYTES);
    return flags <= FLAGS_MOST && link == 0 && is_fault(out->si_signo, out->si_code);
}

static bool look_through(const uint8_t *stack, uint64_t start, size_t bytes, uint64_t back,
                         siginfo_t *out)
{
    const size_t frame = 8 + CONTEXT_BYTES + INFO_BYTES;
    bool found = false;
    for (size_t at = (8 - start % 8) % 8; stack && bytes >= frame && at <= bytes - frame; at += 8) {
        uint64_t word;
        siginfo_t info;
        memcpy(&word, stack + at, sizeof word);
        if (word == back && read_frame(stack + at, &info)) {
            *out = info;
            found = true;
        }
    }
    return found;
}

static void tell(struct describing *d)
{
    struct os_exception *e = d->exception;
    const char *code = crash_code_name(d->first.si_signo, d->first.si_code);
    const char *name = sigabbrev_np(d->first.si_signo);
    size_t used = strlen(e->message);
    e->fault_address = (uint64_t)(uintptr_t)d->first.si_addr;
    e->has_fault_address = true;
    crash_put_where(d->crash, e->fault_address, d->where, sizeof d->where);
    (void)text_format(e->message + used, sizeof e->message - used,
                      ", raised again by its handler of SIG%s, %s at 0x%llx", name ? name : "?",
                      code ? code : "a fault", (unsigned long long)e->fault_address);
}

void crash_find_first(struct describing *d)
{
    const struct stacks_copy *copy = &d->job.copies[0];
    uint64_t back = find_return(&d->job.set);
    if (back == 0 || d->exception->has_fault_address)
        return;
    if (look_through(copy->second, copy->second_start, copy->second_bytes, back, &d->first) ||
        look_through(copy->data, copy->start, copy->size_bytes, back, &d->first))
        tell(d);
}
