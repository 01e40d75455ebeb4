"""Extensions for Locust: request phases, TLS resumption, DNS, open-loop arrivals, kernel counters and load shapes.

A locustfile must import locust before any other module, because locust patches sockets and TLS for all later imports.
Each Locust user is a greenlet; this package does not use asyncio.
"""
