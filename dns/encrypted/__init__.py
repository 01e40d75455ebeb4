"""A resolver with encrypted transport: DNS over TLS and HTTPS, with a certificate that it obtains and renews itself.

It is a separate package because obtaining the certificate requires the libraries cryptography and aiohttp, which the
plain servers do not load.
"""
