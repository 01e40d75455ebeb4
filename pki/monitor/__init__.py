"""Monitors TLS endpoints: checks certificate, chain, names and revocation, and compares the certificate with its file.

Two probers that share no code check each endpoint; alarms are sent to a log, to webhooks and to Prometheus.
"""
