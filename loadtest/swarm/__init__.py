"""What Locust lacks, for its users: phases of every request, a DNS client, arrivals by schedule, kernel counters, shapes.

A locustfile imports locust first: it patches sockets and TLS, and what was imported before is not patched.  Nothing here
runs an event loop; one greenlet is one user.
"""
