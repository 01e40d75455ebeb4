"""How hard hypothesis tries: its defaults in the suite, ten thousand inputs each under ``make fuzz``."""

import os

from hypothesis import settings

settings.register_profile("fuzz", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
