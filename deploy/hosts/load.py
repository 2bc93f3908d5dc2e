#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Light load on one host of the farm: about 20 requests a second to nginx, the Python server and redis over kept
connections. Writes "REQUESTS ERRORS SLOWEST_MS" to a file each second, so that a test can see what clients saw."""
import http.client
import os
import socket
import sys
import time

address, out = sys.argv[1], sys.argv[2]
requests = errors = 0
slowest = 0.0
web = {8080: None, 8000: None}
redis = None


def ask_web(port):
    if web[port] is None:
        web[port] = http.client.HTTPConnection(address, port, timeout=5)
    web[port].request("GET", "/")
    reply = web[port].getresponse()
    reply.read()
    if reply.status != 200:
        raise OSError("status %d" % reply.status)


def ask_redis():
    global redis
    if redis is None:
        redis = socket.create_connection((address, 6379), timeout=5)
    redis.sendall(b"INCR farm:requests\r\n")
    if not redis.recv(64).startswith(b":"):
        raise OSError("redis said no")


def forget(port):
    global redis
    if port:
        web[port] = None
    else:
        redis = None


def wait_until_up():
    for port in (8080, 8000, 6379):
        while True:
            try:
                socket.create_connection((address, port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)


wait_until_up()
while True:
    for port in (8080, 8000, 0):
        begin = time.monotonic()
        requests += 1
        try:
            ask_web(port) if port else ask_redis()
        except (OSError, http.client.HTTPException):
            errors += 1
            forget(port)
        slowest = max(slowest, (time.monotonic() - begin) * 1000)
    with open(out + ".new", "w") as f:
        f.write("%d %d %.1f\n" % (requests, errors, slowest))
    os.replace(out + ".new", out)
    time.sleep(0.15)
