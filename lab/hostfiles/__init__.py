"""A host's files: where they are, atomic writes, TOML files whose errors name their line.  Standard library only."""
