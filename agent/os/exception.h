/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What went wrong by itself, as whoever notices it tells it: a plain struct that every source fills
 * and the watcher takes (agent/watcher.h). Invariant: empty and 0 mean "not known" or "does not
 * apply"; nothing in it is a guess. Sources: crash, kernel log, units, processes, logs, throws,
 * probes, applications.
 */
#ifndef TRAWL_AGENT_OS_EXCEPTION_H
#define TRAWL_AGENT_OS_EXCEPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OS_EXCEPTION_FRAMES 24
#define OS_EXCEPTION_TAGS 8
#define OS_EXCEPTION_SAVED 4
#define OS_BUILD_ID_SIZE 20

/* The numbers of trawl.v1.ExceptionSource. */
enum os_exception_source {
    OS_SOURCE_UNKNOWN,
    OS_CRASH,
    OS_OOM_KILL,
    OS_FAULT_LINE,
    OS_HUNG_TASK,
    OS_HARDWARE_ERROR,
    OS_UNIT_RESULT,
    OS_PROCESS_EXIT,
    OS_LOG_TRACE,
    OS_CPP_THROW,
    OS_HANG,
    OS_REPORTED,
    OS_WINDOWS_ERROR
};

struct os_frame {
    char function[128];
    char module[64]; /* base name of the ELF file */
    uint8_t build_id[OS_BUILD_ID_SIZE];
    uint32_t build_id_bytes;
    uint64_t offset; /* in the module, as its ELF file counts addresses */
    char file[96];
    uint32_t line;
    bool exact; /* offset is the instruction itself, not the one it returns to */
};

struct os_tag {
    char key[32];
    char value[96];
};

/* About 11 KB: not for arrays on a stack. */
struct os_exception {
    uint8_t id[16]; /* all 0: the watcher makes one. Else the same however often it is told */
    enum os_exception_source source;
    char type[128];          /* "SIGSEGV", "java.lang.IllegalStateException", "oom-kill" */
    char message[512];       /* as it was said; cut at a character */
    char template_text[256]; /* masked; empty: the watcher masks the message */
    char language[16];       /* "c" (machine code), "python", "java", "go", "node", ... */
    int64_t wall_us;         /* 0: now */
    uint64_t mono_us;        /* CLOCK_MONOTONIC; 0: now, or of wall_us */
    int64_t last_us;         /* of the last of `count`; 0: wall_us */
    uint64_t count;          /* 0 means 1 */
    char process[64];
    uint32_t pid;         /* of the host's own pid namespace */
    uint64_t start_ticks; /* proc(5), field 22 */
    uint32_t tid;
    char thread[32];
    uint32_t uid; /* UINT32_MAX: not known */
    char executable[256];
    uint8_t build_id[OS_BUILD_ID_SIZE];
    uint32_t build_id_bytes;
    char unit[128];
    uint32_t signal;
    int32_t signal_code; /* sigaction(2), si_code */
    uint64_t fault_address;
    bool has_fault_address;
    struct os_frame frames[OS_EXCEPTION_FRAMES]; /* innermost first */
    uint32_t frame_count, frames_left_out;
    struct os_tag tags[OS_EXCEPTION_TAGS];
    uint32_t tag_count;
    bool cut_off, by_site;
    char missing[256];
    char saved[OS_EXCEPTION_SAVED][16]; /* evidence held on this host already: "crash", "core" */
    uint32_t saved_count;
};

#endif
