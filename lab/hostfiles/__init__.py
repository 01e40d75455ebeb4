"""Files of a host: atomic writes, and TOML files that report errors with their line.  Standard library only."""
