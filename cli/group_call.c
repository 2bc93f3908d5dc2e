/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls about one group. Invariant: an unknown group is answered with those that exist. Called by
 * cmd_groups.c and cmd_exceptions.c.
 */
#include "cli/group_call.h"

#include <string.h>

#include "cli/names.h"
#include "cli/render_incident.h"
#include "common/text.h"

#define REQUEST_LIMIT (16 * 1024)

int group_check_id(const char *text, char *out, size_t size_bytes, struct failure *f)
{
    size_t length = strlen(text);
    bool is_fine = length > 0 && length < size_bytes;
    for (size_t i = 0; is_fine && i < length; i++) {
        char c = text[i];
        bool is_small = c >= 'a' && c <= 'z';
        is_fine = is_small || c == '-' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
        out[i] = is_small ? (char)(c - 'a' + 'A') : c;
    }
    if (!is_fine)
        return fail(f, ERR_INVALID,
                    "invalid group '%.60s': expected an ID such as G-7F2QK, or a part of it "
                    "('trawl groups' lists them)",
                    text);
    out[length] = '\0';
    return 0;
}

static int on_known(void *owner, struct span message, struct failure *f)
{
    trawl_v1_Group group;
    int r = codec_get_group(&group, message, f);
    return r < 0 ? r : names_add(owner, render_short_id(group.id));
}

int group_explain(struct cli *cli, const char *group, int r, struct failure *f)
{
    trawl_v1_GroupsRequest all = {.resolved = true};
    struct names known = {.list = NULL};
    struct buf wire;
    if (r != ERR_NOTFOUND)
        return r;
    buf_init(&wire, REQUEST_LIMIT);
    r = codec_put_groups_request(&wire, &all);
    if (r == 0)
        r = cli_call(cli, METHOD_OPS_GROUPS, &wire, on_known, &known, f);
    names_sort(&known);
    if (r == 0)
        r = names_fail(f, ERR_NOTFOUND, "group", render_short_id(group), names_list(&known));
    buf_done(&wire);
    names_done(&known);
    return r;
}

int group_call(struct cli *cli, enum method_id method, const char *group, client_reply_fn reply,
               void *owner, struct failure *f)
{
    trawl_v1_GroupRequest request = {.group = ""};
    struct buf wire;
    int r = group_check_id(group, request.group, sizeof request.group, f);
    if (r < 0)
        return r;
    buf_init(&wire, REQUEST_LIMIT);
    r = codec_put_group_request(&wire, &request);
    if (r == 0)
        r = cli_call(cli, method, &wire, reply, owner, f);
    buf_done(&wire);
    return group_explain(cli, request.group, r, f);
}
