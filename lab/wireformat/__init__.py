"""Wire formats that several packages read or write, one sans-IO module each: no sockets, no clocks.

`http1` and `http1_reader` (RFC 9112), `tls` (RFC 8446, over memory), `ip` (Ethernet, IPv4, TCP, UDP), `pcap` and `pcapng`.
Import the module that you need: name servers must not pay for `ssl` or httptools.
"""
