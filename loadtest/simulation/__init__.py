"""Simulations of up to 10⁹ independent clients, vectorised with numpy.

A simulation follows every client through the events from which a closed form in `theory` was derived, without using
the closed form, so that simulation and closed form can be checked against each other.
"""
