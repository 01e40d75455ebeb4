"""Wire formats that several packages read or write, with one sans-IO module per format.

`http1` and `http1_reader` (RFC 9112), `tls` (RFC 8446, in memory), `ip` (Ethernet, IPv4, TCP, UDP), `pcap` and
`pcapng`. Import the modules individually, so that name servers do not load `ssl` or httptools.
"""
