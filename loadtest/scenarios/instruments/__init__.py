"""Measuring and plotting code of the scenarios: clients, in-memory handshakes, response analysis and charts.

Claim, parameters, prediction and conclusion are in the scenario's own module.
"""
