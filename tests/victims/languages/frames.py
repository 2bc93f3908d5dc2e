# SPDX-License-Identifier: Apache-2.0
"""A Python program that sleeps in nested functions: by way of C functions, a generator and a method, in several threads."""
import sys
import threading
import time

standing = threading.Semaphore(0)


def leaf(n):
    standing.release()
    time.sleep(
        3600)
    return n


def middle(n):
    return leaf(n) + 1


class Outer:
    def method(self, n):
        return middle(n) + 1


def generator(n):
    yield Outer().method(n)


def through_c(n):
    return list(map(lambda x: sum(generator(x)), [n]))


threads = [threading.Thread(target=through_c, args=(i,), daemon=True) for i in range(3)]
for thread in threads:
    thread.start()
for _ in threads:
    standing.acquire()
print("ready")
sys.stdout.flush()
sorted([2, 1], key=lambda k: through_c(k))
