"""An origin: what stands behind the edge and answers (catalog or news), over mutual TLS."""

from origin.application import Options, build

__all__ = ["Options", "build"]
