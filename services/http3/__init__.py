"""HTTP/3 server on aioquic (RFC 9114, RFC 9000), to compare QUIC with TCP: responses of any size, and early data.

It has no state and answers only GET and HEAD, so that requests in early data, which an attacker may replay, are safe.
"""
