/* SPDX-License-Identifier: Apache-2.0 */
/*
 * README. One process that is many hosts, against a real collector on loopback:
 *
 *   build/release/bench/bench_farm --hosts 1000 [--rounds 3] [--max-parallel N] [--idle 12]
 *   build/dev/bench/bench_farm --hosts 50 --check       what tests/e2e/53_farm.sh runs
 *
 * Every host has the agent's own uplink, session, uploads, order acceptance, journal and verdicts
 * (host.c) and its own certificate (fleet.c, cached beside the build); rings and workers are stood
 * in for (stand_in.c). The farm starts the collector on a data directory with all hosts enrolled,
 * connects all at once, asks for captures as a person would (ask.c) and runs the command line; a
 * thread asks the collector for its health every 5 ms (probe.c); the collector tells its longest
 * turn in its log (child.c). Figures are printed, never judged. Judged, with the exit status: every
 * order done by every host, none twice, none left on either side. Hosts and collector share this
 * machine's processors, which a farm does not: times are upper bounds.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ask.h"
#include "child.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "host.h"
#include "probe.h"
#include "proto/codec.h"

#define FILES_BESIDES 200
#define LOOK_MS 5
#define MIB (1024.0 * 1024)

struct run {
    struct farm farm;
    struct hosts hosts;
    struct collector_process collector;
    struct tls_config *admin_tls;
    struct probe *probe;
    uv_timer_t second;
    unsigned seconds;
    unsigned orders;   /* captures so far, each to every host */
    char incident[32]; /* the last one */
    uint64_t last_us;  /* when the last target's final state was told */
    unsigned finals, not_done;
    bool is_over;
};

/* ---- waiting and complaining ---- */

void farm_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench_farm: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void farm_wrong(struct farm *farm, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("WRONG: ", stdout);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    farm->failures++;
}

static void on_look(uv_timer_t *timer)
{
    (void)timer; /* the loop comes round: what is waited for may be no event of it */
}

static bool never(void *context)
{
    (void)context;
    return false;
}

static bool wait_until(struct farm *farm, farm_until_fn is_true, void *context, uint64_t limit_ms)
{
    uint64_t end_us = port_mono_us() + limit_ms * 1000;
    uv_timer_t *look = malloc(sizeof *look);
    if (!look)
        farm_die("out of memory");
    uv_timer_init(farm->loop, look);
    uv_update_time(farm->loop);
    uv_timer_start(look, on_look, LOOK_MS, LOOK_MS);
    bool found;
    while (!(found = is_true(context)) && port_mono_us() < end_us)
        uv_run(farm->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)look, (uv_close_cb)(void (*)(void))free);
    return found;
}

bool farm_wait(struct farm *farm, farm_until_fn is_true, void *context, unsigned limit_s)
{
    return wait_until(farm, is_true, context, UINT64_C(1000) * limit_s);
}

void farm_wait_ms(struct farm *farm, unsigned ms)
{
    (void)wait_until(farm, never, NULL, ms);
}

/* ---- options and limits ---- */

static const char help[] =
    "usage: bench_farm [options]\n"
    "  --hosts N          simulated hosts (default 100)\n"
    "  --rounds N         orders to all of them (default 3)\n"
    "  --artifact BYTES   evidence of one host (default 3000)\n"
    "  --work MS          time a host takes to gather it (default 5)\n"
    "  --max-parallel N   of an order (default: as many as hosts)\n"
    "  --idle S           time to look at idle connections (default 12)\n"
    "  --limit S          an order that has not ended by then is wrong (default 300)\n"
    "  --check            only whether all is right\n"
    "  --keep             leave the run's directory\n"
    "  --cache DIR        keys and certificates (default: beside the build)\n"
    "  --bin DIR          trawl-collector and trawl (default: of the build)\n";

static unsigned number(const char *text)
{
    uint64_t value;
    if (text_u64_in(text, 0, 1000000, &value))
        farm_die("'%s' is not a number from 0 to 1000000", text);
    return (unsigned)value;
}

static void read_options(struct farm_options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"hosts", 1, NULL, 'h'}, {"rounds", 1, NULL, 'r'}, {"artifact", 1, NULL, 'a'},
        {"work", 1, NULL, 'w'},  {"idle", 1, NULL, 'i'},   {"max-parallel", 1, NULL, 'p'},
        {"check", 0, NULL, 'c'}, {"keep", 0, NULL, 'k'},   {"cache", 1, NULL, 'd'},
        {"bin", 1, NULL, 'b'},   {"limit", 1, NULL, 'l'},  {NULL, 0, NULL, 0}};
    *o = (struct farm_options){.hosts = 100,
                               .rounds = 3,
                               .artifact_bytes = 3000,
                               .work_ms = 5,
                               .idle_s = 12,
                               .limit_s = 300,
                               .cache = FARM_CACHE,
                               .bin = FARM_BIN};
    for (int got; (got = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (got) {
        case 'h':
            o->hosts = number(optarg);
            break;
        case 'r':
            o->rounds = number(optarg);
            break;
        case 'a':
            o->artifact_bytes = number(optarg);
            break;
        case 'w':
            o->work_ms = number(optarg);
            break;
        case 'i':
            o->idle_s = number(optarg);
            break;
        case 'l':
            o->limit_s = number(optarg);
            break;
        case 'p':
            o->max_parallel = number(optarg);
            break;
        case 'c':
            o->check = true;
            break;
        case 'k':
            o->keep = true;
            break;
        case 'd':
            o->cache = optarg;
            break;
        case 'b':
            o->bin = optarg;
            break;
        default:
            fputs(help, stderr);
            exit(2);
        }
    }
    if (o->hosts < 1 || o->hosts > 10000)
        farm_die("1 to 10000 hosts, not %u", o->hosts);
}

/* The collector inherits it: it needs as many. */
static void raise_files(unsigned hosts)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)hosts + FILES_BESIDES;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        farm_die("cannot read the limit of open files");
    if (limit.rlim_cur < wanted) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        if (limit.rlim_cur < wanted || setrlimit(RLIMIT_NOFILE, &limit))
            farm_die("%u hosts need %lu open files, this process may have %lu of at most %lu: "
                     "raise the limit (ulimit -Hn) or take fewer hosts",
                     hosts, (unsigned long)wanted, (unsigned long)before,
                     (unsigned long)limit.rlim_max);
    }
}

static uint16_t free_port(uv_loop_t *loop)
{
    uv_tcp_t tcp;
    struct sockaddr_in any, bound;
    int size = sizeof bound;
    uv_ip4_addr(FARM_ADDRESS, 0, &any);
    uv_tcp_init(loop, &tcp);
    if (uv_tcp_bind(&tcp, (const struct sockaddr *)&any, 0) ||
        uv_tcp_getsockname(&tcp, (struct sockaddr *)&bound, &size))
        farm_die("no free port");
    uv_close((uv_handle_t *)&tcp, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
    return ntohs(bound.sin_port);
}

static void make_directories(struct farm *farm)
{
    struct failure f = {0};
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : farm->options.cache;
    text_format(farm->directory, FARM_PATH, "%s/run-%d", farm->options.cache, (int)getpid());
    text_format(farm->state, FARM_PATH, "%s/trawl-farm-%d", memory, (int)getpid());
    if (port_make_dirs(farm->directory, &f) || port_make_dirs(farm->state, &f))
        farm_die("%s", f.text);
}

/* ---- figures of the collector ---- */

/* Of one phase: begun by phase_begin(), printed by phase_end(). */
struct phase {
    struct usage before;
    uint64_t began_us;
};

static struct phase phase_begin(struct run *run)
{
    struct figures old;
    probe_take(run->probe, &old);
    figures_done(&old);
    (void)collector_turns(&run->farm, &run->collector);
    return (struct phase){collector_usage(&run->collector), port_mono_us()};
}

static void phase_end(struct run *run, const struct phase *phase, const char *name)
{
    uint64_t ended_us = port_mono_us();
    struct usage now = collector_usage(&run->collector);
    struct figures answers;
    struct turns turns = collector_turns(&run->farm, &run->collector);
    probe_take(run->probe, &answers);
    double cpu_s = (double)(now.cpu_us - phase->before.cpu_us) / 1e6;
    double wall_s = (double)(ended_us - phase->began_us) / 1e6;
    printf(
        "  collector, %s: longest turn of the loop %.1f ms; health p50 %.1f p99 %.1f max %.1f ms; "
        "CPU %.2f s (%.0f %% of a core); RSS %.1f MiB, of it %.1f not of files\n",
        name, turns.longest_ms, figures_ms(&answers, 0.5), figures_ms(&answers, 0.99),
        figures_ms(&answers, 1), cpu_s, wall_s > 0 ? 100 * cpu_s / wall_s : 0,
        (double)now.rss_bytes / MIB, (double)now.private_bytes / MIB);
    figures_done(&answers);
    fflush(stdout);
}

/* ---- the phases ---- */

static struct ask new_ask(struct run *run, enum method_id method)
{
    struct ask ask = {.loop = run->farm.loop,
                      .tls = run->admin_tls,
                      .port = run->farm.port,
                      .method = method,
                      .context = run};
    buf_init(&ask.request, 64 * 1024);
    return ask;
}

static bool all_welcome(void *context)
{
    const struct run *run = context;
    return run->hosts.welcome == run->hosts.count;
}

static void storm(struct run *run)
{
    struct usage empty = collector_usage(&run->collector);
    struct phase phase = phase_begin(run);
    uint64_t began_us = port_mono_us();
    hosts_start(&run->hosts);
    if (!farm_wait(&run->farm, all_welcome, run, 300))
        farm_wrong(&run->farm, "only %u of %u hosts came online", run->hosts.welcome,
                   run->hosts.count);
    double took_s = (double)(port_mono_us() - began_us) / 1e6;
    printf("storm: all %u hosts online after %.2f s (%.0f a second)\n", run->hosts.count, took_s,
           (double)run->hosts.count / took_s);
    phase_end(run, &phase, "storm");
    struct usage now = collector_usage(&run->collector);
    printf(
        "memory (not of files): %.1f MiB before, %.1f with all connected: %.1f KiB a connection; "
        "RSS at most %.1f MiB\n",
        (double)empty.private_bytes / MIB, (double)now.private_bytes / MIB,
        ((double)now.private_bytes - (double)empty.private_bytes) / 1024 / run->hosts.count,
        (double)now.peak_bytes / MIB);
}

static void idle(struct run *run)
{
    struct phase phase = phase_begin(run);
    farm_wait_ms(&run->farm, run->farm.options.idle_s * 1000);
    phase_end(run, &phase, "hosts idle, a block of 60 counters each in 10 s");
}

/* ---- an order ---- */

static void on_capture_reply(void *context, struct span reply)
{
    struct run *run = context;
    trawl_v1_CaptureReply r;
    struct failure f;
    if (codec_get_capture_reply(&r, reply, &f)) {
        farm_wrong(&run->farm, "the reply to a capture cannot be read: %s", f.text);
        return;
    }
    text_copy(run->incident, sizeof run->incident, r.incident);
    if (r.hosts != run->hosts.count || r.online != run->hosts.count)
        farm_wrong(&run->farm, "a capture of %u hosts, %u of them online", r.hosts, r.online);
}

static void on_part(void *context, struct span message)
{
    static trawl_v1_IncidentPart part;
    struct run *run = context;
    struct failure f;
    if (codec_get_incident_part(&part, message, &f)) {
        farm_wrong(&run->farm, "a part of an incident cannot be read: %s", f.text);
    } else if (part.which_body == trawl_v1_IncidentPart_end_tag) {
        run->is_over = true;
    } else if (part.which_body == trawl_v1_IncidentPart_target_tag &&
               part.body.target.state >= trawl_v1_State_DONE) {
        run->finals++;
        run->last_us = port_mono_us();
        if (part.body.target.state == trawl_v1_State_DONE)
            return;
        if (!run->not_done++)
            farm_wrong(&run->farm, "host '%s' ended in state %d: %s", part.body.target.host,
                       (int)part.body.target.state, part.body.target.reason);
    }
}

static bool request_capture(struct run *run)
{
    static trawl_v1_CaptureRequest request;
    struct ask ask = new_ask(run, METHOD_OPS_CAPTURE);
    const struct farm_options *o = &run->farm.options;
    memset(&request, 0, sizeof request);
    text_copy(request.selector, sizeof request.selector, "*");
    request.has_process = true;
    text_copy(request.process.name, sizeof request.process.name, "service");
    request.what_count = 1;
    text_copy(request.what[0], sizeof request.what[0], "triage");
    request.max_parallel = o->max_parallel ? o->max_parallel : o->hosts;
    request.expire_us = 600000000;
    if (codec_put_capture_request(&ask.request, &request))
        farm_die("the request cannot be made");
    ask.reply = on_capture_reply;
    run->hosts.asked_us = port_mono_us();
    return ask_wait(&run->farm, &ask, 120);
}

static bool watch_to_the_end(struct run *run)
{
    trawl_v1_IncidentRequest request = {0};
    struct ask ask = new_ask(run, METHOD_OPS_WATCH);
    text_copy(request.incident, sizeof request.incident, run->incident);
    if (codec_put_incident_request(&ask.request, &request))
        farm_die("the request cannot be made");
    ask.reply = on_part;
    return ask_wait(&run->farm, &ask, run->farm.options.limit_s);
}

/* What all hosts did with this order and those before. */
static void check_hosts(struct run *run)
{
    unsigned lost = 0, more = 0, twice = 0;
    for (unsigned i = 0; i < run->hosts.count; i++) {
        const struct host *host = &run->hosts.list[i];
        lost += host->runs < run->orders;
        more += host->runs > run->orders;
        twice += host->twice;
    }
    if (lost || more || twice)
        farm_wrong(&run->farm, "after %u orders %u hosts ran fewer, %u more; %u ran one twice",
                   run->orders, lost, more, twice);
}

static bool none_left(void *context)
{
    const struct run *run = context;
    return hosts_orders_left(&run->hosts) == 0;
}

static bool order(struct run *run)
{
    struct hosts *h = &run->hosts;
    figures_clear(&h->delivery);
    run->finals = run->not_done = 0;
    run->is_over = false;
    run->orders++;
    if (!request_capture(run))
        return false;
    double answered_ms = (double)(port_mono_us() - h->asked_us) / 1000;
    bool is_fine = watch_to_the_end(run) && run->is_over;
    double watched_ms = (double)(port_mono_us() - h->asked_us) / 1000;
    printf(
        "order %u: answered after %.0f ms; delivered p50 %.0f p99 %.0f max %.0f ms; last verdict "
        "%.0f ms; end of the incident %.0f ms\n",
        run->orders, answered_ms, figures_ms(&h->delivery, 0.5), figures_ms(&h->delivery, 0.99),
        figures_ms(&h->delivery, 1), (double)(run->last_us - h->asked_us) / 1000, watched_ms);
    if (!is_fine)
        farm_wrong(&run->farm, "incident %s has no end", run->incident);
    if (!farm_wait(&run->farm, none_left, run, 30))
        farm_wrong(&run->farm, "%u orders are left on hosts", hosts_orders_left(h));
    check_hosts(run);
    return is_fine;
}

static void orders(struct run *run)
{
    for (unsigned i = 0; i < run->farm.options.rounds; i++) {
        struct phase phase = phase_begin(run);
        order(run);
        phase_end(run, &phase, "order");
    }
}

/* ---- people who look ---- */

static void look(struct run *run, const char *const *words, const char *name)
{
    char context[FARM_PATH], output[FARM_PATH];
    const char *arguments[12] = {"--context", context};
    struct child child;
    size_t count = 2;
    text_format(context, sizeof context, "%s/data/admin/", run->farm.directory);
    text_format(output, sizeof output, "%s/%s.txt", run->farm.directory, name);
    for (size_t i = 0; words[i]; i++)
        arguments[count++] = words[i];
    struct phase phase = phase_begin(run);
    uint64_t began_us = port_mono_us();
    child_start(&run->farm, &child, "trawl", arguments, output);
    if (!child_wait(&run->farm, &child, 120))
        farm_wrong(&run->farm, "'trawl %s' does not end", name);
    else if (child.exit_status)
        farm_wrong(&run->farm, "'trawl %s' ended with %lld: see '%s'", name,
                   (long long)child.exit_status, output);
    printf("trawl %s: %.0f ms\n", name, (double)(port_mono_us() - began_us) / 1000);
    phase_end(run, &phase, name);
}

static void looks(struct run *run)
{
    const char *const hosts[] = {"hosts", NULL};
    const char *const show[] = {"show", run->incident, NULL};
    const char *const incidents[] = {"incidents", NULL};
    const char *const counters[] = {"counters", "farm.value7", "--last", "1m", NULL};
    const char *const names[] = {"counters", NULL};
    const char *const events[] = {"events", "--last", "10m", NULL};
    look(run, hosts, "hosts");
    look(run, show, "show");
    look(run, incidents, "incidents");
    if (!run->farm.options.check) { /* there was no time for counters */
        look(run, counters, "counters");
        look(run, names, "counter-names");
    }
    look(run, events, "events");
}

/* Somebody shows, lists and counts while an order goes out. */
static void order_while_looking(struct run *run)
{
    static const char *const words[][6] = {{"hosts"},
                                           {"show", NULL},
                                           {"counters", "farm.value7", "--last", "1m"},
                                           {"events", "--last", "10m"}};
    struct child children[4];
    char context[FARM_PATH], output[FARM_PATH], earlier[32];
    text_copy(earlier, sizeof earlier, run->incident);
    text_format(context, sizeof context, "%s/data/admin/", run->farm.directory);
    text_format(output, sizeof output, "%s/looking.txt", run->farm.directory);
    struct phase phase = phase_begin(run);
    for (size_t i = 0; i < 4; i++) {
        const char *arguments[10] = {"--context", context};
        for (size_t k = 0; words[i][k]; k++)
            arguments[2 + k] = words[i][k];
        if (i == 1)
            arguments[3] = earlier;
        child_start(&run->farm, &children[i], "trawl", arguments, output);
    }
    order(run);
    for (size_t i = 0; i < 4; i++)
        if (!child_wait(&run->farm, &children[i], 120))
            farm_wrong(&run->farm, "'trawl %s' does not end", words[i][0]);
    phase_end(run, &phase, "order while hosts, show, counters and events are asked for");
}

/* ---- the whole ---- */

static void on_second(uv_timer_t *timer)
{
    struct run *run = timer->data;
    hosts_tick(&run->hosts);
    if (!run->farm.options.check && ++run->seconds % 10 == 0)
        hosts_push_blocks(&run->hosts);
}

static struct tls_config *open_admin(const struct farm *farm)
{
    struct identity id;
    struct failure f = {0};
    struct tls_config *tls;
    fleet_admin(farm, &id);
    struct tls_settings settings = {.side = TLS_CLIENT,
                                    .ca_pem = buf_span(&id.ca_pem),
                                    .cert_pem = buf_span(&id.cert_pem),
                                    .key_pem = buf_span(&id.key_pem),
                                    .alpn = "h2"};
    if (tls_config_open(&tls, &settings, &f))
        farm_die("%s", f.text);
    identity_done(&id);
    return tls;
}

static void open_run(struct run *run)
{
    struct farm *farm = &run->farm;
    farm->loop = uv_default_loop();
    raise_files(farm->options.hosts);
    farm->port = free_port(farm->loop);
    make_directories(farm);
    fleet_make(farm);
    collector_start(farm, &run->collector);
    run->admin_tls = open_admin(farm);
    run->probe = probe_start(farm, run->admin_tls);
    hosts_open(&run->hosts, farm);
    uv_timer_init(farm->loop, &run->second);
    run->second.data = run;
    uv_timer_start(&run->second, on_second, 1000, 1000);
}

static void close_run(struct run *run)
{
    uv_close((uv_handle_t *)&run->second, NULL);
    probe_stop(run->probe);
    hosts_close(&run->hosts);
    collector_stop(&run->farm, &run->collector);
    tls_config_close(run->admin_tls);
    uv_run(run->farm.loop, UV_RUN_NOWAIT);
    fleet_remove(run->farm.state);
    if (!run->farm.failures && !run->farm.options.keep)
        fleet_remove(run->farm.directory);
    else
        printf("kept: %s\n", run->farm.directory);
}

int main(int argc, char **argv)
{
    static struct run run;
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_options(&run.farm.options, argc, argv);
    log_set_level(LOG_LEVEL_ERROR);
    open_run(&run);
    storm(&run);
    if (!run.farm.options.check)
        idle(&run);
    orders(&run);
    if (run.orders && run.incident[0]) {
        looks(&run);
        if (!run.farm.options.check)
            order_while_looking(&run);
    }
    close_run(&run);
    printf("%s: %u hosts, %u orders, %u things wrong\n", run.farm.failures ? "FAIL" : "ok",
           run.farm.options.hosts, run.orders, run.farm.failures);
    return run.farm.failures ? 1 : 0;
}
