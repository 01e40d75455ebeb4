"""TLS for asyncio servers: contexts that reload changed certificate files without dropped handshakes, and a transport.

Standard library only, so that name servers can use it.
"""

from tlsreload.context import CertificateFiles, ReloadError, ReloadingContext
from tlsreload.transport import TlsTransport

__all__ = ["CertificateFiles", "ReloadError", "ReloadingContext", "TlsTransport"]
