# SPDX-License-Identifier: Apache-2.0
"""A Python program that logs an exception with its cause when a line with "fail" comes, and goes on, as servers do."""
import logging
import sys


class AccountError(Exception):
    pass


def find(accounts, number):
    try:
        return accounts[number]
    except KeyError as e:
        raise AccountError("no such account: %d" % number) from e


def check_out(number):
    return find({1: "a"}, number)


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for line in iter(sys.stdin.readline, ""):
        try:
            if line.startswith("fail"):
                check_out(4711)
            raise RuntimeWarning("only a warm word")
        except Exception:
            logging.exception("request failed")


main()
