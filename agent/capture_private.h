/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the capture module share. capture.c: orders and verdicts; capture_run.c: one
 * order from its start to its last artifact; capture_job.c: one kind of one process;
 * capture_worker.c: its worker and what comes through the pipe; capture_stream.c: an artifact that
 * is sent while it is taken; capture_saved.c: evidence of an exception that is here already;
 * capture_fallback.c: what is taken instead; capture_brake.c: the fleet brake; capture_journal.c:
 * what is on disk. Invariant:
 * `order->verdict` is on disk as it stands whenever it may be sent.
 */
#ifndef TRAWL_AGENT_CAPTURE_PRIVATE_H
#define TRAWL_AGENT_CAPTURE_PRIVATE_H

#include "agent/capture.h"
#include "agent/capture_chunks.h"
#include "agent/evidence.h"
#include "agent/pages.h"
#include "agent/stream.h"
#include "common/list.h"

#define ARTIFACTS_MAX 200
#define CHOOSE_BUSIEST_MAX 4 /* processes taken when an order and the agent name none */
#define INCIDENT_SIZE sizeof(((trawl_v1_Order *)0)->incident)

enum order_phase {
    ORDER_QUEUED,
    ORDER_RUNNING,
    ORDER_SENDING, /* nothing more is taken; the verdict is final and waits for the artifacts */
    ORDER_ENDED    /* the final verdict may be sent */
};

enum artifact_fate { ARTIFACT_WAITS, ARTIFACT_SEALED, ARTIFACT_LOST };

struct order_artifact {
    uint32_t no;
    enum artifact_fate fate;
    uint64_t size_bytes;
};

struct order {
    struct list link;
    trawl_v1_Order order;
    trawl_v1_Verdict verdict;
    enum order_phase phase;
    uint32_t sent_no, acked_no;
    uint64_t received_mono_us;
    int64_t received_wall_us;
    char directory[STATE_PATH_SIZE];
    struct order_artifact artifacts[ARTIFACTS_MAX];
    uint32_t artifact_count;
    bool is_cancelled;
    /* Why something is not there. */
    struct buf reasons;
    uint32_t reasons_left_out;
    uint32_t refused, gone, failed; /* kinds x processes that gave nothing, by cause */
};

/* One kind to take of one process (pid 0: of the host). */
struct job {
    char kind[BROKER_KIND_SIZE];
    bool live;     /* core: without a snapshot */
    bool is_saved; /* of an exception: files that are on this host already */
    struct os_process process;
    /* Of a fallback: what was asked for, and why it is not taken. */
    char instead_of[BROKER_KIND_SIZE];
    struct failure why;
};

/* A file of the job under way. */
struct job_file {
    struct evidence evidence;
    struct broker_file about;
};

enum run_step { RUN_IDLE, RUN_RESOLVE, RUN_WAIT_INSTANT, RUN_JOBS, RUN_WAIT_WINDOW };

/* The order that runs, if any. */
struct run {
    struct order *order; /* NULL: none */
    enum run_step step;
    struct job *jobs;
    size_t job_count, next_job;
    size_t window_job; /* the first job that looks at a window of time: after for_us */
    struct os_process processes[BROKER_PROCESSES_MAX];
    uint8_t has_artifact[BROKER_PROCESSES_MAX];
    uint32_t process_count;
    bool is_gone;                /* an exception's process: it has ended */
    bool is_crash;               /* an exception that the crash handler of this host has seen */
    struct os_process exception; /* whose exception it is */
    struct saved *saved;         /* being handed over; NULL: nothing is */
    uint32_t followed;           /* how many of the followed names or pids were asked for */
    uint32_t busiest[CHOOSE_BUSIEST_MAX];
    size_t busiest_count;
    uint64_t target_mono_us; /* the instant; 0: at once */
    uint64_t began_mono_us;
    int64_t began_wall_us;
    bool has_at_error;
    /* The job under way; what it has written so far. */
    struct job_file files[BROKER_FILES_MAX];
    size_t file_count;
    /* In a worker. */
    bool job_active, has_reply, has_end, pipe_open, is_paused;
    struct capture_chunks chunks;
    struct failure write_failure;
    uv_pipe_t pipe;
    /* Sent while it is taken. */
    struct stream *stream;
    bool stream_is_known; /* where the collector stands */
    bool stream_is_sent;  /* something of it */
    bool stream_is_whole; /* the worker has ended well: only the collector is waited for */
    bool stream_is_sealed;
    uint64_t stream_deadline_mono_us;
    /* A core that is told from an earlier one, or leaves its page list. */
    struct pages_base base;
    bool has_base;
    struct pages pages;      /* file -1: none comes in */
    bool in_pages;           /* the bytes that come are the list's */
    unsigned stream_numbers; /* tried */
    char *pipe_buffer;
    struct broker_result *result;
    struct failure result_failure;
};

#define NUMBERS_MAX 64
struct incident_number {
    char incident[INCIDENT_SIZE];
    uint32_t last;
};

struct capture {
    struct capture_settings settings;
    char directory[STATE_PATH_SIZE]; /* STATE/captures */
    struct list orders;              /* by rising number */
    struct policy_hour *hour;
    trawl_v1_Brake brake; /* capture_brake.c */
    int64_t offset_us;
    bool has_offset;
    struct incident_number numbers[NUMBERS_MAX]; /* newest first */
    size_t number_count;
    struct run run;
    uint64_t last_stream; /* number of the stream under way, or of the last one */
    uv_timer_t timer;
    bool has_timer, is_closing;
    void (*closed)(void *context);
    void *closed_context;
};

/* capture.c */
bool capture_is_final(trawl_v1_State state);
/* Puts the next verdict on disk and makes it the one to send. Failing to write is logged. */
void capture_decide(struct capture *c, struct order *o, trawl_v1_State state, const char *reason);
void capture_note_reason(struct order *o, const char *format, ...) TRAWL_PRINTF(2, 3);
uint64_t capture_waiting_bytes(const struct capture *c);
bool capture_is_expired(const struct capture *c, const struct order *o);
/* All artifacts have their fate: the verdict that waited for them may go. */
void capture_check_sent(struct capture *c, struct order *o);
void capture_start_next(struct capture *c);
void capture_changed(struct capture *c);
void capture_close_timer(struct capture *c);
void capture_cancel_order(struct capture *c, struct order *o, const char *reason);

/* capture_brake.c */
int brake_load(struct capture *c, struct failure *f);
/* ERR_REFUSED with the sentence while it is on, else 0. */
int brake_refuse(const struct capture *c, struct failure *f);

/* capture_run.c */
void run_start(struct capture *c, struct order *o);
void run_plan(struct capture *c); /* the processes are known */
void run_finish(struct capture *c);
void run_next_job(struct capture *c);
void run_abort(struct capture *c); /* cancelled: kills the worker */
void run_timer(uv_timer_t *timer);

/* capture_choose.c */
bool choose_has_selector(const trawl_v1_Order *order);
/* Finds the processes the order means, or, when it names none, those this agent follows; goes on
 * with run_plan() or, when a selector matches nothing, run_finish(). */
void choose_processes(struct capture *c);

/* capture_job.c */
struct job_kind {
    const char *name;
    bool of_process;      /* taken by a worker, of one process */
    bool of_window;       /* looks at a window of time that must have passed */
    bool is_streamed;     /* too large for this host's disk */
    bool looks_on;        /* looks for the order's for_us itself */
    uint64_t deadline_us; /* of its worker; 0: as long as the order lives */
};
/* In the order in which they are taken; NULL behind the last. */
const struct job_kind *job_kind_at(size_t rank);
const struct job_kind *job_kind_of(const char *name);
/* Starts the job; true when it goes on in a worker, false when it is over already. */
bool job_start(struct capture *c, const struct job *job);
struct job *job_current(struct capture *c);
/* What the files of one job have in common; `ending` makes the name. */
void job_fill_meta(struct capture *c, const struct job *job, const struct broker_file *about,
                   trawl_v1_Artifact *meta);
/* Begins a file on disk as r->files[file_count]. */
int job_open_file(struct capture *c, const struct broker_file *about, struct failure *f);
/* All files become artifacts; on failure none stays. ERR_NOTFOUND: there is nothing in them. */
int job_keep_files(struct capture *c, const struct job *job, trawl_v1_Artifact *meta,
                   struct failure *f);
void job_drop_files(struct capture *c);
/* An artifact of the job exists now, of this number and size. ERR_LIMIT. */
int job_add_artifact(struct capture *c, const struct job *job, uint32_t no, uint64_t size_bytes,
                     enum artifact_fate fate, struct failure *f);
/* The job ended well; or badly: the next kind is taken instead, or the reason noted. */
void job_ended(struct capture *c, const struct failure *why);
void job_note_at_error(struct capture *c, uint64_t began_mono_us);
void job_safe_text(char *out, size_t size_bytes, const char *text);

/* capture_fallback.c */
/* Makes of a job that failed the next lesser one; false: there is none, or none is allowed. */
bool fallback_take(const trawl_v1_Order *order, struct job *job, const struct failure *why);
bool fallback_exists(const trawl_v1_Order *order, const char *kind);
/* Puts "instead of core: ..." in front of what is missing. */
void fallback_note(const struct job *job, trawl_v1_Artifact *meta);

/* capture_saved.c */
/* Whether the order is about an exception; whether the host may hold evidence of this kind. */
bool saved_is_asked(const trawl_v1_Order *order);
bool saved_has_kind(const char *kind);
/* Whether the host does hold such evidence of the order's exception. */
bool saved_holds(const struct capture *c, const trawl_v1_Order *order, const char *kind);
/* Whose exception it is: what was told of it, else what the order says. True when it was a crash
 * that this host knows: then the process has ended, whoever else is in its unit by now. */
bool saved_name(const struct capture *c, const trawl_v1_Order *order, struct os_process *out);
/* True when it goes on, by saved_step() from the timer. */
bool saved_start(struct capture *c, const struct job *job);
void saved_step(struct capture *c);
void saved_stop(struct capture *c);
/* The collector has all that the order asked for: large files need not be kept here. */
void saved_forget(const struct capture *c, const struct order *o);

/* capture_worker.c */
/* True when it runs. */
bool worker_start(struct capture *c, const struct job *job);
/* At the agent's end. True: capture_close_timer() will be called when the pipe is closed. */
bool job_stop_worker(struct capture *c);
/* Cancelled: kills the worker; the job then ends as usual. */
void job_cancel(struct capture *c);
/* There is room again: the pipe is read on. */
void worker_read_on(struct capture *c);

/* capture_stream.c */
int stream_begin(struct capture *c, const struct job *job, const struct broker_file *about,
                 struct failure *f);
int stream_add(struct capture *c, struct span bytes, struct failure *f);
/* The worker is done; takes the rest of what is known. The job ends when the collector has it. */
void stream_finish(struct capture *c, trawl_v1_Artifact *meta);
void stream_drop(struct capture *c);
/* Once a second: nobody is waited for longer than the order's worker would have been. */
void stream_tick(struct capture *c);

/* capture_journal.c */
int journal_accept(struct capture *c, struct order *o, struct failure *f);
int journal_verdict(const struct order *o, struct failure *f);
void journal_remove(struct capture *c, struct order *o);
int journal_load(struct capture *c, struct failure *f);
uint32_t journal_next_number(struct capture *c, const char *incident);
/* The number given out last was not used. */
void journal_return_number(struct capture *c, const char *incident, uint32_t no);
void journal_save_numbers(struct capture *c);
/* An artifact that was never on this disk is sealed: so that a restart counts the same. */
int journal_sealed(const struct order *o, uint32_t no, struct failure *f);

struct order *order_new(void);
void order_free(struct order *o);

#endif
