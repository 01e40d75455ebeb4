"""Test of a key and chain before a service uses them: strict TLS handshakes in memory.

The peers apply RFC 5280 strictly (Python's default since 3.13), limit the size of the chain as OpenSSL does, and check
the purposes of the certificate.  `renewal.material` checks the dates, because it can use the service's clock.
"""

import os
import ssl

from renewal.errors import PairError
from wireformat.tls import TlsConnection

#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME; Python's `ssl` has no constant for it.
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
#: Maximum number of rounds in which the two peers exchange messages; TLS 1.3 needs two.
EXCHANGES = 6


def prove(pem: bytes, name: str, anchors: str, *, as_client: bool) -> None:
    """Raise `PairError` unless strict peers accept the key and chain.

    Args:
        pem: private key and chain, in PEM.
        name: DNS name that the client requests (SNI).
        anchors: trusted root certificates, in PEM.
        as_client: whether servers that require a client certificate must accept the pair as well.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_pair(server, pem)
    _trust(client, anchors)
    if as_client:
        load_pair(client, pem)
        server.verify_mode = ssl.CERT_REQUIRED
        _trust(server, anchors)
    ends = TlsConnection(client, name), TlsConnection(server, None)
    try:
        for _ in range(EXCHANGES):
            for end, peer in (ends, ends[::-1]):
                end.handshake()
                peer.receive(end.to_send())
    except ssl.SSLCertVerificationError as error:
        role = "a server" if end.object.server_side else "a client"
        reason = f"{role} says: {error.verify_message}"
        raise PairError(f"expected a chain that leads to our trust anchor, {reason}") from None
    except ssl.SSLError as error:
        raise PairError(f"expected a pair that completes a handshake, got {error.reason or error}") from None
    if not (ends[0].established and ends[1].established):
        raise PairError("expected a pair that completes a handshake, and it does not")


def load_pair(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a key and chain into *context* without writing the key to disk.

    Raises:
        PairError: OpenSSL rejects the key or the chain.
    """
    file = os.memfd_create("pair", os.MFD_CLOEXEC)  # OpenSSL loads keys and chains from files only
    try:
        with open(file, "wb", closefd=False) as writer:
            writer.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{file}", password=b"")
    except (ssl.SSLError, ValueError) as error:
        raise PairError(f"OpenSSL rejects this pair: {error}") from None
    finally:
        os.close(file)


def _trust(context: ssl.SSLContext, anchors: str) -> None:
    context.load_verify_locations(cadata=anchors)
    context.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
