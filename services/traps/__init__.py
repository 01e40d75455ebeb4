"""Test servers for any HTTPS client: each has exactly one known defect, except for the controls, which have none."""
