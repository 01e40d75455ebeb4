"""Options that the locustfile adds to Locust's command line, ``LOCUST_…`` environment variables and web page."""

import argparse
import os
from typing import Any

from hostfiles.layout import TRUST_ANCHOR
from swarm import thresholds
from swarm.shapes import SHAPES

#: Path of the PEM file with the lab's root certificate.
TRUST = os.environ.get("FIRSTBYTE_TRUST", str(TRUST_ANCHOR))
PATHS = "/items /items /items /items /news"
NAMES = "www.example.com far.example.com news.example.com nowhere.example.com"


def add_options(parser: Any) -> None:
    """Add firstbyte's options to Locust's argument parser; a listener for the event ``init_command_line_parser``."""

    def add(name: str, default: Any, text: str, **more: Any) -> None:
        # Options in an argument group cannot be excluded from the web page, so there is no group.
        variable = f"LOCUST_{name.replace('-', '_').upper()}"
        parser.add_argument(f"--{name}", default=default, help=text, env_var=variable, **more)

    spacing, shapes = ["exponential", "even"], ["none", *SHAPES]
    rate = "open loop: requests that each user starts per second, whether or not earlier ones are done (0: closed loop)"
    add("arrival-rate", 0.0, rate, type=float, metavar="PER_S")
    add("arrivals", spacing[0], "how the requests of an open loop are spaced", choices=spacing)
    add(
        "arrival-seed",
        0,
        "seed of the schedules of open loops, to repeat them (0: new schedules)",
        type=int,
        metavar="N",
    )
    add("paths", PATHS, "paths to request, separated by spaces and chosen at random; repeat one to weight it")
    add("tls", "best", "TLS version to use; best offers both", choices=["best", "1.2", "1.3"])
    add("names", NAMES, "names that DnsUser queries, at the resolver or at the server given by --host dns://ADDRESS")
    add("resolver", "", "name server to use instead of those in /etc/resolv.conf", metavar="ADDRESS:PORT")
    add("trust", TRUST, "file with the root certificates (PEM) against which chains are verified")
    fail = "exit with code 1 if this holds at the end, such as 'p99>80ms, errors>0.1%%': see loadtest/swarm/README.md"
    add("fail-if", "", fail, type=_thresholds, metavar="THRESHOLDS", include_in_web_ui=False)
    add("junit", "", "file for the results of --fail-if as JUnit XML", metavar="FILE", include_in_web_ui=False)
    tally = "file for the exact histograms of this process as JSON; a master writes those of all workers"
    add("tally", "", tally, metavar="FILE", include_in_web_ui=False)
    shape = "number of users over time, up to --users, for --run-time (on the web page: Load Shape)"
    add("shape", shapes[0], shape, choices=shapes, include_in_web_ui=False)


def _thresholds(text: str) -> str:
    """Check the option ``--fail-if`` and return its text, because Locust's master sends it to all workers."""
    try:
        thresholds.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
