"""What makes load, and how it is counted: open-loop requests on real connections, exact histograms of microseconds.

Knows nothing of experiments or verdicts; Locust's users and the experiments both stand on it.
"""

from generator.histogram import Histogram
from generator.load import Load, LoadError, Request, Target

__all__ = ["Histogram", "Load", "LoadError", "Request", "Target"]
