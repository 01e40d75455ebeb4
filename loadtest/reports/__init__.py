"""What a run leaves for people: reports, pictures, and the pages above them."""

from reports.site import keep, write_comparison, write_index, write_repeats, write_summary

__all__ = ["keep", "write_comparison", "write_index", "write_repeats", "write_summary"]
