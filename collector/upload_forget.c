/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deletes artifacts that were begun and will not be completed. Invariant: what a record names
 * stays, and so does everything of an order that has not ended. Called when an order ends and at
 * start-up.
 */
#include "collector/upload.h"

#include <stdlib.h>
#include <string.h>

#include "collector/incident.h"
#include "collector/keys.h"
#include "collector/partial.h"
#include "common/log.h"
#include "common/text.h"

struct blob_name {
    char incident[24], host[64];
    uint32_t no;
};

/* "<incident>/<host>/<no>", as keys_blob() makes it. */
static bool parse_blob(const char *blob, struct blob_name *out)
{
    const char *host = strchr(blob, '/');
    const char *no = host ? strchr(host + 1, '/') : NULL;
    uint64_t number;
    if (!no || (size_t)(host - blob) >= sizeof(out->incident) ||
        (size_t)(no - host) > sizeof(out->host) || text_u64(no + 1, &number))
        return false;
    text_format(out->incident, sizeof(out->incident), "%.*s", (int)(host - blob), blob);
    text_format(out->host, sizeof(out->host), "%.*s", (int)(no - host - 1), host + 1);
    out->no = (uint32_t)number;
    return true;
}

/* Sealed ones go only when it is certain that no record names them: a damaged row is no proof. */
static bool is_lost(struct collector *c, const char *blob, const struct blob_name *name)
{
    struct blob_state state;
    int e = blob_state(c->store, blob, &state);
    if (e)
        return e == ERR_NOTFOUND; /* a deletion that was cut off */
    if (!state.sealed)
        return true;
    return incident_by_id(c->incidents, name->incident) &&
           upload_find_record(c, name->incident, name->host, name->no) == ERR_NOTFOUND;
}

static void on_deleted(void *context, const struct failure *why)
{
    char *blob = context;
    if (why->code)
        log_warn("'%s' was never completed and cannot be deleted: %s", blob, why->text);
    else
        log_info("'%s' was never completed: deleted", blob);
    free(blob);
}

/* What cannot be deleted now is found again at the next start. */
static void delete_blob(struct collector *c, const char *blob)
{
    char *copy = malloc(KEYS_PARTITION_SIZE);
    int e = copy ? text_copy(copy, KEYS_PARTITION_SIZE, blob) : ERR_NOMEM;
    if (!e)
        e = blob_delete(c->store, blob, on_deleted, copy);
    if (!e)
        return;
    log_warn("'%s' was never completed and cannot be deleted: %s", blob, err_text(e));
    free(copy);
}

static int forget_one(void *context, const char *blob)
{
    struct collector *c = context;
    struct blob_name name;
    struct failure f;
    if (!parse_blob(blob, &name) || !is_lost(c, blob, &name))
        return 0;
    fail(&f, ERR_CANCELLED, "the order of artifact %u in %s is over", name.no, name.incident);
    if (!partials_forget(c->partials, blob, &f))
        return 0;
    delete_blob(c, blob);
    return 0;
}

void upload_forget(struct collector *c, const char *incident, const char *host)
{
    char prefix[KEYS_PARTITION_SIZE];
    text_format(prefix, sizeof(prefix), "%s/%s/", incident, host);
    int e = blob_list(c->store, prefix, forget_one, c);
    if (e)
        log_warn("incident %s, host %s: artifacts cannot be listed: %s", incident, host,
                 err_text(e));
}

static int forget_ended(void *context, const char *blob)
{
    struct collector *c = context;
    struct blob_name name;
    if (!parse_blob(blob, &name))
        return 0;
    const struct host *host = roster_find(c->roster, name.host);
    if (host && incident_accepts(c->incidents, name.incident, host))
        return 0;
    return forget_one(c, blob);
}

void upload_forget_all(struct collector *c)
{
    int e = blob_list(c->store, "", forget_ended, c);
    if (e)
        log_warn("artifacts cannot be listed: %s", err_text(e));
}
