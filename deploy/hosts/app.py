#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Python web server of a host of the quickstart's farm: answers, logs each request with its time."""
import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"hello from the farm\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *values):
        logging.info("request " + form, *values)


def housekeeping():
    while True:
        time.sleep(5)
        logging.info("housekeeping: %d threads", threading.active_count())


logging.basicConfig(filename=sys.argv[3], level=logging.INFO,
                    format="%(asctime)s %(levelname)s %(message)s")
threading.Thread(target=housekeeping, name="housekeeping", daemon=True).start()
logging.info("serving on %s port %s", sys.argv[1], sys.argv[2])
ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
