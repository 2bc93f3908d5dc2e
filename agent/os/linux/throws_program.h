/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program that the kernel runs at each throw (bpf(2); Documentation/bpf/standardization/
 * instruction-set.rst): counts, takes room in the ring, copies registers, the type's name and the
 * top of the stack. Pure: puts instructions into an array. Called by throws_probe.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_PROGRAM_H
#define TRAWL_AGENT_OS_LINUX_THROWS_PROGRAM_H

#include <linux/bpf.h>
#include <stddef.h>

#define THROWS_PROGRAM_MAX 160

/* Slots of the map `counts_fd`, an array with one value. */
enum throws_count { THROWS_ALL, THROWS_LOST, THROWS_COUNTS };

/* Returns the number of instructions. */
size_t throws_program(struct bpf_insn *out, int counts_fd, int ring_fd);

#endif
