"""A plan as configuration of nginx, HAProxy, Envoy, or the Linux kernel.

Each line that follows from the plan has a comment with the reason.  A range is replaced by its end on the safe side.
"""

import math
from collections.abc import Callable
from typing import Literal

from planner.inputs import Inputs
from planner.plan import Plan
from planner.rows import safe_idle

Format = Literal["nginx", "haproxy", "envoy", "sysctl"]
FORMATS: tuple[Format, ...] = ("nginx", "haproxy", "envoy", "sysctl")


def render_settings(plan: Plan, form: Format) -> str:
    """Return the configuration that follows from *plan*, as text."""
    writers: dict[Format, Callable[[Plan], str]] = {
        "nginx": _nginx, "haproxy": _haproxy, "envoy": _envoy, "sysctl": _sysctl,
    }  # fmt: skip
    return writers[form](plan)


def _largest(plan: Plan, key: str) -> int:
    value = plan.row(key).value
    return 0 if value is None else math.ceil(value.high)


def _pool(plan: Plan) -> int:
    return max(1, plan.low.pool or _largest(plan, "pool_p99"))


def _idle(inputs: Inputs) -> int:
    """Return the idle time-out for connections to origins, in whole seconds: at least 1 s less than the origins'."""
    return max(1, math.floor(safe_idle(inputs)) - 1)


def _tickets(plan: Plan) -> str:
    return "off" if plan.low.tls == "none" else "on"


def _nginx(plan: Plan) -> str:
    ttl = max(1, math.floor(plan.low.ttl))
    return f"""\
# Every worker process has its own pool: divide `keepalive` by worker_processes.
upstream origins {{
    server origin.example.com:443;
    # {_pool(plan)} connections carry {plan.high.rps:g} requests/s with an acceptable wait at p99.
    keepalive {_pool(plan)};
    # One second less than the origin's own time-out minus a round trip, so that no request meets its FIN.
    keepalive_timeout {_idle(plan.low)}s;
}}
server {{
    listen 443 ssl;
    ssl_certificate /etc/ssl/service.pem;
    ssl_certificate_key /etc/ssl/service.key;
    # Look up addresses again after the TTL; a lookup counts only for names in variables (`proxy_pass https://$name`).
    resolver 127.0.0.1 valid={ttl}s;
    ssl_protocols {"TLSv1.3" if plan.low.tls == "1.3" else "TLSv1.2"};
    ssl_session_tickets {_tickets(plan)};
    location / {{
        proxy_pass https://origins;
        # Both lines are needed before nginx reuses a connection.
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }}
}}
"""


def _haproxy(plan: Plan) -> str:
    return f"""\
backend origins
    # Reuse connections for every request, not only for those that can be retried.
    http-reuse always
    # At most {_pool(plan)} requests at a time, which carry {plan.high.rps:g} requests/s; the others wait in the queue.
    # Idle connections are closed before the origin closes them, so that no request meets its FIN.
    default-server maxconn {_pool(plan)} pool-max-conn {_pool(plan)} pool-purge-delay {_idle(plan.low)}s
    server origin1 127.0.0.1:8443 ssl verify required ca-file /etc/ssl/certs/ca-certificates.crt
"""


def _envoy(plan: Plan) -> str:
    return f"""\
clusters:
- name: origins
  type: STRICT_DNS
  # Look up addresses again after the TTL.
  respect_dns_ttl: true
  circuit_breakers:
    thresholds:
    # {_pool(plan)} connections carry {plan.high.rps:g} requests/s with an acceptable wait at p99.
    - max_connections: {_pool(plan)}
      max_pending_requests: {2 * _pool(plan)}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      # One second less than the origin's own time-out minus a round trip, so that no request meets its FIN.
      common_http_protocol_options: {{idle_timeout: {_idle(plan.low)}s}}
      explicit_http_config: {{http_protocol_options: {{}}}}
"""


def _sysctl(plan: Plan) -> str:
    waiting = _largest(plan, "waiting") + _largest(plan, "unpooled")
    backlog = max(4096, 2 ** math.ceil(math.log2(max(1.0, plan.high.opened))))
    return f"""\
# More source ports for connections to origins: 64,512 instead of 28,232 per address and destination.
net.ipv4.ip_local_port_range = 1024 65535
# A port in TIME-WAIT may be reused after a second for outgoing connections (RFC 6191); needs timestamps on both ends.
net.ipv4.tcp_tw_reuse = 1
# Without a pool, up to {waiting} sockets are in TIME-WAIT; beyond this limit the kernel removes them early.
net.ipv4.tcp_max_tw_buckets = {max(65_536, 2 * waiting)}
# One second of new connections ({plan.high.opened:g}/s) fits into the accept queue while the server is busy.
net.core.somaxconn = {backlog}
net.ipv4.tcp_max_syn_backlog = {backlog}
"""
