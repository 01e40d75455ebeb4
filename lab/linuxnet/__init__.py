"""Linux networking as one process sees it: kernel counters, TCP sockets (sock_diag), their recorder, source ports.

Standard library only.  Everything concerns the network namespace that the process is in.
"""
