/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of partitions and keys, in one place. Pure; golden-tested: changing a form here is a
 * new data format version. Numbers in keys are big-endian, so that they sort by value.
 *
 *   hosts                     h -> Host            (one row per enrolled host; small)
 *   host/<h>                  "seq" -> cursors, "d"<epoch><id> -> Descriptor
 *   ctr/<shard>/<hour>        <from_us><seq><state_id 16><host> -> CounterBlock
 *   evt/<shard>/<day>         <wall_us><seq><state_id 16><host> -> Event
 *   incidents                 <created_us><id> -> Incident
 *   inc/<id>                  "i" -> Incident, "c"<no> -> CaptureRequest, "t"<host> -> Target (of
 *                             a capture for an exception "t"<host>\0<no>: a host can have several),
 *                             "a"<host>\0<no> -> Artifact
 *   groups                    one partition, so that a count, what it came from and its sample are
 *                             committed together:
 *                             "g"<id> -> Group, "x"<id> -> group_state_put(), "s"<signature> -> id,
 *                             "h"<id>\0<host> -> GroupHost, "o"<id>\0<slot> -> Exception (sample),
 *                             "c"<state_id> -> highest event number counted,
 *                             "d"<exception> -> occurrences counted under this exception's id,
 *                             "e"<time><exception>: the same by time, "l"<host> and "l" -> quota,
 *                             "p"<exception> -> evidence that is being ordered, "w"<id>: wanted,
 *                             "v" -> number of the last commit that counted
 *   tokens                    <sha256 of the secret> -> EnrollReply with labels (see enroll.c)
 *   req                       <request_id> -> incident ID
 *   art/<incident>            blobs, named "<incident>/<host>/<no>"
 *   brake                     "brake" -> Brake
 *   rules                     "set" -> RuleFile, "f"<firing> -> Event of a rule that fired, until
 * its captures are ordered symbols                   "b"<build-id> -> generation (8 bytes,
 * little-endian), SymbolFile sym/<build-id>/<gen>      <no> -> packed root (no 0) or page of a
 * table (symbols_table.h)
 */
#ifndef TRAWL_COLLECTOR_KEYS_H
#define TRAWL_COLLECTOR_KEYS_H

#include <stdint.h>

#include "common/buf.h"

#define KEYS_SHARDS 16
#define KEYS_PARTITION_SIZE 128
#define KEYS_KEY_SIZE 128

struct key {
    uint8_t bytes[KEYS_KEY_SIZE];
    size_t size_bytes;
};
struct span key_span(const struct key *key);

uint32_t keys_shard(const char *host); /* FNV-1a 32 of the name, modulo KEYS_SHARDS */
void keys_host_part(char out[KEYS_PARTITION_SIZE], const char *host);
void keys_counter_part(char out[KEYS_PARTITION_SIZE], uint32_t shard,
                       int64_t host_us);                                              /* by hour */
void keys_event_part(char out[KEYS_PARTITION_SIZE], uint32_t shard, int64_t host_us); /* by day */
void keys_incident_part(char out[KEYS_PARTITION_SIZE], const char *incident);
void keys_symbols_part(char out[KEYS_PARTITION_SIZE], struct span build_id, uint64_t generation);
#define KEYS_SYMBOLS_PARTS "sym/" /* how all of them begin */
#define KEYS_SYMBOLS_FILES "symbols"

struct key keys_text(const char *text); /* "seq", a host's name */
struct key keys_descriptor(uint64_t epoch, uint32_t id);
/* Counter blocks and events: their time, then what makes a repeated delivery the same row. */
struct key keys_sample(int64_t host_us, uint64_t seq, const uint8_t state_id[16], const char *host);
struct key keys_time(int64_t host_us); /* the first possible keys_sample of that time */
int keys_sample_parse(struct span key, int64_t *host_us, uint64_t *seq, struct span *host);
struct key keys_incident(int64_t created_us, const char *id);
struct key keys_target(const char *host);
struct key keys_artifact(const char *host, uint32_t no);
struct key keys_capture(uint32_t no);
struct key keys_target_of(const char *host, uint32_t capture);

#define KEYS_BRAKE_PART "brake"

#define KEYS_RULES_PART "rules"
#define KEYS_RULES_SET "set"
struct key keys_firing(const uint8_t firing[16]);

#define KEYS_GROUPS_PART "groups"
/* 'g', 'x', 'w' with a group's id; 'l' with a host's name ("": the fleet). */
struct key keys_group(char kind, const char *id);
/* 's' with a signature, 'c' with a state ID, 'd' and 'p' with an exception's: 16 bytes. */
struct key keys_group_bytes(char kind, const uint8_t bytes[16]);
struct key keys_group_host(const char *id, const char *host); /* host "": prefix of all */
struct key keys_group_sample(const char *id, uint32_t slot);
struct key keys_group_told(int64_t at_us, const uint8_t exception[16]);
struct key keys_symbol_file(struct span build_id);
struct key keys_symbol_page(uint32_t no);
/* "<incident>/<host>/<no>"; 128 bytes are enough. */
void keys_blob(char out[KEYS_PARTITION_SIZE], const char *incident, const char *host, uint32_t no);

#endif
