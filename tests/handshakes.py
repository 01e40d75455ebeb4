"""TLS handshakes between two ends in memory."""

import ssl

from wireformat.tls import TlsConnection


def shake_hands(client: TlsConnection, server: TlsConnection) -> tuple[bytes, bytes]:
    """Run the handshake of both ends; return everything the client and the server sent.

    Raises:
        ssl.SSLError: an end refused.
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
    """Return a client that asks for *name*, and a server."""
    return TlsConnection(client, name, session), TlsConnection(server, None)
