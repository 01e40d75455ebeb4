"""What scenarios measure and draw with: clients, in-memory handshakes, the analysis of answers, and charts.

A scenario's own file keeps its claim, parameters, prediction and conclusion.
"""
