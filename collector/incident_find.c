/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding incidents and targets in memory, and the names of states. Invariant: nothing is changed
 * here. Used by everyone who got an ID from outside.
 */
#include "collector/incident_store.h"

#include <string.h>

#include "common/text.h"

bool state_is_final(trawl_v1_State state)
{
    return state >= trawl_v1_State_DONE;
}

const char *state_name(trawl_v1_State state)
{
    static const char *const names[] = {"unknown", "queued",    "sent",    "running",
                                        "done",    "partial",   "refused", "failed",
                                        "expired", "cancelled", "gone"};
    return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

int incident_each(struct incidents *incidents, incident_each_fn each, void *context)
{
    LIST_EACH (at, &incidents->all) {
        int e = each(context, LIST_ENTRY(at, struct incident, link));
        if (e)
            return e;
    }
    return 0;
}

static void upper(char *text)
{
    for (; *text; text++)
        if (*text >= 'a' && *text <= 'z')
            *text = (char)(*text - 'a' + 'A');
}

struct incident *incident_find(struct incidents *incidents, const char *text, struct failure *f)
{
    char wanted[32];
    struct incident *found = NULL;
    if (!*text || text_copy(wanted, sizeof(wanted), text)) {
        fail(f, ERR_NOTFOUND, "no incident '%.40s': 'trawl incidents' lists them", text);
        return NULL;
    }
    upper(wanted);
    struct incident *whole = incident_by_id(incidents, wanted);
    if (whole)
        return whole;
    LIST_EACH (at, &incidents->all) {
        struct incident *incident = LIST_ENTRY(at, struct incident, link);
        if (!strstr(incident->record.id, wanted))
            continue;
        if (found) {
            fail(f, ERR_CONFLICT, "'%s' could be '%s' or '%s': give more of the ID", text,
                 found->record.id, incident->record.id);
            return NULL;
        }
        found = incident;
    }
    if (!found)
        fail(f, ERR_NOTFOUND, "no incident '%s': 'trawl incidents' lists them", text);
    return found;
}

struct incident *incident_by_request(struct incidents *incidents, const uint8_t request_id[16])
{
    LIST_EACH (at, &incidents->all) {
        struct incident *incident = LIST_ENTRY(at, struct incident, link);
        if (incident->record.request_id.size == 16 &&
            !memcmp(incident->record.request_id.bytes, request_id, 16))
            return incident;
        LIST_EACH (c_at, &incident->captures) { /* of one added by `into` */
            const struct capture *capture = LIST_ENTRY(c_at, struct capture, link);
            if (capture->request.request_id.size == 16 &&
                !memcmp(capture->request.request_id.bytes, request_id, 16))
                return incident;
        }
    }
    return NULL;
}

bool incident_capturing(const struct incident *incident, const uint8_t request_id[16])
{
    LIST_EACH (at, &incident->captures) {
        const struct capture *capture = LIST_ENTRY(at, struct capture, link);
        if (capture->request.request_id.size == 16 &&
            !memcmp(capture->request.request_id.bytes, request_id, 16))
            return true;
    }
    return false;
}

struct list *incident_bucket(struct incidents *incidents, const char *id)
{
    uint32_t hash = 2166136261u;
    for (; *id; id++)
        hash = (hash ^ (uint8_t)*id) * 16777619u;
    return &incidents->buckets[hash % INCIDENT_BUCKETS];
}

struct incident *incident_by_id(struct incidents *incidents, const char *id)
{
    struct list *bucket = incident_bucket(incidents, id);
    LIST_EACH (at, bucket) {
        struct incident *incident = LIST_ENTRY(at, struct incident, hash_link);
        if (!strcmp(incident->record.id, id))
            return incident;
    }
    return NULL;
}

/* A host can be a target of several captures of an incident: the order tells them apart. 0: any
 * that was sent. */
struct target *incident_target(struct incident *incident, const struct host *host, uint64_t order)
{
    LIST_EACH (at, &host->targets) {
        struct target *t = LIST_ENTRY(at, struct target, of_host);
        if (t->capture->incident == incident && t->record.order &&
            (!order || t->record.order == order))
            return t;
    }
    return NULL;
}
