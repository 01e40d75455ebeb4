"""Support for every lab host: standard paths, atomic writes, TOML errors with line numbers, the health probe.

Standard library only.
"""
