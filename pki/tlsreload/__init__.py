"""A TLS context that follows its certificate files, for any asyncio or aiohttp server: no handshake is dropped."""

from tlsreload.context import CertificateFiles, ReloadError, ReloadingContext

__all__ = ["CertificateFiles", "ReloadError", "ReloadingContext"]
