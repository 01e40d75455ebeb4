"""``/whoami``: describes the connection on which the request arrived, as observed by the server."""

import socket
import ssl
from typing import Any

from aiohttp import web

from linuxnet.tcp_info import congestion_control, tcp_info
from origin.key_exchange import Groups


def describe(request: web.Request, name: str, groups: Groups) -> dict[str, Any]:
    """Return the addresses, TCP state, TLS parameters and client identity of a request's connection."""
    tls: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    peer, local = request.get_extra_info("peername"), request.get_extra_info("sockname")
    fields = {field.lower(): value for field, value in request.headers.items()}
    body: dict[str, Any] = {
        "origin": name,
        "peer": f"{peer[0]}:{peer[1]}" if peer else None,
        "local": f"{local[0]}:{local[1]}" if local else None,
        "http_version": f"{request.version.major}.{request.version.minor}",
        "forwarded": {field: value for field, value in fields.items() if field.startswith("x-forwarded-")},
        "via": request.headers.get("Via"),
        "tls": None,
        "tcp": _tcp(request.get_extra_info("socket")),
    }
    if tls is not None:
        cipher = tls.cipher()
        body["tls"] = {
            "version": tls.version(),
            "cipher": cipher[0] if cipher else None,
            "group": groups.of(tls),
            "resumed": bool(tls.session_reused),
            "client": client_names(request),
            "client_serial": f"{client_serial(request):x}",
        }
    return body


def client_names(request: web.Request) -> list[str]:
    """Return the DNS names in the client's certificate, which OpenSSL has verified."""
    certificate = request.get_extra_info("peercert")
    return [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]


def client_serial(request: web.Request) -> int:
    """Return the serial number of the client's certificate, or 0 if the client has no certificate."""
    certificate = request.get_extra_info("peercert")
    return int((certificate or {}).get("serialNumber", "0"), 16)


def _tcp(sock: socket.socket | None) -> dict[str, Any] | None:
    """Return the kernel's data on the connection (TCP_INFO)."""
    if sock is None:
        return None
    info = tcp_info(sock)
    return {
        "state": info.state,
        "rtt_ms": info.rtt_ms,
        "congestion_window": info.congestion_window,
        "retransmissions": info.retransmissions,
        "congestion_control": congestion_control(sock),
    }
