"""HTTP/3 server based on aioquic (RFC 9114, RFC 9000), for comparing QUIC with TCP.

The server sends responses of any requested size and accepts early data.  It is stateless and answers only GET and HEAD,
because an attacker may replay requests in early data.
"""
