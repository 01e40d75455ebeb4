"""Forwards published ports, TCP and UDP, from the machine's 127.0.0.1 to the network of a host.

Listening sockets belong to the machine's network and upstream sockets to the host's, so no route between the two is
needed.  The forwarder is a separate process, so that traffic never delays the supervisor.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netns_engine.errors import LabError
from netns_engine.messages import Protocol

#: Read size in bytes (CHUNK); time without a reply after which a UDP client expires, in seconds (IDLE); number of UDP
#: clients above which expired clients are removed (MAX_CLIENTS).
CHUNK, IDLE, MAX_CLIENTS = 64 * 1024, 30.0, 512


@dataclass(frozen=True, slots=True)
class Published:
    """One published port, with its listening socket."""

    listener: socket.socket
    host: str
    #: Port number on the host.
    target: int


#: Factory for sockets in a host's network, called with host name and protocol; raises `LabError` if the host is not
#: running.
Dial = Callable[[str, Protocol], socket.socket]


def run(ports: Sequence[Published], dial: Dial) -> None:
    """Forward all *ports* until the process is killed."""
    asyncio.run(_forward(ports, dial))


async def _forward(ports: Sequence[Published], dial: Dial) -> None:
    async with asyncio.TaskGroup() as group:
        for port in ports:
            port.listener.setblocking(False)
            work = _accept if port.listener.type == socket.SOCK_STREAM else _relay
            group.create_task(work(port, dial))


# --- TCP --------------------------------------------------------------------------------------------------------------


async def _accept(port: Published, dial: Dial) -> None:
    loop = asyncio.get_running_loop()
    connections = set()
    while True:
        client, _ = await loop.sock_accept(port.listener)
        task = asyncio.create_task(_connect(port, dial, client))
        connections.add(task)
        task.add_done_callback(connections.discard)


async def _connect(port: Published, dial: Dial, client: socket.socket) -> None:
    """Forward one TCP connection; close it immediately if the host is not running."""
    try:
        upstream = dial(port.host, "tcp")
    except LabError:
        client.close()
        return
    upstream.setblocking(False)
    for sock in (client, upstream):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with client, upstream:
            await asyncio.get_running_loop().sock_connect(upstream, ("127.0.0.1", port.target))
            await asyncio.gather(_copy(client, upstream), _copy(upstream, client))
    except OSError:
        return


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, CHUNK):
        await loop.sock_sendall(sink, data)
    with contextlib.suppress(OSError):  # shutdown fails if the connection is already closed
        sink.shutdown(socket.SHUT_WR)


# --- UDP --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Client:
    """State of one UDP client: its upstream socket and last datagram."""

    upstream: socket.socket
    #: Most recent datagram from the client, which is sent again after a host restart.
    last: bytes


async def _relay(port: Published, dial: Dial) -> None:
    loop = asyncio.get_running_loop()
    clients: dict[tuple[str, int], tuple[_Client, asyncio.Task[None]]] = {}
    while True:
        try:
            data, address = await loop.sock_recvfrom(port.listener, CHUNK)
        except OSError:  # an ICMP error for an earlier reply
            continue
        known = clients.get(address)
        if known is not None and not known[1].done():
            client = known[0]
            client.last = data
        else:
            if len(clients) >= MAX_CLIENTS:
                clients = {at: each for at, each in clients.items() if not each[1].done()}
            try:
                client = _Client(_towards(port, dial), data)
            except LabError:
                continue
            clients[address] = client, asyncio.create_task(_answers(client, address, port, dial))
        with contextlib.suppress(OSError):
            await loop.sock_sendall(client.upstream, data)


async def _answers(client: _Client, address: tuple[str, int], port: Published, dial: Dial) -> None:
    """Forward replies to the client until none arrives for `IDLE` seconds or the host's port is closed."""
    loop, answered = asyncio.get_running_loop(), False
    try:
        while True:
            try:
                answer = await asyncio.wait_for(loop.sock_recv(client.upstream, CHUNK), IDLE)
            except ConnectionRefusedError:
                if not answered:
                    return
                # If the host was restarted, this socket is in its previous network namespace, which has no processes
                # left.
                client.upstream.close()
                client.upstream, answered = _towards(port, dial), False
                await loop.sock_sendall(client.upstream, client.last)
            else:
                answered = True
                await loop.sock_sendto(port.listener, answer, address)
    except (OSError, TimeoutError, LabError):
        return
    finally:
        client.upstream.close()


def _towards(port: Published, dial: Dial) -> socket.socket:
    upstream = dial(port.host, "udp")
    upstream.setblocking(False)
    upstream.connect(("127.0.0.1", port.target))
    return upstream
