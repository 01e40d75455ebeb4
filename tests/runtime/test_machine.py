"""Tests for the findings of `firstbyte doctor`, including the consequence and remedy of each."""

import ipaddress
import sys

import pytest

from netns_engine.host import is_mapped
from runtime import machine
from runtime.machine import Finding, Grade

SUBNET = ipaddress.IPv4Network("198.19.0.0/16")
SETTINGS = {key: expected[0][-1] for key, expected in machine.EXPECTED.items()}

OK, LIMITED, UNFIT = Grade.OK, Grade.LIMITED, Grade.UNFIT


@pytest.mark.parametrize(
    ("finding", "grade", "word"),
    [
        pytest.param(machine.docker("", alone=True), OK, "answers", id="docker"),
        pytest.param(
            machine.docker("no Docker engine answers", alone=False),
            LIMITED,
            "runtime netns, which works",
            id="no-engine",
        ),
        pytest.param(machine.docker("no Docker engine answers", alone=True), UNFIT, "install Docker", id="no-runtime"),
        pytest.param(
            machine.netns("expected the device /dev/net/tun, got none: load tun", alone=False),
            LIMITED,
            "load tun",
            id="no-tun",
        ),
        pytest.param(
            machine.netns(
                "not root, and no user namespaces: unshare: Operation not permitted: run as root", alone=True
            ),
            UNFIT,
            "unshare: Operation not permitted the runtime netns run as root",
            id="no-netns",
        ),
        pytest.param(machine.services_user(1000, "/usr"), OK, "uid 1000", id="own-user"),
        pytest.param(machine.services_user(0, "/root/python"), LIMITED, "/root/python", id="closed-home"),
        pytest.param(machine.services_user(1234, "/usr"), LIMITED, "as root", id="user-namespace"),
        pytest.param(machine.limits(["memory", "pids"]), OK, "by cgroup", id="cgroups"),
        pytest.param(machine.limits(["pids"]), LIMITED, "no cgroup for memory", id="no-memory-controller"),
        pytest.param(machine.congestion_control(["reno", "cubic", "bbr"], "bbr"), OK, "hosts use reno", id="controls"),
        pytest.param(
            machine.congestion_control(["reno"], "reno"),
            LIMITED,
            "modprobe tcp_cubic; modprobe tcp_bbr",
            id="reno-only",
        ),
        pytest.param(machine.congestion_control(["cubic"], "cubic"), UNFIT, "modprobe tcp_reno", id="no-reno"),
        pytest.param(machine.settings(SETTINGS, "x"), OK, "5 as", id="sysctls"),
        pytest.param(
            machine.settings({**SETTINGS, "net.ipv4.tcp_tw_reuse": "1"}, "x"),
            LIMITED,
            "sysctl -w net.ipv4.tcp_tw_reuse=2",
            id="tw-reuse",
        ),
        pytest.param(
            machine.settings({**SETTINGS, "net.ipv4.tcp_tw_reuse": "1"}, "x", {"net.ipv4.tcp_tw_reuse": "1"}),
            OK,
            "5 as scenarios need them; net.ipv4.tcp_tw_reuse=1 by the compose file",
            id="set-by-the-compose-file",
        ),
        pytest.param(
            machine.settings({**SETTINGS, "net.ipv4.tcp_sack": "0"}, "x", {"net.ipv4.tcp_tw_reuse": "1"}),
            LIMITED,
            "sysctl -w net.ipv4.tcp_sack=1",
            id="not-set-by-the-compose-file",
        ),
        pytest.param(
            machine.settings({**SETTINGS, "net.ipv4.tcp_sack": ""}, "x"), OK, "5 as", id="a-kernel-without-the-setting"
        ),
        pytest.param(machine.openssl("OpenSSL 3.5.1 1 Jul 2025", (3, 5)), OK, "X25519MLKEM768", id="post-quantum"),
        pytest.param(
            machine.openssl("OpenSSL 3.0.19 27 Jan 2026", (3, 0)),
            LIMITED,
            "OpenSSL 3.0.19: no",
            id="before-post-quantum",
        ),
        pytest.param(machine.python((3, 13)), OK, "strictly", id="strict-python"),
        pytest.param(machine.python((3, 11)), LIMITED, "3.11", id="lax-python"),
        pytest.param(machine.cores(4, 0.3), OK, "4, of which other programs use 0.3", id="idle"),
        pytest.param(machine.cores(2, 1.3), UNFIT, "stop them", id="busy"),
        pytest.param(machine.cores(1, 0.1), LIMITED, "share one core", id="one-core"),
        pytest.param(machine.timer([0.0001] * 98 + [0.0015] * 2), OK, "0.10 ms in the median, 1.50", id="timer"),
        pytest.param(machine.timer([0.0001] * 90 + [0.009] * 10), LIMITED, "figures below 9 ms", id="late-at-times"),
        pytest.param(machine.timer([0.002] * 100), UNFIT, "2.00 ms in the median", id="late"),
        pytest.param(machine.clock("tsc"), OK, "tsc", id="clock"),
        pytest.param(machine.clock("hpet"), LIMITED, "clocksource=tsc", id="slow-clock"),
        pytest.param(machine.port("127.0.0.1", 8443, "tcp", ""), OK, "free", id="port"),
        pytest.param(
            machine.port("127.0.0.1", 8443, "tcp", "Address already in use"), LIMITED, "--no-ports", id="port-in-use"
        ),
        pytest.param(
            machine.address_range(SUBNET, [("eth0", ipaddress.IPv4Network("0.0.0.0/0"))]),
            OK,
            "free",
            id="default-route",
        ),
        pytest.param(
            machine.address_range(SUBNET, [("tun9", ipaddress.IPv4Network("198.18.0.0/15"))]),
            LIMITED,
            "198.18.0.0/15 on tun9",
            id="range-in-use",
        ),
    ],
)
def test_a_finding_has_its_grade_and_says_what_to_do(finding: Finding, grade: Grade, word: str) -> None:
    assert finding.grade is grade
    assert word in f"{finding.found} {finding.disables} {finding.mend}"
    assert bool(finding.disables) == (grade is not OK)


def test_routes_are_read_in_the_machines_byte_order() -> None:
    def as_the_kernel_prints(address: str) -> str:
        return f"{int.from_bytes(ipaddress.IPv4Address(address).packed, sys.byteorder):08X}"

    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        f"eth0\t00000000\t{as_the_kernel_prints('192.0.2.1')}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        f"br0\t{as_the_kernel_prints('198.19.0.0')}\t00000000\t0001\t0\t0\t0\t"
        f"{as_the_kernel_prints('255.255.0.0')}\t0\t0\t0\n"
    )
    assert machine.routes(text) == [("eth0", ipaddress.IPv4Network("0.0.0.0/0")), ("br0", SUBNET)]


@pytest.mark.parametrize(
    ("uid_map", "known"),
    [
        pytest.param("         0          0 4294967295\n", True, id="the-machines-own"),
        pytest.param("         0       1234          1\n", False, id="one-user"),
        pytest.param("0 1234 1\n1 100000 65536\n", True, id="subordinate-uids"),
    ],
)
def test_a_uid_map_is_read_as_ranges(uid_map: str, known: bool) -> None:
    assert is_mapped(1000, uid_map) is known


def test_sleeps_are_not_measured_as_early() -> None:
    late = machine.timer_lateness(20)
    assert len(late) == 20
    assert min(late) > -0.0005
