"""TLS server contexts that reload changed certificate files without dropping handshakes, for asyncio and aiohttp."""

from tlsreload.context import CertificateFiles, ReloadError, ReloadingContext

__all__ = ["CertificateFiles", "ReloadError", "ReloadingContext"]
