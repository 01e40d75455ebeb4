"""Monitor of TLS endpoints: certificate, chain, names, revocation, and the served certificate against the file on disk.

Two probers that share no code look at each endpoint; alarms go to a log, to webhooks and to Prometheus.
"""
