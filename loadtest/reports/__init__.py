"""Reports of runs for human readers: HTML pages, charts, and an index of all runs."""

from reports.ladder import ladder
from reports.site import keep, write_comparison, write_index, write_repeats, write_summary
from reports.suites import suite

__all__ = ["keep", "ladder", "suite", "write_comparison", "write_index", "write_repeats", "write_summary"]
