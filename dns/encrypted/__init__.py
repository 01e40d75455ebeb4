"""A resolver with encrypted transport: DNS over TLS and HTTPS, with a certificate that it obtains and renews itself.

It is a separate package because its certificate needs cryptography and aiohttp, which the plain servers do not load.
"""
