/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the bases: one call of Show for each incident that holds one. Called by cmd_fetch.c.
 */
#include "cli/bases.h"

#include <stdlib.h>
#include <string.h>

#include "cli/incident_call.h"
#include "common/patch.h"
#include "common/text.h"

#define FIRST_BASES 8

bool bases_is_needed(const trawl_v1_Artifact *artifact)
{
    return strcmp(artifact->encoding, PATCH_ENCODING) == 0;
}

static bool is_base(const struct bundle_artifact *a, const trawl_v1_Artifact *of)
{
    return a->record.no == of->base_no && strcmp(a->record.host, of->host) == 0 &&
           strcmp(a->record.incident, of->base_incident) == 0;
}

struct bundle_artifact *bases_of(const struct bases *bases, const struct bundle *bundle,
                                 const trawl_v1_Artifact *artifact)
{
    for (size_t i = 0; i < bundle->artifact_count; i++) {
        struct bundle_artifact *a = &bundle->artifacts[i];
        if (a->state != BUNDLE_UNASKED && is_base(a, artifact))
            return a;
    }
    for (size_t i = 0; i < bases->count; i++)
        if (is_base(&bases->list[i], artifact))
            return &bases->list[i];
    return NULL;
}

bool bases_has(const struct bases *bases, const struct bundle_artifact *artifact)
{
    for (size_t i = 0; i < bases->count; i++)
        if (&bases->list[i] == artifact)
            return true;
    return false;
}

static int add_base(struct bases *bases, const trawl_v1_Artifact *of)
{
    if (BUF_GROW(bases->list, bases->count, &bases->capacity, FIRST_BASES))
        return ERR_NOMEM;
    struct bundle_artifact *a = &bases->list[bases->count++];
    *a = (struct bundle_artifact){.state = BUNDLE_FAILED};
    text_copy(a->record.incident, sizeof a->record.incident, of->base_incident);
    text_copy(a->record.host, sizeof a->record.host, of->host);
    a->record.no = of->base_no;
    /* An ID that cannot be part of a path is of no incident: it stays without a file, failed. */
    if (bundle_is_safe_name(of->base_incident))
        text_format(a->file, sizeof a->file, ".base-%s-%u", of->base_incident, of->base_no);
    fail(&a->why, ERR_NOTFOUND, "core %u of incident '%s', from which it is told, is not there",
         of->base_no, of->base_incident);
    return 0;
}

static int on_part(void *owner, struct span message, struct failure *f)
{
    struct bases *bases = owner;
    trawl_v1_IncidentPart part;
    int r = codec_get_incident_part(&part, message, f);
    if (r < 0 || part.which_body != trawl_v1_IncidentPart_artifact_tag)
        return r;
    const trawl_v1_Artifact *found = &part.body.artifact;
    for (size_t i = 0; i < bases->count; i++) {
        struct bundle_artifact *a = &bases->list[i];
        bool same = a->file[0] && a->record.no == found->no &&
                    strcmp(a->record.host, found->host) == 0 &&
                    strcmp(a->record.incident, found->incident) == 0;
        if (!same || !found->sealed || found->sha256.size != 32)
            continue;
        a->record = *found;
        a->state = BUNDLE_WANTED;
        a->why.code = 0;
    }
    return 0;
}

/* An incident that is not there leaves its bases as they are: failed, with the reason. */
static int ask(struct bases *bases, struct cli *cli, size_t index, struct failure *f)
{
    char incident[sizeof bases->list->record.incident];
    text_copy(incident, sizeof incident, bases->list[index].record.incident);
    for (size_t i = 0; i < index; i++)
        if (strcmp(bases->list[i].record.incident, incident) == 0)
            return 0; /* asked already */
    int r = incident_call(cli, METHOD_OPS_SHOW, incident, on_part, bases, f);
    return r == ERR_NOTFOUND || r == ERR_INVALID ? 0 : r;
}

int bases_find(struct bases *bases, struct cli *cli, struct bundle *bundle, struct failure *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < bundle->artifact_count; i++) {
        const struct bundle_artifact *a = &bundle->artifacts[i];
        if (a->state == BUNDLE_WANTED && bases_is_needed(&a->record) &&
            !bases_of(bases, bundle, &a->record))
            r = add_base(bases, &a->record);
    }
    if (r < 0)
        return fail(f, r, "out of memory");
    for (size_t i = 0; r == 0 && i < bases->count; i++)
        r = ask(bases, cli, i, f);
    return r;
}

void bases_done(struct bases *bases)
{
    free(bases->list);
    *bases = (struct bases){.list = NULL};
}
