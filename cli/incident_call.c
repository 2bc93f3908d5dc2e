/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Naming incidents. Invariant: an ID is checked here before anybody is asked. Called by the
 * commands about incidents.
 */
#include "cli/incident_call.h"

#include <string.h>

#include "common/text.h"

int incident_check_id(const char *text, struct failure *f)
{
    trawl_v1_IncidentRequest request;
    size_t length = strlen(text);
    bool is_fine = length > 0 && length < sizeof request.incident;
    for (size_t i = 0; is_fine && i < length; i++)
        is_fine = text[i] == '-' || (text[i] >= '0' && text[i] <= '9') ||
                  (text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= 'a' && text[i] <= 'z');
    if (is_fine)
        return 0;
    return fail(f, ERR_INVALID,
                "invalid incident '%.60s': expected an ID such as INC-261123-K7F2Q, or a part of "
                "it ('trawl incidents' lists them)",
                text);
}

int incident_call(struct cli *cli, enum method_id method, const char *incident,
                  client_reply_fn reply, void *owner, struct failure *f)
{
    trawl_v1_IncidentRequest request = {.incident = ""};
    struct buf wire;
    int r = incident_check_id(incident, f);
    if (r < 0)
        return r;
    text_copy(request.incident, sizeof request.incident, incident);
    buf_init(&wire, sizeof request + 64);
    r = codec_put_incident_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, method, &wire, reply, owner, f);
    buf_done(&wire);
    return r;
}

static int on_incident(void *owner, struct span message, struct failure *f)
{
    trawl_v1_Incident *newest = owner, incident;
    int r = codec_get_incident(&incident, message, f);
    if (r == 0 && incident.created_us >= newest->created_us)
        *newest = incident;
    return r;
}

int incident_newest(struct cli *cli, char *out, size_t size_bytes, struct failure *f)
{
    trawl_v1_IncidentsRequest request = {.from_us = 0};
    trawl_v1_Incident newest = {.id = ""};
    struct buf wire;
    buf_init(&wire, sizeof request + 64);
    int r = codec_put_incidents_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_INCIDENTS, &wire, on_incident, &newest, f);
    buf_done(&wire);
    if (r < 0)
        return r;
    if (!newest.id[0])
        return fail(f, ERR_NOTFOUND, "no incident yet: 'trawl capture' opens one");
    return text_copy(out, size_bytes, newest.id);
}
