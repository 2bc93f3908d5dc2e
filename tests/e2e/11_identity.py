#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who is turned away, with which words: the true reason in the collector's log, a clear message on the command line
with its own exit code, for every way in which a certificate can be wrong. Certificates are made with openssl and the fleet's own CA."""
import os
import re
import shutil
import stat
import subprocess

import grpc

from trawltest import BIN, TMP, Collector, Person, case, check, check_equal, main, wait_for

c = Collector()
foreign = Collector(name="foreign")
PKI = c.directory + "/pki/"
IDENTITY_EXIT = 23


def openssl(*arguments, **more):
    return subprocess.run(["openssl"] + list(arguments), check=True, capture_output=True, **more)


def context(name, uri="spiffe://collector/sre/eve", start="20200101000000Z", end="20991231235959Z", ca=PKI,
            usage="clientAuth", self_signed=False):
    """A context directory whose certificate is as told, otherwise right."""
    out = os.path.join(TMP, "eve-" + name)
    os.makedirs(out + "/db")
    for path in ("ca.crt", "context.conf"):
        shutil.copy(c.directory + "/admin/" + path, out)
    open(out + "/db/index.txt", "w").close()
    with open(out + "/ca.conf", "w") as f:
        f.write("[ca]\ndefault_ca = d\n[d]\ndatabase = %s/db/index.txt\nnew_certs_dir = %s/db\nrand_serial = yes\n"
                "default_md = sha256\npolicy = p\nx509_extensions = x\n[p]\ncommonName = supplied\n"
                "[x]\nbasicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = %s\n"
                "subjectAltName = URI:%s\n" % (out, out, usage, uri))
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
            out + "/key.pem", "-out", out + "/request.pem", "-subj", "/CN=eve")
    os.chmod(out + "/key.pem", 0o600)
    signer = ["-selfsign", "-keyfile", out + "/key.pem"] if self_signed else \
             ["-cert", ca + "ca.crt", "-keyfile", ca + "ca.key"]
    openssl("ca", "-batch", "-notext", "-config", out + "/ca.conf", "-in", out + "/request.pem", "-out",
            out + "/cert.crt", "-startdate", start, "-enddate", end, *signer)
    return out


def turned_away(directory, in_log, on_terminal, code=IDENTITY_EXIT):
    """By the collector, as its log says when a stock client comes with it; and said by the command line."""
    size = os.path.getsize(c.log)
    channel = c.channel(directory)
    try:
        list(channel.unary_stream("/trawl.v1.Operations/Hosts")(b"", timeout=3))
        check(False, "it was let in")
    except grpc.RpcError as e:
        check_equal(e.code(), grpc.StatusCode.UNAVAILABLE, e.details())
    channel.close()

    def new_lines():
        with open(c.log) as f:
            f.seek(size)
            return f.read()
    wait_for(lambda: re.search(in_log, new_lines()), "the log says %r" % in_log)
    done = Person(c, directory).trawl("hosts")
    check_equal(done.returncode, code, done.stderr)
    check(re.search(on_terminal, done.stderr), "%r in %r" % (on_terminal, done.stderr))


@case
def a_right_certificate_made_the_same_way_is_let_in():
    done = Person(c, context("right")).trawl("hosts")
    check_equal(done.returncode, 0, done.stderr)


@case
def an_expired_certificate():
    turned_away(context("expired", end="20251101000000Z"), "turned away .*expired 2025-11-01",
                "expired 2025-11-01", code=24)


@case
def a_certificate_that_is_not_valid_yet():
    turned_away(context("early", start="20981101000000Z"), "turned away .*not valid (yet|before)",
                "clock", code=29)


@case
def a_certificate_of_another_ca():
    turned_away(context("wrong-ca", ca=foreign.directory + "/pki/"), "turned away .*(CA|signed)", "refused|CA")


@case
def a_self_signed_certificate():
    turned_away(context("self", self_signed=True), "turned away .*(self-signed|CA)", "refused|CA")


@case
def a_certificate_of_another_fleet():
    turned_away(context("fleet", uri="spiffe://elsewhere/sre/eve"), "turned away .*fleet",
                "belongs to another fleet", code=27)


@case
def a_certificate_without_client_usage():
    turned_away(context("usage", usage="serverAuth"), "turned away .*",
                "not meant for a client", code=2)


@case
def a_role_that_does_not_exist_may_call_nothing():
    done = Person(c, context("role", uri="spiffe://collector/emperor/eve")).trawl("hosts")
    check(done.returncode != 0, "an unknown role was let in")
    check("refused" in done.stderr or "may not" in done.stderr, done.stderr)


@case
def no_certificate_at_all():
    done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % c.port, "-CAfile", PKI + "ca.crt",
                           "-alpn", "h2", "-tls1_2"], input=b"", capture_output=True, timeout=20)
    check(b"alert" in done.stderr, done.stderr[-400:])
    wait_for(lambda: re.search("turned away .*no certificate", open(c.log).read()), "the log says so")


@case
def an_older_tls_version():
    done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % c.port, "-cert", PKI + "../admin/cert.crt",
                           "-key", PKI + "../admin/key.pem", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
                          input=b"", capture_output=True, timeout=20)
    check(done.returncode != 0, "TLS 1.1 was let in")
    wait_for(lambda: re.search("turned away .*(older|version)", open(c.log).read()), "the log says so")


@case
def a_key_that_others_can_read_is_refused_with_the_remedy():
    directory = context("loose")
    os.chmod(directory + "/key.pem", 0o644)
    done = Person(c, directory).trawl("hosts")
    check_equal(done.returncode, 28, done.stderr)
    check("chmod" in done.stderr, done.stderr)


@case
def a_collector_key_that_others_can_read_is_refused():
    other = c.directory + "-loose"
    c.run("init", other)
    os.chmod(other + "/pki/ca.key", 0o640)
    done = subprocess.run([BIN + "/trawl-collector", "run", "--data", other, "--port", "1"], capture_output=True,
                          text=True, timeout=20)
    check_equal(done.returncode, 28, done.stderr)
    check_equal(stat.S_IMODE(os.stat(other + "/pki/collector.key").st_mode), 0o600)


@case
def a_collector_of_another_fleet_is_not_believed():
    directory = os.path.join(TMP, "fooled")
    shutil.copytree(c.directory + "/admin", directory)
    done = Person(c, directory).trawl("hosts", "--collector", "127.0.0.1:%d" % foreign.port)
    check_equal(done.returncode, IDENTITY_EXIT, done.stderr)


@case
def a_collector_that_is_down_is_said_with_its_address():
    done = Person(c, c.directory + "/admin").trawl("hosts", "--collector", "127.0.0.1:1")
    check_equal(done.returncode, 21, done.stderr)
    check("127.0.0.1:1" in done.stderr, done.stderr)


main()
