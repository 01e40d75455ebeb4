"""Additions for Locust users: request phases, TLS resumption, DNS, open-loop arrivals, kernel counters, shapes.

A locustfile has to import locust first, because locust patches sockets and TLS for all later imports.  Nothing here
runs an event loop; each user is a greenlet.
"""
