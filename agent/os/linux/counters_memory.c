/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and paging: proc(5), /proc/meminfo and /proc/vmstat. Called by counters.c.
 */
#include "agent/os/linux/counters_linux.h"

/* ---- /proc/meminfo ---- */

#define KIB(key, name)                               \
    {                                                \
        key, "memory." name, "bytes", OS_GAUGE, 1024 \
    }
#define PAGES(key, name)                          \
    {                                             \
        key, "memory." name, "pages", OS_GAUGE, 1 \
    }

enum memory_row { MEMORY_TOTAL, MEMORY_FREE, MEMORY_AVAILABLE, SWAP_TOTAL, SWAP_FREE };

static const struct counter_row memory_rows[] = {
    KIB("MemTotal", "total"),
    KIB("MemFree", "free"),
    KIB("MemAvailable", "available"),
    KIB("SwapTotal", "swap_total"),
    KIB("SwapFree", "swap_free"),
    KIB("SwapCached", "swap_cached"),
    KIB("Buffers", "buffers"),
    KIB("Cached", "cached"),
    KIB("Active(anon)", "active_anonymous"),
    KIB("Inactive(anon)", "inactive_anonymous"),
    KIB("Active(file)", "active_file"),
    KIB("Inactive(file)", "inactive_file"),
    KIB("Unevictable", "unevictable"),
    KIB("Mlocked", "locked"),
    KIB("Zswap", "zswap"),
    KIB("Dirty", "dirty"),
    KIB("Writeback", "writeback"),
    KIB("AnonPages", "anonymous"),
    KIB("Mapped", "mapped"),
    KIB("Shmem", "shared"),
    KIB("Slab", "slab"),
    KIB("SReclaimable", "slab_reclaimable"),
    KIB("SUnreclaim", "slab_unreclaimable"),
    KIB("KernelStack", "kernel_stacks"),
    KIB("PageTables", "page_tables"),
    KIB("CommitLimit", "commit_limit"),
    KIB("Committed_AS", "committed"),
    KIB("VmallocUsed", "vmalloc_used"),
    KIB("Percpu", "percpu"),
    KIB("HardwareCorrupted", "hardware_corrupted"),
    KIB("AnonHugePages", "huge_anonymous"),
    PAGES("HugePages_Total", "huge_total"),
    PAGES("HugePages_Free", "huge_free"),
    PAGES("HugePages_Rsvd", "huge_reserved"),
    PAGES("HugePages_Surp", "huge_surplus"),
};
#define MEMORY_ROWS (sizeof memory_rows / sizeof memory_rows[0])

static const struct counter_row used_rows[] = {
    KIB(NULL, "used"),
    KIB(NULL, "swap_used"),
};

static void give_difference(struct os_counters *c, struct counter_file *file, size_t used_row,
                            size_t total_row, size_t free_row)
{
    const struct instance *memory = group_host(&file->groups[0]);
    struct series_group *used = &file->groups[1];
    if (!counter_has(c, memory, total_row) || !counter_has(c, memory, free_row))
        return;
    uint64_t total = memory->series[total_row].raw, unused = memory->series[free_row].raw;
    if (unused <= total)
        counter_value(c, used->type, group_host(used), used_row, total - unused);
}

static void parse_memory(struct os_counters *c, struct counter_file *file, struct span text)
{
    counters_parse_keyed(c, file, text);
    give_difference(c, file, 0, MEMORY_TOTAL, MEMORY_AVAILABLE);
    give_difference(c, file, 1, SWAP_TOTAL, SWAP_FREE);
}

/* ---- /proc/vmstat ---- */

#define EVENT(key, name)                      \
    {                                         \
        key, "paging." name, "1", OS_COUNT, 1 \
    }
#define MOVED(key, name)                          \
    {                                             \
        key, "paging." name, "pages", OS_COUNT, 1 \
    }

static const struct counter_row paging_rows[] = {
    {"pgpgin", "paging.in_bytes", "bytes", OS_COUNT, 1024},
    {"pgpgout", "paging.out_bytes", "bytes", OS_COUNT, 1024},
    MOVED("pswpin", "swap_in"),
    MOVED("pswpout", "swap_out"),
    EVENT("pgfault", "faults"),
    EVENT("pgmajfault", "major_faults"),
    MOVED("pgfree", "freed"),
    MOVED("pgactivate", "activated"),
    MOVED("pgdeactivate", "deactivated"),
    MOVED("pgrefill", "refilled"),
    MOVED("pgscan_kswapd", "scanned_kswapd"),
    MOVED("pgscan_direct", "scanned_direct"),
    MOVED("pgsteal_kswapd", "stolen_kswapd"),
    MOVED("pgsteal_direct", "stolen_direct"),
    MOVED("pgscan_anon", "scanned_anonymous"),
    MOVED("pgscan_file", "scanned_file"),
    MOVED("pgsteal_anon", "stolen_anonymous"),
    MOVED("pgsteal_file", "stolen_file"),
    EVENT("allocstall_dma32", "stalls_dma32"),
    EVENT("allocstall_normal", "stalls_normal"),
    EVENT("allocstall_movable", "stalls_movable"),
    EVENT("pgscan_direct_throttle", "throttled"),
    EVENT("pageoutrun", "kswapd_runs"),
    EVENT("kswapd_low_wmark_hit_quickly", "kswapd_low_again"),
    EVENT("kswapd_high_wmark_hit_quickly", "kswapd_high_again"),
    EVENT("slabs_scanned", "slabs_scanned"),
    EVENT("drop_pagecache", "cache_dropped"),
    EVENT("drop_slab", "slabs_dropped"),
    EVENT("oom_kill", "oom_kills"),
    MOVED("workingset_refault_anon", "refaults_anonymous"),
    MOVED("workingset_refault_file", "refaults_file"),
    MOVED("workingset_activate_anon", "reactivated_anonymous"),
    MOVED("workingset_activate_file", "reactivated_file"),
    MOVED("nr_dirtied", "dirtied"),
    MOVED("nr_written", "written"),
    MOVED("pgmigrate_success", "migrated"),
    EVENT("pgmigrate_fail", "migrations_failed"),
    MOVED("numa_hit", "numa_hit"),
    MOVED("numa_miss", "numa_miss"),
    MOVED("numa_foreign", "numa_foreign"),
    MOVED("numa_pages_migrated", "numa_migrated"),
    EVENT("numa_hint_faults", "numa_hint_faults"),
    EVENT("compact_stall", "compaction_stalls"),
    EVENT("compact_fail", "compactions_failed"),
    EVENT("compact_success", "compactions"),
    EVENT("thp_fault_alloc", "huge_faults"),
    EVENT("thp_fault_fallback", "huge_fallbacks"),
    EVENT("thp_collapse_alloc", "huge_collapsed"),
    EVENT("thp_split_page", "huge_split"),
    MOVED("balloon_inflate", "balloon_inflated"),
    MOVED("balloon_deflate", "balloon_deflated"),
    MOVED("swap_ra", "swap_readahead"),
    MOVED("swap_ra_hit", "swap_readahead_hits"),
    MOVED("zswpin", "zswap_in"),
    MOVED("zswpout", "zswap_out"),
};
#define PAGING_ROWS (sizeof paging_rows / sizeof paging_rows[0])

static const struct counter_file_type files[] = {
    {"/proc/meminfo", parse_memory, {{memory_rows, MEMORY_ROWS, 0, 1}, {used_rows, 2, 0, 1}}},
    {"/proc/vmstat", counters_parse_keyed, {{paging_rows, PAGING_ROWS, 0, 1}}},
};
const struct counter_topic counters_memory = {files, sizeof files / sizeof files[0]};
