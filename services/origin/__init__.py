"""Origin server behind the edge: a catalog or a newsroom, served over mutual TLS."""

from origin.application import Options, build, request_counter

__all__ = ["Options", "build", "request_counter"]
