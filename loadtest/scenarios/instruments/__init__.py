"""Measuring and plotting code of the scenarios: clients, in-memory handshakes, response analysis and charts.

The scenario's own module keeps its claim, parameters, prediction and conclusion.
"""
