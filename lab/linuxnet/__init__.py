"""Linux networking of one process: kernel counters, TCP sockets (sock_diag), a recorder for both, and source ports.

Standard library only. All functions apply to the network namespace of the calling process.
"""
