"""A resolver with encrypted transport: DNS over TLS and HTTPS, with a certificate that it obtains and renews itself.

It is a package of its own because it needs cryptography and aiohttp for its certificate; the plain servers start
without them.
"""
