/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding, reading, adding and choosing contexts. Invariant: a key that others can read is never
 * loaded and never copied. The environment comes in as a struct, so that tests need none of their
 * own.
 */
#include "cli/context.h"

#include <stddef.h>
#include <string.h>
#include <uv.h>

#include "common/conf.h"
#include "common/port.h"
#include "common/text.h"

#define FILE_LIMIT (64 * 1024)

static const char *const HOW = "to get one: 'trawl-collector init DIR' makes DIR/admin, "
                               "'trawl-collector issue' makes one for a person; then "
                               "'trawl context add NAME DIR'";

static const char *const FILES[] = {"context.conf", "ca.crt", "cert.crt", "key.pem"};
enum { FILE_CONF, FILE_CA, FILE_CERT, FILE_KEY, FILE_COUNT };

struct settings {
    char collector[CONTEXT_ADDRESS_SIZE];
};

static const struct conf_row ROWS[] = {
    {"collector", CONF_STRING, offsetof(struct settings, collector),
     sizeof(((struct settings *)0)->collector), 0, 0, NULL, "HOST:PORT", "the collector's address",
     false},
};

static int join(char *out, size_t size_bytes, const char *directory, const char *name,
                struct failure *f)
{
    if (text_format(out, size_bytes, "%s/%s", directory, name) < 0)
        return fail(f, ERR_INVALID, "path too long: '%.60s...'", directory);
    return 0;
}

/* ---- where ---- */

int context_home(const struct context_env *env, char *out, size_t size_bytes, struct failure *f)
{
    if (env->xdg_config_home && env->xdg_config_home[0] == '/')
        return join(out, size_bytes, env->xdg_config_home, "trawl", f);
    if (env->home && env->home[0])
        return join(out, size_bytes, env->home, ".config/trawl", f);
    return fail(f, ERR_NOTFOUND, "no home directory to look for a context in: give --context DIR/");
}

int context_current(const char *home, char *out, size_t size_bytes, struct failure *f)
{
    char path[CONTEXT_PATH_SIZE];
    struct buf text;
    int r = join(path, sizeof path, home, "current", f);
    if (r < 0)
        return r;
    if (!port_exists(path))
        return text_copy(out, size_bytes, "default");
    buf_init(&text, FILE_LIMIT);
    r = port_read_file(path, &text, f);
    if (r == 0) {
        struct span rest = buf_span(&text), line = {NULL, 0};
        text_take_until(&rest, '\n', &line);
        if (text_copy_span(out, size_bytes, line) < 0 || !text_is_name(out))
            r = fail(f, ERR_INVALID, "'%s' does not name a context: run 'trawl context use NAME'",
                     path);
    }
    buf_done(&text);
    return r;
}

/* A path when it has a '/', else a name. */
static int directory_of(const struct context_env *env, const char *chosen, char *out,
                        size_t size_bytes, struct failure *f)
{
    char home[CONTEXT_PATH_SIZE];
    if (strchr(chosen, '/')) {
        if (text_copy(out, size_bytes, chosen) < 0)
            return fail(f, ERR_INVALID, "path too long: '%.60s...'", chosen);
        return 0;
    }
    if (!text_is_name(chosen))
        return fail(f, ERR_INVALID,
                    "'%.80s' is not a context's name (a directory is written with a '/')", chosen);
    int r = context_home(env, home, sizeof home, f);
    return r < 0 ? r : join(out, size_bytes, home, chosen, f);
}

int context_find(const struct context_env *env, const char *option, char *out, size_t size_bytes,
                 struct failure *f)
{
    char home[CONTEXT_PATH_SIZE], name[PKI_NAME_SIZE];
    if (option && option[0])
        return directory_of(env, option, out, size_bytes, f);
    if (env->trawl_context && env->trawl_context[0])
        return directory_of(env, env->trawl_context, out, size_bytes, f);
    int r = context_home(env, home, sizeof home, f);
    if (r == 0)
        r = context_current(home, name, sizeof name, f);
    return r < 0 ? r : join(out, size_bytes, home, name, f);
}

/* ---- addresses ---- */

static int take_port(struct span text, uint16_t *port)
{
    char digits[8];
    uint64_t value;
    if (text_copy_span(digits, sizeof digits, text) < 0 ||
        text_u64_in(digits, 1, 65535, &value) < 0)
        return ERR_INVALID;
    *port = (uint16_t)value;
    return 0;
}

/* Two or more colons without brackets are an IPv6 address without a port. */
static int split_address(const char *text, struct span *host, struct span *port)
{
    const char *first = strchr(text, ':'), *last = strrchr(text, ':');
    *port = span_of(NULL, 0);
    if (text[0] == '[') {
        const char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':') || (end[1] == ':' && !end[2]))
            return ERR_INVALID;
        *host = span_of(text + 1, (size_t)(end - text) - 1);
        if (end[1])
            *port = span_str(end + 2);
    } else if (first && first == last) {
        *host = span_of(text, (size_t)(first - text));
        *port = span_str(first + 1);
        return port->size_bytes == 0 ? ERR_INVALID : 0;
    } else {
        *host = span_str(text);
    }
    return 0;
}

int context_address(const char *text, char *host, size_t size_bytes, uint16_t *port,
                    struct failure *f)
{
    struct span host_part, port_part;
    char name[CONTEXT_HOST_SIZE];
    uint16_t number = CONTEXT_PORT;
    int r = split_address(text, &host_part, &port_part);
    if (r == 0 && port_part.size_bytes > 0)
        r = take_port(port_part, &number);
    if (r < 0 || host_part.size_bytes == 0 || text_copy_span(name, sizeof name, host_part) < 0 ||
        strpbrk(name, " \t/\\@") || text_copy(host, size_bytes, name) < 0)
        return fail(f, ERR_INVALID,
                    "invalid address '%.100s': expected HOST, HOST:PORT or [IPv6]:PORT", text);
    *port = number;
    return 0;
}

void context_put_address(const struct context *context, char out[CONTEXT_ADDRESS_SIZE])
{
    bool is_v6 = strchr(context->host, ':') != NULL;
    if (context->port == CONTEXT_PORT)
        text_copy(out, CONTEXT_ADDRESS_SIZE, context->host);
    else
        text_format(out, CONTEXT_ADDRESS_SIZE, is_v6 ? "[%s]:%u" : "%s:%u", context->host,
                    context->port);
}

/* ---- reading ---- */

static int read_part(const char *directory, int file, struct buf *out, struct failure *f)
{
    char path[CONTEXT_PATH_SIZE + 16];
    struct failure why = {0};
    int r = join(path, sizeof path, directory, FILES[file], f);
    if (r < 0)
        return r;
    if (file == FILE_KEY && port_exists(path))
        r = port_check_private(path, &why);
    if (r == 0)
        r = port_read_file(path, out, &why);
    if (r == ERR_NOTFOUND)
        return fail(f, r, "incomplete context '%s': no %s in it; %s", directory, FILES[file], HOW);
    return r < 0 ? fail(f, r, "%s", why.text) : 0;
}

static int read_settings(struct context *out, struct failure *f)
{
    char path[CONTEXT_PATH_SIZE + 16];
    struct settings settings;
    int r = join(path, sizeof path, out->directory, FILES[FILE_CONF], f);
    if (r < 0)
        return r;
    conf_defaults(ROWS, 1, &settings);
    r = conf_file(ROWS, 1, &settings, path, f);
    if (r < 0)
        return r;
    if (!settings.collector[0])
        return fail(f, ERR_INVALID, "no collector in '%s': it needs a line 'collector = HOST:PORT'",
                    path);
    return context_address(settings.collector, out->host, sizeof out->host, &out->port, f);
}

static int check_identity(struct context *c, int64_t now_s, struct failure *f)
{
    struct failure why = {0};
    char when[32];
    int r = pki_cert_identity(buf_span(&c->cert_pem), &c->identity, &why);
    if (r < 0)
        return fail(f, ERR_INVALID, "cannot use '%s/cert.crt': %s", c->directory, why.text);
    if (now_s == 0 || now_s <= c->identity.not_after_s)
        return 0;
    text_put_time(c->identity.not_after_s * 1000000, when, sizeof when);
    return fail(f, ERR_EXPIRED,
                "the certificate in context '%s' expired %.10s: get a new one from "
                "'trawl-collector issue'",
                c->directory, when);
}

int context_load(struct context *out, const char *directory, int64_t now_s, struct failure *f)
{
    *out = (struct context){.port = CONTEXT_PORT};
    buf_init(&out->ca_pem, FILE_LIMIT);
    buf_init(&out->cert_pem, FILE_LIMIT);
    buf_init(&out->key_pem, FILE_LIMIT);
    int r = 0;
    if (text_copy(out->directory, sizeof out->directory, directory) < 0)
        r = fail(f, ERR_INVALID, "path too long: '%.60s...'", directory);
    else if (!port_exists(directory))
        r = fail(f, ERR_NOTFOUND, "no context '%s'; %s", directory, HOW);
    if (r == 0)
        r = read_settings(out, f);
    if (r == 0)
        r = read_part(directory, FILE_CA, &out->ca_pem, f);
    if (r == 0)
        r = read_part(directory, FILE_CERT, &out->cert_pem, f);
    if (r == 0)
        r = read_part(directory, FILE_KEY, &out->key_pem, f);
    if (r == 0)
        r = check_identity(out, now_s, f);
    if (r < 0)
        context_done(out);
    return r;
}

void context_done(struct context *context)
{
    if (context->key_pem.data)
        pki_wipe(context->key_pem.data, context->key_pem.capacity_bytes);
    buf_done(&context->ca_pem);
    buf_done(&context->cert_pem);
    buf_done(&context->key_pem);
    *context = (struct context){.port = 0};
}

/* ---- keeping ---- */

static int copy_part(const char *from, const char *to, int file, struct failure *f)
{
    char path[CONTEXT_PATH_SIZE + 32];
    struct buf bytes;
    buf_init(&bytes, FILE_LIMIT);
    int r = read_part(from, file, &bytes, f);
    if (r == 0)
        r = join(path, sizeof path, to, FILES[file], f);
    if (r == 0)
        r = port_write_file(path, buf_span(&bytes), file == FILE_KEY, f);
    if (bytes.data)
        pki_wipe(bytes.data, bytes.capacity_bytes);
    buf_done(&bytes);
    return r;
}

static void remove_directory(const char *directory)
{
    char path[CONTEXT_PATH_SIZE + 32];
    uv_fs_t request;
    for (int file = 0; file < FILE_COUNT; file++)
        if (join(path, sizeof path, directory, FILES[file], NULL) == 0) {
            uv_fs_unlink(NULL, &request, path, NULL);
            uv_fs_req_cleanup(&request);
        }
    uv_fs_rmdir(NULL, &request, directory, NULL);
    uv_fs_req_cleanup(&request);
}

/* Beside its place first, then moved there in one step. */
static int copy_directory(const char *from, const char *to, struct failure *f)
{
    char beside[CONTEXT_PATH_SIZE + 16];
    uv_fs_t request;
    if (text_format(beside, sizeof beside, "%s.new", to) < 0)
        return fail(f, ERR_INVALID, "path too long: '%.60s...'", to);
    remove_directory(beside);
    int r = port_make_dirs(beside, f);
    for (int file = 0; r == 0 && file < FILE_COUNT; file++)
        r = copy_part(from, beside, file, f);
    if (r == 0) {
        int moved = uv_fs_rename(NULL, &request, beside, to, NULL);
        uv_fs_req_cleanup(&request);
        if (moved < 0)
            r = fail(f, ERR_IO, "cannot make '%s': %s", to, uv_strerror(moved));
    }
    if (r < 0)
        remove_directory(beside);
    return r;
}

static int count_one(void *owner, const char *name)
{
    (void)name;
    (*(size_t *)owner)++;
    return 0;
}

int context_add(const char *home, const char *name, const char *from, struct failure *f)
{
    char to[CONTEXT_PATH_SIZE];
    struct context checked = {.port = 0};
    size_t present = 0;
    if (!text_is_name(name))
        return fail(f, ERR_INVALID, "'%.80s' is not a name: use letters, digits, '.', '_' and '-'",
                    name);
    int r = join(to, sizeof to, home, name, f);
    if (r == 0 && port_exists(to))
        r = fail(f, ERR_EXISTS, "context '%s' exists: remove '%s' or choose another name", name,
                 to);
    if (r == 0)
        r = context_load(&checked, from, 0, f);
    if (r < 0)
        return r;
    context_done(&checked);
    r = port_make_dirs(home, f);
    if (r == 0)
        r = context_each(home, count_one, &present, f);
    if (r == 0)
        r = copy_directory(from, to, f);
    if (r == 0 && present == 0)
        r = context_use(home, name, f);
    return r;
}

static int append_name(void *owner, const char *name)
{
    struct buf *names = owner;
    return buf_printf(names, "%s%s", names->size_bytes ? ", " : "", name);
}

int context_use(const char *home, const char *name, struct failure *f)
{
    char path[CONTEXT_PATH_SIZE], line[PKI_NAME_SIZE + 2];
    struct buf names;
    int r = join(path, sizeof path, home, name, f);
    if (r < 0)
        return r;
    if (!text_is_name(name) || !port_exists(path)) {
        buf_init(&names, FAILURE_TEXT_SIZE);
        (void)context_each(home, append_name, &names, NULL);
        r = fail(f, ERR_NOTFOUND, "no context '%.80s' (known: %s)", name,
                 names.size_bytes ? buf_str(&names) : "none");
        buf_done(&names);
        return r;
    }
    text_format(line, sizeof line, "%s\n", name);
    r = join(path, sizeof path, home, "current", f);
    return r < 0 ? r : port_write_file(path, span_str(line), false, f);
}

static bool holds_context(const char *home, const char *name)
{
    char path[CONTEXT_PATH_SIZE];
    return text_is_name(name) &&
           text_format(path, sizeof path, "%s/%s/context.conf", home, name) == 0 &&
           port_exists(path);
}

/* libuv sorts what it scans. */
int context_each(const char *home, context_each_fn each, void *owner, struct failure *f)
{
    uv_fs_t request;
    uv_dirent_t entry;
    int r = uv_fs_scandir(NULL, &request, home, 0, NULL);
    if (r < 0) {
        uv_fs_req_cleanup(&request);
        return r == UV_ENOENT ? 0 : fail(f, ERR_IO, "cannot read '%s': %s", home, uv_strerror(r));
    }
    r = 0;
    while (r == 0 && uv_fs_scandir_next(&request, &entry) == 0)
        if (holds_context(home, entry.name))
            r = each(owner, entry.name);
    uv_fs_req_cleanup(&request);
    return r;
}
