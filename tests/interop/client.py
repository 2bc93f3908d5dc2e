#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Stock Python gRPC (python3-grpcio of Debian) against tests/e2e/interop_echo_server.c.

usage: client.py PORT CERTIFICATE-FOLDER [restart COMMAND]

With `restart` only that case: COMMAND ends the server and starts it again on the same port. Generic calls with raw
bytes, so no generated code is needed but for health and reflection. Each case prints one line, `ok NAME` or
`FAIL NAME: why`; the last line counts. Called by tests/e2e/20_interop.sh.
"""
import hashlib
import os
import subprocess
import sys
import threading
import time

import grpc

PORT, CERTS = sys.argv[1], sys.argv[2]
LIMIT_S = 20
OPTIONS = [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1),
           ('grpc.max_reconnect_backoff_ms', 300), ('grpc.initial_reconnect_backoff_ms', 100)]
cases = []


def case(function):
    cases.append(function)
    return function


def pem(name):
    with open(os.path.join(CERTS, name), 'rb') as file:
        return file.read()


def channel(identity='sre', ca='ca'):
    """A channel with a connection of its own, as one of the certificates that the script made."""
    key, chain = (pem(identity + '.key'), pem(identity + '.pem')) if identity else (None, None)
    credentials = grpc.ssl_channel_credentials(pem(ca + '.pem'), key, chain)
    return grpc.secure_channel('127.0.0.1:' + PORT, credentials,
                               OPTIONS + [('grpc.use_local_subchannel_pool', 1)])


def path(method):
    return method if method.startswith('/') else '/trawl.test.Echo/' + method


def unary(ch, method, message, timeout=LIMIT_S, **more):
    return ch.unary_unary(path(method))(message, timeout=timeout, **more)


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def fails(code, function, *args, **more):
    try:
        function(*args, **more)
    except grpc.RpcError as error:
        expect(error.code() == code, f'{error.code()} and not {code}: {error.details()}')
        return error
    raise AssertionError(f'no error, expected {code}')


def wait_for(condition, text):
    end = time.monotonic() + LIMIT_S
    while not condition():
        expect(time.monotonic() < end, text)
        time.sleep(0.02)


@case
def unary_call(ch):
    expect(unary(ch, 'Unary', b'hello') == b'hello', 'not the same message')
    expect(unary(ch, 'Unary', b'') == b'', 'not the same empty message')


@case
def client_certificate_names_the_caller(ch):
    expect(unary(ch, 'Who', b'') == b'spiffe://test/sre/alice', unary(ch, 'Who', b''))


@case
def client_stream(ch):
    reply = ch.stream_unary(path('ClientStream'))((b'x' * 1000 for _ in range(2000)), timeout=LIMIT_S)
    expect(reply == b'2000 messages, 2000000 bytes', reply)


@case
def server_stream(ch):
    sizes = [len(m) for m in ch.unary_stream(path('ServerStream'))(b'500 20000', timeout=LIMIT_S)]
    expect(sizes == [20000] * 500, f'{len(sizes)} messages')


@case
def bidirectional_stream(ch):
    messages = [bytes([i % 251]) * (i * 37) for i in range(400)]
    replies = list(ch.stream_stream(path('Bidi'))(iter(messages), timeout=LIMIT_S))
    expect(replies == messages, 'not the same messages')


@case
def bidirectional_in_lockstep(ch):
    gate, asked = threading.Event(), []

    def ask():
        for i in range(100):
            gate.wait(LIMIT_S)
            gate.clear()
            asked.append(i)
            yield b'%d' % i

    stream = ch.stream_stream(path('Bidi'))(ask(), timeout=LIMIT_S)
    for i in range(100):
        gate.set()
        expect(next(stream) == b'%d' % i, f'answer {i}')
        expect(len(asked) == i + 1, 'answered before asked')


@case
def three_megabytes(ch):
    data = os.urandom(3 * 1024 * 1024)
    expect(unary(ch, 'Unary', data) == data, 'not the same message')
    replies = list(ch.stream_stream(path('Bidi'))(iter([data] * 5), timeout=LIMIT_S))
    expect(all(hashlib.sha256(r).digest() == hashlib.sha256(data).digest() for r in replies) and
           len(replies) == 5, 'not the same messages')


@case
def twenty_in_parallel(ch):
    data = [os.urandom(100000 + i) for i in range(20)]
    futures = [ch.unary_unary(path('Unary')).future(d, timeout=LIMIT_S) for d in data]
    expect([f.result() for f in futures] == data, 'not the same messages')


@case
def three_megabytes_twenty_in_parallel(ch):
    data = os.urandom(3 * 1024 * 1024)
    futures = [ch.unary_unary(path('Unary')).future(data, timeout=LIMIT_S) for _ in range(20)]
    expect(all(f.result() == data for f in futures), 'not the same messages')


@case
def status_and_text(ch):
    error = fails(grpc.StatusCode.ALREADY_EXISTS, unary, ch, 'Fail', '6 50% of ä\n'.encode())
    expect(error.details() == '50% of ä\n', repr(error.details()))
    error = fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: list(
        ch.unary_stream(path('ServerStream'))(b'many', timeout=LIMIT_S)))
    expect(dict(error.trailing_metadata()).get('trawl-error') == '-3', error.trailing_metadata())


@case
def deadline(ch):
    begin = time.monotonic()
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, unary, ch, 'Sleep', b'x', timeout=0.3)
    expect(0.25 < time.monotonic() - begin < 3, 'not after 0.3 s')
    # Either side may be the first to see it; both call it an end.
    wait_for(lambda: unary(ch, 'LastEnd', b'')[:2] in (b'4 ', b'1 '), 'the server did not notice')


@case
def cancel(ch):
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, unary, ch, 'Sleep', b'x', timeout=0.05)
    call = ch.unary_unary(path('Sleep')).future(b'x', timeout=LIMIT_S)
    time.sleep(0.1)
    call.cancel()
    expect(call.code() == grpc.StatusCode.CANCELLED, call.code())
    wait_for(lambda: unary(ch, 'LastEnd', b'') == b'1 cancelled by the peer', 'the server did not notice')
    stream = ch.unary_stream(path('ServerStream'))(b'100000 100000', timeout=LIMIT_S)
    next(stream)
    stream.cancel()
    expect(unary(ch, 'Unary', b'still here') == b'still here', 'the connection suffered')


@case
def slow_reader(ch):
    stream = ch.unary_stream(path('ServerStream'))(b'2000 1000000', timeout=LIMIT_S)
    for _ in range(5):
        next(stream)
    expect(unary(ch, 'Unary', b'beside') == b'beside', 'another call had to wait')
    time.sleep(0.5)
    next(stream)
    stream.cancel()


@case
def unknown_method(ch):
    error = fails(grpc.StatusCode.UNIMPLEMENTED, unary, ch, 'Nothing', b'')
    expect(error.details() == "unknown method '/trawl.test.Echo/Nothing'", error.details())
    fails(grpc.StatusCode.UNIMPLEMENTED, unary, ch, '/no.Such/Service', b'')


@case
def too_large_message(ch):
    error = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, unary, ch, 'Unary', bytes(5 * 1024 * 1024))
    expect('larger than 4194304' in error.details(), error.details())
    expect(unary(ch, 'Unary', b'still here') == b'still here', 'the connection suffered')


@case
def compression_is_refused(ch):
    error = fails(grpc.StatusCode.UNIMPLEMENTED, unary, ch, 'Unary', bytes(10000),
                  compression=grpc.Compression.Gzip)
    expect('compression' in error.details(), error.details())


@case
def large_metadata_is_refused(ch):
    fails(grpc.StatusCode.RESOURCE_EXHAUSTED, unary, ch, 'Unary', b'', metadata=[('x', 'y' * 9000)])
    expect(unary(ch, 'Unary', b'still here') == b'still here', 'the connection suffered')


@case
def a_hundred_connections_one_after_the_other(_):
    for i in range(100):
        with channel('agent') as ch:
            expect(unary(ch, 'Unary', b'%d' % i) == b'%d' % i, i)


@case
def no_certificate(_):
    fails(grpc.StatusCode.UNAVAILABLE, unary, channel(None), 'Unary', b'', timeout=3)


@case
def certificate_of_another_ca(_):
    fails(grpc.StatusCode.UNAVAILABLE, unary, channel('stranger'), 'Unary', b'', timeout=3)


@case
def server_of_another_ca(_):
    fails(grpc.StatusCode.UNAVAILABLE, unary, channel('sre', 'strange-ca'), 'Unary', b'', timeout=3)


def generated(folder):
    """Python modules of our own health.proto and reflection.proto, as a user would make them."""
    proto = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'proto')
    subprocess.run([sys.executable, '-m', 'grpc_tools.protoc', '-I', proto, '--python_out', folder,
                    'health.proto', 'reflection.proto'], check=True, timeout=60)
    sys.path.insert(0, folder)
    import health_pb2
    import reflection_pb2
    return health_pb2, reflection_pb2


@case
def health_and_reflection(ch):
    health, reflection = generated(CERTS)
    request = health.HealthCheckRequest(service='trawl.v1.Operations').SerializeToString()
    reply = health.HealthCheckResponse.FromString(unary(ch, '/grpc.health.v1.Health/Check', request))
    expect(reply.status == health.HealthCheckResponse.SERVING, reply)
    fails(grpc.StatusCode.NOT_FOUND, unary, ch, '/grpc.health.v1.Health/Check',
          health.HealthCheckRequest(service='no.Such').SerializeToString())
    for version in ('v1', 'v1alpha'):
        ask = ch.stream_stream(f'/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo',
                               request_serializer=reflection.ServerReflectionRequest.SerializeToString,
                               response_deserializer=reflection.ServerReflectionResponse.FromString)
        listed, found, missing = ask(iter([
            reflection.ServerReflectionRequest(list_services='*'),
            reflection.ServerReflectionRequest(file_containing_symbol='trawl.v1.Operations.Hosts'),
            reflection.ServerReflectionRequest(file_containing_symbol='trawl.v1.Nothing')]), timeout=LIMIT_S)
        names = {s.name for s in listed.list_services_response.service}
        expect({'trawl.v1.Fleet', 'trawl.v1.Operations', 'grpc.health.v1.Health'} <= names, names)
        expect(missing.error_response.error_code == 5, missing)
        use_descriptor(found.file_descriptor_response.file_descriptor_proto[0])


def use_descriptor(data):
    """What reflection gave is enough to find a method and its types."""
    from google.protobuf import descriptor_pb2, descriptor_pool
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
    method = pool.FindServiceByName('trawl.v1.Operations').methods_by_name['Hosts']
    expect(method.output_type.full_name == 'trawl.v1.Host', method.output_type.full_name)


def server_restart(ch):
    command = sys.argv[4:]
    expect(unary(ch, 'Unary', b'before') == b'before', 'no answer before')
    subprocess.run(command, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            expect(unary(ch, 'Unary', b'after', wait_for_ready=True, timeout=LIMIT_S) == b'after', 'no answer')
            return
        except grpc.RpcError as error:
            expect(error.code() == grpc.StatusCode.UNAVAILABLE, error)
            expect(time.monotonic() < end, error)


def main():
    failed = 0
    selected = cases if len(sys.argv) < 5 else [server_restart]
    shared = channel()
    for function in selected:
        name = 'python_' + function.__name__
        try:
            function(shared)
            print('ok   ', name, flush=True)
        except Exception as error:  # whatever it is, the case failed and the next one runs
            failed += 1
            print(f'FAIL  {name}: {type(error).__name__} {error}', flush=True)
    print(f'{len(selected) - failed} passed, {failed} failed, 0 skipped')
    return 1 if failed else 0


if __name__ == '__main__':
    code = main()
    sys.stdout.flush()
    os._exit(code)  # open channels must not hold the process
