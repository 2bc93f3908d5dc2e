// SPDX-License-Identifier: Apache-2.0
//
// Stock Node gRPC (@grpc/grpc-js of npm, pure JavaScript) against tests/e2e/interop_echo_server.c.
//
// usage: node client.js PORT CERTIFICATE-FOLDER
//
// Generic calls with raw bytes. Each case prints one line, `ok NAME` or `FAIL NAME: why`; the last line counts. Called by
// tests/e2e/20_interop.sh, which puts @grpc/grpc-js into NODE_PATH.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');

const [port, certs] = process.argv.slice(2);
const LIMIT_MS = 20000;
const raw = (bytes) => bytes;
const pem = (name) => fs.readFileSync(path.join(certs, name));

function client(identity = 'sre', ca = 'ca') {
  const credentials = identity
    ? grpc.credentials.createSsl(pem(ca + '.pem'), pem(identity + '.key'), pem(identity + '.pem'))
    : grpc.credentials.createSsl(pem(ca + '.pem'));
  return new grpc.Client('127.0.0.1:' + port, credentials, {
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
    'grpc.use_local_subchannel_pool': 1,
  });
}

const shared = client();
const method = (name) => (name.startsWith('/') ? name : '/trawl.test.Echo/' + name);
const within = (ms) => ({ deadline: Date.now() + ms });

function unary(c, name, message, ms = LIMIT_MS) {
  return new Promise((resolve, reject) => {
    c.makeUnaryRequest(method(name), raw, raw, message, new grpc.Metadata(), within(ms),
      (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

function expect(condition, text) {
  if (!condition) throw new Error(text);
}

async function fails(code, promise) {
  try {
    await promise;
  } catch (error) {
    expect(error.code === code, `code ${error.code} and not ${code}: ${error.message}`);
    return error;
  }
  throw new Error(`no error, expected ${code}`);
}

const same = (a, b) => Buffer.compare(a, b) === 0;

// Reads a stream to its end; calls `each` with every message.
function drain(stream, each) {
  return new Promise((resolve, reject) => {
    stream.on('data', each);
    stream.on('end', resolve);
    stream.on('error', reject);
  });
}

const cases = {
  async unary_call() {
    expect(same(await unary(shared, 'Unary', Buffer.from('hello')), Buffer.from('hello')), 'not the same');
  },

  async client_certificate_names_the_caller() {
    const who = String(await unary(client('agent'), 'Who', Buffer.alloc(0)));
    expect(who === 'spiffe://test/agent/web-1', who);
  },

  client_stream() {
    return new Promise((resolve, reject) => {
      const call = shared.makeClientStreamRequest(method('ClientStream'), raw, raw, new grpc.Metadata(),
        within(LIMIT_MS), (error, reply) => {
          if (error) return reject(error);
          return String(reply) === '1000 messages, 1000000 bytes' ? resolve() : reject(new Error(String(reply)));
        });
      for (let i = 0; i < 1000; i++) call.write(Buffer.alloc(1000));
      call.end();
    });
  },

  async server_stream() {
    let count = 0;
    await drain(shared.makeServerStreamRequest(method('ServerStream'), raw, raw, Buffer.from('500 20000'),
      new grpc.Metadata(), within(LIMIT_MS)), (m) => { count += m.length === 20000 ? 1 : 0; });
    expect(count === 500, `${count} messages`);
  },

  async bidirectional_stream() {
    const call = shared.makeBidiStreamRequest(method('Bidi'), raw, raw, new grpc.Metadata(), within(LIMIT_MS));
    let next = 0;
    const all = drain(call, (m) => {
      expect(m.length === next * 37, `message ${next} has ${m.length} bytes`);
      next++;
    });
    for (let i = 0; i < 400; i++) call.write(Buffer.alloc(i * 37, i));
    call.end();
    await all;
    expect(next === 400, `${next} messages`);
  },

  async three_megabytes() {
    const data = crypto.randomBytes(3 * 1024 * 1024);
    expect(same(await unary(shared, 'Unary', data), data), 'not the same');
  },

  async twenty_in_parallel() {
    const data = Array.from({ length: 20 }, (_, i) => crypto.randomBytes(100000 + i));
    const replies = await Promise.all(data.map((d) => unary(shared, 'Unary', d)));
    expect(replies.every((r, i) => same(r, data[i])), 'not the same');
  },

  // All at once on a connection that does not know the server's limits yet.
  async twenty_in_parallel_on_a_new_connection() {
    const c = client();
    const replies = await Promise.all(Array.from({ length: 20 }, (_, i) => unary(c, 'Unary', Buffer.from([i]))));
    expect(replies.every((r, i) => r[0] === i), 'not the same');
    c.close();
  },

  async status_and_text() {
    const error = await fails(grpc.status.ALREADY_EXISTS, unary(shared, 'Fail', Buffer.from('6 50% of ä\n')));
    expect(error.details === '50% of ä\n', error.details);
  },

  async deadline() {
    const begin = Date.now();
    await fails(grpc.status.DEADLINE_EXCEEDED, unary(shared, 'Sleep', Buffer.from('x'), 300));
    expect(Date.now() - begin >= 250 && Date.now() - begin < 3000, 'not after 0.3 s');
  },

  async cancel() {
    await new Promise((resolve, reject) => {
      const call = shared.makeUnaryRequest(method('Sleep'), raw, raw, Buffer.from('x'), new grpc.Metadata(),
        within(LIMIT_MS), (error) => (error && error.code === grpc.status.CANCELLED ? resolve() : reject(error)));
      setTimeout(() => call.cancel(), 100);
    });
    const end = Date.now() + LIMIT_MS;
    let last;
    do {
      expect(Date.now() < end, `the server did not notice: ${last}`);
      last = String(await unary(shared, 'LastEnd', Buffer.alloc(0)));
    } while (last !== '1 cancelled by the peer');
  },

  async unknown_method() {
    const error = await fails(grpc.status.UNIMPLEMENTED, unary(shared, 'Nothing', Buffer.alloc(0)));
    expect(error.details === "unknown method '/trawl.test.Echo/Nothing'", error.details);
  },

  async too_large_message() {
    await fails(grpc.status.RESOURCE_EXHAUSTED, unary(shared, 'Unary', Buffer.alloc(5 * 1024 * 1024)));
    expect(same(await unary(shared, 'Unary', Buffer.from('x')), Buffer.from('x')), 'the connection suffered');
  },

  async no_certificate() {
    await fails(grpc.status.UNAVAILABLE, unary(client(null), 'Unary', Buffer.alloc(0), 3000));
  },

  async certificate_of_another_ca() {
    await fails(grpc.status.UNAVAILABLE, unary(client('stranger'), 'Unary', Buffer.alloc(0), 3000));
  },

  async server_of_another_ca() {
    await fails(grpc.status.UNAVAILABLE, unary(client('sre', 'strange-ca'), 'Unary', Buffer.alloc(0), 3000));
  },
};

async function main() {
  let failed = 0;
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      console.log('ok    node_' + name);
    } catch (error) {
      failed++;
      console.log(`FAIL  node_${name}: ${error && error.message}`);
    }
  }
  console.log(`${Object.keys(cases).length - failed} passed, ${failed} failed, 0 skipped`);
  process.exit(failed ? 1 : 0);
}

main();
