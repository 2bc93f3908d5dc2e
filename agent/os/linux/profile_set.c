/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of a profile (profile_set.h). Invariant: an entry never changes its number, and is
 * found by its content. Called by profile*.c.
 */
#include "agent/os/linux/profile_set.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define SLOTS_FIRST 256
#define FNV_START UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

/* ---- hashing ---- */

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size_bytes)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ bytes[i]) * FNV_PRIME;
    return hash;
}

/* The low bits choose the slot: let the high ones have a say. */
static size_t mix(uint64_t hash)
{
    return (size_t)(hash ^ hash >> 29 ^ hash >> 43);
}

/* Whether the entry is the one looked for, or what its hash is. */
typedef bool (*equal_fn)(const struct profile_set *set, uint32_t number, const void *key);
typedef uint64_t (*hash_fn)(const struct profile_set *set, uint32_t number);

static uint32_t *find_slot(const struct profile_set *set, const struct profile_index *index,
                           uint64_t hash, equal_fn equal, const void *key)
{
    for (size_t i = mix(hash);; i++) {
        uint32_t *slot = &index->slots[i & (index->capacity - 1)];
        if (*slot == 0 || equal(set, *slot - 1, key))
            return slot;
    }
}

static bool never(const struct profile_set *set, uint32_t number, const void *key)
{
    (void)set;
    (void)number;
    (void)key;
    return false;
}

/* At most three quarters are taken, so a search ends. */
static int index_room(const struct profile_set *set, struct profile_index *index, hash_fn hash_of)
{
    if (index->used * 4 < index->capacity * 3)
        return 0;
    struct profile_index larger = {.capacity = index->capacity ? index->capacity * 2 : SLOTS_FIRST};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < index->capacity; i++) {
        if (index->slots[i]) {
            uint64_t hash = hash_of(set, index->slots[i] - 1);
            *find_slot(set, &larger, hash, never, NULL) = index->slots[i];
        }
    }
    larger.used = index->used;
    free(index->slots);
    *index = larger;
    return 0;
}

/* Room for `more` entries behind `count`. */
static int grow(void **list, size_t *capacity, size_t count, size_t more, size_t max, size_t size)
{
    if (count + more <= *capacity)
        return 0;
    if (more > max || count > max - more)
        return ERR_LIMIT;
    size_t wanted = *capacity * 2 > count + more ? *capacity * 2 : count + more;
    if (wanted < 64)
        wanted = 64;
    if (wanted > max)
        wanted = max;
    void *moved = realloc(*list, wanted * size);
    if (!moved)
        return ERR_NOMEM;
    *list = moved;
    *capacity = wanted;
    return 0;
}

/* ---- texts ---- */

const char *profile_text_of(const struct profile_set *set, uint32_t text)
{
    return text < set->texts.count ? (const char *)set->texts.bytes.data + set->texts.starts[text]
                                   : "";
}

static uint64_t text_hash(const struct profile_set *set, uint32_t number)
{
    const char *text = profile_text_of(set, number);
    return hash_bytes(FNV_START, text, strlen(text));
}

static bool text_equal(const struct profile_set *set, uint32_t number, const void *key)
{
    return strcmp(profile_text_of(set, number), key) == 0;
}

static int add_text(struct profile_set *set, const char *text, uint32_t *slot)
{
    struct profile_texts *t = &set->texts;
    void *starts = t->starts;
    size_t at = t->bytes.size_bytes;
    int e = grow(&starts, &t->capacity, t->count, 1, PROFILE_TEXTS_MAX, sizeof *t->starts);
    t->starts = starts;
    if (!e)
        e = buf_append(&t->bytes, text, strlen(text) + 1);
    if (e)
        return e;
    t->starts[t->count++] = (uint32_t)at;
    *slot = (uint32_t)t->count;
    t->index.used++;
    return 0;
}

int profile_text(struct profile_set *set, const char *text, uint32_t *out)
{
    char clean[PROFILE_TEXT_MAX + 1];
    text_copy(clean, sizeof clean, text);
    text_clean(clean);
    int e = index_room(set, &set->texts.index, text_hash);
    if (e)
        return e;
    uint64_t hash = hash_bytes(FNV_START, clean, strlen(clean));
    uint32_t *slot = find_slot(set, &set->texts.index, hash, text_equal, clean);
    if (*slot == 0 && (e = add_text(set, clean, slot)) != 0)
        return e;
    *out = *slot - 1;
    return 0;
}

/* ---- locations ---- */

struct place_key {
    uint64_t pc;
    uint32_t place, era;
};

static uint64_t place_key_hash(const struct place_key *key)
{
    uint64_t hash = hash_bytes(FNV_START, &key->pc, sizeof key->pc);
    hash = hash_bytes(hash, &key->place, sizeof key->place);
    return hash_bytes(hash, &key->era, sizeof key->era);
}

static uint64_t place_hash(const struct profile_set *set, uint32_t number)
{
    const struct profile_location *l = &set->locations[number];
    struct place_key key = {l->pc, l->place, l->era};
    return place_key_hash(&key);
}

static bool place_equal(const struct profile_set *set, uint32_t number, const void *data)
{
    const struct profile_location *l = &set->locations[number];
    const struct place_key *key = data;
    return l->pc == key->pc && l->place == key->place && l->era == key->era;
}

int profile_location(struct profile_set *set, enum profile_place place, uint64_t pc, uint32_t *out)
{
    bool lasts = place == PROFILE_KERNEL || place == PROFILE_WORDS;
    struct place_key key = {pc, place, lasts ? 0 : set->era};
    void *list = set->locations;
    int e = index_room(set, &set->by_place, place_hash);
    if (e)
        return e;
    uint32_t *slot = find_slot(set, &set->by_place, place_key_hash(&key), place_equal, &key);
    if (*slot == 0) {
        e = grow(&list, &set->location_capacity, set->location_count, 1, PROFILE_LOCATIONS_MAX,
                 sizeof *set->locations);
        set->locations = list;
        if (e)
            return e;
        set->locations[set->location_count++] =
            (struct profile_location){.pc = pc, .place = place, .era = key.era};
        *slot = (uint32_t)set->location_count;
        set->by_place.used++;
    }
    *out = *slot - 1;
    return 0;
}

int profile_words(struct profile_set *set, const char *words, uint32_t *out)
{
    struct profile_frame frame = {0, 0, 0};
    int e = profile_text(set, words, &frame.function);
    if (!e)
        e = profile_location(set, PROFILE_WORDS, frame.function, out);
    if (!e && set->locations[*out].count == 0)
        e = profile_name(set, *out, &frame, 1);
    return e;
}

int profile_name(struct profile_set *set, uint32_t location, const struct profile_frame *frames,
                 size_t count)
{
    void *list = set->frames;
    int e = grow(&list, &set->frame_capacity, set->frame_count, count, PROFILE_FRAMES_MAX,
                 sizeof *set->frames);
    set->frames = list;
    if (e)
        return e;
    memcpy(set->frames + set->frame_count, frames, count * sizeof *frames);
    set->locations[location].first = (uint32_t)set->frame_count;
    set->locations[location].count = (uint32_t)count;
    set->frame_count += count;
    return 0;
}

size_t profile_frames_of(const struct profile_set *set, uint32_t location,
                         const struct profile_frame **out)
{
    static const struct profile_frame nothing = {0, 0, 0};
    const struct profile_location *l = &set->locations[location];
    *out = l->count ? set->frames + l->first : &nothing;
    return l->count ? l->count : 1;
}

void profile_next_era(struct profile_set *set)
{
    set->era++;
}

/* ---- threads ---- */

static uint64_t tid_hash(const struct profile_set *set, uint32_t number)
{
    return hash_bytes(FNV_START, &set->threads[number].tid, sizeof(pid_t));
}

static bool tid_equal(const struct profile_set *set, uint32_t number, const void *key)
{
    return set->threads[number].tid == *(const pid_t *)key;
}

bool profile_thread_known(const struct profile_set *set, pid_t tid, uint32_t *out)
{
    if (set->by_tid.capacity == 0)
        return false;
    uint64_t hash = hash_bytes(FNV_START, &tid, sizeof tid);
    const uint32_t *slot = find_slot(set, &set->by_tid, hash, tid_equal, &tid);
    if (*slot == 0)
        return false;
    *out = *slot - 1;
    return true;
}

void profile_thread_name(struct profile_set *set, uint32_t thread, const char *comm)
{
    text_copy(set->threads[thread].comm, sizeof set->threads[thread].comm, comm);
    text_clean(set->threads[thread].comm);
}

int profile_thread(struct profile_set *set, pid_t tid, const char *comm, uint32_t *out)
{
    void *list = set->threads;
    int e = index_room(set, &set->by_tid, tid_hash);
    if (e)
        return e;
    uint64_t hash = hash_bytes(FNV_START, &tid, sizeof tid);
    uint32_t *slot = find_slot(set, &set->by_tid, hash, tid_equal, &tid);
    if (*slot == 0) {
        e = grow(&list, &set->thread_capacity, set->thread_count, 1, PROFILE_THREADS_MAX,
                 sizeof *set->threads);
        set->threads = list;
        if (e)
            return e;
        set->threads[set->thread_count++].tid = tid;
        *slot = (uint32_t)set->thread_count;
        set->by_tid.used++;
        profile_thread_name(set, *slot - 1, comm ? comm : "?");
    }
    *out = *slot - 1;
    return 0;
}

/* ---- stacks ---- */

struct stack_key {
    uint32_t thread;
    const uint32_t *locations;
    size_t count;
};

static uint64_t stack_key_hash(const struct stack_key *key)
{
    uint64_t hash = hash_bytes(FNV_START, &key->thread, sizeof key->thread);
    return hash_bytes(hash, key->locations, key->count * sizeof *key->locations);
}

static struct stack_key key_of(const struct profile_set *set, uint32_t number)
{
    const struct profile_stack *s = &set->stacks[number];
    return (struct stack_key){s->thread, set->places + s->first, s->count};
}

static uint64_t stack_hash(const struct profile_set *set, uint32_t number)
{
    struct stack_key key = key_of(set, number);
    return stack_key_hash(&key);
}

static bool stack_equal(const struct profile_set *set, uint32_t number, const void *data)
{
    const struct stack_key *key = data;
    struct stack_key here = key_of(set, number);
    return here.thread == key->thread && here.count == key->count &&
           memcmp(here.locations, key->locations, key->count * sizeof *key->locations) == 0;
}

static int add_stack(struct profile_set *set, const struct stack_key *key, uint32_t *slot)
{
    void *stacks = set->stacks, *places = set->places;
    int e = grow(&stacks, &set->stack_capacity, set->stack_count, 1, PROFILE_STACKS_MAX,
                 sizeof *set->stacks);
    set->stacks = stacks;
    if (!e)
        e = grow(&places, &set->place_capacity, set->place_count, key->count, PROFILE_PLACES_MAX,
                 sizeof *set->places);
    set->places = places;
    if (e)
        return e;
    memcpy(set->places + set->place_count, key->locations, key->count * sizeof *key->locations);
    set->stacks[set->stack_count++] = (struct profile_stack){
        .thread = key->thread, .first = (uint32_t)set->place_count, .count = (uint32_t)key->count};
    set->place_count += key->count;
    *slot = (uint32_t)set->stack_count;
    set->by_stack.used++;
    return 0;
}

int profile_stack(struct profile_set *set, uint32_t thread, const uint32_t *locations, size_t count,
                  uint32_t *out)
{
    struct stack_key key = {thread, locations,
                            count < PROFILE_DEPTH_MAX ? count : PROFILE_DEPTH_MAX};
    int e = index_room(set, &set->by_stack, stack_hash);
    if (e)
        return e;
    uint32_t *slot = find_slot(set, &set->by_stack, stack_key_hash(&key), stack_equal, &key);
    if (*slot == 0 && (e = add_stack(set, &key, slot)) != 0)
        return e;
    *out = *slot - 1;
    return 0;
}

/* ---- modules, and the whole ---- */

int profile_module(struct profile_set *set, const struct profile_module *module, uint32_t *out)
{
    void *list = set->modules;
    int e = grow(&list, &set->module_capacity, set->module_count, 1, PROFILE_LOCATIONS_MAX,
                 sizeof *set->modules);
    set->modules = list;
    if (e)
        return e;
    set->modules[set->module_count++] = *module;
    *out = (uint32_t)set->module_count - 1;
    return 0;
}

void profile_total(const struct profile_set *set, uint64_t *samples, uint64_t *cpu_ns,
                   uint64_t *off_ns)
{
    *samples = *cpu_ns = *off_ns = 0;
    for (size_t i = 0; i < set->stack_count; i++) {
        *samples += set->stacks[i].samples;
        *cpu_ns += set->stacks[i].cpu_ns;
        *off_ns += set->stacks[i].off_ns;
    }
}

void profile_set_init(struct profile_set *set)
{
    uint32_t empty;
    memset(set, 0, sizeof *set);
    buf_init(&set->texts.bytes, PROFILE_TEXTS_BYTES_MAX);
    profile_text(set, "", &empty); /* when there is no memory the next one says so */
}

void profile_set_done(struct profile_set *set)
{
    buf_done(&set->texts.bytes);
    free(set->texts.starts);
    free(set->texts.index.slots);
    free(set->locations);
    free(set->frames);
    free(set->stacks);
    free(set->places);
    free(set->threads);
    free(set->modules);
    free(set->by_place.slots);
    free(set->by_stack.slots);
    free(set->by_tid.slots);
    memset(set, 0, sizeof *set);
}
