/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an instruction of a Python function to its source line. Invariant: a table of any bytes
 * gives some line or 0, in one pass over it. Pure. Called by python_frames.c; fuzzed by
 * fuzz_python.c.
 */
#include "agent/os/linux/python_frames.h"

#define NO_LINE_10 (-128) /* Objects/lnotab_notes.txt */

/* 3.8 and 3.9: pairs of how many bytes of code and how many lines further (lnotab_notes.txt). */
static int64_t line_by_pairs(struct span table, int64_t line, uint32_t instruction)
{
    uint64_t address = 0;
    uint8_t code, lines;
    while (span_take_u8(&table, &code) == 0 && span_take_u8(&table, &lines) == 0) {
        address += code;
        if (address > instruction)
            break;
        line += (int8_t)lines;
    }
    return line;
}

/* 3.10: pairs of the bytes that a line has and how many lines it is behind the one before. */
static int64_t line_by_ranges(struct span table, int64_t line, uint32_t instruction)
{
    uint64_t end = 0;
    uint8_t code, lines;
    while (span_take_u8(&table, &code) == 0 && span_take_u8(&table, &lines) == 0) {
        bool none = (int8_t)lines == NO_LINE_10;
        end += code;
        if (!none)
            line += (int8_t)lines;
        if (instruction < end)
            return none ? 0 : line;
    }
    return 0;
}

/* ---- 3.11 and later: Objects/locations.md ---- */

#define FIRST_OF_ENTRY 0x80
#define KIND_ONE_LINE 10
#define KIND_NO_COLUMNS 13
#define KIND_LONG 14
#define KIND_NONE 15

/* Six bits a byte, the low ones first; the sign is the lowest bit of all. */
static int64_t take_signed(struct span *s)
{
    uint64_t value = 0;
    uint8_t byte = 0;
    for (unsigned shift = 0; shift < 60; shift += 6) {
        if (span_take_u8(s, &byte))
            break;
        value |= (uint64_t)(byte & 0x3f) << shift;
        if (!(byte & 0x40))
            break;
    }
    return value & 1 ? -(int64_t)(value >> 1) : (int64_t)(value >> 1);
}

static int64_t line_by_locations(struct span table, int64_t line, uint32_t instruction)
{
    uint64_t end = 0;
    uint8_t head;
    while (span_take_u8(&table, &head) == 0) {
        if (!(head & FIRST_OF_ENTRY)) /* the rest of the entry before */
            continue;
        unsigned kind = head >> 3 & 15;
        end += 2 * ((head & 7u) + 1);
        if (kind == KIND_LONG || kind == KIND_NO_COLUMNS)
            line += take_signed(&table);
        else if (kind >= KIND_ONE_LINE && kind < KIND_NO_COLUMNS)
            line += (int64_t)kind - KIND_ONE_LINE;
        if (instruction < end)
            return kind == KIND_NONE ? 0 : line;
        if (line > INT32_MAX || line < INT32_MIN)
            return 0;
    }
    return 0;
}

int python_line(int minor, struct span table, int first_line, uint32_t instruction)
{
    int64_t line = minor < 10   ? line_by_pairs(table, first_line, instruction)
                   : minor < 11 ? line_by_ranges(table, first_line, instruction)
                                : line_by_locations(table, first_line, instruction);
    return line > 0 && line <= INT32_MAX ? (int)line : 0;
}
