/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a simulated host does not have: rings (mapped files with locks, two descriptors each), a
 * sampler, a crash handler, a broker and its workers. The functions have the names of those they
 * stand in for, so the linker never takes agent/spool.c, agent/capture_worker.c and the others.
 * Invariant: towards capture.c, uplink.c and uplink_session.c they keep what the headers promise.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/capture_private.h"
#include "agent/crashes.h"
#include "agent/lookback.h"
#include "agent/sampler.h"
#include "common/text.h"
#include "host.h"
#include "proto/block.h"
#include "proto/codec.h"

/* ---- the spool: a short list a lane ---- */

struct item {
    struct list link;
    uint64_t seq; /* 0: descriptors */
    size_t size_bytes;
    uint8_t bytes[];
};

struct lane {
    struct list items;
    struct item *next; /* to send; NULL: all is sent */
    uint64_t next_seq;
};

struct spool {
    struct host *host;
    struct lane lanes[SPOOL_LANES];
};

#define SERIES 60
#define SAMPLES 10
#define STEP_US 1000000

static struct buf block_data;
static trawl_v1_AgentMessage message; /* 33 KB: one thread, one message at a time */

static struct host *host_of(struct capture *c)
{
    return c->settings.context;
}

struct spool *stand_in_spool(struct host *host)
{
    struct spool *spool = calloc(1, sizeof *spool);
    if (!spool)
        farm_die("out of memory");
    spool->host = host;
    for (int i = 0; i < SPOOL_LANES; i++) {
        list_init(&spool->lanes[i].items);
        spool->lanes[i].next_seq = 1;
    }
    return spool;
}

void stand_in_spool_close(struct spool *spool)
{
    for (int i = 0; i < SPOOL_LANES; i++)
        LIST_EACH (at, &spool->lanes[i].items)
            free(LIST_ENTRY(at, struct item, link));
    free(spool);
}

static int push(struct spool *spool, enum spool_lane which, uint64_t seq)
{
    struct lane *lane = &spool->lanes[which];
    struct buf bytes;
    buf_init(&bytes, trawl_v1_AgentMessage_size + 64);
    int e = codec_put_agent_message(&bytes, &message);
    struct item *item = e ? NULL : malloc(sizeof *item + bytes.size_bytes);
    if (item) {
        *item = (struct item){.seq = seq, .size_bytes = bytes.size_bytes};
        memcpy(item->bytes, bytes.data, bytes.size_bytes);
        list_push(&lane->items, &item->link);
        if (!lane->next)
            lane->next = item;
        lane->next_seq += seq != 0;
    }
    buf_done(&bytes);
    return item ? 0 : ERR_NOMEM;
}

int spool_push_event(struct spool *spool, trawl_v1_Event *event)
{
    event->seq = spool->lanes[SPOOL_EVENTS].next_seq;
    message.which_body = trawl_v1_AgentMessage_event_tag;
    message.body.event = *event;
    return push(spool, SPOOL_EVENTS, event->seq);
}

int spool_push_exception(struct spool *spool, trawl_v1_Exception *exception)
{
    (void)spool, (void)exception;
    return ERR_LIMIT; /* no simulated host throws */
}

uint64_t spool_next_seq(const struct spool *spool, enum spool_lane lane)
{
    return spool->lanes[lane].next_seq;
}

uint64_t spool_oldest_seq(const struct spool *spool, enum spool_lane which)
{
    const struct lane *lane = &spool->lanes[which];
    LIST_EACH (at, &lane->items)
        if (LIST_ENTRY(at, struct item, link)->seq)
            return LIST_ENTRY(at, struct item, link)->seq;
    return lane->next_seq;
}

void spool_release_pages(struct spool *spool)
{
    (void)spool;
}

void spool_resume(struct spool *spool, const uint64_t last[SPOOL_LANES])
{
    for (int i = 0; i < SPOOL_LANES; i++) {
        struct lane *lane = &spool->lanes[i];
        spool_acknowledge(spool, (enum spool_lane)i, last[i]);
        struct list *first = list_first(&lane->items);
        lane->next = first ? LIST_ENTRY(first, struct item, link) : NULL;
    }
    host_welcomed(spool->host);
}

int spool_peek(struct spool *spool, enum spool_lane which, struct spool_item *out)
{
    const struct item *item = spool->lanes[which].next;
    if (!item)
        return ERR_NOTFOUND;
    *out = (struct spool_item){.message = span_of(item->bytes, item->size_bytes)};
    return 0;
}

void spool_advance(struct spool *spool, enum spool_lane which)
{
    struct lane *lane = &spool->lanes[which];
    struct list *next = lane->next->link.next;
    lane->next = next == &lane->items ? NULL : LIST_ENTRY(next, struct item, link);
}

void spool_acknowledge(struct spool *spool, enum spool_lane which, uint64_t seq)
{
    struct lane *lane = &spool->lanes[which];
    LIST_EACH (at, &lane->items) {
        struct item *item = LIST_ENTRY(at, struct item, link);
        if (item == lane->next || item->seq > seq)
            return;
        list_remove(at);
        free(item);
    }
}

/* ---- counters ---- */

static int64_t value_of(unsigned series, unsigned sample)
{
    return (int64_t)series * 1000 + (int64_t)sample * (int64_t)(series % 7) * 13 +
           (int64_t)((series * 31 + sample * 17) % 11);
}

void stand_in_make_block(void)
{
    static int64_t values[SERIES][SAMPLES];
    struct block_series series[SERIES];
    size_t taken;
    for (unsigned i = 0; i < SERIES; i++) {
        for (unsigned s = 0; s < SAMPLES; s++)
            values[i][s] = value_of(i, s);
        series[i] = (struct block_series){i + 1, values[i], ""};
    }
    buf_init(&block_data, sizeof message.body.block.data.bytes);
    if (block_put(&block_data, series, SERIES, SAMPLES, &taken) || taken != SERIES)
        farm_die("the block of counters cannot be made");
}

static void push_descriptors(struct spool *spool)
{
    trawl_v1_Descriptors *list = &message.body.descriptors;
    memset(list, 0, sizeof *list);
    message.which_body = trawl_v1_AgentMessage_descriptors_tag;
    list->epoch = spool->host->number + 1;
    for (unsigned i = 0; i < SERIES; i++) {
        trawl_v1_Descriptor *d = &list->list[list->list_count++];
        d->id = i + 1;
        d->kind = trawl_v1_Kind_GAUGE;
        d->scale = 1;
        text_format(d->name, sizeof d->name, "farm.value%u", i);
        text_copy(d->unit, sizeof d->unit, "1");
    }
    (void)push(spool, SPOOL_BLOCKS, 0);
}

void stand_in_push_block(struct spool *spool, int64_t wall_us)
{
    uint64_t seq = spool->lanes[SPOOL_BLOCKS].next_seq;
    if (seq == 1)
        push_descriptors(spool);
    trawl_v1_CounterBlock *block = &message.body.block;
    message.which_body = trawl_v1_AgentMessage_block_tag;
    memset(block, 0, sizeof *block);
    block->seq = seq;
    block->epoch = spool->host->number + 1;
    block->from_us = wall_us - SAMPLES * STEP_US;
    block->step_us = STEP_US;
    block->count = SAMPLES;
    block->data.size = (pb_size_t)block_data.size_bytes;
    memcpy(block->data.bytes, block_data.data, block_data.size_bytes);
    (void)push(spool, SPOOL_BLOCKS, seq);
}

void sampler_set_watching(struct sampler *sampler, bool on)
{
    (void)sampler, (void)on;
}

void sampler_cut(struct sampler *sampler)
{
    (void)sampler;
}

size_t sampler_processes(const struct sampler *sampler, uint32_t *pids, size_t max)
{
    (void)sampler, (void)pids, (void)max;
    return 0;
}

void crashes_set_wants(const trawl_v1_Wants *wants)
{
    (void)wants;
}

int lookback_counters(const struct spool *spool, int64_t from_us, int64_t to_us,
                      lookback_write_fn write, void *context, char *missing, size_t size_bytes,
                      struct failure *f)
{
    (void)spool, (void)from_us, (void)to_us, (void)write, (void)context, (void)missing;
    (void)size_bytes;
    return fail(f, ERR_NOTFOUND, "a simulated host keeps no counters");
}

int lookback_events(const struct spool *spool, int64_t from_us, int64_t to_us,
                    lookback_write_fn write, void *context, char *missing, size_t size_bytes,
                    struct failure *f)
{
    (void)spool, (void)from_us, (void)to_us, (void)write, (void)context, (void)missing;
    (void)size_bytes;
    return fail(f, ERR_NOTFOUND, "a simulated host keeps no events");
}

/* ---- the broker: one process matches everything; answers when the work would be done ---- */

static void on_broker(uv_timer_t *timer)
{
    static struct broker_reply reply;
    static const struct failure none = {0};
    struct host *host = timer->data;
    memset(&reply, 0, sizeof reply);
    struct os_process *process = &reply.body.found.list[0];
    reply.body.found.count = reply.body.found.matched = 1;
    *process = (struct os_process){.pid = 4242, .start_ticks = 1000};
    text_copy(process->name, sizeof process->name, "service");
    host->request_done(host->request_context, &reply, &none);
}

int broker_client_send(struct broker_client *client, enum broker_op op,
                       struct broker_request *request, int pass_fd, broker_done_fn done,
                       void *context, struct failure *f)
{
    struct host *host = (struct host *)(void *)client;
    (void)pass_fd;
    if (op != BROKER_RESOLVE)
        return fail(f, ERR_UNSUPPORTED, "a simulated host has no broker");
    host->request = *request;
    host->request_done = done;
    host->request_context = context;
    uv_timer_start(&host->broker_timer, on_broker, host->all->farm->options.work_ms, 0);
    return 0;
}

/* ---- the worker: a text of the size asked for ---- */

static int write_text(struct capture *c, const struct job *job, struct failure *f)
{
    struct evidence *evidence = &c->run.files[c->run.file_count - 1].evidence;
    unsigned size = host_of(c)->all->farm->options.artifact_bytes;
    char line[160];
    int e = 0;
    for (unsigned no = 0; !e && evidence->size_bytes < size; no++) {
        text_format(line, sizeof line, "%s %s order %llu line %u: state S, waits in epoll_wait\n",
                    host_of(c)->name, job->kind, (unsigned long long)c->run.order->order.order, no);
        e = evidence_write(evidence, span_str(line));
    }
    return e ? fail(f, e, "cannot keep the evidence: %s", err_text(e)) : 0;
}

/* True would mean that it goes on; here the job is over when this returns. */
bool worker_start(struct capture *c, const struct job *job)
{
    static trawl_v1_Artifact meta;
    struct broker_file about = {"txt", ""};
    struct failure f = {0};
    memset(&meta, 0, sizeof meta);
    meta.wall_us = c->settings.clock->wall_us(c->settings.clock);
    host_ran(host_of(c), c->run.order->order.order);
    int e = job_open_file(c, &about, &f);
    if (!e)
        e = write_text(c, job, &f);
    if (!e)
        e = job_keep_files(c, job, &meta, &f);
    if (e)
        job_drop_files(c);
    else
        f.code = 0;
    job_ended(c, &f);
    return false;
}

bool job_stop_worker(struct capture *c)
{
    (void)c;
    return false;
}

void job_cancel(struct capture *c)
{
    (void)c;
}

void worker_read_on(struct capture *c)
{
    (void)c;
}

/* ---- when an order arrives: the linker's --wrap puts this before the real one ---- */

void __real_capture_order(struct capture *c, const trawl_v1_Order *order);
void __wrap_capture_order(struct capture *c, const trawl_v1_Order *order);

void __wrap_capture_order(struct capture *c, const trawl_v1_Order *order)
{
    host_received(host_of(c));
    __real_capture_order(c, order);
}
