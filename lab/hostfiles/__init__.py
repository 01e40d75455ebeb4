"""Files of a lab host: standard paths, atomic writes, and TOML errors with line numbers. Standard library only."""
