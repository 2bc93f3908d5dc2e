/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The numbers file of the state directory, by way of common/conf. Sequence numbers live in the
 * rings; here is only a ceiling far above them, so that a lost ring never gives out a number twice.
 * Called by the agent and its capture.
 */
#include "agent/state.h"

#include <stddef.h>
#include <string.h>

#include "common/conf.h"
#include "common/port.h"
#include "common/text.h"

#define RESERVE 1000000u /* numbers reserved at a time: four months of blocks */
#define NEAR 1000u

struct numbers {
    char id[33];
    uint64_t last_order, block_ceiling, event_ceiling;
};

#define NUMBER(name, member)                                                                    \
    {                                                                                           \
        name, CONF_U64, offsetof(struct numbers, member), sizeof(uint64_t), 0, UINT64_MAX, "0", \
            "N", "written by the agent", false                                                  \
    }

static const struct conf_row rows[] = {
    {"state-id", CONF_STRING, offsetof(struct numbers, id), sizeof(((struct numbers *)0)->id), 0, 0,
     "", "HEX", "written by the agent", false},
    NUMBER("last-order", last_order),
    NUMBER("block-ceiling", block_ceiling),
    NUMBER("event-ceiling", event_ceiling),
};
#define ROWS (sizeof rows / sizeof rows[0])

int state_path(const struct state *state, const char *name, char out[STATE_PATH_SIZE],
               struct failure *f)
{
    if (text_format(out, STATE_PATH_SIZE, "%s/%s", state->directory, name))
        return fail(f, ERR_LIMIT, "path too long: '%s/%s'", state->directory, name);
    return 0;
}

static int state_save(const struct state *state, struct failure *f)
{
    char path[STATE_PATH_SIZE], id[33];
    struct buf text;
    int e = state_path(state, "state.conf", path, f);
    if (e)
        return e;
    text_put_hex(state->id, sizeof state->id, id);
    buf_init(&text, 1024);
    e = buf_printf(&text,
                   "# Written by trawl-agent; do not edit.\nstate-id = %s\nlast-order = %llu\n"
                   "block-ceiling = %llu\nevent-ceiling = %llu\n",
                   id, (unsigned long long)state->last_order,
                   (unsigned long long)state->ceilings[0], (unsigned long long)state->ceilings[1]);
    if (!e)
        e = port_write_file(path, buf_span(&text), true, f);
    buf_done(&text);
    return e;
}

static int load(struct state *state, const char *path, struct failure *f)
{
    struct numbers n;
    conf_defaults(rows, ROWS, &n);
    int e = conf_file(rows, ROWS, &n, path, f);
    if (e)
        return e;
    if (text_parse_hex(n.id, state->id, sizeof state->id))
        return fail(f, ERR_CORRUPT, "no state-id in '%s'", path);
    state->last_order = n.last_order;
    state->ceilings[0] = n.block_ceiling;
    state->ceilings[1] = n.event_ceiling;
    return 0;
}

int state_open(struct state *state, const char *directory, bool *was_lost, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    *state = (struct state){0};
    *was_lost = false;
    if (text_copy(state->directory, sizeof state->directory, directory))
        return fail(f, ERR_LIMIT, "path too long: '%s'", directory);
    int e = port_make_dirs(directory, f);
    if (!e)
        e = state_path(state, "lock", path, f);
    if (!e)
        e = port_lock_file(path, f);
    if (e == ERR_BUSY)
        return fail(f, ERR_BUSY,
                    "another trawl-agent runs on '%s': stop it, or choose another --state-dir",
                    directory);
    if (!e)
        e = state_path(state, "state.conf", path, f);
    if (e)
        return e;
    e = load(state, path, f);
    if (!e)
        return 0;
    *was_lost = e != ERR_NOTFOUND;
    memset(state->ceilings, 0, sizeof state->ceilings);
    port_random(state->id, sizeof state->id);
    return state_save(state, f);
}

int state_reserve(struct state *state, const uint64_t next_seq[2], struct failure *f)
{
    bool is_due = false;
    for (int i = 0; i < 2; i++)
        if (next_seq[i] + NEAR > state->ceilings[i]) {
            state->ceilings[i] = next_seq[i] + RESERVE;
            is_due = true;
        }
    return is_due ? state_save(state, f) : 0;
}

int state_accept_order(struct state *state, uint64_t order, struct failure *f)
{
    if (order <= state->last_order)
        return 0;
    uint64_t before = state->last_order;
    state->last_order = order;
    int e = state_save(state, f);
    if (e)
        state->last_order = before;
    return e;
}
