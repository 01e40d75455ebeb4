"""TLS handshakes in memory, for tests."""

import ssl

from wireformat.tls import TlsConnection


def shake_hands(client: TlsConnection, server: TlsConnection) -> tuple[bytes, bytes]:
    """Complete a handshake between *client* and *server*; return all bytes that each of them sent.

    Raises:
        ssl.SSLError: one side rejected the handshake.
    """
    sent = [b"", b""]
    for _ in range(3):
        for number, (end, peer) in enumerate(((client, server), (server, client))):
            end.handshake()
            data = end.to_send()
            sent[number] += data
            peer.receive(data)
    assert client.established
    assert server.established
    return sent[0], sent[1]


def ends(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None
) -> tuple[TlsConnection, TlsConnection]:
    """Return a TLS client that requests the server name *name*, and a TLS server."""
    return TlsConnection(client, name, session), TlsConnection(server, None)
