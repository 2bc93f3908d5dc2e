/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of disks, file systems, memory and network cards: one line each, known by its words
 * (kernel: block/blk-core.c, fs/ext4, fs/xfs, fs/btrfs, mm/memory-failure.c,
 * arch/x86/kernel/cpu/mce, drivers/edac, drivers/nvme, drivers/ata, net/sched/sch_generic.c). A
 * failing disk says the same many times a second: from the fourth on they are counted. Called by
 * kernel_fault.c.
 */
#include <string.h>

#include "agent/os/linux/kernel_fault_linux.h"
#include "common/text.h"

#define SECOND_US UINT64_C(1000000)
#define ANY 7
#define ERROR 3 /* syslog(3), LOG_ERR */

struct row {
    const char *words;  /* must stand in the line */
    const char *second; /* and this behind it; NULL: nothing more */
    const char *type;
    int priority;       /* at most: the same words are used for good news, too */
    const char *device; /* the device's name stands behind this; "": at the line's beginning */
};

static const struct row rows[] = {
    {"Buffer I/O error on dev", NULL, "io-error", ANY, "on dev"},
    {"critical medium error, dev ", NULL, "medium-error", ANY, ", dev "},
    {" error, dev ", NULL, "io-error", ANY, ", dev "},
    {"EXT4-fs error (device ", NULL, "filesystem-error", ANY, "(device "},
    {"EXT4-fs (", "Remounting filesystem read-only", "filesystem-read-only", ANY, "("},
    {"EXT4-fs (", "failed to convert", "filesystem-error", ANY, "("},
    {"EXT4-fs (", "Delayed block allocation failed", "filesystem-error", ANY, "("},
    {"Aborting journal on device ", NULL, "filesystem-error", ANY, "device "},
    {"JBD2: Detected IO errors", NULL, "filesystem-error", ANY, " on "},
    {"XFS (", NULL, "filesystem-error", ERROR, "("},
    {"BTRFS error (device ", NULL, "filesystem-error", ANY, "(device "},
    {"BTRFS critical (device ", NULL, "filesystem-error", ANY, "(device "},
    {"BTRFS: error (device ", NULL, "filesystem-error", ANY, "(device "},
    {"FAT-fs (", "error", "filesystem-error", ERROR, "("},
    {"SQUASHFS error: ", NULL, "filesystem-error", ANY, NULL},
    {"nvme ", " timeout, ", "io-timeout", ANY, "nvme "},
    {"ata", ": failed command: ", "io-error", ANY, ""},
    {"md/", "Disk failure on ", "disk-failure", ANY, "Disk failure on "},
    {"EDAC MC", " CE ", "memory-error-corrected", ANY, "EDAC "},
    {"EDAC MC", " UE ", "memory-error", ANY, "EDAC "},
    {"Memory failure: 0x", NULL, "memory-error", ANY, NULL},
    {"MCE: Killing ", NULL, "memory-error", ANY, NULL},
    {"[Hardware Error]: CPU ", "Machine Check", "machine-check", ANY, NULL},
    {"[Hardware Error]: Machine check events logged", NULL, "machine-check", ANY, NULL},
    {"[Hardware Error]: event severity: ", NULL, "hardware-error", ANY, NULL},
    {"temperature above threshold", NULL, "overheated", ANY, NULL},
    {": NETDEV WATCHDOG: CPU", NULL, "net-transmit-timeout", ANY, ""},
    {"NETDEV WATCHDOG: ", "timed out", "net-transmit-timeout", ANY, "NETDEV WATCHDOG: "},
};

static const struct row *find_row(int priority, const char *line)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *at = fault_after(line, rows[i].words);
        if (at && priority <= rows[i].priority &&
            (!rows[i].second || strstr(at - 1, rows[i].second)))
            return &rows[i];
    }
    return NULL;
}

static void find_device(const struct row *row, const char *line, char *out, size_t size_bytes)
{
    const char *at = row->device ? fault_after(line, row->device) : NULL;
    out[0] = '\0';
    while (at && *at == ' ')
        at++;
    if (at)
        fault_copy_until(out, size_bytes, at, " ,:)");
    size_t length = strlen(out);
    if (length && out[length - 1] == '.')
        out[length - 1] = '\0';
}

/* "Memory failure: ... Sending SIGBUS to NAME:PID due to ...", "MCE: Killing NAME:PID due to ..."
 */
static void find_process(struct os_exception *e, const char *line)
{
    uint64_t pid;
    const char *at = fault_after(line, "Sending SIGBUS to ");
    if (!at)
        at = fault_after(line, "MCE: Killing ");
    const char *end = at ? strstr(at, " due to ") : NULL;
    const char *colon = end;
    while (colon && colon > at && *colon != ':')
        colon--;
    if (!colon || *colon != ':')
        return;
    const char *digits = colon + 1;
    if (!fault_number(&digits, &pid) || digits != end || pid > UINT32_MAX)
        return;
    e->pid = (uint32_t)pid;
    (void)text_copy_span(e->process, sizeof e->process, span_of(at, (size_t)(colon - at)));
}

static void tell_line(struct os_kernel_fault *f, const struct row *row, uint64_t mono_us,
                      uint64_t last_us, uint64_t count, const char *line)
{
    char device[32];
    struct os_exception *e = &f->one;
    fault_begin(e, OS_HARDWARE_ERROR, row->type, mono_us, line);
    find_device(row, line, device, sizeof device);
    fault_tag(e, "device", device);
    find_process(e, line);
    e->count = count;
    fault_tell(f, e, last_us);
}

/* ---- many of the same ---- */

static void tell_counted(struct os_kernel_fault *f, struct fault_repeat *r)
{
    if (r->count)
        tell_line(f, r->row, r->since_us, r->last_us, r->count, r->line);
    r->count = 0;
}

/* Its place, a free one, or that of the one that was quiet for longest. */
static struct fault_repeat *place_of(struct os_kernel_fault *f, const struct row *row,
                                     const char *device)
{
    struct fault_repeat *best = &f->repeats[0];
    for (size_t i = 0; i < FAULT_REPEATS; i++) {
        struct fault_repeat *r = &f->repeats[i];
        if (r->row == row && strcmp(r->device, device) == 0)
            return r;
        if (best->row && (!r->row || r->last_us < best->last_us))
            best = r;
    }
    tell_counted(f, best);
    *best = (struct fault_repeat){.row = row};
    (void)text_copy(best->device, sizeof best->device, device);
    return best;
}

bool fault_feed_device(struct os_kernel_fault *f, int priority, uint64_t mono_us, const char *line)
{
    char device[32];
    const struct row *row = find_row(priority, line);
    if (!row)
        return false;
    find_device(row, line, device, sizeof device);
    struct fault_repeat *r = place_of(f, row, device);
    if (mono_us - r->since_us >= SECOND_US) {
        tell_counted(f, r);
        r->since_us = mono_us;
        r->told = 0;
    }
    r->last_us = mono_us;
    if (r->told < OS_KERNEL_FAULT_SINGLE) {
        r->told++;
        tell_line(f, row, mono_us, mono_us, 1, line);
    } else if (r->count++ == 0) {
        (void)text_copy(r->line, sizeof r->line, line);
    }
    return true;
}

void fault_flush_devices(struct os_kernel_fault *f, uint64_t mono_us)
{
    for (size_t i = 0; i < FAULT_REPEATS; i++)
        if (f->repeats[i].count && mono_us - f->repeats[i].since_us >= SECOND_US)
            tell_counted(f, &f->repeats[i]);
}
