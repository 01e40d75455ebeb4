"""Tests for `encryption`: real processes that measure ciphers, and synthetic runs that deviate from theory."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments import Verdict, parameters
from reports.drawing import svg
from scenarios.encryption import ARMS, MASKED, RATIO_ROW, SIZE_ROW, SIZES, Encryption
from scenarios.instruments.bulk_cipher import Bulk, Worker
from scenarios.instruments.connection import Address
from scenarios.instruments.key_update import KeyUpdateError, Updated, update_keys
from scenarios.instruments.memory_handshake import Ends
from scenarios.instruments.vantage_points import PLACES, READS, WAYS, View
from tests import judges
from tests.peers import NAME, OK, replying
from tests.scenarios.runs import failed, predicted

HANDSHAKE, ALONE, SENDING, RECORD = 5e-4, 2e-10, 4e-11, 6e-7


def concluded(tmp_path, *, cost=1.0, masked=12.0, handshake=1.0, answered=1.0, trips=1.02, leak=False, suite=""):
    """Return a synthetic run whose measurements follow the prediction, apart from the deviations given as arguments.

    *cost* scales the CPU time of encryption in TLS, and *handshake* the CPU time of a handshake.  Without the CPU's AES
    instructions, AES costs *masked* times as much.  *answered* is the share of key updates that the server answers;
    each request after a key update takes *trips* round trips.
    """
    experiment = Encryption(parameters.bind(Encryption.settings, quick=True))
    run = predicted(experiment, tmp_path)
    for arm, costs in experiment.costs.items():
        times = masked if arm is MASKED else 1.0
        costs.alone = [12 * ALONE if arm is MASKED else ALONE] * 2
        encrypt = cost * (times * ALONE + SENDING + RECORD / 16_384)
        costs.rounds = [Bulk(encrypt * noise, encrypt * noise, SENDING, SENDING, RECORD) for noise in (1.0, 1.3, 1.1)]
        experiment.suites[arm] = suite or arm.suite
    both = 2 * (ALONE + SENDING + RECORD / 16_384)
    experiment.size = round(99 * HANDSHAKE / both)
    for size in (*SIZES, experiment.size):
        experiment.connections[size] = [(handshake * HANDSHAKE, size * both)] * 3
    updates, rtt = experiment.p.updates, experiment.p.rtt_ms
    experiment.updated = Updated(updates, round(answered * updates), (rtt, *[trips * rtt] * updates))
    reads = {(place, way): place in READS[way] or (leak and place == "database") for place in PLACES for way in WAYS}
    experiment.read = [View(place, way, "text", b"data", reads=read) for (place, way), read in reads.items()]
    experiment.conclude(run)
    return run


def test_costs_as_predicted_pass(tmp_path):
    run = concluded(tmp_path)
    assert failed(run) == []
    assert all(check.ok for check in run.result.validity)
    assert [svg(chart).startswith("<svg") for chart in run.findings.charts] == [True] * 2


@pytest.mark.parametrize(
    ("deviation", "check"),
    [
        pytest.param({"cost": 1.3}, "CPU to encrypt, AES-128-GCM", id="encryption-is-dearer"),
        pytest.param({"cost": 0.7}, "CPU to encrypt, ChaCha20-Poly1305", id="encryption-is-cheaper"),
        pytest.param({"masked": 1.0}, RATIO_ROW, id="the-instructions-stay-visible"),
        pytest.param({"handshake": 1.5}, SIZE_ROW, id="the-handshake-is-dearer"),
        pytest.param({"answered": 0.8}, "key updates answered by the server", id="an-update-without-an-answer"),
        pytest.param({"trips": 2.0}, "round trips of a request right after a key update", id="an-update-takes-a-trip"),
        pytest.param({"leak": True}, "places that read exactly what they should", id="the-database-reads-a-letter"),
    ],
)
def test_a_deviation_fails_its_check(deviation, check, tmp_path):
    assert check in failed(concluded(tmp_path, **deviation))


def test_another_cipher_suite_than_configured_makes_the_run_invalid(tmp_path):
    assert concluded(tmp_path, suite="TLS_AES_256_GCM_SHA384").result.verdict is Verdict.INVALID


@pytest.mark.parametrize("arm", ARMS[1:3], ids=lambda arm: arm.cipher)
def test_a_worker_negotiates_its_suite_and_measures(arm):
    with Worker(arm) as worker:
        assert worker.suite == arm.suite
        bulk, (handshake, transfer) = worker.bulk(1 << 18), worker.connection(1 << 16)
    assert all(each > 0 for each in (bulk.encrypt, bulk.decrypt, bulk.sending, bulk.receiving, bulk.record))
    assert handshake > 0 < transfer


def test_a_worker_that_has_ended_is_an_error():
    worker = Worker(ARMS[1])
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(OSError, match=r"ended with code|Broken pipe"):
        worker.bulk(1 << 16)
    worker.close()


def test_a_worker_is_out_of_reach_of_ctrl_c_and_ends_during_a_measurement():
    with Worker(ARMS[1]) as worker:
        assert os.getpgid(worker._process.pid) != os.getpgrp()
        with ThreadPoolExecutor() as threads:
            measured = threads.submit(worker.bulk, 1 << 36)  # takes more than 10 s at 6 GB/s
            with pytest.raises(TimeoutError):
                measured.result(0.1)
            worker.close()
            with pytest.raises(OSError, match="ended with code"):
                measured.result()


async def test_a_server_answers_key_updates_on_one_connection(peers, papers):
    judges.require("openssl")
    to = Address(NAME, "127.0.0.1", await peers.start(replying(OK), papers.server()))
    updated = await asyncio.to_thread(update_keys, to, papers.trust, 3)
    assert (updated.sent, updated.received, len(updated.requests_ms)) == (3, 3, 4)
    assert peers.connections == 1


async def test_a_connection_that_ends_is_an_error(peers, papers):
    judges.require("openssl")
    to = Address(NAME, "127.0.0.1", await peers.start(replying(OK, close=True), papers.server()))
    with pytest.raises(KeyUpdateError, match="the connection ended"):
        await asyncio.to_thread(update_keys, to, papers.trust, 3)


def test_a_connected_pair_carries_data_both_ways():
    client, server = Ends("ECDSA P-256", "TLSv1.3").connect()
    client.write(b"ping")
    server.receive(client.to_send())
    assert server.read() == b"ping"
