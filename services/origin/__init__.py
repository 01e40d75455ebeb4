"""Origin server behind the edge: a catalog or a newsroom, served over mutual TLS, and the client of its mailbox.

This file imports nothing, so that the mailbox client starts without loading the server.
"""
