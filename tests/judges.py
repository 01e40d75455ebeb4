"""Finds and installs judges (independent programs that check the lab), and skips tests if a judge is missing.

``python -m tests.judges [PROGRAM…]`` installs missing judges as root on Debian or Ubuntu; otherwise it prints the
missing judges and the install command.  A test that runs a judge gets its command line from `command()`, or calls
`require()`; if the program is missing, the test is skipped, and the summary of the test run lists it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

#: Docker image of the host `lab`, which contains the judges marked `in_image`.
IMAGE = "firstbyte-lab:local"
#: Prefix of the skip reason if a judge is missing; the summary counts reasons with this prefix.
MISSING = "missing judge: "
#: Folders in which Debian installs programs that are not in an ordinary user's PATH.
SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
#: Debian's policy script for starting daemons; its exit code 101 prevents a newly installed daemon from starting.
POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True, slots=True)
class Judge:
    """An independent program whose verdict the tests rely on."""

    program: str
    #: Name of the Debian package that contains the program.
    package: str
    #: Subject of the verdict: what the tests verify with the program.
    verdict: str
    #: Whether the Docker image of the host `lab` contains the program.
    in_image: bool = False
    #: Other names of the program on other distributions.
    also: tuple[str, ...] = ()
    #: Additional Debian packages that the tests need, but that *package* does not depend on.
    extra: tuple[str, ...] = ()
    #: Whether the package contains a daemon of the same name, which must not start on installation.
    daemon: bool = False
    #: Whether the netns runtime itself needs the program to run a lab.
    runtime: bool = False
    #: Whether CI passes if the program is missing.
    optional: bool = False


JUDGES = (
    Judge("ip", "iproute2", "nothing: network namespaces need it", runtime=True),
    Judge("tini", "tini", "nothing: it is the init of a host", runtime=True),
    Judge("dig", "bind9-dnsutils", "answers of the name servers and the resolver", in_image=True),
    Judge("delv", "bind9-dnsutils", "answers over TCP", in_image=True),
    Judge("nsupdate", "bind9-dnsutils", "updates by key", in_image=True),
    Judge("knsupdate", "knot-dnsutils", "updates by key", in_image=True),
    Judge("kdig", "knot-dnsutils", "DNS over TCP, TLS and HTTPS", in_image=True),
    Judge("drill", "ldnsutils", "long answers over TCP"),
    Judge("nsupdate", "bind9-dnsutils", "updates of zones"),
    Judge("knsupdate", "knot-dnsutils", "updates of zones"),
    Judge("nsd", "nsd", "answers, and zone transfers in both directions", daemon=True),
    Judge("named", "bind9", "zone transfers in both directions", daemon=True),
    Judge("knotd", "knot", "zone transfers in both directions", daemon=True),
    Judge("tsig-keygen", "bind9", "key files"),
    Judge("unbound", "unbound", "the hierarchy, resolved by a second resolver", in_image=True, daemon=True),
    Judge("dnsperf", "dnsperf", "the time to an answer", in_image=True),
    Judge("iperf3", "iperf3", "throughput of a slow link", in_image=True),
    Judge("openssl", "openssl", "certificate chains and TLS handshakes", in_image=True),
    Judge("curl", "curl", "HTTP, and the phases of a request", in_image=True),
    Judge("nginx", "nginx", "conditional requests and ranges", daemon=True),
    Judge("gnutls-cli", "gnutls-bin", "TLS by another library"),
    Judge("ocsptool", "gnutls-bin", "OCSP responses"),
    Judge("certtool", "gnutls-bin", "certificate chains by another library"),
    Judge("sslscan", "sslscan", "what TLS a server offers"),
    Judge("testssl", "testssl.sh", "weaknesses of TLS", extra=("procps",)),
    Judge("h2load", "nghttp2-client", "HTTP/1.1 and HTTP/2 under load"),
    Judge("slowhttptest", "slowhttptest", "slow clients"),
    Judge("node", "nodejs", "HTTP by another library", also=("nodejs",), optional=True),
    Judge("tshark", "tshark", "captures, and TLS decrypted with the key log"),
    Judge("tcpdump", "tcpdump", "captures in the old format"),
    Judge("chromium", "chromium", "the console's page", also=("google-chrome",), extra=("fonts-dejavu-core",)),
    Judge(
        "nft",
        "nftables",
        "nothing: the host lab sets up a NAT with it for the scenario limits",
        in_image=True,
        optional=True,
    ),
    Judge("haproxy", "haproxy", "settings of a plan, and PROXY headers that the edge reads", daemon=True),
    Judge("certbot", "certbot", "nothing: it gets and renews the certificate of a subject that joins the lab"),
    Judge("lego", "lego", "the ACME server, as a client in Go", optional=True),
    Judge("uacme", "uacme", "the ACME server, as a client with GnuTLS", optional=True),
    Judge("apache2", "apache2-bin", "the ACME server, as a web server with mod_md", optional=True, daemon=True),
    Judge("caddy", "caddy", "the ACME server, as a web server that obtains certificates", optional=True, daemon=True),
    Judge("pebble", "pebble", "our agent, as a CA that misbehaves", optional=True),
    Judge("promtool", "promtool", "alert rules", optional=True),
)
BY_NAME = {judge.program: judge for judge in JUDGES}


def find(program: str) -> str | None:
    """Return the path of the program on this machine; None if it is not installed."""
    names = (program, *BY_NAME[program].also)
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_PATH))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def missing(programs: Iterable[str] = tuple(BY_NAME)) -> list[Judge]:
    """Return the judges among *programs* that are not installed on this machine."""
    return [BY_NAME[name] for name in programs if find(name) is None]


def install_line(judges: Iterable[Judge]) -> str:
    """Return the command that installs *judges* on Debian or Ubuntu."""
    return "apt-get install -y --no-install-recommends " + " ".join(_packages(judges))


# --- for tests --------------------------------------------------------------------------------------------------------


def require(*programs: str) -> None:
    """Skip the running test if one of *programs* is missing on this machine."""
    if lacking := missing(programs):
        pytest.skip(MISSING + ", ".join(judge.program for judge in lacking))


def require_named_in(command: Sequence[str]) -> None:
    """Skip the running test if *command*, a program with arguments or a shell script, uses a missing judge."""
    words = set(re.findall(r"[\w.-]+", " ".join(command)))
    require(*(program for program, judge in BY_NAME.items() if program in words and not judge.runtime))


def command(program: str, *arguments: str, files: Path | None = None) -> list[str]:
    """Return the command line that runs the judge *program*.

    Args:
        program: name of a known judge.
        arguments: arguments of the program.
        files: a folder that the program reads.

    If the program is missing on this machine, the command runs it from the image of the host `lab`, on this machine's
    network.  If Docker does not have that image, the test is skipped.
    """
    if found := find(program):
        return [found, *arguments]
    if not (BY_NAME[program].in_image and _image_is_here()):
        require(program)
    mount = ["--volume", f"{files}:{files}:ro"] if files else []
    return ["docker", "run", "--rm", "--interactive", "--network", "host", *mount, IMAGE, program, *arguments]


@cache
def _image_is_here() -> bool:
    if not shutil.which("docker"):
        return False
    look = ["docker", "image", "inspect", IMAGE]
    return subprocess.run(look, check=False, capture_output=True).returncode == 0


def summary(reasons: Iterable[str]) -> list[str]:
    """Return the summary lines of a test run: how many tests were skipped because of a missing judge, and the remedy.

    Args:
        reasons: the reason of each skipped test.
    """
    counts: dict[str, int] = {}
    skipped = 0
    for reason in reasons:
        _, found, programs = reason.partition(MISSING)
        skipped += bool(found)
        for program in programs.split(", ") if found else ():
            counts[program] = counts.get(program, 0) + 1
    if not skipped:
        return []
    tests = "1 test was" if skipped == 1 else f"{skipped} tests were"
    by_program = ", ".join(f"{program} ({count})" for program, count in sorted(counts.items()))
    lacking = [BY_NAME[program] for program in sorted(counts) if program in BY_NAME]
    return [
        f"{tests} skipped because a program that judges the lab is missing: {by_program}",
        f"install: {install_line(lacking)}",
    ]


# --- command line -----------------------------------------------------------------------------------------------------


def main(programs: Sequence[str]) -> int:
    """Install the missing judges among *programs* (default: all), or print which ones are missing.

    Returns:
        0 on success; 1 if the installation failed or, in CI, if a judge is still missing; 2 if a program is not a known
        judge.
    """
    if unknown := [name for name in programs if name not in BY_NAME]:
        print(f"judges: error: expected some of {', '.join(BY_NAME)}, got {unknown[0]!r}", file=sys.stderr)
        return 2
    wanted = programs or tuple(BY_NAME)
    lacking = missing(wanted)
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        if problem := _install(lacking):
            print(f"judges: error: {problem}", file=sys.stderr)
            return 1
        lacking = missing(wanted)
    if lacking:
        names = ", ".join(judge.program for judge in lacking)
        print(
            f"judges: missing: {names}; tests that need them run from the image {IMAGE} "
            "where Docker has it, or are skipped"
        )
        print(f"judges: on Debian or Ubuntu, root gets them with: {install_line(lacking)}", flush=True)
    return int("CI" in os.environ and not all(judge.optional for judge in lacking))


def _install(judges: Sequence[Judge]) -> str:
    """Install the available packages of *judges* without starting daemons; return an error message or ""."""
    print(f"judges: installing {', '.join(_packages(judges))} (Debian packages)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt(*words: str) -> str:
        done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True)
        return "" if done.returncode == 0 else f"`{' '.join(words)}`: {done.stderr.strip() or done.returncode}"

    if problem := apt("apt-get", "update", "-qq"):
        return problem
    known = [name for name in _packages(judges) if not apt("apt-cache", "show", name)]
    own_policy = not POLICY.exists()
    if own_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        POLICY.chmod(0o755)
    try:
        return apt("apt-get", "install", "-yqq", "--no-install-recommends", *known)
    finally:
        if own_policy:
            POLICY.unlink()
        for judge in judges:
            if judge.daemon and shutil.which("systemctl"):
                subprocess.run(["systemctl", "disable", "--quiet", judge.program], check=False, capture_output=True)


def _packages(judges: Iterable[Judge]) -> list[str]:
    return list(dict.fromkeys(package for judge in judges for package in (judge.package, *judge.extra)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
