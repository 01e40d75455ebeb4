"""An origin: what stands behind the edge and answers (catalog or news), over mutual TLS."""

from origin.application import Options, build, request_counter

__all__ = ["Options", "build", "request_counter"]
