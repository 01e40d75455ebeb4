"""Origin server behind the edge: a catalog or a newsroom, served over mutual TLS, and the client of its mailbox.

Nothing is imported here, so that the mailbox client does not pay for the server.
"""
