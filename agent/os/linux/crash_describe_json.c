/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program reads of a crash: the members of the object that stand in front of its modules and
 * groups of stacks. Invariant: a value that is not known is null or left out, never 0. Called
 * through stacks_write_json().
 */
#include "agent/os/linux/crash_describe.h"
#include "common/text.h"

static void put_program(struct json_text *j, const struct os_exception *e)
{
    json_text_str(j, "executable", e->executable[0] ? e->executable : NULL);
    if (e->build_id_bytes)
        json_text_hex(j, "build_id", e->build_id, e->build_id_bytes);
    else
        json_text_null(j, "build_id");
    json_text_str(j, "unit", e->unit[0] ? e->unit : NULL);
    json_text_u64(j, "uid", e->uid);
}

static void put_signal(struct json_text *j, const struct describing *d)
{
    const struct os_exception *e = d->exception;
    json_text_str(j, "type", e->type);
    json_text_str(j, "message", e->message);
    json_text_u64(j, "signal", e->signal);
    json_text_i64(j, "signal_code", e->signal_code);
    json_text_str(j, "signal_code_name", crash_code_name((int)e->signal, e->signal_code));
    if (d->first.si_signo) {
        json_text_i64(j, "handled_signal", d->first.si_signo);
        json_text_str(j, "handled_code_name", crash_code_name(d->first.si_signo, d->first.si_code));
    }
    if (e->has_fault_address)
        json_text_address(j, "fault_address", e->fault_address);
    if (d->where[0])
        json_text_str(j, "fault_place", d->where);
    if (d->sender[0])
        json_text_str(j, "sent_by", d->sender);
    if (d->abort_text[0])
        json_text_str(j, "abort_message", d->abort_text);
}

static void put_registers(struct json_text *j, const struct os_crash *c)
{
    if (c->dump.stop.count == 0)
        return;
    json_text_object(j, "registers");
    for (size_t i = 0; i < CRASH_REGISTERS; i++)
        json_text_address(j, crash_registers[i].name,
                          crash_register_value(&c->dump.stop.threads[0].regs, i));
    json_text_end(j);
}

void crash_put_members(const void *context, struct json_text *j)
{
    const struct describing *d = context;
    const struct os_crash *c = d->crash;
    char when[32];
    text_put_time(c->wall_us, when, sizeof when);
    json_text_str(j, "kind", "crash");
    json_text_hex(j, "id", c->id, sizeof c->id);
    json_text_str(j, "process", c->name);
    json_text_u64(j, "pid", c->arguments.pid);
    json_text_u64(j, "start_ticks", c->start_ticks);
    json_text_u64(j, "tid", d->exception->tid);
    json_text_str(j, "thread", d->exception->thread);
    json_text_str(j, "time", when);
    json_text_u64(j, "held_us", c->held_us);
    json_text_u64(j, "threads", c->dump.stop.count);
    put_program(j, d->exception);
    put_signal(j, d);
    json_text_str(j, "missing", d->result->missing);
    put_registers(j, c);
}
