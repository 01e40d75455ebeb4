"""Options that the locustfile adds to Locust's own: on the command line, as ``LOCUST_…`` variables, and in the web page."""

import os
from typing import Any

from hostfiles.layout import TRUST_ANCHOR
from swarm.shapes import SHAPES

#: Where the lab's root certificate is, in a container.
TRUST = os.environ.get("FIRSTBYTE_TRUST", str(TRUST_ANCHOR))


def add_options(parser: Any) -> None:
    """Add ours to Locust's argument parser (event ``init_command_line_parser``)."""
    add = parser.add_argument  # not a group: only the parser itself can keep an option out of the web page
    add(
        "--arrival-rate", type=float, default=0.0, env_var="LOCUST_ARRIVAL_RATE", metavar="PER_S",
        help="open loop: each user begins so many requests per second, whether or not earlier ones are done (0: closed loop)",
    )  # fmt: skip
    add(
        "--arrivals", choices=["exponential", "even"], default="exponential", env_var="LOCUST_ARRIVALS",
        help="how the requests of an open loop are spaced",
    )  # fmt: skip
    add(
        "--paths",
        default="/items /items /items /items /news",
        env_var="LOCUST_PATHS",
        help="asked in an order drawn at random",
    )
    add(
        "--tls",
        choices=["best", "1.2", "1.3"],
        default="best",
        env_var="LOCUST_TLS",
        help="version of TLS that is offered",
    )
    add(
        "--names", default="www.example.com far.example.com news.example.com nowhere.example.com", env_var="LOCUST_NAMES",
        help="names that DnsUser asks for; a host dns://ADDRESS says whom, otherwise the host's own resolver",
    )  # fmt: skip
    add(
        "--resolver",
        default="",
        env_var="LOCUST_RESOLVER",
        metavar="ADDRESS:PORT",
        help="instead of /etc/resolv.conf's",
    )
    add("--trust", default=TRUST, env_var="LOCUST_TRUST", help="root certificates that every chain is verified against")
    add(
        "--shape", choices=["none", *SHAPES], default="none", env_var="LOCUST_SHAPE", include_in_web_ui=False,
        help="users over time, up to --users, for --run-time (in the web page: Load Shape)",
    )  # fmt: skip
