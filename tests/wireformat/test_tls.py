"""Tests for in-memory TLS: handshake, data, resumption and close."""

import ssl
from pathlib import Path

import pytest

from tests.handshakes import ends, shake_hands
from tests.peers import NAME, Papers
from wireformat.tls import TlsConnection, client_context


def connected(papers: Papers, version: str = "1.3") -> tuple[TlsConnection, TlsConnection]:
    client, server = ends(client_context(papers.trust, version), papers.server(), NAME)
    shake_hands(client, server)
    return client, server


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_data_passes_both_ways(papers: Papers, version: str) -> None:
    client, server = connected(papers, version)
    assert client.object.version() == f"TLSv{version}"
    for end, peer in ((client, server), (server, client)):
        end.write(b"hello")
        assert peer.read() is None
        peer.receive(end.to_send())
        assert peer.read() == b"hello"
    assert repr(client) == f"<TlsConnection TLSv{version} established>"


def test_close_notify_is_sent_once_and_ends_the_peer_s_reading(papers: Papers) -> None:
    client, server = connected(papers)
    client.close()
    server.receive(client.to_send())
    client.close()
    assert (client.to_send(), server.read()) == (b"", b"")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed_in_its_context(papers: Papers, version: str) -> None:
    mine, theirs = client_context(papers.trust, version), papers.server()
    client, server = ends(mine, theirs, NAME)
    shake_hands(client, server)
    client.read()  # TLS 1.3 sends session tickets after the handshake
    again, server = ends(mine, theirs, NAME, client.session)
    shake_hands(again, server)
    assert again.object.session_reused


def test_a_client_refuses_another_name_with_an_alert(papers: Papers) -> None:
    client, server = ends(client_context(papers.trust), papers.server(), "far.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, server)
    server.receive(client.to_send())
    with pytest.raises(ssl.SSLError, match="BAD_CERTIFICATE"):
        server.handshake()


def test_the_end_of_the_bytes_during_a_handshake_is_an_error(papers: Papers) -> None:
    client = TlsConnection(client_context(papers.trust), NAME)
    client.handshake()
    client.end()
    with pytest.raises(ssl.SSLEOFError):
        client.handshake()


def test_other_versions_and_trust_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected TLS version 1\.2 or 1\.3, got '1\.1'"):
        client_context(None, "1.1")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ssl.SSLError):
        client_context(tmp_path / "empty.pem")
