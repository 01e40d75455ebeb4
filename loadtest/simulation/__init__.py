"""Simulations of up to 10⁹ independent clients, vectorised with numpy.

A closed form of `theory` says what to expect; a simulation follows every client through the events from which the
formula was derived, and does not use the formula.
"""
