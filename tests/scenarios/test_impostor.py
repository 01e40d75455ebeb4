"""Tests for `impostor`: synthetic requests, the negative control, and the impostor itself on loopback."""

import socket
import ssl
import threading
from contextlib import closing

import pytest

from experiments import Verdict, parameters
from reports.drawing import svg
from scenarios.impostor import CURL_NOT_VERIFIED, KINDS, PLAIN, TRUSTING, VERIFYING, ImpostorScenario, Request
from scenarios.instruments import false_server
from scenarios.instruments.false_server import Impostor, false_names, self_signed
from scenarios.instruments.local_resolvers import free_port
from stub import Stub, StubError, strict
from tests.scenarios.runs import failed, predicted
from tests.waiting import comes_true

NAME = "www.example.com"


def concluded(tmp_path, *, fooled=(TRUSTING, PLAIN), answers=True, curl=CURL_NOT_VERIFIED, honest=True):
    """Return a synthetic run in which the impostor reads the requests by all kinds of clients in *fooled*."""
    experiment = ImpostorScenario(parameters.bind(ImpostorScenario.settings, quick=True))
    run = predicted(experiment, tmp_path)
    for kind in KINDS:
        experiment.honest[kind] = [Request("", answered=honest)]
        for number in range(4):
            secret = f"{kind}-{number}"
            experiment.sent[kind].append(Request(secret, answered=kind in fooled and answers, reason="self-signed"))
            if kind in fooled:
                experiment.read.append(f"GET /whoami?token={secret} HTTP/1.1")
    experiment.curl = {VERIFYING: (curl, "c1"), TRUSTING: (0, "c2")}
    experiment.read.append("GET /whoami?token=c2 HTTP/1.1")
    experiment.conclude(run)
    return run


def test_requests_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert svg(run.findings.charts[0]).startswith("<svg")


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        # As in the negative control, in which clients that should verify certificates do not.
        pytest.param({"fooled": KINDS}, ImpostorScenario.control.fails[0], id="verifying-clients-are-fooled"),
        pytest.param({"fooled": (PLAIN,)}, f"requests read by the impostor, {TRUSTING}", id="trusting-ones-are-not"),
        pytest.param({"answers": False}, f"requests answered, {TRUSTING}", id="the-victim-notices"),
        pytest.param({"curl": 0}, f"curl, {VERIFYING}", id="curl-accepts-the-certificate"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_clients_that_fail_without_an_impostor_make_the_run_invalid(tmp_path):
    assert concluded(tmp_path, honest=False).result.verdict is Verdict.INVALID


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "pair.pem"
    path.write_bytes(self_signed(NAME))
    return path


def connect(port, context):
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname=NAME)


def test_the_impostor_reads_and_forwards_a_trusting_clients_request(pair, monkeypatch):
    real = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    real.load_cert_chain(pair)  # the self-signed certificate is also the real server's
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    forwarded = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        monkeypatch.setattr(false_server, "HTTPS", listener.getsockname()[1])

        def serve():
            with closing(real.wrap_socket(listener.accept()[0], server_side=True)) as sock:
                forwarded.append(sock.recv(4096))
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nright")

        thread = threading.Thread(target=serve)
        thread.start()
        ports = (free_port(), free_port())
        with Impostor(NAME, "127.0.0.1", pair, pair, ports) as impostor:
            with closing(connect(ports[1], trusting)) as sock:
                sock.sendall(b"GET /?token=1 HTTP/1.1\r\n\r\n")
                received = b"".join(iter(lambda: sock.recv(4096), b""))
            thread.join(5)
            assert received.endswith(b"right")
            assert impostor.requests == ["GET /?token=1 HTTP/1.1\r\n\r\n"]
            assert forwarded == [b"GET /?token=1 HTTP/1.1\r\nConnection: close\r\n\r\n"]


def test_a_verifying_client_sends_an_alert_and_nothing_else(pair):
    ports = (free_port(), free_port())
    with Impostor(NAME, "127.0.0.1", pair, pair, ports) as impostor:
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            connect(ports[1], ssl.create_default_context())
        assert comes_true(lambda: impostor.failed)
        assert "UNKNOWN_CA" in impostor.failed[0]
        assert impostor.requests == []


def test_only_dns_over_tls_notices_the_false_name_server(pair):
    with false_names(NAME, "192.0.2.66", pair) as (plain, tls):
        assert Stub([plain]).resolve(NAME).rdata == ("192.0.2.66",)
        with pytest.raises(StubError, match="self-signed"):
            Stub([tls], 10.0, 1, transport=strict("resolver.example.com")).resolve(NAME)
