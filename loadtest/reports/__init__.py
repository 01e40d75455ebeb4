"""Reports of runs for human readers: HTML pages, charts, and an index of all runs."""

from reports.site import keep, write_comparison, write_index, write_repeats, write_summary

__all__ = ["keep", "write_comparison", "write_index", "write_repeats", "write_summary"]
