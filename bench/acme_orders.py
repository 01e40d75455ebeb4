"""Measures how many http-01 orders per CPU-second our ACME server and Pebble complete for 50 concurrent clients.

    python bench/acme_orders.py [--orders 400] [--rounds 3] [--json]

Both servers validate every order through our name server and a small web server. Rounds alternate between the servers.
Pebble's artificial delays and random nonce rejections are disabled. Every client has its own account and TLS
connection, created before the CPU time is measured. A round in which an order fails does not count. A final round with
250 clients counts how many orders fail on our server. Requires Pebble (Debian package `pebble`); if it is missing, only
our server is measured.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import ssl
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from edge_rig import certificate, cpu_seconds, free_port, missing, running

from acme_server.jws import encode, public_jwk, thumbprint
from authority import Ceremony

#: Minimum ratio of our server's orders per CPU-second to Pebble's.
BAR = 1.2
#: Number of clients in the comparison with Pebble, and number of clients in the round that counts failed orders.
CLIENTS, CROWD = 50, 250
#: Interval between polls of an authorization or order, in seconds.
POLL = 0.02
#: Maximum number of attempts for each round; Pebble sometimes stops answering newOrder requests.
ATTEMPTS = 3
#: Time after which an order counts as failed, in seconds.
ORDER_TIMEOUT = 20.0
ZONE = "$TTL 3600\n@ IN SOA ns h 1 7200 1800 1209600 300\n@ IN NS ns\n* IN A 127.0.0.1\n"
#: Context manager that starts a server. Its arguments are a folder, the port of the name server, and the port of the
#: web server for http-01; it yields the process ID and the directory URL.
Server = Callable[[Path, int, int], AbstractContextManager[tuple[int, str]]]
_numbers = itertools.count()


class _Loopback(AbstractResolver):
    """Resolves every name to 127.0.0.1."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Do nothing: the resolver holds no resources."""


class Client:
    """An ACME client with one account and one connection."""

    def __init__(self, directory: str, answers: dict[str, str]) -> None:
        self._directory_url, self._answers = directory, answers
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._jwk = public_jwk(self._key.public_key()) or {}
        self._kid: str | None = None
        self._nonce = ""
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # Pebble's certificate is for a different name
        connector = aiohttp.TCPConnector(limit=1, ssl=trust, resolver=_Loopback())
        self._http = aiohttp.ClientSession(connector=connector)
        self._urls: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        async with self._http.get(self._directory_url) as response:
            self._urls = await response.json()
        async with self._http.head(self._urls["newNonce"]) as response:
            self._nonce = response.headers["Replay-Nonce"]
        _, headers = await self.post(self._urls["newAccount"], {"termsOfServiceAgreed": True})
        self._kid = headers["Location"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def order(self) -> None:
        """Complete one order for a single name; raise an error if any step fails."""
        name = f"n{next(_numbers)}.example.com"
        order, headers = await self.post(self._urls["newOrder"], {"identifiers": [{"type": "dns", "value": name}]})
        (url,) = order["authorizations"]
        authorization, _ = await self.post(url, None)
        challenge = next(each for each in authorization["challenges"] if each["type"] == "http-01")
        token = challenge["token"]
        self._answers[token] = f"{token}.{thumbprint(self._jwk)}"
        await self.post(challenge["url"], {})
        await self._until_valid(url)
        subject = x509.SubjectAlternativeName([x509.DNSName(name)])
        request = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(subject, critical=True)
        csr = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
        order, _ = await self.post(order["finalize"], {"csr": encode(csr)})
        if order["status"] != "valid":
            order = await self._until_valid(headers["Location"])
        pem, _ = await self.post(order["certificate"], None)
        if "BEGIN CERTIFICATE" not in pem:
            raise ValueError(f"expected a certificate, got {pem!r}")

    async def _until_valid(self, url: str) -> dict[str, Any]:
        while (body := (await self.post(url, None))[0])["status"] != "valid":
            if body["status"] == "invalid":
                raise ValueError(f"expected a valid order, got {body}")
            await asyncio.sleep(POLL)  # wait before the next poll (RFC 8555 section 7.5.1)
        return dict(body)

    async def post(self, url: str, payload: dict[str, Any] | None) -> tuple[Any, dict[str, str]]:
        """Send a signed request (a POST-as-GET if *payload* is None); return the response's body and headers."""
        key = {"kid": self._kid} if self._kid else {"jwk": self._jwk}
        protected = encode(json.dumps({"alg": "ES256", "nonce": self._nonce, "url": url, **key}).encode())
        content = "" if payload is None else encode(json.dumps(payload).encode())
        r, s = decode_dss_signature(self._key.sign(f"{protected}.{content}".encode(), ec.ECDSA(hashes.SHA256())))
        signature = base64.urlsafe_b64encode(r.to_bytes(32) + s.to_bytes(32)).rstrip(b"=").decode()
        body = json.dumps({"protected": protected, "payload": content, "signature": signature})
        async with self._http.post(url, data=body, headers={"Content-Type": "application/jose+json"}) as response:
            self._nonce = response.headers["Replay-Nonce"]
            text = await response.text()
            if response.status >= 300:
                raise ValueError(f"{url}: {response.status}: {text[:200]}")
            return json.loads(text) if text.startswith("{") else text, dict(response.headers)


async def load(pid: int, directory: str, answers: dict[str, str], clients: int, orders: int) -> tuple[int, int, float]:
    """Run *orders* orders in total with *clients* concurrent clients.

    Returns:
        The number of orders that succeeded, the number that failed, and the CPU time that the server *pid* used for
        them, in seconds. The CPU time excludes TLS handshakes and new accounts, which precede the first order.
    """
    results: list[bool] = []
    remaining = iter(range(orders))

    async def work(client: Client) -> None:
        for _ in remaining:
            if False in results:
                return  # a run with a failed order does not count, so finish it early
            try:
                async with asyncio.timeout(ORDER_TIMEOUT):
                    await client.order()
                results.append(True)
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                print(f"order failed: {error!r}", file=sys.stderr)
                results.append(False)

    async with contextlib.AsyncExitStack() as stack:
        every = [await stack.enter_async_context(Client(directory, answers)) for _ in range(clients)]
        before = cpu_seconds(pid)
        await asyncio.gather(*map(work, every))
        used = cpu_seconds(pid) - before
    return sum(results), results.count(False), used


@contextlib.asynccontextmanager
async def challenge_server(answers: dict[str, str]) -> AsyncIterator[int]:
    """Run a web server for http-01 challenges; yield its port."""

    async def respond(request: web.Request) -> web.Response:
        return web.Response(text=answers[request.match_info["token"]])

    application = web.Application()
    application.router.add_get("/.well-known/acme-challenge/{token}", respond)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def ours(folder: Path, dns: int, http01: int) -> Iterator[tuple[int, str]]:
    """Run our ACME server; yield its process ID and directory URL."""
    folders = [folder / name for name in ("root", "ca", "trust", "passphrase", "token")]
    for each in folders:
        each.mkdir()
    Ceremony(*folders).run(folder.stat().st_mtime)
    port = free_port()
    command = [sys.executable, "-m", "acme_server", "--listen", f"127.0.0.1:{port}", "--ca", str(folder / "ca"),
               "--passphrase-file", str(folder / "passphrase/passphrase"), "--trust", str(folder / "trust/root.pem"),
               "--name", "localhost.test", "--resolver", f"127.0.0.1:{dns}", "--http01-port", str(http01),
               "--log-level", "warning", "--admin", f"127.0.0.1:{free_port()}"]  # fmt: skip
    with running(command, port) as pid:
        yield pid, f"https://localhost.test:{port}/directory"


@contextlib.contextmanager
def pebble(folder: Path, dns: int, http01: int) -> Iterator[tuple[int, str]]:
    """Run Pebble; yield its process ID and directory URL."""
    port = free_port()
    certificate(folder)
    settings = {"listenAddress": f"127.0.0.1:{port}", "managementListenAddress": f"127.0.0.1:{free_port()}",
                "certificate": str(folder / "chain.pem"), "privateKey": str(folder / "key.pem"), "httpPort": http01,
                "tlsPort": free_port(), "ocspResponderURL": ""}  # fmt: skip
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    os.environ |= {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    command = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
    with running(command, port) as pid:
        yield pid, f"https://127.0.0.1:{port}/dir"


@contextlib.contextmanager
def name_server() -> Iterator[tuple[Path, int]]:
    """Run our name server with the zone of the names to certify; yield a temporary folder, and the server's port."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "zone").write_text(ZONE)
        command = [sys.executable, "-m", "nameserver", "--listen", f"127.0.0.1:{port}",
                   "--zone", f"example.com.={folder / 'zone'}", "--admin", f"127.0.0.1:{free_port()}"]  # fmt: skip
        with running(command, port):
            yield folder, port


async def run(kind: Server, clients: int, orders: int) -> tuple[int, int, float]:
    """Start a server of *kind* with its own name server and web server; return the same as `load`."""
    answers: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        folder, dns = stack.enter_context(name_server())
        async with challenge_server(answers) as http01:
            return await load(*stack.enter_context(kind(folder, dns, http01)), answers, clients, orders)


async def measure(orders: int, rounds: int) -> dict[str, Any]:
    servers: dict[str, Server] = {"ours": ours, **({} if missing("pebble") else {"pebble": pebble})}
    rates: dict[str, list[float]] = {"ours": [], "pebble": []}
    for _ in range(ATTEMPTS * rounds):
        if len(rates["ours"]) == rounds:
            break
        found: dict[str, float] = {}
        for name, kind in servers.items():
            done, failed, used = await run(kind, CLIENTS, orders)
            found[name] = done / used
            if failed:
                print(f"{name}: orders failed, so this round does not count", file=sys.stderr)
                break
        else:
            for name, rate in found.items():
                rates[name].append(rate)
    _, failed, _ = await run(ours, CROWD, 2 * CROWD)
    return {
        "orders_per_cpu_second": {name: round(statistics.median(each), 1) for name, each in rates.items() if each},
        "ratio": round(statistics.median(a / b for a, b in zip(rates["ours"], rates["pebble"], strict=True)), 2)
        if rates["pebble"]
        else None,
        "crowd_failed": failed,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="acme_orders", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", type=int, default=400, help="in each round (default 400)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if lacking := missing("pebble"):
        print(lacking, file=sys.stderr)
    found = asyncio.run(measure(args.orders, args.rounds))
    if args.json:
        print(json.dumps(found))
    else:
        for name, rate in found["orders_per_cpu_second"].items():
            print(f"{name:<8}{rate:8.1f} orders per CPU-second, {CLIENTS} clients at once")
        print(f"ratio   {found['ratio']}  (bar {BAR})\n{CROWD} clients at once: {found['crowd_failed']} orders failed")
    if found["ratio"] is None:
        return int(not lacking or found["crowd_failed"] > 0)
    return int(found["ratio"] < BAR or found["crowd_failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
