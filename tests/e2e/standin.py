# SPDX-License-Identifier: Apache-2.0
"""A collector of Python, by the stock gRPC library: takes what an agent sends, acknowledges it and keeps it, so that a scenario
sees exactly what the agent says. It has the certificate of a real collector, which must have ended before."""
import concurrent.futures
import threading
import time

import grpc

from trawltest import pb, wait_for


class StandIn:
    def __init__(self, collector):
        collector.stop()
        self.exceptions, self.events, self.hosts = [], [], []
        self.lock = threading.Lock()
        self.seen = set()

        def read(name):
            with open(collector.directory + "/pki/" + name, "rb") as f:
                return f.read()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        handler = grpc.stream_stream_rpc_method_handler(self.connect, request_deserializer=pb.AgentMessage.FromString,
                                                        response_serializer=pb.CollectorMessage.SerializeToString)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("trawl.v1.Fleet", {"Connect": handler}),))
        credentials = grpc.ssl_server_credentials([(read("collector.key"), read("collector.crt"))], read("ca.crt"), True)
        self.server.add_secure_port("127.0.0.1:%d" % collector.port, credentials)
        self.server.start()

    def connect(self, messages, context):
        state = b""
        for m in messages:
            body = m.WhichOneof("body")
            if body == "announce":
                state = m.announce.state_id
                yield pb.CollectorMessage(welcome=pb.Welcome(collector="stand-in", wall_us=int(time.time() * 1e6),
                                                             certificate_not_after_s=int(time.time()) + 86400 * 90))
            elif body == "block":
                yield pb.CollectorMessage(ack=pb.Ack(block=m.block.seq))
            elif body in ("event", "exception"):
                what = getattr(m, body)
                with self.lock:
                    if (state, what.seq) not in self.seen:  # sent again after a lost connection
                        self.seen.add((state, what.seq))
                        (self.events if body == "event" else self.exceptions).append(what)
                yield pb.CollectorMessage(ack=pb.Ack(event=what.seq))

    def get(self, **wanted):
        """Exceptions whose members have these values."""
        with self.lock:
            return [e for e in self.exceptions if all(getattr(e, k) == v for k, v in wanted.items())]

    def count(self, **wanted):
        return sum(e.count for e in self.get(**wanted))

    def wait_count(self, count, seconds=20, **wanted):
        wait_for(lambda: self.count(**wanted) >= count, "%d of %r" % (count, wanted), seconds)

    def texts(self, part=""):
        with self.lock:
            return [e.text for e in self.events if part in e.text]
